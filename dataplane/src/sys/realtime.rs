//! What a process asks of the kernel so that it runs when it must.

use std::io;

use crate::sys::users;

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

/// Real-time priority is not to be had.
#[derive(Debug)]
pub struct Refused {
    /// What the kernel says.
    pub error: io::Error,
    /// The thread runs at nice -20 instead.
    pub is_favoured: bool,
}

/// Gives the calling thread real-time priority, else the best of the ordinary ones.
///
/// # Errors
/// As [`real_time`]; says which of the two came of it.
pub fn real_time_or_favoured(priority: i32) -> Result<(), Refused> {
    real_time(priority).map_err(|error| Refused {
        error,
        is_favoured: favour().is_ok(),
    })
}

/// Nice -20 for the calling thread.
fn favour() -> io::Result<()> {
    // SAFETY: plain numbers; 0 is the calling thread.
    check(unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, -20) })
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

/// Keeps in RAM what the process has used so far and what it comes to use: from the first use of a page on
/// (`MCL_ONFAULT`). The program is that of three processes, and of most of it this one uses nothing.
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
    if limit.rlim_cur != libc::RLIM_INFINITY && !users::missing(&[users::IPC_LOCK])?.is_empty() {
        return Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "no CAP_IPC_LOCK, and RLIMIT_MEMLOCK is not unlimited",
        ));
    }
    let flags = libc::MCL_CURRENT | libc::MCL_FUTURE | libc::MCL_ONFAULT;
    // SAFETY: plain flags.
    check(unsafe { libc::mlockall(flags) })
}

/// Lets all threads of the process allocate from one heap, where the C library would give each its own: what one has
/// freed serves the others, and a locked process keeps a third less. For a process whose thread in real time
/// allocates nothing. To be called before there is a second thread.
pub fn share_heap() {
    // SAFETY: plain numbers. Where the library knows no such setting, nothing changes.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Ends the process without unwinding, handlers or a core dump.
pub fn exit_now(status: i32) -> ! {
    // SAFETY: ends the process; nothing follows that could be in a wrong state.
    unsafe { libc::_exit(status) }
}

fn check(result: libc::c_int) -> io::Result<()> {
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_is_favoured_alone() {
        if users::effective_uid() != 0 {
            println!("SKIPPED: needs root to lower nice");
            return;
        }
        // SAFETY: plain numbers; 0 is the calling thread.
        let nice = || unsafe { libc::getpriority(libc::PRIO_PROCESS, 0) };
        let before = nice();
        let favoured = std::thread::spawn(move || {
            favour().unwrap();
            nice()
        });
        assert_eq!(favoured.join().unwrap(), -20);
        assert_eq!(nice(), before);
    }
}
