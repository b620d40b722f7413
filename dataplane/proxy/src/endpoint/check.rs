//! Looks in the background whether an endpoint can be reached.

use std::{
    sync::{
        Arc,
        atomic::Ordering::{AcqRel, Acquire, Release},
    },
    time::Duration,
};

use tokio::time::{sleep, timeout};

use super::{
    Endpoint, REMOVED,
    fault::{SOUND, TIMED_OUT},
    reach::{Unreached, visit},
};
use crate::live::Shared;

/// Pause between two attempts to reach an endpoint that failed.
const RECHECK: Duration = Duration::from_secs(1);

/// Limit for such an attempt.
pub(super) const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// Tries, in the background, to reach an endpoint, until it accepts or is no longer listed.
/// One such task runs per endpoint, whoever asks.
pub(crate) fn check(endpoint: &Arc<Endpoint>, shared: &Arc<Shared>) {
    if endpoint.checking.swap(true, AcqRel) {
        return;
    }
    let endpoint = Arc::clone(endpoint);
    let shared = Arc::clone(shared);
    tokio::task::spawn_local(async move {
        loop {
            // One that just failed is given its second; one of which nothing is known, or that is
            // only suspected, is tried at once.
            if endpoint.is_failing() {
                sleep(RECHECK).await;
            }
            while endpoint.phase.load(Acquire) != REMOVED {
                let fault = match timeout(CHECK_TIMEOUT, visit(&endpoint)).await {
                    Ok(Ok(())) => SOUND,
                    Ok(Err(Unreached::Fault(fault))) => fault as u8,
                    // What this host lacks says nothing of the endpoint.
                    Ok(Err(Unreached::Local(_))) => endpoint.fault.load(Acquire),
                    Err(_elapsed) => TIMED_OUT,
                };
                endpoint.set_fault(fault, &shared);
                if fault == SOUND {
                    break;
                }
                sleep(RECHECK).await;
            }
            endpoint.checking.store(false, Release);
            // It may have been listed anew just before, when this still seemed to be at work.
            let is_done = endpoint.phase.load(Acquire) == REMOVED
                || endpoint.fault.load(Acquire) == SOUND
                || endpoint.checking.swap(true, AcqRel);
            if is_done {
                return;
            }
        }
    });
}
