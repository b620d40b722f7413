//! Whether a handshake that came to nothing on one endpoint is tried on another.
//!
//! Retries have a [budget](crate::budget). What it refuses is told to the client as it is. An endpoint
//! that took no connection had no work with the handshake: to go on from there to one that is well is no
//! retry in that sense, and free.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use super::attempt::{Answer, AttemptError, OtherAnswer};
use crate::{
    balance::{Lease, locked},
    endpoint::Endpoint,
    handshake::Reject,
    health,
    live::{Shared, Upstream},
};

/// Whether an answer says that the server cannot serve now, as another one may (RFC 9110 sections
/// 15.6.3 to 15.6.5).
pub(crate) const fn is_retried(status: u16) -> bool {
    matches!(status, 502..=504)
}

/// What the attempt before came to.
pub(crate) enum Spent {
    /// There was none.
    Nothing,
    /// Nothing.
    Failed {
        reject: Reject,
        /// The endpoint took no connection.
        was_untouched: bool,
    },
    /// An answer that another endpoint may better.
    Answer(OtherAnswer),
}

/// Whether `lease` may be tried after what was `spent`.
pub(crate) fn may_try(upstream: &Upstream, spent: &Spent, lease: &Lease) -> bool {
    let mut turn = locked(&upstream.turn);
    let now = Instant::now();
    let is_free = match spent {
        Spent::Nothing => {
            turn.budget.handshake(now);
            return true;
        }
        Spent::Failed { was_untouched, .. } => *was_untouched && lease.endpoint.is_usable(),
        Spent::Answer(_) => false,
    };
    let may = is_free || turn.budget.retry(upstream.health.retry, now);
    if !may {
        turn.counts.retries_refused += 1;
    }
    may
}

/// Takes in what an attempt tells of its endpoint, which had `given` for it.
pub(super) fn learn(
    upstream: &Upstream,
    endpoint: &Arc<Endpoint>,
    outcome: &Result<Answer, AttemptError>,
    given: Duration,
    shared: &Arc<Shared>,
) {
    let is_failure = match outcome {
        Ok(Answer::Switch { .. }) => false,
        Ok(Answer::Other(answer)) => is_retried(answer.status),
        // What is known already, as when many clients come at once, is not counted again; and with
        // little time left, since the client was slow or others were, nothing is proven.
        Err(AttemptError::Failed {
            reject, is_news, ..
        }) => {
            let is_hasty = given < upstream.handshake_timeout / 4;
            if !is_news || (*reject == Reject::GatewayTimeout && is_hasty) {
                return;
            }
            true
        }
        Err(AttemptError::Final(_)) => return,
    };
    if is_failure {
        health::failed(endpoint, upstream, shared);
    } else {
        endpoint.condition.succeeded();
    }
}
