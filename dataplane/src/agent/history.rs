//! Transitions of virtual routers over the ends of vrrp processes, each of which knows its own only;
//! pure.

use std::collections::BTreeMap;

use node_api::{PoolRef, RouterReport, Transition};

/// As many as a report holds.
const MOST: usize = 16;

/// What former processes told.
#[derive(Debug, Default)]
pub(super) struct History(BTreeMap<(PoolRef, u8), Past>);

#[derive(Debug)]
struct Past {
    transitions: Vec<Transition>,
    since_unix_ms: u64,
}

impl History {
    /// Keeps what a process that has ended told last.
    pub(super) fn keep(&mut self, last: &[RouterReport]) {
        let past = |router: &RouterReport| {
            let past = Past {
                transitions: router.transitions.clone(),
                since_unix_ms: router.since_unix_ms,
            };
            (key(router), past)
        };
        self.0 = last.iter().map(past).collect();
    }

    /// Puts it before what the present process tells.
    pub(super) fn complete(&self, routers: &mut [RouterReport]) {
        for router in routers {
            let Some(past) = self.0.get(&key(router)) else {
                continue;
            };
            let before = past.transitions.last().map(|last| last.to);
            // A router that went on where it was has been there all the time.
            let went_on = match router.transitions.as_slice() {
                [only] => only.cause == vrrp::Cause::Resumed.to_string(),
                _ => false,
            };
            if went_on && before == Some(router.state) {
                router.since_unix_ms = past.since_unix_ms;
            }
            let mut all = past.transitions.clone();
            all.append(&mut router.transitions);
            all.drain(..all.len().saturating_sub(MOST));
            router.transitions = all;
        }
    }
}

fn key(router: &RouterReport) -> (PoolRef, u8) {
    (router.pool.clone(), router.virtual_router_id)
}

#[cfg(test)]
mod tests {
    use node_api::RouterState::{self, Active, Backup, Initialize};

    use super::*;

    fn router(since_unix_ms: u64, transitions: &[(u64, RouterState, &str)]) -> RouterReport {
        let mut from = Initialize;
        let transitions: Vec<_> = transitions
            .iter()
            .map(|&(at_unix_ms, to, cause)| Transition {
                at_unix_ms,
                from: std::mem::replace(&mut from, to),
                to,
                cause: cause.to_owned(),
            })
            .collect();
        RouterReport {
            pool: PoolRef {
                namespace: "default".to_owned(),
                name: "chat".to_owned(),
            },
            virtual_router_id: 110,
            sequence: 0,
            addresses: Vec::new(),
            interface: None,
            state: from,
            since_unix_ms,
            reason: String::new(),
            priority: 250,
            peers: Vec::new(),
            transitions,
            conflicts: Vec::new(),
            lowered_by: Vec::new(),
            isolated_since_unix_ms: None,
        }
    }

    fn times(router: &RouterReport) -> Vec<u64> {
        router
            .transitions
            .iter()
            .map(|one| one.at_unix_ms)
            .collect()
    }

    #[test]
    fn a_router_that_went_on_is_active_since_before() {
        let resumed = vrrp::Cause::Resumed.to_string();
        let mut history = History::default();
        let first = router(2, &[(1, Backup, "started"), (2, Active, "alone")]);
        history.complete(&mut [first.clone()]);
        history.keep(&[first]);
        let mut second = router(5, &[(5, Active, &resumed)]);
        history.complete(std::slice::from_mut(&mut second));
        assert_eq!((second.since_unix_ms, times(&second)), (2, vec![1, 2, 5]));
        // And once more.
        history.keep(&[second]);
        let mut third = router(7, &[(7, Active, &resumed)]);
        history.complete(std::slice::from_mut(&mut third));
        assert_eq!((third.since_unix_ms, times(&third)), (2, vec![1, 2, 5, 7]));
    }

    #[test]
    fn a_router_that_began_anew_is_not() {
        let mut history = History::default();
        history.keep(&[router(2, &[(2, Active, "alone")])]);
        let mut next = router(5, &[(5, Backup, "too late")]);
        history.complete(std::slice::from_mut(&mut next));
        assert_eq!((next.since_unix_ms, times(&next)), (5, vec![2, 5]));
        let mut other = router(5, &[(5, Backup, "started")]);
        other.virtual_router_id = 1;
        history.complete(std::slice::from_mut(&mut other));
        assert_eq!(times(&other), [5]);
    }

    #[test]
    fn sixteen_are_kept() {
        let many: Vec<_> = (0..16).map(|at| (at, Backup, "again")).collect();
        let mut history = History::default();
        history.keep(&[router(0, &many)]);
        let mut next = router(20, &[(20, Active, "alone")]);
        history.complete(std::slice::from_mut(&mut next));
        assert_eq!(times(&next), (1..16).chain([20]).collect::<Vec<_>>());
    }
}
