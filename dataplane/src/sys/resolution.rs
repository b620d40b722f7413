//! A packet socket for the resolution of addresses on one interface: ARP, or neighbour discovery.

use std::{
    io::{self, Write},
    os::fd::{AsFd, BorrowedFd},
    time::Instant,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    packet::{link_address, step},
    raw::writable,
};

/// Of the longest frame that is of interest, padding and options included.
const FRAME: usize = 256;

/// Sends and receives frames of one of the two, link header first.
#[derive(Debug)]
pub struct ResolutionSocket(Socket);

impl ResolutionSocket {
    /// For ARP, on the interface with this index.
    pub fn arp(index: u32) -> io::Result<Self> {
        Self::open(index, libc::ETH_P_ARP, |_| Ok(()))
    }

    /// For neighbour solicitations and advertisements, on the interface with this index.
    pub fn neighbour_discovery(index: u32) -> io::Result<Self> {
        Self::open(index, libc::ETH_P_IPV6, attach)
    }

    fn open(
        index: u32,
        ethertype: libc::c_int,
        prepare: fn(&Socket) -> io::Result<()>,
    ) -> io::Result<Self> {
        let ethertype = u16::try_from(ethertype).unwrap_or(0).to_be();
        // Of no protocol before it is bound, so that nothing of other interfaces is queued, nor what its
        // filter would hold back.
        let socket = Socket::new(Domain::PACKET, Type::RAW, Some(Protocol::from(0)))?;
        prepare(&socket)?;
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

impl AsFd for ResolutionSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Lets neighbour solicitations and advertisements pass, and nothing else of IPv6 (`bpf(4)`, `packet(7)`).
/// One behind extension headers does not pass: nobody sends such.
fn attach(socket: &Socket) -> io::Result<()> {
    /// Next header (RFC 8200 section 3), and type (RFC 4443 section 2.1), behind the Ethernet header.
    const NEXT_HEADER: u32 = 14 + 6;
    const TYPE: u32 = 14 + 40;
    const ICMPV6: u32 = 58;
    /// RFC 4861 sections 4.3 and 4.4.
    const SOLICITATION: u32 = 135;
    const ADVERTISEMENT: u32 = 136;
    let load = |at: u32| step(libc::BPF_LD | libc::BPF_B | libc::BPF_ABS, at, 0, 0);
    let compare = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
    let end = |take: u32| step(libc::BPF_RET | libc::BPF_K, take, 0, 0);
    let program = [
        load(NEXT_HEADER),
        step(compare, ICMPV6, 0, 3),
        load(TYPE),
        step(compare, SOLICITATION, 2, 0),
        step(compare, ADVERTISEMENT, 1, 0),
        end(0),
        end(u32::MAX),
    ];
    socket.attach_filter(&program)
}
