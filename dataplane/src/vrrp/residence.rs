//! What stays in memory: what the process uses once it serves, so that no takeover waits for a disk.

use super::rehearsal;
use crate::sys::{realtime, text};

/// Locks it; a warning where that is not allowed. To be called once virtual routers are there: what only
/// the start used is let go of first, and what only a takeover uses is brought in.
pub(super) fn take() -> Option<String> {
    if let Err(error) = text::forget() {
        tracing::debug!(%error, "what only the start used is locked, too");
    }
    rehearsal::rehearse();
    let error = realtime::lock_memory().err()?;
    let warning =
        format!("the vrrp process cannot lock its memory ({error}): give it CAP_IPC_LOCK");
    tracing::warn!("{warning}");
    Some(warning)
}
