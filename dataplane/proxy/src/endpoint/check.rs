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

/// Has an endpoint looked at that a session was lost of, also by a look under way: that one may have come before.
pub(crate) fn suspect(endpoint: &Arc<Endpoint>, shared: &Arc<Shared>) {
    endpoint.suspected.store(true, Release);
    check(endpoint, shared);
}

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
                // What is suspected from now on, this look may be too early for.
                endpoint.suspected.store(false, Release);
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
            // It may have been listed anew, or suspected, meanwhile, when this was or seemed to be at work.
            let is_sound = endpoint.fault.load(Acquire) == SOUND;
            let is_done = endpoint.phase.load(Acquire) == REMOVED
                || (is_sound && !endpoint.suspected.load(Acquire))
                || endpoint.checking.swap(true, AcqRel);
            if is_done {
                return;
            }
        }
    });
}
