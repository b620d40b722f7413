//! Signals that ask a process to end.

use std::{io, ptr, time::Duration};

use nix::sys::signal::{SigHandler, SigSet, Signal, signal};

/// What ends a service (systemd) and a program in a terminal.
const STOPPING: [Signal; 2] = [Signal::SIGTERM, Signal::SIGINT];

/// Ignores the signals that ask to end: systemd and terminals signal all processes of the group,
/// and this one stops on the agent's word. `SIGQUIT` is what systemd's watchdog sends, to the
/// group as well, when the agent hangs. System calls only, so that it may run between fork and exec.
pub fn ignore_stop() -> nix::Result<()> {
    for asked in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGQUIT,
        Signal::SIGHUP,
    ] {
        // SAFETY: no handler runs; the signal is dropped by the kernel.
        unsafe { signal(asked, SigHandler::SigIgn) }?;
    }
    Ok(())
}

/// Lets the signals that ask to end through to the calling thread, where a process that became this
/// one held them back.
pub fn let_through() -> nix::Result<()> {
    let set: SigSet = STOPPING.into_iter().collect();
    set.thread_unblock()
}

/// Waits for the signals that ask to end, on the thread of your choice.
#[derive(Debug)]
pub struct StopSignals(SigSet);

impl StopSignals {
    /// Holds the signals back for the calling thread and those it starts from now on: call it
    /// before the first thread is started.
    pub fn hold_back() -> nix::Result<Self> {
        let set: SigSet = STOPPING.into_iter().collect();
        set.thread_block()?;
        Ok(Self(set))
    }

    /// The same, and the end of a child ends a wait too.
    pub fn hold_back_with_ends() -> nix::Result<Self> {
        let set: SigSet = STOPPING.into_iter().chain([Signal::SIGCHLD]).collect();
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Waits for the next one, for so long at most, or until a child ends where that was asked for.
    pub fn wait_at_most(&self, most: Duration) -> io::Result<Option<Signal>> {
        let most = libc::timespec {
            tv_sec: libc::time_t::try_from(most.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: most.subsec_nanos().into(),
        };
        // SAFETY: set and time are valid for the call; what came is not asked for.
        let signal =
            unsafe { libc::sigtimedwait(self.0.as_ref(), ptr::null_mut(), &raw const most) };
        if signal > 0 {
            let signal = Signal::try_from(signal)?;
            return Ok(Some(signal).filter(|signal| STOPPING.contains(signal)));
        }
        let error = io::Error::last_os_error();
        match error.raw_os_error() {
            Some(libc::EAGAIN | libc::EINTR) => Ok(None),
            _ => Err(error),
        }
    }

    /// Waits for the next one.
    pub fn wait(&self) -> nix::Result<Signal> {
        self.0.wait()
    }
}
