//! Which of two pods is the newer.
//!
//! The API server knows when a pod was made and gives a `DaemonSet` no way to pass it on. So the time
//! counts at which an agent of the pod first looked into a directory that lasts as long as the pod:
//! the same for each restart of a container, and later for each pod that follows.

use std::{
    fs::{self, OpenOptions},
    io,
    os::unix::fs::OpenOptionsExt,
    path::Path,
    time::{SystemTime, UNIX_EPOCH},
};

/// Nobody writes to it, so that its time stays that of its making.
const MARK: &str = "pod-created";

/// When the pod with this directory was made, nanoseconds since the Unix epoch.
///
/// # Errors
/// If the directory is not there, or the mark cannot be made.
pub(super) fn created_ns(directory: &Path) -> io::Result<u64> {
    let path = directory.join(MARK);
    let made = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&path);
    match made {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(unix_ns(fs::symlink_metadata(&path)?.modified()?))
}

fn unix_ns(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Why an agent whose pod was made at `theirs` must not follow one whose pod was made at `ours`.
/// Agents in no pod are people's business.
pub(super) fn refusal(theirs: Option<u64>, ours: Option<u64>) -> Option<String> {
    let (theirs, ours) = (theirs?, ours?);
    (theirs < ours).then(|| {
        let seconds = (ours - theirs) / 1_000_000_000;
        let ms = (ours - theirs) / 1_000_000 % 1000;
        format!(
            "the agent that runs is of a pod that is newer by {seconds}.{ms:03} s; if it is not, the \
             clock was set back: delete the older pod"
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::temporary::Directory;

    #[test]
    fn a_pod_keeps_its_time_over_restarts() {
        let directory = Directory::new();
        let first = created_ns(directory.path()).unwrap();
        fs::write(directory.path().join("another"), "").unwrap();
        assert_eq!(created_ns(directory.path()).unwrap(), first);
        let now = unix_ns(SystemTime::now());
        assert!(now.abs_diff(first) < 60_000_000_000, "{first} {now}");
        assert!(created_ns(&directory.path().join("missing")).is_err());
    }

    #[test]
    fn only_an_older_pod_is_refused() {
        for (theirs, ours, refused) in [
            (None, None, false),
            (None, Some(5), false),
            (Some(5), None, false),
            (Some(5), Some(5), false),
            (Some(6), Some(5), false),
            (Some(5), Some(1_500_000_005), true),
        ] {
            let refusal = refusal(theirs, ours);
            assert_eq!(refusal.is_some(), refused, "{theirs:?} {ours:?}");
            assert!(refusal.is_none_or(|said| said.contains("by 1.500 s")));
        }
    }
}
