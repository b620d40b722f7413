//! The computation: whenever something has changed, all of it, once things are quiet for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::ConfigMap;
use plan::Policy;
use tokio::{sync::watch, time::timeout};

use crate::{
    desired::{Desired, NodeState, Planner},
    failure::Failure,
    registry::Registry,
    retire,
    snapshot::{Ledger, Snapshot},
    watch::Stores,
};

/// A change waits so long for others.
const QUIET: Duration = Duration::from_millis(20);
/// And so long at most, where changes never end.
const MOST: Duration = Duration::from_millis(100);
/// How long the ranges of Services are waited for before anything is planned without them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Key of the ledger in its object.
pub const LEDGER_KEY: &str = "ledger.json";

/// What the streams tell.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// By name of the node.
    pub nodes: BTreeMap<String, Arc<NodeState>>,
    /// The highest sequence that was read.
    pub sequence: i64,
    /// UIDs of the data-plane pods that exist.
    pub pods: BTreeSet<String>,
    /// wsha is being uninstalled: nodes are told that and nothing else.
    pub retire: Option<Arc<str>>,
}

/// What was computed, and from what.
#[derive(Clone, Debug)]
pub struct Computed {
    /// What was read.
    pub snapshot: Arc<Snapshot>,
    /// What follows.
    pub desired: Arc<Desired>,
    /// wsha is being uninstalled.
    pub retire: Option<Arc<str>>,
    /// Names of the nodes where a data-plane pod is.
    pub pod_nodes: Arc<BTreeSet<String>>,
}

/// What the computation works on.
#[derive(Debug)]
pub struct Recompute {
    /// What was read from the API server.
    pub stores: Stores,
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// What the administrator permits.
    pub policy: watch::Receiver<Policy>,
    /// Ranges of Services that the API server names; `None` before it has answered.
    pub service_ranges: watch::Receiver<Option<Vec<IpNet>>>,
    /// Where the streams look.
    pub published: watch::Sender<Option<Arc<Published>>>,
    /// Where the lease holder looks.
    pub computed: watch::Sender<Option<Computed>>,
}

impl Recompute {
    /// Computes for ever.
    pub async fn run(mut self, mut changed: watch::Receiver<()>) -> Failure {
        if let Err(failure) = self.stores.synced().await {
            return failure;
        }
        let answered = self.service_ranges.wait_for(Option::is_some);
        if timeout(PATIENCE, answered).await.is_err() {
            tracing::debug!("planning begins without the ranges of Services");
        }
        let mut planner = Planner::default();
        loop {
            let begun = Instant::now();
            let snapshot = match self.snapshot() {
                Ok(snapshot) => snapshot,
                Err(failure) => return failure,
            };
            let desired = match planner.desired(&snapshot) {
                Ok(desired) => desired,
                Err(error) => return Failure::new("the desired state has no form", error),
            };
            self.publish(snapshot, desired);
            tracing::debug!(elapsed = ?begun.elapsed(), "computed");
            settled(&mut changed).await;
        }
    }

    fn snapshot(&self) -> Result<Snapshot, Failure> {
        let own = self.stores.own.state();
        let mut policy = self.policy.borrow().clone();
        if let Some(cluster) = &mut policy.cluster {
            let named = self.service_ranges.borrow();
            cluster.service_ranges.extend(named.iter().flatten());
        }
        let object = own.first();
        Ok(Snapshot {
            pools: self.stores.pools.state(),
            nodes: self.stores.nodes.state(),
            services: self.stores.services.state(),
            endpoint_slices: self.stores.endpoint_slices.state(),
            ledger: ledger(object.map(|object| &**object))?,
            ledger_version: object.and_then(|it| it.metadata.resource_version.clone()),
            views: self.registry.views(),
            policy,
        })
    }

    fn publish(&self, snapshot: Snapshot, desired: Desired) {
        let own = self.stores.own.state();
        let before = self.published.borrow().clone();
        let obeyed = before.and_then(|before| before.retire.clone());
        let retire = retire::request(own.first().map(|object| &**object), obeyed);
        let pods = self.stores.pods.state();
        let uids = pods.iter().filter_map(|pod| pod.metadata.uid.clone());
        let nodes = pods.iter().filter_map(|pod| {
            let spec = pod.spec.as_ref()?;
            spec.node_name.clone()
        });
        let published = Published {
            nodes: if retire.is_none() {
                desired.nodes.clone()
            } else {
                BTreeMap::new()
            },
            sequence: desired.sequence,
            pods: uids.collect(),
            retire: retire.clone(),
        };
        let computed = Computed {
            snapshot: Arc::new(snapshot),
            desired: Arc::new(desired),
            retire: retire.clone(),
            pod_nodes: Arc::new(nodes.collect()),
        };
        // In this order: what nodes answer, the lease holder must know why they say it.
        self.computed.send_replace(Some(computed));
        self.published.send_replace(Some(Arc::new(published)));
    }
}

/// Waits for a change, and then until nothing has changed for a moment.
pub(crate) async fn settled(changed: &mut watch::Receiver<()>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let begun = Instant::now();
    while begun.elapsed() < MOST {
        if timeout(QUIET, changed.changed()).await.is_err() {
            return;
        }
    }
}

/// The ledger as it stands. One that cannot be read is no empty one: what it kept would be free.
fn ledger(object: Option<&ConfigMap>) -> Result<Ledger, Failure> {
    let data = object.and_then(|object| object.data.as_ref());
    let Some(text) = data.and_then(|data| data.get(LEDGER_KEY)) else {
        return Ok(Ledger::default());
    };
    serde_json::from_str(text).map_err(|error| {
        Failure::new(
            format!(
                "the ledger in ConfigMap {} cannot be read; restore it, or delete it once no \
                 gateway node holds an address of a deleted pool",
                crate::LEDGER
            ),
            error,
        )
    })
}
