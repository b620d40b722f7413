//! Giving up what a process has and does not need.

use std::io;

use nix::sys::prctl;

use crate::sys::{
    limits,
    seccomp::{self, Calls, SeccompError},
};

/// Why a process could not give something up.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegeError {
    /// A capability, or the way to get one back.
    #[error("cannot drop {what}")]
    Drop {
        /// What.
        what: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The system call filter.
    #[error("cannot confine the process")]
    Confine(#[source] SeccompError),
}

/// Gives up, for good and for all threads to come, whatever a process that faces clients does not
/// need: capabilities, programs with more rights, core dumps, being traced by its own user, and
/// all system calls but those of [`seccomp`] and `more`. Call it before the first thread is started:
/// capabilities belong to threads.
pub fn give_up_all(more: Calls) -> Result<(), PrivilegeError> {
    let failed = |what| move |source| PrivilegeError::Drop { what, source };
    let no_new_privileges = prctl::set_no_new_privs().map_err(io::Error::from);
    no_new_privileges.map_err(failed("the way to new privileges"))?;
    drop_bounding_set();
    clear_capabilities().map_err(failed("capabilities"))?;
    limits::forbid_core_dumps().map_err(failed("core dumps"))?;
    let not_dumpable = prctl::set_dumpable(false).map_err(io::Error::from);
    not_dumpable.map_err(failed("the right of others to read its memory"))?;
    seccomp::confine(more).map_err(PrivilegeError::Confine)
}

/// `struct __user_cap_header_struct` of `capset(2)`.
#[repr(C)]
struct CapabilityHeader {
    version: u32,
    pid: libc::c_int,
}

/// `struct __user_cap_data_struct` of `capset(2)`.
#[repr(C)]
#[derive(Clone, Copy)]
struct CapabilityData {
    effective: u32,
    permitted: u32,
    inheritable: u32,
}

/// `_LINUX_CAPABILITY_VERSION_3`: two words of 32 capabilities each.
const CAPABILITY_VERSION: u32 = 0x2008_0522;

/// Empties the effective, permitted, inheritable and ambient sets of the calling thread. System calls
/// only, so that it may run between fork and exec.
pub(super) fn clear_capabilities() -> io::Result<()> {
    let header = CapabilityHeader {
        version: CAPABILITY_VERSION,
        pid: 0,
    };
    let none = [CapabilityData {
        effective: 0,
        permitted: 0,
        inheritable: 0,
    }; 2];
    // SAFETY: both point to structures of the layout that the version names.
    let result = unsafe { libc::syscall(libc::SYS_capset, &raw const header, none.as_ptr()) };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // The kernel lowers an ambient capability with the permitted one; said again all the same.
    // SAFETY: takes numbers only.
    let result = unsafe {
        libc::prctl(
            libc::PR_CAP_AMBIENT,
            libc::PR_CAP_AMBIENT_CLEAR_ALL,
            0,
            0,
            0,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Empties the bounding set where that is allowed (it takes a capability that a process started
/// as an ordinary user lacks, and such a process has nothing to bound).
fn drop_bounding_set() {
    // Numbers beyond the last capability that the kernel knows are refused: the end.
    // SAFETY: takes numbers only.
    let dropped =
        |number: libc::c_ulong| unsafe { libc::prctl(libc::PR_CAPBSET_DROP, number, 0, 0, 0) == 0 };
    let mut numbers = 0..64;
    while numbers.next().is_some_and(dropped) {}
}
