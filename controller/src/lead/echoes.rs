//! What the lease holder wrote and has not read back: until then it would write it again.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::{Duration, Instant},
};

use kube::ResourceExt;
use node_api::PoolRef;

use crate::snapshot::Snapshot;

/// How long what was written may take to come back before it is written anew.
const ECHO: Duration = Duration::from_secs(10);

/// What was written and has not been read back.
#[derive(Clone, Debug, Default)]
pub(super) struct Echoes {
    ledger: Option<String>,
    pools: BTreeMap<PoolRef, String>,
    since: Option<Instant>,
}

impl Echoes {
    pub(super) fn ledger(&mut self, version: Option<String>) {
        self.ledger = version;
        self.since.get_or_insert_with(Instant::now);
    }

    pub(super) fn pool(&mut self, pool: PoolRef, version: Option<String>) {
        if let Some(version) = version {
            self.pools.insert(pool, version);
            self.since.get_or_insert_with(Instant::now);
        }
    }

    pub(super) fn awaits(&self, pool: &PoolRef) -> bool {
        self.pools.contains_key(pool)
    }

    /// Whether the snapshot is older than what was written. The `newest` one may not be planned with yet.
    pub(super) fn are_missing(&mut self, snapshot: &Snapshot, newest: &Snapshot) -> bool {
        self.seen(snapshot);
        if self.since.is_some_and(|since| since.elapsed() >= ECHO) {
            let mut unseen = self.clone();
            unseen.seen(newest);
            if unseen.since.is_some() {
                tracing::warn!("what was written does not come back; it is written again");
                *self = Self::default();
            }
        }
        self.since.is_some()
    }

    /// Takes out what the snapshot has.
    fn seen(&mut self, snapshot: &Snapshot) {
        if let Some(version) = &self.ledger
            && has(snapshot.ledger_version.as_deref(), version)
        {
            self.ledger = None;
        }
        if !self.pools.is_empty() {
            let mut unseen = BTreeSet::new();
            for pool in &snapshot.pools {
                let name = plan::model::pool_ref(pool);
                if let Some(version) = self.pools.get(&name)
                    && !has(pool.resource_version().as_deref(), version)
                {
                    unseen.insert(name);
                }
            }
            // One that is not there any more was deleted; what it had is remembered.
            self.pools.retain(|name, _| unseen.contains(name));
        }
        if self.ledger.is_none() && self.pools.is_empty() {
            self.since = None;
        }
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
