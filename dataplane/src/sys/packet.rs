//! Packet sockets: one for sending whole frames, and how they are bound.

use std::{
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
};

use socket2::{SockAddr, SockAddrStorage};

/// What a packet socket is bound to: the interface with this index, and a protocol in network order.
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

/// Sends frames on any interface and receives nothing: protocol 0, so that the kernel queues
/// nothing on it. Opened once and kept, since closing it waits 6 to 14 ms.
#[derive(Debug)]
pub struct FrameSocket(OwnedFd);

impl FrameSocket {
    /// Opens it.
    pub fn open() -> io::Result<Self> {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        // SAFETY: plain numbers; the result is checked.
        let raw = unsafe { libc::socket(libc::AF_PACKET, kind, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, known to nobody else.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Sends a frame, link header first, on the interface with this index.
    pub fn send(&self, index: u32, frame: &[u8]) -> io::Result<()> {
        let index = i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?;
        // SAFETY: an all-zero `sockaddr_ll` is a valid value.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = u16::try_from(libc::AF_PACKET).unwrap_or(0);
        address.sll_ifindex = index;
        let length = libc::socklen_t::try_from(size_of_val(&address)).unwrap_or(0);
        // SAFETY: buffer and address are valid for their stated lengths during the call.
        let sent = unsafe {
            libc::sendto(
                self.0.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                std::ptr::from_ref(&address).cast(),
                length,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(())
        }
    }
}
