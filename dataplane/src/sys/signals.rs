//! Signals that ask a process to end.

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

    /// Waits for the next one.
    pub fn wait(&self) -> nix::Result<Signal> {
        self.0.wait()
    }
}
