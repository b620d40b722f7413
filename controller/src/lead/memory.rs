//! What the lease holder remembers from one pass to the next.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::{Duration, Instant},
};

use crds::WebSocketHAPool;
use node_api::{PoolRef, stream::ResourceName};

use super::{Work, echoes::Echoes};
use crate::{
    commit::{self, Known},
    desired::{Desired, Resource},
    recompute::Published,
    snapshot::Snapshot,
};

/// Counters are written so often at most when nothing else changes.
const COUNTERS: Duration = Duration::from_mins(1);
/// How long a replica that does not lead remembers a pool that is gone.
const REMEMBER: Duration = Duration::from_mins(2);
/// So long after its start a replica commits nothing, unless all nodes have told of their networks, and writes
/// nothing that it merely sees, unless all nodes are back.
const RETURN: Duration = Duration::from_secs(10);

/// What is remembered from one pass to the next.
#[derive(Debug)]
pub(super) struct Memory {
    pub(super) known: Known,
    /// Pools that are gone and may not stand in the ledger yet, by UID.
    gone: BTreeMap<String, Instant>,
    /// Whether the last pass left nothing to be recorded in the ledger.
    pub(super) is_recorded: bool,
    pub(super) counters: BTreeMap<PoolRef, Instant>,
    pub(super) echoes: Echoes,
    begun: Instant,
    are_back: bool,
    /// The highest sequence that was read, and its epoch.
    highest: (String, i64),
    /// What was looked at last, and whether this replica led.
    pub(super) seen: Option<(Arc<Published>, bool)>,
    /// The end of the rest after the last pass.
    pub(super) rested: Instant,
}

impl Memory {
    /// Nothing is remembered of what was before `now`.
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            known: Known::new(),
            gone: BTreeMap::new(),
            is_recorded: false,
            counters: BTreeMap::new(),
            echoes: Echoes::default(),
            begun: now,
            are_back: false,
            highest: (String::new(), 0),
            seen: None,
            rested: now,
        }
    }

    /// Takes in what stands. What is gone is kept until it stands in the ledger; by a replica that does not
    /// lead, for as long as the one that does may have missed it.
    pub(super) fn learn(&mut self, snapshot: &Snapshot, leads: bool) {
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

    /// The highest sequence of this epoch that this replica or a node has read.
    pub(super) fn newest_sequence(&mut self, snapshot: &Snapshot) -> i64 {
        let epoch = &snapshot.ledger.epoch;
        if self.highest.0 != *epoch {
            self.highest = (epoch.clone(), 0);
        }
        let views = snapshot.views.values();
        let said = views.filter(|view| view.connected && view.epoch == *epoch);
        let said = said.map(|view| view.sequence);
        self.highest.1 = said.fold(self.highest.1.max(snapshot.sequence()), i64::max);
        self.highest.1
    }

    pub(super) fn not_before(&self, pool: &PoolRef) -> Option<Instant> {
        let due = *self.counters.get(pool)? + COUNTERS;
        (due > Instant::now()).then_some(due)
    }

    /// Whether the nodes have had the time to come and tell of their networks, before it was planned.
    pub(super) fn have_met(&self, work: &Work) -> bool {
        let has_told = |node: &String| {
            let view = work.planned.snapshot.views.get(node);
            view.is_some_and(|view| !view.facts.interfaces.is_empty())
        };
        self.are_back
            || self.begun.elapsed() >= RETURN
            || work.published.pod_nodes.iter().all(has_told)
    }

    /// Whether the nodes have had the time to come back and say what they do: a replica that has just
    /// started must not tell users that nobody is there.
    pub(super) fn are_back(&mut self, work: &Work) -> bool {
        if !self.are_back {
            let is_back = |node: &String| has_answered(node, &work.snapshot, &work.desired);
            self.are_back =
                self.begun.elapsed() >= RETURN || work.published.pod_nodes.iter().all(is_back);
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
    let mut told = told.flat_map(|state| state.resources());
    let answered = |(name, _): &(ResourceName, Resource)| {
        view.acked.contains_key(name) || view.nacked.contains_key(name)
    };
    view.connected && view.report.is_some() && told.all(answered)
}
