//! A worker's part in rebalancing: in each round another worker ends as many of its sessions as the
//! fullest endpoints are to give up, one after the other.

use std::{
    cell::{Cell, RefCell},
    collections::BTreeSet,
    sync::Arc,
    time::Instant,
};

use crate::{
    balance::rebalance::{self, ROUND},
    close,
    endpoint::Endpoint,
    session::End,
    stats::Ended,
    worker::Worker,
};

/// What a worker remembers of it.
#[derive(Debug, Default)]
pub(crate) struct Shedding {
    /// The last round that was looked at.
    round: Cell<u64>,
    /// Where among its sessions the worker goes on to look.
    next: Cell<u64>,
    /// Sessions that are to end, and when.
    due: RefCell<BTreeSet<(Instant, u64)>>,
}

impl Worker {
    /// Ends the sessions whose turn it is; when the next one's is.
    pub(crate) fn shed(&self, now: Instant) -> Option<Instant> {
        let running = now.saturating_duration_since(self.shared.begun);
        let round = running.as_secs() / ROUND.as_secs();
        if self.shedding.round.replace(round) != round && self.has_turn(round) {
            self.begin_round(now);
        }
        let mut due = self.shedding.due.borrow_mut();
        while let Some(&(at, id)) = due.first() {
            if at > now {
                return Some(at);
            }
            due.pop_first();
            self.end_for_balance(id);
        }
        None
    }

    fn begin_round(&self, now: Instant) {
        let state = self.shared.state();
        let pools = state.pools.values();
        let upstreams = pools.flat_map(|pool| {
            let upstreams = pool.upstreams.iter();
            upstreams.map(move |upstream| rebalance::round(pool, upstream))
        });
        for quotas in upstreams.filter(|quotas| !quotas.is_empty()) {
            let chosen = self.of_fullest(quotas);
            let count = u32::try_from(chosen.len()).unwrap_or(u32::MAX);
            let mut due = self.shedding.due.borrow_mut();
            due.extend(
                (0..count)
                    .map(|index| now + ROUND * index / count)
                    .zip(chosen),
            );
        }
    }

    /// Sessions of these endpoints, as many as each is to give up and this worker has. All come to
    /// their turn before one comes again, so that no client is always the one.
    fn of_fullest(&self, mut quotas: Vec<(Arc<Endpoint>, usize)>) -> Vec<u64> {
        let sessions = self.sessions.borrow();
        let next = self.shedding.next.get();
        let mut chosen = Vec::new();
        for (id, control) in sessions.range(next..).chain(sessions.range(..next)) {
            let of = |(endpoint, _): &(Arc<Endpoint>, usize)| {
                Arc::ptr_eq(endpoint, &control.lease.endpoint)
            };
            let Some(at) = quotas.iter().position(of) else {
                continue;
            };
            if control.is_told() {
                continue;
            }
            chosen.push(*id);
            self.shedding.next.set(id + 1);
            quotas[at].1 -= 1;
            if quotas[at].1 == 0 {
                quotas.swap_remove(at);
            }
            if quotas.is_empty() {
                break;
            }
        }
        chosen
    }

    fn end_for_balance(&self, id: u64) {
        let sessions = self.sessions.borrow();
        let Some(control) = sessions.get(&id) else {
            return;
        };
        let pool = Arc::clone(&control.pool.borrow());
        // Since the round began sessions may have ended by themselves, an endpoint fallen ill, or the
        // administrator thought again.
        if rebalance::has_too_many(&pool, &control.lease.endpoint) {
            control.end(End {
                by: Ended::Rebalanced,
                code: close::REBALANCED,
                reason: "another backend has less to do",
            });
        }
    }
}
