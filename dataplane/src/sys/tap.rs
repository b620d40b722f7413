//! What passes one interface of VRRP, whatever packet filters of this host do with it.

use std::{
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{Domain, Protocol, SockAddrStorage, Socket, Type};

use super::packet::link_address;

/// Way of a packet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Way {
    /// Received: no packet filter of this host has seen it yet.
    In,
    /// Sent: past all packet filters and queues.
    Out,
}

/// Sees packets of VRRP on one interface, as they are handed to its driver or come from it.
#[derive(Debug)]
pub struct Tap(Socket);

impl Tap {
    /// On the interface with this index.
    pub fn open(index: u32) -> io::Result<Self> {
        // Of no protocol before it has its filter: nothing else is ever queued.
        let socket = Socket::new(Domain::PACKET, Type::DGRAM, Some(Protocol::from(0)))?;
        socket.set_nonblocking(true)?;
        attach(&socket)?;
        // What is sent is shown to those alone who ask for all protocols.
        let all = u16::try_from(libc::ETH_P_ALL).unwrap_or(0).to_be();
        socket.bind(&link_address(index, all)?)?;
        Ok(Self(socket))
    }

    /// The next packet that waits, from its IP header on; `None`: none waits.
    pub fn receive<'a>(&self, buffer: &'a mut [u8]) -> io::Result<Option<(Way, &'a [u8])>> {
        let mut address = SockAddrStorage::zeroed();
        let mut length = address.size_of();
        // SAFETY: buffer, address and its length are valid for the call, which writes at most as much
        // as they say.
        let received = unsafe {
            libc::recvfrom(
                self.0.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                0,
                std::ptr::from_mut(&mut address).cast(),
                &raw mut length,
            )
        };
        let Ok(received) = usize::try_from(received) else {
            let error = io::Error::last_os_error();
            return match error.kind() {
                io::ErrorKind::WouldBlock => Ok(None),
                _ => Err(error),
            };
        };
        // SAFETY: of a packet socket the kernel gives a `sockaddr_ll`, for which there is room.
        let from = unsafe { address.view_as::<libc::sockaddr_ll>() };
        let way = if from.sll_pkttype == libc::PACKET_OUTGOING {
            Way::Out
        } else {
            Way::In
        };
        Ok(buffer.get(..received).map(|packet| (way, packet)))
    }
}

impl AsFd for Tap {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets IPv4 packets of protocol 112 pass and nothing else (`bpf(4)`, `packet(7)`): a gateway's clients
/// send more than anybody wants to copy. Packets of sockets of this type begin with their IP header.
fn attach(socket: &Socket) -> io::Result<()> {
    /// Where the protocol stands in the header (RFC 791 section 3.1).
    const PROTOCOL: u32 = 9;
    const VRRP: u32 = 112;
    let load = |size: u32, at: u32| step(libc::BPF_LD | size | libc::BPF_ABS, at, 0);
    let unless =
        |value: u32, skip: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, skip);
    let end = |take: u32| step(libc::BPF_RET | libc::BPF_K, take, 0);
    let ethertype = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
    let mut program = [
        load(libc::BPF_W, ethertype),
        unless(u32::try_from(libc::ETH_P_IP).unwrap_or(0), 3),
        load(libc::BPF_B, PROTOCOL),
        unless(VRRP, 1),
        end(u32::MAX),
        end(0),
    ];
    let filter = libc::sock_fprog {
        len: u16::try_from(program.len()).unwrap_or(0),
        filter: program.as_mut_ptr(),
    };
    let length = libc::socklen_t::try_from(size_of_val(&filter)).unwrap_or(0);
    // SAFETY: the program outlives the call, which copies it, and is as long as is said.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            std::ptr::from_ref(&filter).cast(),
            length,
        )
    };
    if result == 0 {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// One instruction; a comparison that fails skips so many.
fn step(code: u32, k: u32, skip: u8) -> libc::sock_filter {
    libc::sock_filter {
        code: u16::try_from(code).unwrap_or(0),
        jt: 0,
        jf: skip,
        k,
    }
}
