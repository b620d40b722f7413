//! Waiting for what changes, and changing what is waited for.

use std::time::{Duration, Instant};

use tokio::{
    sync::watch,
    time::{sleep_until, timeout},
};

/// A change waits so long for others.
const QUIET: Duration = Duration::from_millis(20);
/// And so long at most, where changes never end.
const MOST: Duration = Duration::from_millis(100);

/// Sets what others wait for, and wakes them if it is another; says whether it is.
pub(crate) fn put<T: PartialEq>(sender: &watch::Sender<T>, value: T) -> bool {
    sender.send_if_modified(|stands| {
        let differs = *stands != value;
        *stands = value;
        differs
    })
}

/// Waits for a change, and then until nothing has changed for a moment.
pub(crate) async fn settled(changed: &mut watch::Receiver<()>) {
    if changed.changed().await.is_err() {
        std::future::pending::<()>().await;
    }
    let begun = Instant::now();
    while begun.elapsed() < MOST {
        if timeout(QUIET, changed.changed()).await.is_err() {
            return;
        }
    }
}

/// Waits until then; for ever where there is no such moment.
pub(crate) async fn at(instant: Option<Instant>) {
    match instant {
        Some(instant) => sleep_until(instant.into()).await,
        None => std::future::pending().await,
    }
}
