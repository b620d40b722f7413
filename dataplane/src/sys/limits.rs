//! What a process may have at most (setrlimit(2)). System calls only, so that it may run between fork
//! and exec.

use std::io;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// Descriptors a process may have, where the host allows it.
const MOST_DESCRIPTORS: u64 = 1 << 20;

/// Raises the limit of open files to what the process is allowed: each session takes two. Returns
/// the limit now in force, as far as it can be read.
pub fn raise_open_files() -> Option<u64> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).ok()?;
    let raise = |to| {
        setrlimit(Resource::RLIMIT_NOFILE, to, to)
            .is_ok()
            .then_some(to)
    };
    // Beyond the hard limit takes `CAP_SYS_RESOURCE`.
    let beyond = (hard < MOST_DESCRIPTORS).then_some(MOST_DESCRIPTORS);
    let up_to = (soft < hard).then_some(hard);
    beyond
        .and_then(raise)
        .or_else(|| up_to.and_then(raise))
        .or(Some(soft))
}

/// No core dump: writing one delays every sign of the process' death.
pub fn forbid_core_dumps() -> io::Result<()> {
    Ok(setrlimit(Resource::RLIMIT_CORE, 0, 0)?)
}
