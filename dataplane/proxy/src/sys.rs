//! The system calls that no crate gives safely.
#![allow(
    unsafe_code,
    reason = "an ioctl, socket options and the allocator; the crate denies unsafe code elsewhere"
)]

use std::{io, mem::size_of, os::fd::AsRawFd, ptr, time::Duration};

/// Has the kernel give clients to `accept` once their first bytes are there (`TCP_DEFER_ACCEPT`, tcp(7)): a
/// wake-up less for each, and those that say nothing take no descriptor. Those are given after a second, when
/// they have acknowledged twice.
pub(crate) fn accept_with_data(listener: &impl AsRawFd) -> io::Result<()> {
    let seconds: libc::c_int = 1;
    let len = libc::socklen_t::try_from(size_of::<libc::c_int>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `listener` is borrowed; the kernel reads `len` bytes, the
    // size of `seconds`, which lives over the call.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            (&raw const seconds).cast(),
            len,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Receives what has come to a socket: `recv(2)`, but not as the C library's function, which prepares each call of a
/// program with threads for its thread to be cancelled, at the cost of two locked instructions.
pub(crate) fn receive(socket: &impl AsRawFd, room: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most
    // `room.len()` bytes to `room`, which lives over the call. No address is asked for.
    let result = unsafe {
        libc::syscall(
            libc::SYS_recvfrom,
            socket.as_raw_fd(),
            room.as_mut_ptr(),
            room.len(),
            0,
            ptr::null_mut::<libc::sockaddr>(),
            ptr::null_mut::<libc::socklen_t>(),
        )
    };
    counted(result)
}

/// Whether the kernel may keep the end of what it is given for what comes with it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Push {
    /// It sends all it can.
    Now,
    /// More follows at once, or the end of the output.
    WithNext,
}

/// Sends what a socket takes now: `send(2)`, in the same way.
pub(crate) fn send(socket: &impl AsRawFd, bytes: &[u8], push: Push) -> io::Result<usize> {
    let more = match push {
        Push::Now => 0,
        Push::WithNext => libc::MSG_MORE,
    };
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel reads at most
    // `bytes.len()` bytes of `bytes`, which lives over the call. No address is given.
    let result = unsafe {
        libc::syscall(
            libc::SYS_sendto,
            socket.as_raw_fd(),
            bytes.as_ptr(),
            bytes.len(),
            libc::MSG_NOSIGNAL | more,
            ptr::null::<libc::sockaddr>(),
            0_usize,
        )
    };
    counted(result)
}

fn counted(result: libc::c_long) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}

/// Gives what the allocator has free back to the kernel (`malloc_trim(3)`).
pub(crate) fn give_memory_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and leaves what is in use where it is.
    unsafe {
        libc::malloc_trim(0);
    }
}

/// `SIOCOUTQNSD` of `linux/sockios.h`, which the crate `libc` lacks.
const NOT_SENT: libc::Ioctl = 0x894b;

/// Bytes written to a TCP socket that its peer has not acknowledged, a FIN counted as one
/// (`SIOCOUTQ`, tcp(7)).
pub(crate) fn unacknowledged(socket: &impl AsRawFd) -> io::Result<u64> {
    // TIOCOUTQ is the same number as SIOCOUTQ.
    queued(socket, libc::TIOCOUTQ)
}

/// Those of them that were not even sent, since the peer or the way to it has no room for them.
pub(crate) fn not_sent(socket: &impl AsRawFd) -> io::Result<u64> {
    queued(socket, NOT_SENT)
}

/// What one of the two requests says.
fn queued(socket: &impl AsRawFd, request: libc::Ioctl) -> io::Result<u64> {
    let mut bytes: libc::c_int = 0;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed, each of the requests writes
    // one int, and `bytes` is one that lives over the call.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw mut bytes) };
    if result == 0 {
        Ok(u64::try_from(bytes).unwrap_or(0))
    } else {
        Err(io::Error::last_os_error())
    }
}

/// What the kernel waits for from the peer of a TCP socket.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Awaited {
    /// Whether something that was sent, or a probe of a window that is shut, is not answered.
    pub(crate) unanswered: bool,
    /// Time since the peer's last acknowledgement, which each answer to a probe is too.
    pub(crate) since: Duration,
}

/// `TCP_INFO`, tcp(7).
pub(crate) fn awaited(socket: &impl AsRawFd) -> io::Result<Awaited> {
    let mut info = std::mem::MaybeUninit::<libc::tcp_info>::zeroed();
    let mut len =
        libc::socklen_t::try_from(size_of::<libc::tcp_info>()).map_err(io::Error::other)?;
    // SAFETY: the descriptor is open for as long as `socket` is borrowed; the kernel writes at most
    // `len` bytes, the size of `info`, and both live over the call.
    let result = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_INFO,
            info.as_mut_ptr().cast(),
            &raw mut len,
        )
    };
    if result != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: integers only, and what the kernel left is zero.
    let info = unsafe { info.assume_init() };
    Ok(Awaited {
        unanswered: info.tcpi_unacked > 0 || info.tcpi_probes > 0,
        since: Duration::from_millis(info.tcpi_last_ack_recv.into()),
    })
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{TcpListener, TcpStream},
        time::Instant,
    };

    use super::*;

    #[test]
    fn a_peer_that_takes_nothing_and_answers_probes_is_not_waited_for() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let mut stream = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (mut peer, _) = listener.accept().unwrap();
        stream.write_all(b"hello").unwrap();
        peer.read_exact(&mut [0; 5]).unwrap();
        assert_eq!(unacknowledged(&stream).unwrap(), 0);
        let idle = awaited(&stream).unwrap();
        assert!(
            !idle.unanswered && idle.since < Duration::from_secs(5),
            "{idle:?}"
        );
        // Its window is shut, and much waits for it to open.
        stream.set_nonblocking(true).unwrap();
        while stream.write(&[0; 16_384]).is_ok() {}
        let until = Instant::now() + Duration::from_secs(10);
        while unacknowledged(&stream).unwrap() == 0 || awaited(&stream).unwrap().unanswered {
            assert!(Instant::now() < until, "{:?}", awaited(&stream));
            std::thread::yield_now();
        }
        // What it has no room for is not sent.
        let waits = not_sent(&stream).unwrap();
        assert!((1..=unacknowledged(&stream).unwrap()).contains(&waits));
    }
}
