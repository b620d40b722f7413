//! Packet sockets: one for sending whole frames, and what all have in common.

use std::io;

use socket2::{Domain, Protocol, SockAddr, SockAddrStorage, SockFilter, Socket, Type};

use super::raw::TC_PRIO_CONTROL;

/// What a packet socket is bound to, or sends to: the interface with this index, and a protocol in
/// network order.
pub(super) fn link_address(index: u32, protocol: u16) -> io::Result<SockAddr> {
    let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
    let fill = |storage: *mut SockAddrStorage, length: *mut libc::socklen_t| {
        // SAFETY: the storage is zeroed, and larger and no less aligned than a `sockaddr_ll`.
        let address = unsafe { &mut *storage.cast::<libc::sockaddr_ll>() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_protocol = protocol;
        address.sll_ifindex = index;
        let size = libc::socklen_t::try_from(size_of::<libc::sockaddr_ll>()).unwrap_or(0);
        // SAFETY: valid for the call.
        unsafe { *length = size };
        Ok(())
    };
    // SAFETY: `fill` writes a whole address and its length.
    let ((), address) = unsafe { SockAddr::try_init(fill) }?;
    Ok(address)
}

/// One instruction of a socket's filter (`bpf(4)`); a comparison skips so many when it holds, and so many
/// when it fails.
pub(super) fn step(code: u32, k: u32, if_true: u8, if_false: u8) -> SockFilter {
    SockFilter::new(u16::try_from(code).unwrap_or(0), if_true, if_false, k)
}

/// Sends frames on any interface and receives nothing: protocol 0, so that the kernel queues
/// nothing on it. Opened once and kept, since closing it waits 6 to 14 ms.
#[derive(Debug)]
pub struct FrameSocket(Socket);

impl FrameSocket {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        socket.set_priority(TC_PRIO_CONTROL)?;
        Ok(Self(socket))
    }

    /// Sends a frame, link header first, on the interface with this index.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        self.0.send_to(frame, &link_address(index, 0)?).map(drop)
    }
}
