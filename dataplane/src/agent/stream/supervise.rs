//! A defect in the control stream must not cost the node its addresses: what was told before serves on,
//! and the stream begins anew.

use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    thread,
    time::Duration,
};

use tokio::task::JoinError;

use crate::restart::{Restarts, Waits};

/// How soon it begins anew.
pub(super) const WAITS: Waits = Waits {
    settled_after: Duration::from_mins(10),
    first: Duration::from_secs(1),
    longest: Duration::from_mins(1),
};

/// Runs it until it returns; again, with the number of failures, each time it panics.
pub(super) fn supervise(waits: Waits, mut run: impl FnMut(u32)) {
    let mut restarts = Restarts::new(waits);
    for failures in 0.. {
        restarts.started();
        // Nothing of it is used any more but what it had handed over.
        if catch_unwind(AssertUnwindSafe(|| run(failures))).is_ok() {
            return;
        }
        let wait = restarts.ended();
        tracing::error!(
            ?wait,
            "the control stream failed, which is a defect of this program; what was told before \
             serves on, and the stream begins anew"
        );
        thread::sleep(wait);
    }
}

/// A task that panicked fails the whole; one that ended has nothing more to do.
pub(super) fn pass_on_panic(ended: Result<(), JoinError>) {
    if let Err(error) = ended
        && let Ok(panic) = error.try_into_panic()
    {
        resume_unwind(panic);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_begins_anew_until_it_ends_by_itself() {
        let waits = Waits {
            settled_after: Duration::ZERO,
            first: Duration::ZERO,
            longest: Duration::ZERO,
        };
        let mut seen = Vec::new();
        supervise(waits, |failures| {
            seen.push(failures);
            let runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = { runtime }.build().unwrap();
            runtime.block_on(async {
                let task = tokio::spawn(async move { assert!(failures >= 2, "planted") });
                pass_on_panic(task.await);
            });
        });
        assert_eq!(seen, [0, 1, 2]);
    }
}
