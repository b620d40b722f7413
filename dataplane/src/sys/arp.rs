//! A packet socket for ARP on one interface.

use std::{
    io::{self, Read, Write},
    time::Instant,
};

use socket2::{Domain, Protocol, SockAddr, Socket, Type};

/// Of the longest frame that is of interest, padding included.
const FRAME: usize = 64;

/// Sends and receives ARP frames, link header first.
#[derive(Debug)]
pub struct ArpSocket(Socket);

impl ArpSocket {
    /// On the interface with this index.
    pub fn open(index: u32) -> io::Result<Self> {
        let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        let ethertype = u16::try_from(libc::ETH_P_ARP).unwrap_or(0).to_be();
        // Of no protocol before it is bound, so that nothing of other interfaces is queued.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        let fill = |storage: *mut socket2::SockAddrStorage, length: *mut libc::socklen_t| {
            // SAFETY: the storage is zeroed, and larger and no less aligned than a `sockaddr_ll`.
            let address = unsafe { &mut *storage.cast::<libc::sockaddr_ll>() };
            address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
            address.sll_protocol = ethertype;
            address.sll_ifindex = index;
            let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
            // SAFETY: valid for the call.
            unsafe { *length = size };
            Ok(())
        };
        // SAFETY: `fill` writes a whole address and its length.
        let ((), address) = unsafe { SockAddr::try_init(fill) }?;
        socket.bind(&address)?;
        Ok(Self(socket))
    }

    /// Sends a frame.
    pub fn send(&self, frame: &[u8]) -> io::Result<()> {
        (&self.0).write_all(frame)
    }

    /// The next frame that comes `until` then.
    pub fn receive(&self, until: Instant) -> io::Result<Option<Vec<u8>>> {
        let left = until.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(None);
        }
        self.0.set_read_timeout(Some(left))?;
        let mut frame = vec![0; FRAME];
        match (&self.0).read(&mut frame) {
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
