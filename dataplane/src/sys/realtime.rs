//! What a process asks of the kernel so that it runs when it must.

use std::io;

/// Less real-time budget than this without a pause, and the kernel would kill us for a busy moment.
const LEAST_BUDGET_MICROS: libc::rlim_t = 1_000_000;

/// Gives the calling thread real-time priority (`SCHED_FIFO`), 1 to 99.
///
/// # Errors
/// Without `CAP_SYS_NICE`, or where `RLIMIT_RTTIME` is so small that the kernel would kill the
/// process for it.
pub fn real_time(priority: i32) -> io::Result<()> {
    raise_budget()?;
    // SAFETY: an all-zero `sched_param` is a valid value.
    let mut parameters: libc::sched_param = unsafe { std::mem::zeroed() };
    parameters.sched_priority = priority;
    // SAFETY: process id 0 is the calling thread; `parameters` outlives the call.
    let policy = libc::SCHED_FIFO | libc::SCHED_RESET_ON_FORK;
    check(unsafe { libc::sched_setscheduler(0, policy, &raw const parameters) })
}

/// `RLIMIT_RTTIME`: raises the soft limit to the hard one, which needs no right.
fn raise_budget() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_RTTIME, &raw mut limit) })?;
    if limit.rlim_cur >= LEAST_BUDGET_MICROS {
        return Ok(());
    }
    if limit.rlim_max < LEAST_BUDGET_MICROS {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "RLIMIT_RTTIME is below one second",
        ));
    }
    limit.rlim_cur = limit.rlim_max;
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::setrlimit(libc::RLIMIT_RTTIME, &raw const limit) })
}

/// Keeps all memory of the process in RAM, now and later.
///
/// # Errors
/// Without `CAP_IPC_LOCK` and an unlimited `RLIMIT_MEMLOCK`: under a limit, later allocations would
/// fail.
pub fn lock_memory() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: `limit` is valid for the call.
    check(unsafe { libc::getrlimit(libc::RLIMIT_MEMLOCK, &raw mut limit) })?;
    if limit.rlim_cur != libc::RLIM_INFINITY && !has_capability(Capability::IpcLock)? {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "no CAP_IPC_LOCK, and RLIMIT_MEMLOCK is not unlimited",
        ));
    }
    // SAFETY: plain flags.
    check(unsafe { libc::mlockall(libc::MCL_CURRENT | libc::MCL_FUTURE) })
}

/// A right that the kernel checks.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Capability {
    /// Addresses of interfaces.
    NetAdmin = 12,
    /// Raw and packet sockets.
    NetRaw = 13,
    /// Locked memory.
    IpcLock = 14,
}

impl Capability {
    /// Its name in manuals and unit files.
    pub const fn name(self) -> &'static str {
        match self {
            Self::NetAdmin => "CAP_NET_ADMIN",
            Self::NetRaw => "CAP_NET_RAW",
            Self::IpcLock => "CAP_IPC_LOCK",
        }
    }
}

/// Whether the calling thread has a capability.
///
/// # Errors
/// Where `/proc` is not mounted.
pub fn has_capability(capability: Capability) -> io::Result<bool> {
    let status = std::fs::read_to_string("/proc/thread-self/status")?;
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|value| u64::from_str_radix(value.trim(), 16).ok())
        .ok_or(io::ErrorKind::InvalidData)?;
    Ok(effective >> (capability as u32) & 1 == 1)
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
