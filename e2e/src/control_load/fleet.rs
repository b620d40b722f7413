//! All gateways of an installation.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use rustls::ClientConfig;
use serde_json::json;
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use super::api::Access;
use super::gateway::{Gateway, Seen, What};
use super::objects::{PROBE, Size, pod};

/// All gateways of an installation. Dropping it ends them.
#[derive(Debug)]
pub struct Fleet {
    size: usize,
    seen: mpsc::UnboundedReceiver<Seen>,
    _gateways: JoinSet<()>,
}

/// How a fleet came to a state.
#[derive(Clone, Debug, Default)]
pub struct Arrival {
    /// When each gateway was there, the first one first.
    pub times: Vec<Instant>,
    /// Bytes that all of them were told, without TLS.
    pub bytes: usize,
    /// Resources that all of them were told.
    pub told: usize,
    /// Bytes of other resources, and how many these were.
    pub other: (usize, usize),
    /// Streams that ended or could not be opened.
    pub away: usize,
}

impl Fleet {
    /// Starts the gateways, each with a token of its own pod.
    pub async fn start(
        access: &Access,
        size: Size,
        controller: SocketAddr,
        tls: &Arc<ClientConfig>,
    ) -> Result<Self> {
        let (sender, seen) = mpsc::unbounded_channel();
        let mut gateways = JoinSet::new();
        let mut api = access.connect().await?;
        for (number, node) in size.nodes().enumerate() {
            let pod = pod(&node);
            let found = api
                .get(&format!("/api/v1/namespaces/wsha/pods/{pod}"))
                .await?;
            let request = json!({"spec": {
                "audiences": [node_api::stream::AUDIENCE],
                "expirationSeconds": 7200,
                "boundObjectRef": {
                    "kind": "Pod", "apiVersion": "v1", "name": pod, "uid": found["metadata"]["uid"],
                },
            }});
            let path = "/api/v1/namespaces/wsha/serviceaccounts/wsha-dataplane/token";
            let answer = api.post(path, &request).await?;
            let token = answer["status"]["token"].as_str().context("no token")?;
            let gateway = Gateway {
                number,
                node,
                token: token.to_owned(),
                controller,
                tls: Arc::clone(tls),
                networks: size.networks(),
                seen: sender.clone(),
            };
            gateways.spawn(gateway.run());
        }
        Ok(Self {
            size: size.gateways,
            seen,
            _gateways: gateways,
        })
    }

    /// Waits until every gateway has synced once, within `bound`.
    pub async fn synced(&mut self, bound: Duration) -> Result<Arrival> {
        self.all("to be told everything", bound, |what| match what {
            What::Synced { told, bytes } => Some((*told, *bytes)),
            _ => None,
        })
        .await
    }

    /// Waits until the probe's endpoints have changed on every gateway.
    pub async fn changed(&mut self, bound: Duration) -> Result<Arrival> {
        self.all("to have the change", bound, |what| match what {
            What::Endpoints { pool, bytes } if pool.starts_with(PROBE) => Some((1, *bytes)),
            _ => None,
        })
        .await
    }

    async fn all(
        &mut self,
        what: &str,
        bound: Duration,
        wanted: impl Fn(&What) -> Option<(usize, usize)>,
    ) -> Result<Arrival> {
        let deadline = tokio::time::Instant::now() + bound;
        let mut arrival = Arrival::default();
        let mut there = BTreeSet::new();
        let mut last = String::new();
        while there.len() < self.size {
            let Ok(seen) = timeout_at(deadline, self.seen.recv()).await else {
                bail!(
                    "{} of {} gateways are still {what} after {bound:?}; the last trouble: {last}",
                    self.size - there.len(),
                    self.size
                );
            };
            let seen = seen.context("no gateway runs")?;
            if let Some((told, bytes)) = wanted(&seen.what) {
                there.insert(seen.gateway);
                arrival.times.push(seen.at);
                arrival.told += told;
                arrival.bytes += bytes;
                continue;
            }
            match seen.what {
                What::Away(why) => {
                    arrival.away += 1;
                    last = why;
                }
                What::Other { bytes }
                | What::Endpoints { bytes, .. }
                | What::Synced { bytes, .. } => {
                    arrival.other.0 += bytes;
                    arrival.other.1 += 1;
                }
            }
        }
        Ok(arrival)
    }

    /// Waits until nothing has been told for so long; says what was, and how many streams ended.
    pub async fn quiet(&mut self, silence: Duration, bound: Duration) -> Result<Arrival> {
        let deadline = tokio::time::Instant::now() + bound;
        let mut arrival = Arrival::default();
        loop {
            let until = tokio::time::Instant::now() + silence;
            let Ok(seen) = timeout_at(until.min(deadline), self.seen.recv()).await else {
                if tokio::time::Instant::now() >= deadline {
                    bail!("gateways are still told things after {bound:?}");
                }
                return Ok(arrival);
            };
            match seen.context("no gateway runs")?.what {
                What::Away(_) => arrival.away += 1,
                What::Synced { .. } => {}
                What::Other { bytes } | What::Endpoints { bytes, .. } => {
                    arrival.other.0 += bytes;
                    arrival.other.1 += 1;
                }
            }
        }
    }
}
