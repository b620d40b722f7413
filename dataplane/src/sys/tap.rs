//! What passes one interface of VRRP, whatever packet filters of this host do with it.

use std::{
    io,
    os::fd::{AsFd, BorrowedFd},
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{
    packet::{link_address, step},
    raw::writable,
};

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
        let (received, from) = match self.0.recv_from(writable(buffer)) {
            Ok(received) => received,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        };
        // SAFETY: of a packet socket the kernel gives a `sockaddr_ll`, for which there is room in what
        // this points to, aligned as for any address.
        let from = unsafe { &*from.as_ptr().cast::<libc::sockaddr_ll>() };
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

/// Lets IP packets of protocol 112 pass and nothing else (`bpf(4)`, `packet(7)`): a gateway's clients
/// send more than anybody wants to copy. Packets of sockets of this type begin with their IP header.
fn attach(socket: &Socket) -> io::Result<()> {
    /// Where the protocol stands in the header (RFC 791 section 3.1).
    const PROTOCOL: u32 = 9;
    /// The same for IPv6 (RFC 8200 section 3).
    const NEXT_HEADER: u32 = 6;
    const VRRP: u32 = 112;
    let load = |size: u32, at: u32| step(libc::BPF_LD | size | libc::BPF_ABS, at, 0, 0);
    let unless =
        |value: u32, skip: u8| step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, value, 0, skip);
    let end = |take: u32| step(libc::BPF_RET | libc::BPF_K, take, 0, 0);
    let ethertype = (libc::SKF_AD_OFF + libc::SKF_AD_PROTOCOL).cast_unsigned();
    let number = |ethertype: libc::c_int| ethertype.cast_unsigned();
    let program = [
        load(libc::BPF_W, ethertype),
        unless(number(libc::ETH_P_IP), 2),
        load(libc::BPF_B, PROTOCOL),
        step(libc::BPF_JMP | libc::BPF_JA, 2, 0, 0),
        unless(number(libc::ETH_P_IPV6), 3),
        load(libc::BPF_B, NEXT_HEADER),
        unless(VRRP, 1),
        end(u32::MAX),
        end(0),
    ];
    socket.attach_filter(&program)
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

    use super::*;

    /// The loopback interface, in any network namespace.
    const LOOPBACK: u32 = 1;
    /// For experiments (RFC 3692), and VRRP's.
    const PROTOCOLS: [u8; 2] = [253, 112];

    #[test]
    fn packets_of_vrrp_are_seen_both_ways_and_no_others() {
        let tap = match Tap::open(LOOPBACK) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                eprintln!("SKIPPED: needs CAP_NET_RAW");
                return;
            }
            tap => tap.unwrap(),
        };
        let own = [
            IpAddr::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(Ipv6Addr::LOCALHOST),
        ];
        for address in own {
            let domain = Domain::for_address(SocketAddr::new(address, 0));
            for protocol in PROTOCOLS {
                let number = Protocol::from(i32::from(protocol));
                let socket = Socket::new(domain, Type::RAW, Some(number)).unwrap();
                let to = SocketAddr::new(address, 0).into();
                // A host may have no IPv6.
                drop(socket.send_to(&[protocol; 8], &to));
            }
        }
        let mut buffer = [0; 256];
        let mut seen = Vec::new();
        while let Some((way, packet)) = tap.receive(&mut buffer).unwrap() {
            // Tests beside this one may send advertisements, too: not such.
            if packet.ends_with(&[112; 8]) {
                seen.push((way, packet[0] >> 4));
            }
            assert!(!packet.ends_with(&[253; 8]));
        }
        for version in [4, 6] {
            let ways: Vec<_> = seen.iter().filter(|one| one.1 == version).collect();
            if version == 4 || !ways.is_empty() {
                assert_eq!(ways, [&(Way::Out, version), &(Way::In, version)]);
            }
        }
    }
}
