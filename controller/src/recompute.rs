//! The computation: whenever something has changed, all of it, once things are quiet for a moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use k8s_openapi::{api::core::v1::ConfigMap, jiff::Timestamp};
use plan::Policy;
use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

use crate::{
    commit::{self, Known},
    desired::{self, Desired, NodeState},
    failure::Failure,
    registry::Registry,
    snapshot::{Ledger, Snapshot},
    status,
    watch::Stores,
    write::Writer,
};

/// A change waits so long for others.
const QUIET: Duration = Duration::from_millis(20);
/// And so long at most, where changes never end.
const MOST: Duration = Duration::from_millis(100);
/// Counters are written so often at most when nothing else changes.
const COUNTERS: Duration = Duration::from_mins(1);
/// Key of the ledger in its object.
pub const LEDGER_KEY: &str = "ledger.json";

/// What the streams tell.
#[derive(Clone, Debug, Default)]
pub struct Published {
    /// By name of the node.
    pub nodes: BTreeMap<String, NodeState>,
    /// The highest sequence that was read.
    pub sequence: i64,
    /// UIDs of the data-plane pods that exist.
    pub pods: BTreeSet<String>,
}

/// What the computation works on.
#[derive(Debug)]
pub struct Recompute {
    /// What was read from the API server.
    pub stores: Stores,
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// What the administrator permits.
    pub policy: Policy,
    /// Whether this replica may write.
    pub leads: watch::Receiver<bool>,
    /// Writes.
    pub writer: Writer,
    /// Where the streams look.
    pub published: watch::Sender<Option<Arc<Published>>>,
}

impl Recompute {
    /// Computes for ever.
    pub async fn run(mut self, mut changed: watch::Receiver<()>) -> Failure {
        if let Err(failure) = self.stores.synced().await {
            return failure;
        }
        let mut known = Known::new();
        let mut counters = Counters::default();
        loop {
            let begun = Instant::now();
            let snapshot = match self.snapshot() {
                Ok(snapshot) => snapshot,
                Err(failure) => return failure,
            };
            let desired = match desired::desired(&snapshot) {
                Ok(desired) => desired,
                Err(error) => return Failure::new("the desired state has no form", error),
            };
            self.publish(&desired);
            let mut again = None;
            if *self.leads.borrow_and_update() {
                again = self.write(&snapshot, &desired, &known, &mut counters).await;
            }
            known = commit::known(&snapshot);
            tracing::debug!(elapsed = ?begun.elapsed(), pools = snapshot.pools.len(), "computed");
            tokio::select! {
                () = settled(&mut changed) => {}
                _ = self.leads.changed() => {}
                () = at(again) => {}
            }
        }
    }

    fn snapshot(&self) -> Result<Snapshot, Failure> {
        let own = self.stores.own.state();
        Ok(Snapshot {
            pools: self.stores.pools.state(),
            nodes: self.stores.nodes.state(),
            services: self.stores.services.state(),
            endpoint_slices: self.stores.endpoint_slices.state(),
            ledger: ledger(own.first().map(|object| &**object))?,
            views: self.registry.views(),
            policy: self.policy.clone(),
        })
    }

    fn publish(&self, desired: &Desired) {
        let pods = self.stores.pods.state();
        let pods = pods.iter().filter_map(|pod| pod.metadata.uid.clone());
        let published = Published {
            nodes: desired.nodes.clone(),
            sequence: desired.sequence,
            pods: pods.collect(),
        };
        self.published.send_replace(Some(Arc::new(published)));
    }

    /// Commits first; what was written comes back by the watch, and is pushed then. Says when to
    /// look again although nothing has changed.
    async fn write(
        &mut self,
        snapshot: &Snapshot,
        desired: &Desired,
        known: &Known,
        counters: &mut Counters,
    ) -> Option<Instant> {
        let commit = commit::commit(snapshot, desired, known);
        if let Some(ledger) = &commit.ledger
            && let Err(failure) = self.writer.ledger(ledger).await
        {
            failure.warn("cannot commit; it is tried again");
            return Some(Instant::now() + Duration::from_secs(1));
        }
        let mut again: Option<Instant> = None;
        let now = Timestamp::now();
        for pool in &snapshot.pools {
            let name = plan::model::pool_ref(pool);
            let changed = commit.pools.get(&name);
            let committed = changed
                .cloned()
                .unwrap_or_else(|| commit::committed_part(pool));
            let status = status::status(pool, &committed, snapshot, desired, now);
            let before = pool.status.clone().unwrap_or_default();
            if status == before {
                continue;
            }
            if !status::differs_beyond_counters(&status, &before)
                && let Some(due) = counters.not_before(&name)
            {
                again = Some(again.map_or(due, |at| at.min(due)));
                continue;
            }
            if !*self.leads.borrow() {
                return None;
            }
            match self.writer.status(pool, &status).await {
                Ok(()) => {
                    counters.written(name.clone());
                    self.writer.tell_of_moves(pool, &before, &status).await;
                }
                Err(failure) => {
                    failure.warn("cannot write a status; it is tried again");
                    return Some(Instant::now() + Duration::from_secs(1));
                }
            }
        }
        again
    }
}

/// When the status of a pool was written last.
#[derive(Debug, Default)]
struct Counters(BTreeMap<node_api::PoolRef, Instant>);

impl Counters {
    fn not_before(&self, pool: &node_api::PoolRef) -> Option<Instant> {
        let due = *self.0.get(pool)? + COUNTERS;
        (due > Instant::now()).then_some(due)
    }

    fn written(&mut self, pool: node_api::PoolRef) {
        self.0.insert(pool, Instant::now());
    }
}

/// Waits for a change, and then until nothing has changed for a moment.
async fn settled(changed: &mut watch::Receiver<()>) {
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

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
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
