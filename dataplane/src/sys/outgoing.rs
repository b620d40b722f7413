//! How much of what was sent is still on its way.

use std::{
    io,
    os::{fd::AsRawFd, unix::net::UnixStream},
};

/// Bytes sent that the other side has not read yet (`SIOCOUTQ`, unix(7)).
pub fn unread(socket: &UnixStream) -> io::Result<usize> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open while `socket` is borrowed; TIOCOUTQ, which is the same number
    // as SIOCOUTQ, writes one int.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::TIOCOUTQ, &raw mut bytes) };
    if result == 0 {
        Ok(usize::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn what_was_read_no_longer_counts() {
        let (mut left, mut right) = UnixStream::pair().unwrap();
        left.write_all(b"hello").unwrap();
        assert!(unread(&left).unwrap() > 0);
        right.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unread(&left).unwrap(), 0);
    }
}
