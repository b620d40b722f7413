//! Waiting for descriptors and for other threads, with deadlines in nanoseconds.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd},
    time::Duration,
};

use nix::sys::eventfd::{EfdFlags, EventFd};

/// Wakes a thread that waits in [`Waiter::wait`].
#[derive(Debug)]
pub struct Wake(EventFd);

impl Wake {
    /// A new one, not signalled.
    pub fn new() -> io::Result<Self> {
        let flags = EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK;
        Ok(Self(EventFd::from_flags(flags)?))
    }

    /// Signals; never blocks. Several signals before the other side looks count as one.
    pub fn wake(&self) {
        // Fails only when 2^64 - 2 signals are outstanding, which also wakes.
        self.0.write(1).ok();
    }

    /// Takes the signal back. Do this before looking at what it was about.
    pub fn clear(&self) {
        // Nothing to take back is as good.
        self.0.read().ok();
    }
}

impl AsFd for Wake {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A set of descriptors to wait for. Few by nature, so that `ppoll` is as good as anything.
///
/// It remembers descriptors by number and does not own them: forget one before it is closed.
#[derive(Debug, Default)]
pub struct Waiter {
    fds: Vec<libc::pollfd>,
}

impl Waiter {
    /// An empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a descriptor, to be reported when there is something to read from it.
    pub fn watch(&mut self, fd: BorrowedFd<'_>) {
        self.fds.push(libc::pollfd {
            fd: fd.as_raw_fd(),
            events: libc::POLLIN,
            revents: 0,
        });
    }

    /// Removes a descriptor.
    pub fn forget(&mut self, fd: BorrowedFd<'_>) {
        let raw: RawFd = fd.as_raw_fd();
        self.fds.retain(|entry| entry.fd != raw);
    }

    /// Waits until a descriptor is ready or `timeout` is over. A signal ends the wait early, which
    /// callers take for a time-out that was too short.
    pub fn wait(&mut self, timeout: Option<Duration>) -> io::Result<()> {
        let timeout = timeout.map(|timeout| libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        });
        let timeout = timeout
            .as_ref()
            .map_or(std::ptr::null(), std::ptr::from_ref);
        // SAFETY: `fds` is a valid array of that many entries; `timeout` is null or points to a
        // value that outlives the call.
        let result = unsafe {
            libc::ppoll(
                self.fds.as_mut_ptr(),
                self.fds.len() as libc::nfds_t,
                timeout,
                std::ptr::null(),
            )
        };
        if result >= 0 {
            return Ok(());
        }
        let error = io::Error::last_os_error();
        for entry in &mut self.fds {
            entry.revents = 0;
        }
        if error.kind() == io::ErrorKind::Interrupted {
            Ok(())
        } else {
            Err(error)
        }
    }

    /// Whether the last wait found `fd` ready, or in error, which reading from it clears.
    pub fn is_ready(&self, fd: BorrowedFd<'_>) -> bool {
        let raw = fd.as_raw_fd();
        self.fds
            .iter()
            .any(|entry| entry.fd == raw && entry.revents != 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_seen_once() {
        let wake = Wake::new().unwrap();
        let mut waiter = Waiter::new();
        waiter.watch(wake.as_fd());
        wake.wake();
        wake.wake();
        waiter.wait(None).unwrap();
        assert!(waiter.is_ready(wake.as_fd()));
        wake.clear();
        waiter.wait(Some(Duration::ZERO)).unwrap();
        assert!(!waiter.is_ready(wake.as_fd()));
    }
}
