//! A packet socket for ARP on one interface.

use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{packet::link_address, raw::writable};

/// Of the longest frame that is of interest, padding included.
const FRAME: usize = 64;

/// Sends and receives ARP frames, link header first.
#[derive(Debug)]
pub struct ArpSocket(Socket);

impl ArpSocket {
    /// On the interface with this index.
    pub fn open(index: u32) -> io::Result<Self> {
        let ethertype = u16::try_from(libc::ETH_P_ARP).unwrap_or(0).to_be();
        // Of no protocol before it is bound, so that nothing of other interfaces is queued.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.bind(&link_address(index, ethertype)?)?;
        Ok(Self(socket))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write_all(frame)
    }

    /// A frame that waits already.
    pub fn receive_waiting(&self) -> io::Result<Option<Vec<u8>>> {
        self.take(libc::MSG_DONTWAIT)
    }

    /// The next frame that comes `until` then.
    pub fn receive(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.0.set_read_timeout(Some(left))?;
        self.take(0)
    }

    fn take(&self, flags: libc::c_int) -> io::Result<Option<Vec<u8>>> {
        let mut frame = vec![0; FRAME];
        match self.0.recv_with_flags(writable(&mut frame), flags) {
            Ok(length) => {
                frame.truncate(length);
                Ok(Some(frame))
            }
            Err(error)
                if matches!(
                    error.kind(),
                    io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for ArpSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
