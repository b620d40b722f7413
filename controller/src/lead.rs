//! What the lease holder does about what was computed: commits, status, events, the end.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crds::{WebSocketHAPool, WebSocketHAPoolStatus};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use node_api::{PoolRef, stream::ResourceName};
use tokio::{sync::watch, time::sleep_until};

use crate::{
    commit::{self, Known},
    desired::Desired,
    failure::Failure,
    recompute::{Computed, settled},
    registry::Registry,
    retire,
    snapshot::{Ledger, Snapshot},
    status,
    write::Writer,
};

/// Counters are written so often at most when nothing else changes.
const COUNTERS: Duration = Duration::from_mins(1);
/// What was not possible is tried again after so long.
const AGAIN: Duration = Duration::from_secs(1);
/// How long what was written may take to come back before it is written anew.
const ECHO: Duration = Duration::from_secs(10);
/// So long after its start a replica writes nothing that it merely sees, unless all nodes are back sooner.
const RETURN: Duration = Duration::from_secs(10);
/// How long a replica that does not lead remembers a pool that is gone.
const REMEMBER: Duration = Duration::from_mins(2);
/// A pass writes no longer than this; then it looks again.
const PASS: Duration = Duration::from_secs(2);

/// The lease holder's work.
#[derive(Debug)]
pub struct Lead {
    /// What was computed.
    pub computed: watch::Receiver<Option<Computed>>,
    /// What nodes say.
    pub registry: Arc<Registry>,
    /// Whether this replica may write.
    pub leads: watch::Receiver<bool>,
    /// Writes.
    pub writer: Writer,
}

/// What is remembered from one pass to the next.
#[derive(Debug)]
struct Memory {
    known: Known,
    /// Pools that are gone and may not stand in the ledger yet, by UID.
    gone: BTreeMap<String, Instant>,
    /// Whether the last pass left nothing to be recorded in the ledger.
    is_recorded: bool,
    counters: BTreeMap<PoolRef, Instant>,
    echoes: Echoes,
    begun: Instant,
    are_back: bool,
}

impl Lead {
    /// Works for ever.
    pub async fn run(mut self) -> Failure {
        let mut said = self.registry.said();
        let mut memory = Memory {
            known: Known::new(),
            gone: BTreeMap::new(),
            is_recorded: false,
            counters: BTreeMap::new(),
            echoes: Echoes::default(),
            begun: Instant::now(),
            are_back: false,
        };
        loop {
            let leads = *self.leads.borrow_and_update();
            // Before the rest: what nodes answer is an answer to what was computed then or earlier.
            let views = self.registry.views();
            let computed = self.computed.borrow_and_update().clone();
            let mut again = None;
            if let Some(computed) = computed {
                memory.is_recorded = false;
                if leads {
                    let snapshot = Snapshot {
                        views,
                        ..(*computed.snapshot).clone()
                    };
                    again = self.pass(&computed, &snapshot, &mut memory).await;
                } else {
                    memory.echoes = Echoes::default();
                }
                memory.learn(&computed.snapshot, leads);
            }
            tokio::select! {
                () = settled(&mut said) => {}
                changed = self.computed.changed() => if changed.is_err() {
                    return Failure::plain("the computation has ended");
                },
                _ = self.leads.changed() => {}
                () = at(again) => {}
            }
        }
    }

    /// Writes what there is to write. Says when to look again although nothing has changed.
    async fn pass(
        &mut self,
        computed: &Computed,
        snapshot: &Snapshot,
        memory: &mut Memory,
    ) -> Option<Instant> {
        // What was written and is not read back yet would be written once more, under a new number.
        if memory.echoes.are_missing(snapshot) {
            return Some(Instant::now() + AGAIN);
        }
        if let Some(request) = &computed.retire {
            return self.retire(computed, snapshot, request, memory).await;
        }
        let desired = &*computed.desired;
        let commit = commit::commit(snapshot, desired, &memory.known);
        if let Some(ledger) = &commit.ledger
            && let Some(again) = self.ledger(ledger, memory).await
        {
            return Some(again);
        }
        memory.is_recorded = true;
        let observes = memory.are_back(computed, snapshot);
        let mut again = (!observes).then(|| Instant::now() + AGAIN);
        let begun = Instant::now();
        let now = Timestamp::now();
        let none = WebSocketHAPoolStatus::default();
        // What nodes wait for comes first.
        let is_commit =
            |pool: &&Arc<WebSocketHAPool>| commit.pools.contains_key(&plan::model::pool_ref(pool));
        let (first, then): (Vec<_>, Vec<_>) = snapshot.pools.iter().partition(is_commit);
        for pool in first.into_iter().chain(then) {
            let name = plan::model::pool_ref(pool);
            let changed = commit.pools.get(&name);
            if changed.is_none() && !observes && pool.status.is_some() {
                continue;
            }
            let committed = changed
                .cloned()
                .unwrap_or_else(|| commit::committed_part(pool));
            let status = status::status(pool, &committed, snapshot, desired, now);
            let before = pool.status.as_ref().unwrap_or(&none);
            if status == *before {
                continue;
            }
            if !status::differs_beyond_counters(&status, before)
                && let Some(due) = memory.not_before(&name)
            {
                again = Some(again.map_or(due, |at| at.min(due)));
                continue;
            }
            if !*self.leads.borrow() {
                return None;
            }
            if begun.elapsed() >= PASS {
                return Some(Instant::now());
            }
            // Before the call: whether it was taken may never be known.
            let uid = commit::uid(pool);
            let known = commit::known_pool(pool, &status.virtual_ips);
            memory.known.insert(uid, known);
            match self.writer.status(pool, &status).await {
                Ok(version) => {
                    memory.counters.insert(name.clone(), Instant::now());
                    memory.echoes.pool(name, version);
                    self.writer.tell(pool, before, &status).await;
                }
                Err(failure) => {
                    failure.warn("cannot write a status; it is tried again");
                    return Some(Instant::now() + AGAIN);
                }
            }
        }
        again
    }

    async fn ledger(&self, ledger: &Ledger, memory: &mut Memory) -> Option<Instant> {
        match self.writer.ledger(ledger).await {
            Ok(version) => {
                memory.echoes.ledger(version);
                None
            }
            Err(failure) => {
                failure.warn("cannot commit; it is tried again");
                Some(Instant::now() + AGAIN)
            }
        }
    }

    /// Records who has given up everything.
    async fn retire(
        &self,
        computed: &Computed,
        snapshot: &Snapshot,
        request: &str,
        memory: &mut Memory,
    ) -> Option<Instant> {
        // Where the object is gone, nobody looks any more.
        snapshot.ledger_version.as_ref()?;
        let progress = retire::progress(snapshot, &computed.pod_nodes, request);
        let ledger = Ledger {
            retire: Some(progress),
            ..snapshot.ledger.clone()
        };
        if ledger == snapshot.ledger {
            return None;
        }
        self.ledger(&ledger, memory).await
    }
}

impl Memory {
    /// Takes in what stands. What is gone is kept until it stands in the ledger; by a replica that does not
    /// lead, for as long as the one that does may have missed it.
    fn learn(&mut self, snapshot: &Snapshot, leads: bool) {
        let mut standing = BTreeSet::new();
        for pool in &snapshot.pools {
            let uid = commit::uid(pool);
            // What was written and is not read back yet is newer.
            if !self.echoes.awaits(&plan::model::pool_ref(pool)) && !self.knows(&uid, pool) {
                let known = commit::known_pool(pool, commit::listed(pool));
                self.known.insert(uid.clone(), known);
            }
            standing.insert(uid);
        }
        let now = Instant::now();
        for uid in self.known.keys().filter(|uid| !standing.contains(*uid)) {
            self.gone.entry(uid.clone()).or_insert(now);
        }
        let is_recorded = self.is_recorded;
        self.gone
            .retain(|_, since| !is_recorded && (leads || now.duration_since(*since) < REMEMBER));
        self.known
            .retain(|uid, _| standing.contains(uid) || self.gone.contains_key(uid));
        self.counters.retain(|_, at| at.elapsed() < COUNTERS);
    }

    /// Whether what stands of a pool is what is known of it.
    fn knows(&self, uid: &str, pool: &WebSocketHAPool) -> bool {
        let known = self.known.get(uid);
        known.is_some_and(|(_, known)| known.iter().eq(commit::lasting(commit::listed(pool))))
    }

    fn not_before(&self, pool: &PoolRef) -> Option<Instant> {
        let due = *self.counters.get(pool)? + COUNTERS;
        (due > Instant::now()).then_some(due)
    }

    /// Whether the nodes have had the time to come back and say what they do: a replica that has just
    /// started must not tell users that nobody is there.
    fn are_back(&mut self, computed: &Computed, snapshot: &Snapshot) -> bool {
        if !self.are_back {
            let is_back = |node: &String| has_answered(node, snapshot, &computed.desired);
            self.are_back =
                self.begun.elapsed() >= RETURN || computed.pod_nodes.iter().all(is_back);
        }
        self.are_back
    }
}

/// Whether the node has a stream, has reported, and has answered everything that it is told.
fn has_answered(node: &str, snapshot: &Snapshot, desired: &Desired) -> bool {
    let Some(view) = snapshot.views.get(node) else {
        return false;
    };
    let told = desired.nodes.get(node).into_iter();
    let mut told = told.flat_map(|state| state.resources.keys());
    let answered =
        |name: &ResourceName| view.acked.contains_key(name) || view.nacked.contains_key(name);
    view.connected && view.report.is_some() && told.all(answered)
}

/// What was written and has not been read back.
#[derive(Debug, Default)]
struct Echoes {
    ledger: Option<String>,
    pools: BTreeMap<PoolRef, String>,
    since: Option<Instant>,
}

impl Echoes {
    fn ledger(&mut self, version: Option<String>) {
        self.ledger = version;
        self.since.get_or_insert_with(Instant::now);
    }

    fn pool(&mut self, pool: PoolRef, version: Option<String>) {
        if let Some(version) = version {
            self.pools.insert(pool, version);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    fn awaits(&self, pool: &PoolRef) -> bool {
        self.pools.contains_key(pool)
    }

    /// Whether the snapshot is older than what was written.
    fn are_missing(&mut self, snapshot: &Snapshot) -> bool {
        if let Some(version) = &self.ledger
            && has(snapshot.ledger_version.as_deref(), version)
        {
            self.ledger = None;
        }
        if !self.pools.is_empty() {
            let mut seen = BTreeSet::new();
            for pool in &snapshot.pools {
                let name = plan::model::pool_ref(pool);
                if let Some(version) = self.pools.get(&name)
                    && !has(pool.resource_version().as_deref(), version)
                {
                    seen.insert(name);
                }
            }
            // One that is not there any more was deleted; what it had is remembered.
            self.pools.retain(|name, _| seen.contains(name));
        }
        if self.ledger.is_none() && self.pools.is_empty() {
            self.since = None;
        } else if self.since.is_some_and(|since| since.elapsed() >= ECHO) {
            tracing::warn!("what was written does not come back; it is written again");
            *self = Self::default();
        }
        self.since.is_some()
    }
}

/// Whether what is read is at least as new as what was written. Versions are numbers that grow.
fn has(read: Option<&str>, written: &str) -> bool {
    let number = |text: &str| text.parse::<u64>().ok();
    match (read.and_then(number), number(written)) {
        (Some(read), Some(written)) => read >= written,
        _ => read == Some(written),
    }
}

async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_as_numbers() {
        assert!(has(Some("10"), "9"));
        assert!(!has(Some("9"), "10"));
        assert!(!has(None, "1"));
        assert!(has(Some("x"), "x"));
        assert!(!has(Some("y"), "x"));
    }
}
