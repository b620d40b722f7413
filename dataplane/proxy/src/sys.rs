//! The one system call that no crate gives safely.
#![allow(
    unsafe_code,
    reason = "an ioctl; the crate denies unsafe code elsewhere"
)]

use std::{io, os::fd::AsRawFd};

/// Bytes written to a TCP socket that its peer has not acknowledged, a FIN counted as one
/// (`SIOCOUTQ`, tcp(7)).
pub(crate) fn unacknowledged(socket: &impl AsRawFd) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, TIOCOUTQ (the same number
    // as SIOCOUTQ) writes one int, and `bytes` is one that lives over the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        Ok(u64::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}
