//! Raw sockets for advertisements: protocol 112, one per interface.

use std::{
    io,
    mem::MaybeUninit,
    net::{Ipv4Addr, SocketAddrV4},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, InterfaceIndexOrAddress, Protocol, SockAddr, Socket, Type};

/// Room for the largest advertisement with IP options before it, several times over.
pub const BUFFER: usize = 2048;

/// An IPv4 raw socket bound to one interface, member of one group. Packets go out and come in with
/// their IP header.
///
/// Opening and closing it change group membership, for which the kernel takes the lock that
/// netlink requests hold: not for a thread that may not wait.
#[derive(Debug)]
pub struct AdvertisementSocket {
    socket: Socket,
    group: SockAddr,
}

impl AdvertisementSocket {
    /// Opens a socket on the interface with this index and name.
    pub fn open(index: u32, name: &str, protocol: u8, group: Ipv4Addr) -> io::Result<Self> {
        let protocol = Protocol::from(i32::from(protocol));
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(protocol))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_header_included_v4(true)?;
        socket.set_multicast_loop_v4(false)?;
        // Without this the socket would get packets of groups that others joined.
        socket.set_multicast_all_v4(false)?;
        socket.set_multicast_ttl_v4(255)?;
        // The TOS of our header goes on the wire; this sets the priority in the local queue.
        socket.set_tos_v4(0xc0)?;
        // Without this a packet that the interface's queue drops counts as sent (raw(7)).
        set_option(&socket, libc::IP_RECVERR, &1_i32)?;
        set_multicast_interface(&socket, index)?;
        socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))?;
        let group = SockAddr::from(SocketAddrV4::new(group, 0));
        Ok(Self { socket, group })
    }

    /// Sends a packet, IP header first, to the group. An error also tells of a packet that the host
    /// itself dropped: by a full queue (`ENOBUFS`) or a filter (`EPERM`).
    pub fn send(&self, packet: &[u8]) -> io::Result<()> {
        let result = self.socket.send_to(packet, &self.group).map(drop);
        if result.is_err() {
            self.forget_errors();
        }
        result
    }

    /// Takes a waiting packet, IP header first; `None`: none waits.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; BUFFER]) -> io::Result<Option<&'a [u8]>> {
        // SAFETY: initialised bytes are valid as bytes that may be uninitialised, and `recv` never
        // writes uninitialised ones.
        let space = unsafe {
            std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast::<MaybeUninit<u8>>(), BUFFER)
        };
        match self.socket.recv(space) {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => {
                self.forget_errors();
                Err(error)
            }
        }
    }

    /// Empties the queue that `IP_RECVERR` fills: while something is in it, the socket is always
    /// ready. It holds what calls have told already.
    fn forget_errors(&self) {
        let flags = libc::MSG_ERRQUEUE | libc::MSG_DONTWAIT;
        let mut byte = [MaybeUninit::uninit()];
        while self.socket.recv_with_flags(&mut byte, flags).is_ok() {}
    }
}

impl AsFd for AdvertisementSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// `IP_MULTICAST_IF` by index: the interface may have several addresses, or change them.
fn set_multicast_interface(socket: &Socket, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn {
        imr_multiaddr: any,
        imr_address: any,
        imr_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    set_option(socket, libc::IP_MULTICAST_IF, &request)
}

/// Sets an option of IP; `T` must be what the kernel takes for it.
fn set_option<T>(socket: &Socket, option: libc::c_int, value: &T) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0);
    // SAFETY: `value` is valid for the stated length and outlives the call; the kernel only reads
    // it, and checks the length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            option,
            std::ptr::from_ref(value).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}
