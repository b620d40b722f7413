//! What clients' handshakes and checks tell of one endpoint, and what is done about it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Instant,
};

use tokio::time::sleep_until;

use super::{CheckFailure, Ejection, HealthCheck, outlier::Outlier, verdict::Verdict};
use crate::{
    balance::locked,
    endpoint::Endpoint,
    live::{Shared, Upstream},
    observe::EndpointProblem,
};

/// What is known of an endpoint besides whether it takes connections.
#[derive(Debug, Default)]
pub(crate) struct Condition {
    known: Mutex<Known>,
    /// Something known speaks against it: of one that is well the lock is left alone.
    is_ill: AtomicBool,
}

#[derive(Debug, Default)]
struct Known {
    outlier: Outlier,
    verdict: Verdict,
}

impl Known {
    fn problem(&self, now: Instant) -> Option<EndpointProblem> {
        if let Some(failure) = self.verdict.failing() {
            return Some(EndpointProblem::CheckFails(failure));
        }
        let until = self.outlier.ejected_until(now);
        until.map(|_| EndpointProblem::Ejected)
    }
}

impl Condition {
    /// What speaks against it.
    pub(crate) fn problem(&self) -> Option<EndpointProblem> {
        self.of_ill(|known| known.problem(Instant::now()))
    }

    /// Whether checks do not get through to it.
    pub(crate) fn is_out_of_reach(&self) -> bool {
        let failing = self.of_ill(|known| known.verdict.failing());
        failing.is_some_and(CheckFailure::is_out_of_reach)
    }

    /// Nothing is known of it.
    pub(crate) fn forget(&self) {
        self.change(|known| *known = Known::default());
    }

    /// A client's handshake was answered.
    pub(crate) fn succeeded(&self) {
        locked(&self.known).outlier.succeeded();
    }

    /// It is asked something else from now on: the next answer decides.
    pub(super) fn doubt(&self) {
        locked(&self.known).verdict.doubt();
    }

    fn is_ejected(&self, now: Instant) -> bool {
        let until = self.of_ill(|known| known.outlier.ejected_until(now));
        until.is_some()
    }

    fn of_ill<T>(&self, of: impl FnOnce(&Known) -> Option<T>) -> Option<T> {
        if self.is_ill.load(Acquire) {
            of(&locked(&self.known))
        } else {
            None
        }
    }

    fn change<T>(&self, change: impl FnOnce(&mut Known) -> T) -> T {
        let mut known = locked(&self.known);
        let changed = change(&mut known);
        let is_ill = known.problem(Instant::now()).is_some();
        self.is_ill.store(is_ill, Release);
        changed
    }
}

/// A client's handshake with `endpoint` came to nothing.
pub(crate) fn failed(endpoint: &Arc<Endpoint>, upstream: &Upstream, shared: &Arc<Shared>) {
    let rules = &upstream.health.ejection;
    let now = Instant::now();
    // Whoever holds it decides, so that no more are left out than may be.
    let mut turn = locked(&upstream.turn);
    let may = may_eject(endpoint, upstream, rules, now);
    let condition = &endpoint.condition;
    let Some(until) = condition.change(|known| known.outlier.failed(rules, now, may)) else {
        return;
    };
    turn.counts.ejections += 1;
    drop(turn);
    let address = endpoint.address;
    let seconds = until.saturating_duration_since(now).as_secs();
    tracing::warn!(endpoint = %address, seconds, "endpoint fails clients and is left out");
    shared.endpoint_changed(address);
    let (endpoint, shared) = (Arc::downgrade(endpoint), Arc::clone(shared));
    tokio::task::spawn_local(async move {
        sleep_until(until.into()).await;
        let Some(endpoint) = endpoint.upgrade() else {
            return;
        };
        endpoint.condition.change(|_| ());
        if endpoint.is_usable() {
            endpoint.started(Some(until));
            tracing::info!(endpoint = %address, "endpoint gets sessions again, on trial");
        }
        shared.endpoint_changed(address);
    });
}

/// Whether one more endpoint may be left out.
fn may_eject(
    endpoint: &Arc<Endpoint>,
    upstream: &Upstream,
    rules: &Ejection,
    now: Instant,
) -> bool {
    let ready = upstream.endpoints.iter().filter(|one| one.is_ready());
    let others = ready.clone().filter(|one| !Arc::ptr_eq(one, endpoint));
    let out = others.filter(|one| one.condition.is_ejected(now)).count();
    (out + 1) * 100 <= ready.count() * usize::from(rules.max_percent)
}

/// A check of `endpoint` was answered.
pub(crate) fn checked(
    endpoint: &Endpoint,
    answer: Result<(), CheckFailure>,
    check: &HealthCheck,
    shared: &Shared,
) {
    let (before, failing) = endpoint.condition.change(|known| {
        let before = known.verdict.failing();
        known.verdict.take(answer, check);
        (before, known.verdict.failing())
    });
    if failing == before {
        return;
    }
    let address = endpoint.address;
    match (before, failing) {
        (None, Some(failure)) => {
            tracing::warn!(endpoint = %address, %failure, "endpoint fails its check and gets no new sessions");
        }
        (Some(_), None) => {
            endpoint.started(Some(Instant::now()));
            tracing::info!(endpoint = %address, "endpoint passes its check");
        }
        _ => {}
    }
    shared.endpoint_changed(address);
    shared.publish_usable();
}

/// `endpoint` is no longer asked anything.
pub(super) fn unchecked(endpoint: &Endpoint, shared: &Shared) {
    let before = endpoint
        .condition
        .change(|known| std::mem::take(&mut known.verdict));
    if before.failing().is_some() {
        shared.endpoint_changed(endpoint.address);
        shared.publish_usable();
    }
}
