//! The control stream as the agent's loop sees it.

use std::{sync::Arc, time::Instant};

use node_api::{NodeConfig, NodeReport};
use tokio::sync::watch;

use super::{Status, ToAgent, keeper::Keeper};
use crate::{
    agent::{app::App, desired},
    sys::clock,
};

/// What the agent's loop and the control stream show each other.
#[derive(Debug)]
pub(in crate::agent) struct Controlled {
    applied: watch::Sender<Option<u64>>,
    report: watch::Sender<Option<Arc<NodeReport>>>,
    keeper: Arc<Keeper>,
    /// Of what is to be carried out.
    version: u64,
    /// How the stream is.
    pub(in crate::agent) status: Status,
}

/// Where the stream reads what the loop shows.
type Ends = (
    Controlled,
    watch::Receiver<Option<u64>>,
    watch::Receiver<Option<Arc<NodeReport>>>,
);

impl Controlled {
    /// Before anything was said.
    pub(super) fn new(has_state: bool, keeper: Arc<Keeper>) -> Ends {
        let (applied, applied_end) = watch::channel(None);
        let (report, report_end) = watch::channel(None);
        let controlled = Self {
            applied,
            report,
            keeper,
            version: 0,
            status: Status {
                has_state,
                ..Status::default()
            },
        };
        (controlled, applied_end, report_end)
    }

    /// Saves what waits for it; the process ends.
    pub(in crate::agent) fn save_rest(&self) {
        self.keeper.save_rest();
    }

    /// Why the node is not ready; a controller that is away is no reason.
    pub(in crate::agent) fn not_ready(&self) -> Option<String> {
        let why = self.status.stale_reason.as_deref();
        (!self.status.has_state).then(|| why.unwrap_or("no controller has answered yet").to_owned())
    }
}

impl App {
    /// The stream said something.
    pub(in crate::agent) fn hear_stream(&mut self, message: ToAgent) {
        let Some(stream) = &mut self.stream else {
            return;
        };
        match message {
            ToAgent::Apply(version, config) => {
                stream.version = version;
                self.apply(*config);
            }
            ToAgent::Show(status) => {
                self.stale_reason.clone_from(&status.stale_reason);
                stream.status = status;
            }
        }
    }

    fn apply(&mut self, config: NodeConfig) {
        self.counts.accepted += 1;
        self.counts.accepted_unix_ms = clock::now_unix_ms();
        let before = self.rollout.newest();
        if config == *before {
            return;
        }
        let none = std::collections::BTreeSet::new();
        let is_more_than_endpoints = desired::listeners(&config) != desired::listeners(before)
            || desired::routers(&config, &none) != desired::routers(before, &none);
        if is_more_than_endpoints {
            tracing::info!(
                pools = config.pools.len(),
                "the controller's state has changed; it takes effect now"
            );
        } else {
            tracing::debug!("the controller's state has changed in endpoints or settings");
        }
        let added = desired::added_under_way(self.rollout.for_vrrp(), &config);
        self.not_yet.extend(added);
        self.rollout.begin(config, Instant::now());
    }

    /// Shows the stream what is carried out and observed now.
    pub(in crate::agent) fn tell_stream(&self) {
        let Some(stream) = &self.stream else {
            return;
        };
        let is_carried_out = self.rollout.is_settled()
            && self.vrrp.link.is_some()
            && self.vrrp.sent > 0
            && self.vrrp.is_done()
            && self.proxy.link.is_some()
            && self.proxy.sent > 0
            && self.proxy.is_done();
        if is_carried_out {
            let version = Some(stream.version);
            stream.applied.send_if_modified(|applied| {
                let is_new = *applied != version;
                *applied = version;
                is_new
            });
        }
        let report = self.material(true, true).report();
        stream.report.send_replace(Some(Arc::new(report)));
    }

    /// Whether everything was given up for good.
    pub(in crate::agent) fn is_retired(&self) -> bool {
        self.stream
            .as_ref()
            .is_some_and(|stream| stream.status.is_retired)
    }
}
