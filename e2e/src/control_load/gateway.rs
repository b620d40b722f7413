//! One gateway as the controller sees it: it takes what it is told, acknowledges it at once, and reports.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use futures_util::{SinkExt, StreamExt};
use node_api::stream::{
    Hello, InterfaceFacts, NodeFacts, PATH, ResourceName, Revision, ToController, ToNode,
};
use node_api::{
    Decoded, Endpoint, ListenerReport, NodeReport, Pool, PoolReport, Protocol, RouterReport,
    RouterState,
};
use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::{ClientRequestBuilder, Message, http::Uri};

/// From the first packet to the open stream.
const PATIENCE: Duration = Duration::from_secs(10);
/// Waits between tries grow from this to [`LONGEST`], and are cut by chance: as gateways do it.
const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// How often a gateway reports when nothing changes.
const REPORT: Duration = Duration::from_secs(10);

/// What a gateway says to whoever measures.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Which gateway.
    pub gateway: usize,
    /// When.
    pub at: Instant,
    /// What.
    pub what: What,
}

/// What a gateway saw.
#[derive(Clone, Debug)]
pub enum What {
    /// Its stream has told everything; so many resources, and removals, were told for that, in so many bytes.
    Synced {
        /// Upserts, changes and removals.
        told: usize,
        /// On the wire, without TLS.
        bytes: usize,
    },
    /// The endpoints of an upstream changed.
    Endpoints {
        /// The pool's name.
        pool: String,
        /// On the wire, without TLS.
        bytes: usize,
    },
    /// Anything else was told.
    Other {
        /// On the wire, without TLS.
        bytes: usize,
    },
    /// A stream ended or could not be opened.
    Away(String),
}

/// A gateway.
#[derive(Debug)]
pub struct Gateway {
    /// Its number.
    pub number: usize,
    /// Name of its node.
    pub node: String,
    /// The token of its pod.
    pub token: String,
    /// Where the controller is.
    pub controller: SocketAddr,
    /// Whom to trust.
    pub tls: Arc<ClientConfig>,
    /// Its networks.
    pub networks: Vec<String>,
    /// Where it says what it saw.
    pub seen: mpsc::UnboundedSender<Seen>,
}

#[derive(Debug, Default)]
struct Held {
    revisions: BTreeMap<ResourceName, Revision>,
    endpoints: BTreeMap<ResourceName, Vec<Endpoint>>,
    pools: BTreeMap<ResourceName, Pool>,
    sequence: i64,
}

type Socket = WebSocketStream<TlsStream<TcpStream>>;

impl Gateway {
    /// Keeps a stream for ever.
    pub async fn run(self) {
        let mut held = Held::default();
        let mut tries = 0;
        let mut chance = self.number as u64 + 1;
        loop {
            let ended = match timeout(PATIENCE, self.connect()).await {
                Ok(Ok(socket)) => {
                    tries = 0;
                    self.follow(socket, &mut held).await
                }
                Ok(Err(error)) => Err(error),
                Err(error) => Err(error.into()),
            };
            if let Err(error) = ended {
                self.say(What::Away(format!("{error:#}")));
            }
            let most = LONGEST.min(SHORTEST * 2_u32.saturating_pow(tries));
            tries = (tries + 1).min(10);
            // A linear congruential generator is chance enough to spread them.
            chance = chance
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let part = u32::try_from(chance >> 40).unwrap_or_default();
            tokio::time::sleep((most / (1 << 12)) * (part >> 12)).await;
        }
    }

    fn say(&self, what: What) {
        let seen = Seen {
            gateway: self.number,
            at: Instant::now(),
            what,
        };
        // Nobody listens any more at the end.
        drop(self.seen.send(seen));
    }

    async fn connect(&self) -> Result<Socket> {
        let stream = TcpStream::connect(self.controller).await?;
        stream.set_nodelay(true)?;
        let name = ServerName::from(self.controller.ip());
        let tls = TlsConnector::from(Arc::clone(&self.tls));
        let stream = tls.connect(name, stream).await?;
        let uri: Uri = format!("wss://{}{PATH}", self.controller).parse()?;
        let request = ClientRequestBuilder::new(uri)
            .with_header("Authorization", format!("Bearer {}", self.token))
            .with_sub_protocol(Protocol::NEWEST.to_string());
        let opened = tokio_tungstenite::client_async(request, stream).await;
        Ok(opened.context("the upgrade was refused")?.0)
    }

    async fn follow(&self, mut socket: Socket, held: &mut Held) -> Result<()> {
        let hello = ToController::Hello(Box::new(Hello {
            version: "bench".to_owned(),
            held: held.revisions.clone(),
            sequence: held.sequence,
            facts: self.facts(),
            ..Hello::default()
        }));
        send(&mut socket, &hello).await?;
        let (mut told, mut bytes, mut is_synced) = (0, 0, false);
        // Not all at once.
        let first = REPORT / 100 * u32::try_from(self.number % 100)?;
        let mut due = interval(REPORT);
        due.reset_after(first);
        loop {
            let message = tokio::select! {
                message = socket.next() => message,
                _ = due.tick(), if is_synced => {
                    send(&mut socket, &ToController::Report(Box::new(self.report(held)))).await?;
                    continue;
                }
            };
            let message = message.context("the stream has ended")??;
            let Message::Text(text) = message else {
                continue;
            };
            let size = text.len() + if text.len() < 126 { 2 } else { 4 };
            bytes += size;
            let Decoded::Message(message) = ToNode::decode(&text)? else {
                bail!("a message is not known: {text}");
            };
            if let ToNode::Synced { sequence, keep } = message {
                held.sequence = sequence;
                if let Some(keep) = keep {
                    held.revisions.retain(|name, _| keep.contains(name));
                    for (name, revision) in &held.revisions {
                        let (name, revision) = (name.clone(), Some(revision.clone()));
                        send(&mut socket, &ToController::Ack { name, revision }).await?;
                    }
                    let report = ToController::Report(Box::new(self.report(held)));
                    send(&mut socket, &report).await?;
                    is_synced = true;
                    self.say(What::Synced { told, bytes });
                }
                continue;
            }
            let Some((name, revision)) = held.take(message)? else {
                continue;
            };
            told += 1;
            if is_synced {
                self.say(match &name {
                    ResourceName::Endpoints { pool, .. } => What::Endpoints {
                        pool: pool.name.clone(),
                        bytes: size,
                    },
                    _ => What::Other { bytes: size },
                });
                send(&mut socket, &ToController::Ack { name, revision }).await?;
            }
        }
    }

    fn facts(&self) -> NodeFacts {
        NodeFacts {
            interfaces: vec![InterfaceFacts {
                name: "eth0".to_owned(),
                prefixes: self.networks.clone(),
                ..InterfaceFacts::default()
            }],
        }
    }

    fn report(&self, held: &Held) -> NodeReport {
        let mut virtual_routers = Vec::new();
        let mut pools = Vec::new();
        for (name, pool) in &held.pools {
            let ResourceName::Pool(reference) = name else {
                continue;
            };
            let mut listeners = Vec::new();
            for router in &pool.virtual_routers {
                let is_best = router
                    .nodes
                    .first()
                    .is_some_and(|it| it.node_name == self.node);
                listeners.extend(pool.listeners.iter().flat_map(|listener| {
                    router.addresses.iter().map(|address| ListenerReport {
                        name: listener.name.clone(),
                        address: SocketAddr::new(*address, listener.port),
                        accepting: true,
                        sessions: 0,
                        problem: None,
                    })
                }));
                virtual_routers.push(RouterReport {
                    pool: reference.clone(),
                    virtual_router_id: router.virtual_router_id,
                    sequence: router.sequence,
                    addresses: router.addresses.clone(),
                    interface: Some("eth0".to_owned()),
                    state: if is_best {
                        RouterState::Active
                    } else {
                        RouterState::Backup
                    },
                    since_unix_ms: 1_000,
                    reason: String::new(),
                    priority: router.candidate(&self.node).map_or(1, |it| it.priority),
                    peers: Vec::new(),
                    transitions: Vec::new(),
                    conflicts: Vec::new(),
                    lowered_by: Vec::new(),
                    isolated_since_unix_ms: None,
                });
            }
            pools.push(PoolReport {
                pool: reference.clone(),
                listeners,
                endpoints: Vec::new(),
            });
        }
        NodeReport {
            node_name: self.node.clone(),
            version: "bench".to_owned(),
            stale_reason: None,
            warnings: Vec::new(),
            virtual_routers,
            pools,
        }
    }
}

impl Held {
    /// Takes a message over; gives what is to be acknowledged.
    fn take(&mut self, message: ToNode) -> Result<Option<(ResourceName, Option<Revision>)>> {
        let (name, revision) = match message {
            ToNode::Upsert {
                name,
                revision,
                body,
            } => {
                match &name {
                    ResourceName::Pool(_) => {
                        self.pools
                            .insert(name.clone(), serde_json::from_value(body)?);
                    }
                    _ => {
                        self.endpoints
                            .insert(name.clone(), serde_json::from_value(body)?);
                    }
                }
                (name, Some(revision))
            }
            ToNode::EndpointsDelta(delta) => {
                let known = self.revisions.get(&delta.name);
                if known != Some(&delta.base) {
                    bail!("a change of {} is based on what is not here", delta.name);
                }
                let before = self.endpoints.entry(delta.name.clone()).or_default();
                *before = delta.apply(before);
                (delta.name, Some(delta.revision))
            }
            ToNode::Remove { name } => {
                self.endpoints.remove(&name);
                self.pools.remove(&name);
                (name, None)
            }
            ToNode::Retire => bail!("told to retire"),
            ToNode::Welcome(_) | ToNode::Synced { .. } | ToNode::Watching { .. } => {
                return Ok(None);
            }
        };
        match &revision {
            Some(revision) => self.revisions.insert(name.clone(), revision.clone()),
            None => self.revisions.remove(&name),
        };
        Ok(Some((name, revision)))
    }
}

async fn send(socket: &mut Socket, message: &ToController) -> Result<()> {
    let text = serde_json::to_string(message)?;
    Ok(socket.send(Message::text(text)).await?)
}
