//! Raw sockets for advertisements: protocol 112, one per interface and family.

use std::{
    io,
    mem::MaybeUninit,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6},
    os::fd::{AsFd, AsRawFd, BorrowedFd},
};

use socket2::{
    Domain, InterfaceIndexOrAddress, MaybeUninitSlice, MsgHdrMut, Protocol, SockAddr, Socket, Type,
};

/// Room for the largest advertisement with IP options before it, several times over.
pub const BUFFER: usize = 2048;

/// Queueing priority of what controls the network: before all else in the interface's queue.
pub(super) const TC_PRIO_CONTROL: u32 = 7;
/// Bytes of an IPv6 header.
const IPV6_HEADER: usize = 40;

/// A raw socket bound to one interface, member of one group. Packets go out and come in with their
/// IP header.
///
/// Opening and closing it change group membership, for which the kernel takes the lock that
/// netlink requests hold: not for a thread that may not wait.
#[derive(Debug)]
pub struct AdvertisementSocket {
    socket: Socket,
    is_ipv4: bool,
    index: u32,
    protocol: u8,
}

impl AdvertisementSocket {
    /// Opens a socket of the group's family on the interface with this index and name.
    pub fn open(index: u32, name: &str, protocol: u8, group: IpAddr) -> io::Result<Self> {
        let number = Protocol::from(i32::from(protocol));
        let domain = if group.is_ipv4() {
            Domain::IPV4
        } else {
            Domain::IPV6
        };
        let socket = Socket::new(domain, Type::RAW, Some(number))?;
        socket.set_nonblocking(true)?;
        socket.bind_device(Some(name.as_bytes()))?;
        socket.set_priority(TC_PRIO_CONTROL)?;
        match group {
            IpAddr::V4(group) => prepare_v4(&socket, index, group)?,
            IpAddr::V6(group) => prepare_v6(&socket, index, group)?,
        }
        Ok(Self {
            socket,
            is_ipv4: group.is_ipv4(),
            index,
            protocol,
        })
    }

    /// Sends a packet, IP header first, to the group or to a host of the link. An error also tells of a
    /// packet that the host itself dropped: by a full queue (`ENOBUFS`) or a filter (`EPERM`).
    pub fn send(&self, packet: &[u8], to: IpAddr) -> io::Result<()> {
        let address = match to {
            IpAddr::V4(_) => SockAddr::from(SocketAddr::new(to, 0)),
            IpAddr::V6(to) => SockAddr::from(SocketAddrV6::new(to, 0, 0, self.index)),
        };
        let send = || {
            let result = self.socket.send_to(packet, &address).map(drop);
            if result.is_err() {
                self.forget_errors();
            }
            result
        };
        // A unicast peer that is gone, or does not speak VRRP, is told of by ICMP, and the kernel tells it
        // to whoever sends next, whereto that may be.
        send().or_else(|first| {
            if to.is_multicast() {
                Err(first)
            } else {
                send()
            }
        })
    }

    /// Takes a waiting packet, IP header first; `None`: none waits.
    pub fn receive<'a>(&self, buffer: &'a mut [u8; BUFFER]) -> io::Result<Option<&'a [u8]>> {
        let received = if self.is_ipv4 {
            self.receive_v4(buffer)
        } else {
            self.receive_v6(buffer)
        };
        match received {
            Ok(length) => Ok(buffer.get(..length)),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(None),
            Err(error) => {
                self.forget_errors();
                Err(error)
            }
        }
    }

    fn receive_v4(&self, buffer: &mut [u8; BUFFER]) -> io::Result<usize> {
        self.socket.recv(writable(buffer))
    }

    /// The kernel keeps the header of an IPv6 packet to itself and tells its fields; it is put
    /// together again, so that both families are read alike (RFC 3542 sections 3 and 6).
    fn receive_v6(&self, buffer: &mut [u8; BUFFER]) -> io::Result<usize> {
        let (header, payload) = buffer.split_at_mut(IPV6_HEADER);
        let mut from = SockAddr::from(SocketAddrV6::new(Ipv6Addr::UNSPECIFIED, 0, 0, 0));
        let mut control = Control::new();
        let (length, control_length) = {
            let mut slices = [MaybeUninitSlice::new(writable(payload))];
            let mut message = MsgHdrMut::new()
                .with_addr(&mut from)
                .with_buffers(&mut slices)
                .with_control(writable(&mut control.0));
            let length = self.socket.recvmsg(&mut message, 0)?;
            (length, message.control_len())
        };
        let from = from.as_socket_ipv6();
        let from = from.map_or(Ipv6Addr::UNSPECIFIED, |from| *from.ip());
        let told = control.0.get(..control_length).unwrap_or(&[]);
        let (to, hop_limit) = delivery(told);
        let payload_length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        header.fill(0);
        for (at, field) in [
            (0, &[0x60][..]),
            (4, &payload_length),
            (6, &[self.protocol, hop_limit]),
            (8, &from.octets()),
            (24, &to.octets()),
        ] {
            if let Some(place) = header.get_mut(at..at + field.len()) {
                place.copy_from_slice(field);
            }
        }
        Ok(IPV6_HEADER + length)
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

fn prepare_v4(socket: &Socket, index: u32, group: Ipv4Addr) -> io::Result<()> {
    socket.set_header_included_v4(true)?;
    socket.set_multicast_loop_v4(false)?;
    // Without this the socket would get packets of groups that others joined.
    socket.set_multicast_all_v4(false)?;
    socket.set_multicast_ttl_v4(255)?;
    // Without this a packet that the interface's queue drops counts as sent (raw(7)).
    set_option(socket, libc::IPPROTO_IP, libc::IP_RECVERR, &1_i32)?;
    set_multicast_interface_v4(socket, index)?;
    socket.join_multicast_v4_n(&group, &InterfaceIndexOrAddress::Index(index))
}

/// As [`prepare_v4`], and the kernel tells what it keeps of a header.
fn prepare_v6(socket: &Socket, index: u32, group: Ipv6Addr) -> io::Result<()> {
    socket.set_header_included_v6(true)?;
    socket.set_multicast_loop_v6(false)?;
    socket.set_multicast_all_v6(false)?;
    socket.set_recv_hoplimit_v6(true)?;
    for option in [libc::IPV6_RECVERR, libc::IPV6_RECVPKTINFO] {
        set_option(socket, libc::IPPROTO_IPV6, option, &1_i32)?;
    }
    socket.set_multicast_if_v6(index)?;
    socket.join_multicast_v6(&group, index)
}

/// Room for the control messages of one packet, aligned as the kernel writes them.
#[repr(align(8))]
struct Control([u8; 128]);

impl Control {
    const fn new() -> Self {
        Self([0; 128])
    }
}

/// Destination and hop limit of a packet, as its control messages tell; zero what they do not.
fn delivery(mut control: &[u8]) -> (Ipv6Addr, u8) {
    let (mut to, mut hop_limit) = (Ipv6Addr::UNSPECIFIED, 0);
    while let Some((length, level, kind)) = header(control) {
        let Some(value) = control.get(CONTROL_HEADER..length) else {
            break;
        };
        match (level, kind) {
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                if let Some(octets) = value.first_chunk::<16>() {
                    to = Ipv6Addr::from(*octets);
                }
            }
            (libc::IPPROTO_IPV6, libc::IPV6_HOPLIMIT) => {
                let limit = value.first_chunk().map(|bytes| i32::from_ne_bytes(*bytes));
                hop_limit = limit
                    .and_then(|limit| u8::try_from(limit).ok())
                    .unwrap_or(0);
            }
            _ => {}
        }
        let next = length.next_multiple_of(size_of::<usize>());
        control = control.get(next..).unwrap_or(&[]);
    }
    (to, hop_limit)
}

/// Bytes of a `cmsghdr`: its length, then level and type.
const CONTROL_HEADER: usize = size_of::<libc::cmsghdr>();

/// Length, level and type of the control message at the start.
fn header(control: &[u8]) -> Option<(usize, i32, i32)> {
    let (length, rest) = control.split_first_chunk::<{ size_of::<usize>() }>()?;
    let length = usize::from_ne_bytes(*length);
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let kind = rest.first_chunk::<4>()?;
    (length >= CONTROL_HEADER).then_some((
        length,
        i32::from_ne_bytes(*level),
        i32::from_ne_bytes(*kind),
    ))
}

/// `buffer` as calls take it that write before they read.
pub(super) fn writable(buffer: &mut [u8]) -> &mut [MaybeUninit<u8>] {
    let length = buffer.len();
    // SAFETY: initialised bytes are valid as bytes that may be uninitialised, and receiving calls
    // never write uninitialised ones.
    unsafe { std::slice::from_raw_parts_mut(buffer.as_mut_ptr().cast(), length) }
}

/// `IP_MULTICAST_IF` by index: the interface may have several addresses, or change them.
fn set_multicast_interface_v4(socket: &Socket, index: u32) -> io::Result<()> {
    let any = libc::in_addr { s_addr: 0 };
    let request = libc::ip_mreqn {
        imr_multiaddr: any,
        imr_address: any,
        imr_ifindex: i32::try_from(index).map_err(|_| io::ErrorKind::InvalidInput)?,
    };
    set_option(socket, libc::IPPROTO_IP, libc::IP_MULTICAST_IF, &request)
}

/// Sets an option; `T` must be what the kernel takes for it.
fn set_option<T>(
    socket: &Socket,
    level: libc::c_int,
    option: libc::c_int,
    value: &T,
) -> io::Result<()> {
    let length = libc::socklen_t::try_from(size_of_val(value)).unwrap_or(0);
    // SAFETY: `value` is valid for the stated length and outlives the call; the kernel only reads
    // it, and checks the length.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            level,
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

#[cfg(test)]
mod tests {
    use super::*;

    fn message(level: i32, kind: i32, value: &[u8]) -> Vec<u8> {
        let mut bytes = (CONTROL_HEADER + value.len()).to_ne_bytes().to_vec();
        bytes.extend(level.to_ne_bytes());
        bytes.extend(kind.to_ne_bytes());
        bytes.extend(value);
        bytes.resize(bytes.len().next_multiple_of(8), 0);
        bytes
    }

    #[test]
    fn control_messages_tell_destination_and_hop_limit() {
        let group = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);
        let mut info = group.octets().to_vec();
        info.extend(7_u32.to_ne_bytes());
        let whole = [
            message(libc::SOL_SOCKET, 1, &[1, 2, 3]),
            message(libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info),
            message(
                libc::IPPROTO_IPV6,
                libc::IPV6_HOPLIMIT,
                &255_i32.to_ne_bytes(),
            ),
        ]
        .concat();
        assert_eq!(delivery(&whole), (group, 255));
        for end in 0..whole.len() {
            delivery(&whole[..end]);
        }
        assert_eq!(delivery(&[0; 64]), (Ipv6Addr::UNSPECIFIED, 0));
        assert_eq!(delivery(&[0xff; 64]), (Ipv6Addr::UNSPECIFIED, 0));
    }
}
