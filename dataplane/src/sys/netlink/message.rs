//! Formats of rtnetlink, as far as links and addresses need them (rtnetlink(7)).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::virtual_link::{self, ArpSettings, VirtualLink};

/// Value of `IFA_PROTO` that marks addresses as ours. Below 4 are the kernel's own.
pub const OWN_PROTOCOL: u8 = 87;

pub(super) const HEADER: usize = 16;
/// Bytes of an `ifinfomsg`.
pub(super) const LINK_HEADER: usize = 16;
pub(super) const NLMSG_ERROR: u16 = 2;
pub(super) const NLMSG_DONE: u16 = 3;
pub(super) const NLMSG_OVERRUN: u16 = 4;
pub(super) const RTM_NEWLINK: u16 = 16;
pub(super) const RTM_DELLINK: u16 = 17;
pub(super) const RTM_GETLINK: u16 = 18;
pub(super) const RTM_NEWADDR: u16 = 20;
pub(super) const RTM_DELADDR: u16 = 21;
pub(super) const RTM_GETADDR: u16 = 22;
pub(super) const RTM_NEWNEIGH: u16 = 28;
pub(super) const RTM_DELNEIGH: u16 = 29;
pub(super) const RTM_GETNEIGH: u16 = 30;
pub(super) const RTM_NEWROUTE: u16 = 24;
pub(super) const RTM_GETROUTE: u16 = 26;

pub(super) const REQUEST: u16 = 0x1;
pub(super) const ACK: u16 = 0x4;
pub(super) const REPLACE: u16 = 0x100;
pub(super) const CREATE: u16 = 0x400;
pub(super) const DUMP: u16 = 0x300;
pub(super) const DUMP_INTERRUPTED: u16 = 0x10;

const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_CACHEINFO: u16 = 6;
const IFA_FLAGS: u16 = 8;
const IFA_PROTO: u16 = 11;
/// `IFAPROT_KERNEL_RA`.
const KERNEL_RA: u8 = 2;
const IFA_F_NODAD: u32 = 0x02;
const IFA_F_OPTIMISTIC: u32 = 0x04;
const IFA_F_DADFAILED: u32 = 0x08;
const IFA_F_TENTATIVE: u32 = 0x40;
const IFA_F_NOPREFIXROUTE: u32 = 0x200;
pub(super) const IFLA_ADDRESS: u16 = 1;
pub(super) const IFLA_IFNAME: u16 = 3;
pub(super) const IFF_UP: u32 = 0x1;
const IFF_LOOPBACK: u32 = 0x8;
const IFF_RUNNING: u32 = 0x40;
pub(super) const AF_UNSPEC: u8 = 0;
pub(super) const AF_INET: u8 = 2;
pub(super) const AF_INET6: u8 = 10;

/// An interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Link {
    /// Its number; a re-created interface has another one.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// Whether it is switched on and has a carrier.
    pub is_up: bool,
    /// Whether it is a loopback interface.
    pub is_loopback: bool,
    /// Ethernet address, where it has one.
    pub mac: Option<[u8; 6]>,
    /// What it says of addresses of IPv4.
    pub arp: ArpSettings,
    /// Whether it is a virtual router's own link.
    pub virtual_router: Option<VirtualLink>,
}

/// An address of an interface.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Address {
    /// The interface.
    pub index: u32,
    /// The address.
    pub address: IpAddr,
    /// Length of the on-link prefix.
    pub prefix: u8,
    /// Whether it carries [`OWN_PROTOCOL`].
    pub is_own: bool,
    /// IPv6: whether the kernel took it from a router advertisement (RFC 4862 section 5.5.3).
    pub is_learned: bool,
    /// IPv6: nothing may be sent from it yet, since somebody else may have it (RFC 4862 section 2).
    pub is_tentative: bool,
}

/// Something that changed, or one entry of a dump.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Change {
    /// An interface is there, or changed.
    Link(Link),
    /// An interface is gone.
    LinkGone(u32),
    /// An address is there, or changed.
    Address(Address),
    /// An address is gone.
    AddressGone(Address),
}

/// A request under construction.
pub(super) struct Request(Vec<u8>);

impl Request {
    pub(super) fn new(kind: u16, flags: u16) -> Self {
        let mut bytes = vec![0; HEADER];
        put(&mut bytes, 4, &kind.to_ne_bytes());
        put(&mut bytes, 6, &(flags | REQUEST).to_ne_bytes());
        Self(bytes)
    }

    /// Dump of all entries of a kind.
    pub(super) fn dump(kind: u16) -> Self {
        let mut request = Self::new(kind, DUMP);
        // `ifinfomsg`, `ifaddrmsg` and `rtmsg` begin with the family; the longest does for all.
        request.0.extend_from_slice(&[AF_UNSPEC; 16]);
        request
    }

    /// An address with a lifetime in whole seconds.
    pub(super) fn add_address(index: u32, address: IpAddr, lifetime: u32) -> Self {
        let mut request = Self::new(RTM_NEWADDR, ACK | CREATE | REPLACE);
        request.address(index, address, host_prefix(address));
        // Never a source of outgoing connections on IPv6; on IPv4 the notion does not exist.
        let preferred = if address.is_ipv6() { 0 } else { lifetime };
        let mut info = [0; 16];
        put(&mut info, 0, &preferred.to_ne_bytes());
        put(&mut info, 4, &lifetime.to_ne_bytes());
        request.attribute(IFA_CACHEINFO, &info);
        request.attribute(IFA_PROTO, &[OWN_PROTOCOL]);
        if address.is_ipv6() {
            // Usable at once, and a host route besides the local one is of no use.
            let flags = IFA_F_NODAD | IFA_F_NOPREFIXROUTE;
            request.attribute(IFA_FLAGS, &flags.to_ne_bytes());
        }
        request
    }

    pub(super) fn remove_address(index: u32, address: IpAddr) -> Self {
        Self::remove_with_prefix(index, address, host_prefix(address))
    }

    pub(super) fn remove_with_prefix(index: u32, address: IpAddr, prefix: u8) -> Self {
        let mut request = Self::new(RTM_DELADDR, ACK);
        request.address(index, address, prefix);
        request
    }

    /// `ifaddrmsg` and the address itself.
    fn address(&mut self, index: u32, address: IpAddr, prefix: u8) {
        self.0.extend_from_slice(&[family(address), prefix, 0, 0]);
        self.0.extend_from_slice(&index.to_ne_bytes());
        match address {
            IpAddr::V4(address) => {
                self.attribute(IFA_LOCAL, &address.octets());
                self.attribute(IFA_ADDRESS, &address.octets());
            }
            IpAddr::V6(address) => self.attribute(IFA_LOCAL, &address.octets()),
        }
    }

    /// The fixed part of a message.
    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    /// An attribute that holds others.
    pub(super) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let start = self.0.len();
        self.0.extend_from_slice(&[0; 2]);
        self.0.extend_from_slice(&kind.to_ne_bytes());
        fill(self);
        let length = u16::try_from(self.0.len() - start).unwrap_or(u16::MAX);
        put(&mut self.0, start, &length.to_ne_bytes());
    }

    pub(super) fn attribute(&mut self, kind: u16, value: &[u8]) {
        let length = u16::try_from(4 + value.len()).unwrap_or(u16::MAX);
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(4), 0);
    }

    /// The bytes to send, numbered.
    pub(super) fn finish(mut self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.0.len()).unwrap_or(u32::MAX);
        put(&mut self.0, 0, &length.to_ne_bytes());
        put(&mut self.0, 8, &sequence.to_ne_bytes());
        self.0
    }
}

/// One message of a datagram.
#[derive(Clone, Copy, Debug)]
pub(super) struct Message<'a> {
    pub(super) kind: u16,
    pub(super) flags: u16,
    pub(super) sequence: u32,
    pub(super) body: &'a [u8],
}

/// The messages of a datagram; ends at the first one that is malformed.
pub(super) fn messages(mut bytes: &[u8]) -> impl Iterator<Item = Message<'_>> {
    std::iter::from_fn(move || {
        let length = usize::try_from(number(bytes, 0)?).ok()?;
        let body = bytes.get(HEADER..length)?;
        let message = Message {
            kind: short(bytes, 4)?,
            flags: short(bytes, 6)?,
            sequence: number(bytes, 8)?,
            body,
        };
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some(message)
    })
}

impl Message<'_> {
    /// What it says of links and addresses; `None`: nothing that we understand.
    pub(super) fn change(&self) -> Option<Change> {
        match self.kind {
            RTM_NEWLINK => is_of_link(self.body)
                .then(|| link(self.body).map(Change::Link))
                .flatten(),
            RTM_DELLINK => is_of_link(self.body)
                .then(|| number(self.body, 4).map(Change::LinkGone))
                .flatten(),
            RTM_NEWADDR => address(self.body).map(Change::Address),
            RTM_DELADDR => address(self.body).map(Change::AddressGone),
            _ => None,
        }
    }

    /// Whether it says that an address of ours is there, or no longer.
    pub(super) fn is_of_own_address(&self) -> bool {
        let change = self.change();
        matches!(change, Some(Change::Address(it) | Change::AddressGone(it)) if it.is_own)
    }

    /// The error number of an `NLMSG_ERROR`; zero is an acknowledgement.
    pub(super) fn error(&self) -> Option<i32> {
        number(self.body, 0).map(|value| value.cast_signed().wrapping_neg())
    }
}

/// Whether it is about an interface itself. A bridge tells of its ports in the same messages, with
/// its own family: a `RTM_DELLINK` then means that the interface left the bridge.
fn is_of_link(body: &[u8]) -> bool {
    body.first() == Some(&AF_UNSPEC)
}

fn link(body: &[u8]) -> Option<Link> {
    let index = number(body, 4)?;
    let flags = number(body, 8)?;
    let mut link = Link {
        index,
        name: String::new(),
        is_up: flags & IFF_UP != 0 && flags & IFF_RUNNING != 0,
        is_loopback: flags & IFF_LOOPBACK != 0,
        mac: None,
        arp: ArpSettings::default(),
        virtual_router: None,
    };
    let attached = body.get(LINK_HEADER..)?;
    link.arp = virtual_link::arp_settings(attached);
    link.virtual_router = virtual_link::read(attached, flags & IFF_UP != 0);
    for (kind, value) in attributes(attached) {
        match kind {
            IFLA_IFNAME => {
                let name = value.split(|byte| *byte == 0).next().unwrap_or_default();
                link.name = String::from_utf8_lossy(name).into_owned();
            }
            IFLA_ADDRESS => link.mac = value.try_into().ok(),
            _ => {}
        }
    }
    (!link.name.is_empty()).then_some(link)
}

fn address(body: &[u8]) -> Option<Address> {
    let (family, prefix) = (*body.first()?, *body.get(1)?);
    let index = number(body, 4)?;
    let (mut local, mut peer, mut protocol) = (None, None, 0);
    let mut flags = u32::from(*body.get(2)?);
    for (kind, value) in attributes(body.get(8..)?) {
        match kind {
            IFA_LOCAL => local = ip(family, value),
            IFA_ADDRESS => peer = ip(family, value),
            IFA_PROTO => protocol = value.first().copied().unwrap_or(0),
            IFA_FLAGS => flags = number(value, 0).unwrap_or(flags),
            _ => {}
        }
    }
    Some(Address {
        index,
        address: local.or(peer)?,
        prefix,
        is_own: protocol == OWN_PROTOCOL,
        is_learned: protocol == KERNEL_RA,
        is_tentative: flags & IFA_F_OPTIMISTIC == 0
            && flags & (IFA_F_TENTATIVE | IFA_F_DADFAILED) != 0,
    })
}

/// Ours are host routes: /32 or /128.
const fn host_prefix(address: IpAddr) -> u8 {
    if address.is_ipv4() { 32 } else { 128 }
}

pub(super) const fn family(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => AF_INET,
        IpAddr::V6(_) => AF_INET6,
    }
}

pub(super) fn ip(family: u8, value: &[u8]) -> Option<IpAddr> {
    match family {
        AF_INET => Some(Ipv4Addr::from(<[u8; 4]>::try_from(value).ok()?).into()),
        AF_INET6 => Some(Ipv6Addr::from(<[u8; 16]>::try_from(value).ok()?).into()),
        _ => None,
    }
}

pub(super) fn attributes(mut bytes: &[u8]) -> impl Iterator<Item = (u16, &[u8])> {
    std::iter::from_fn(move || {
        let length = usize::from(short(bytes, 0)?);
        // The two upper bits are flags.
        let kind = short(bytes, 2)? & 0x3fff;
        let value = bytes.get(4..length)?;
        bytes = bytes.get(length.next_multiple_of(4)..).unwrap_or(&[]);
        Some((kind, value))
    })
}

pub(super) fn number(bytes: &[u8], at: usize) -> Option<u32> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u32::from_ne_bytes(*bytes))
}

pub(super) fn short(bytes: &[u8], at: usize) -> Option<u16> {
    bytes
        .get(at..)?
        .first_chunk()
        .map(|bytes| u16::from_ne_bytes(*bytes))
}

fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_read_as_it_was_written() {
        let address = IpAddr::from([192, 168, 1, 110]);
        let bytes = Request::add_address(7, address, 2).finish(1);
        let message = messages(&bytes).next().unwrap();
        assert_eq!(message.sequence, 1);
        assert_eq!(
            message.change(),
            Some(Change::Address(Address {
                index: 7,
                address,
                prefix: 32,
                is_own: true,
                is_learned: false,
                is_tentative: false,
            }))
        );
        assert!(message.is_of_own_address());
    }

    /// RFC 4862 section 5.4: while duplicate address detection runs, and for good where it failed.
    #[test]
    fn an_ipv6_address_is_tentative_until_nobody_else_has_it() {
        let read = |flags: u32| {
            let address: IpAddr = "fe80::1".parse().unwrap();
            let mut request = Request::new(RTM_NEWADDR, 0);
            request.address(7, address, host_prefix(address));
            request.attribute(IFA_FLAGS, &flags.to_ne_bytes());
            let bytes = request.finish(1);
            match messages(&bytes).next().unwrap().change() {
                Some(Change::Address(address)) => address.is_tentative,
                other => panic!("{other:?}"),
            }
        };
        assert!(read(IFA_F_TENTATIVE));
        assert!(read(IFA_F_DADFAILED));
        assert!(!read(IFA_F_TENTATIVE | IFA_F_OPTIMISTIC));
        assert!(!read(IFA_F_NODAD));
    }

    /// Family, and the index in the place of `ifinfomsg`.
    fn link_gone(family: u8) -> Option<Change> {
        let mut request = Request::new(RTM_DELLINK, 0);
        request.0.extend_from_slice(&[family, 0, 0, 0]);
        request.0.extend_from_slice(&7_u32.to_ne_bytes());
        request.0.extend_from_slice(&[0; 8]);
        let bytes = request.finish(1);
        messages(&bytes).next().unwrap().change()
    }

    #[test]
    fn an_interface_that_leaves_a_bridge_is_not_gone() {
        const AF_BRIDGE: u8 = 7;
        assert_eq!(link_gone(AF_BRIDGE), None);
        assert_eq!(link_gone(AF_UNSPEC), Some(Change::LinkGone(7)));
    }

    #[test]
    fn whatever_the_bytes_nothing_panics() {
        let bytes = Request::add_address(7, IpAddr::from([1, 2, 3, 4]), 2).finish(1);
        for end in 0..bytes.len() {
            for byte in [0, 1, 3, 0x10, 0xff] {
                let mut bytes = bytes[..end].to_vec();
                for at in 0..end {
                    let before = std::mem::replace(&mut bytes[at], byte);
                    for message in messages(&bytes) {
                        let _seen = (message.change(), message.error());
                    }
                    bytes[at] = before;
                }
            }
        }
    }
}
