//! The computation: whenever something has changed, once things are quiet for a moment.
//!
//! In two halves, so that nothing holds the streams up. What nodes are told is had at the cost of what has
//! changed, and is published at once: it depends on who is committed, not on who would be. The plan, which
//! may take thought where many nodes may hold many addresses, follows beside it.

use std::{
    collections::BTreeSet,
    sync::Arc,
    time::{Duration, Instant},
};

use ipnet::IpNet;
use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use plan::{Placer, Plan, Policy};
use tokio::{sync::watch, task::block_in_place, time::timeout};

use crate::{
    desired::{Teller, Told},
    failure::Failure,
    registry::Registry,
    retire,
    snapshot::{Ledger, Snapshot},
    tls,
    wait::settled,
    watch::Stores,
};

/// How long the ranges of Services, and Secrets, are waited for before anything is planned without them.
const PATIENCE: Duration = Duration::from_secs(5);
/// Key of the ledger in its object.
pub const LEDGER_KEY: &str = "ledger.json";

/// What the streams tell.
#[derive(Clone, Debug)]
pub struct Published {
    /// What was read; of nodes, their networks.
    pub snapshot: Arc<Snapshot>,
    /// What each node is told.
    pub told: Arc<Told>,
    /// UIDs of the data-plane pods that exist.
    pub pods: BTreeSet<String>,
    /// Names of the nodes where they are.
    pub pod_nodes: BTreeSet<String>,
    /// wsha is being uninstalled: nodes are told that and nothing else.
    pub retire: Option<Arc<str>>,
}

/// A plan, and what it was made of.
#[derive(Clone, Debug)]
pub struct Computed {
    /// What was read, and published.
    pub published: Arc<Published>,
    /// What is planned.
    pub plan: Arc<Plan>,
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
        if timeout(PATIENCE, self.stores.secrets.listed())
            .await
            .is_err()
        {
            tracing::warn!(
                "the API server does not list all Secrets; what it tells is told without them"
            );
        }
        let mut teller = Teller::default();
        let mut reader = tls::Reader::default();
        loop {
            let begun = Instant::now();
            let snapshot = match self.snapshot(&mut reader) {
                Ok(snapshot) => snapshot,
                Err(failure) => return failure,
            };
            let told = match teller.tell(&snapshot) {
                Ok(told) => told,
                Err(error) => return Failure::new("the desired state has no form", error),
            };
            self.publish(snapshot, told);
            tracing::debug!(elapsed = ?begun.elapsed(), "computed");
            settled(&mut changed).await;
        }
    }

    fn snapshot(&self, reader: &mut tls::Reader) -> Result<Snapshot, Failure> {
        let own = self.stores.own.state();
        let mut policy = self.policy.borrow().clone();
        if let Some(cluster) = &mut policy.cluster {
            let named = self.service_ranges.borrow();
            cluster.service_ranges.extend(named.iter().flatten());
        }
        let object = own.first();
        let pools = self.stores.pools.state();
        let secrets = &self.stores.secrets;
        let keyring = reader
            .read(
                &pools,
                secrets.ring(),
                |name| secrets.look(name),
                Timestamp::now(),
            )
            .map_err(|_| Failure::plain("what Secrets hold has no form"))?;
        Ok(Snapshot {
            pools,
            nodes: self.stores.nodes.state(),
            services: self.stores.services.state(),
            endpoint_slices: self.stores.endpoint_slices.state(),
            ledger: ledger(object.map(|object| &**object))?,
            ledger_version: object.and_then(|it| it.metadata.resource_version.clone()),
            views: self.registry.networks(),
            policy,
            keyring: Arc::new(keyring),
        })
    }

    fn publish(&self, snapshot: Snapshot, told: Told) {
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
            snapshot: Arc::new(snapshot),
            told: Arc::new(told),
            pods: uids.collect(),
            pod_nodes: nodes.collect(),
            retire,
        };
        self.published.send_replace(Some(Arc::new(published)));
    }
}

/// The half of the computation that takes thought.
#[derive(Debug)]
pub struct Planning {
    /// What was read, and published.
    pub published: watch::Receiver<Option<Arc<Published>>>,
    /// Where the lease holder looks.
    pub computed: watch::Sender<Option<Computed>>,
}

impl Planning {
    /// Plans for ever.
    pub async fn run(mut self) -> Failure {
        let mut placer = Placer::default();
        loop {
            let published = self.published.borrow_and_update().clone();
            if let Some(published) = published {
                let begun = Instant::now();
                let plan = block_in_place(|| placer.place(&published.told.outline));
                tracing::debug!(elapsed = ?begun.elapsed(), "planned");
                let plan = Arc::new(plan);
                self.computed
                    .send_replace(Some(Computed { published, plan }));
            }
            if self.published.changed().await.is_err() {
                return Failure::plain("the computation has ended");
            }
        }
    }
}

/// The ledger as it stands. One that cannot be read is no empty one: what it kept would be free.
pub(crate) fn ledger(object: Option<&ConfigMap>) -> Result<Ledger, Failure> {
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
