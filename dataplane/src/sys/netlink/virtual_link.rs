//! The link that carries a virtual router's own hardware address (RFC 9568 section 7.3): a macvlan on
//! the interface beneath, made, set and removed over rtnetlink.
//!
//! *Mode `bridge`*: with `private`, the kernel would hand a multicast frame from this very hardware
//! address, as another node sends them, to the macvlan alone; so it comes in on the interface beneath,
//! as ever.
//!
//! *Settings* go over rtnetlink as well, since `/proc/sys` is read-only in a container that is not
//! privileged. On IPv4 Linux answers on every interface for every address of the host, and asks for
//! neighbours in the name of whatever address it is about to send from: the interface beneath would
//! answer for the virtual address, and ask in its name, with its own hardware address, and neighbours
//! would follow it. `arp_ignore` 1 and `arp_announce` 2 there end both (ip-sysctl.rst). What they were
//! before stands in the alias of the macvlan, so that whoever removes it can put them back. IPv6 answers
//! for an interface's own addresses only, and needs none of this.

use std::{fs, io};

use super::{
    Change, Link, Requests,
    message::{
        ACK, AF_INET, AF_INET6, AF_UNSPEC, CREATE, IFF_UP, IFLA_ADDRESS, IFLA_IFNAME, RTM_DELLINK,
        RTM_GETLINK, RTM_NEWLINK, Request, attributes, number,
    },
};

const EXCLUSIVE: u16 = 0x200;
const IFLA_MTU: u16 = 4;
const IFLA_LINK: u16 = 5;
const IFLA_LINKINFO: u16 = 18;
const IFLA_IFALIAS: u16 = 20;
const IFLA_AF_SPEC: u16 = 26;
const IFLA_INFO_KIND: u16 = 1;
const IFLA_INFO_DATA: u16 = 2;
const IFLA_MACVLAN_MODE: u16 = 1;
const MACVLAN_MODE_BRIDGE: u32 = 4;
const IFLA_INET_CONF: u16 = 1;
const IFLA_INET6_ADDR_GEN_MODE: u16 = 8;
/// No link-local address by itself: nothing is to be sent from one.
const IN6_ADDR_GEN_MODE_NONE: u8 = 1;

/// Numbers of settings (`linux/ip.h`).
const RP_FILTER: u16 = 8;
const ARP_ANNOUNCE: u16 = 18;
const ARP_IGNORE: u16 = 19;

/// Less than IPv6 needs (RFC 8200 section 5): the kernel then keeps IPv6 off an interface. Nothing but
/// answers to ARP leaves by a macvlan of IPv4; the route of all else is the interface beneath.
const NO_IPV6: u32 = 1279;

/// How the alias of a link of ours begins.
const MARK: &str = "wsha virtual router";
/// What stands in it.
const IGNORE: &str = "arp_ignore";
const ANNOUNCE: &str = "arp_announce";

/// What an interface says of addresses of IPv4.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ArpSettings {
    /// 0: answers for every address of the host; 1: for its own.
    pub ignore: u32,
    /// 0: asks in the name of any address; 2: of its own.
    pub announce: u32,
}

impl ArpSettings {
    /// What the interface beneath a virtual router's link must have at least.
    pub const NEEDED: Self = Self {
        ignore: 1,
        announce: 2,
    };

    /// The stricter of both.
    #[must_use]
    pub fn at_least(self, other: Self) -> Self {
        Self {
            ignore: self.ignore.max(other.ignore),
            announce: self.announce.max(other.announce),
        }
    }
}

/// What a link of ours tells of itself.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct VirtualLink {
    /// The interface beneath.
    pub beneath: u32,
    /// Whether it is switched on.
    pub is_on: bool,
    /// What the interface beneath was set to before: to be put back with the last such link. `None` for
    /// IPv6.
    pub before: Option<ArpSettings>,
}

/// A link that is to be.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct NewVirtualLink {
    /// The interface beneath.
    pub beneath: u32,
    /// The virtual router's hardware address.
    pub mac: [u8; 6],
    /// Whether its addresses are of IPv6.
    pub is_ipv6: bool,
}

impl NewVirtualLink {
    /// Family, VRID and interface, in 15 bytes at most: `wsha4-51-2`.
    pub fn name(&self) -> String {
        let family = if self.is_ipv6 { 6 } else { 4 };
        let [.., vrid] = self.mac;
        format!("wsha{family}-{vrid}-{:x}", self.beneath & 0xf_ffff)
    }
}

impl Requests {
    /// Makes a link, switched off, or finds the one that is there already, in whatever state; returns
    /// its number.
    pub fn make_virtual_link(
        &mut self,
        wanted: &NewVirtualLink,
        before: Option<ArpSettings>,
    ) -> io::Result<u32> {
        let name = wanted.name();
        match self.acknowledged(create(wanted, &name)) {
            Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
                let there = self.link(&name)?;
                let is_it = |it: &VirtualLink| it.beneath == wanted.beneath;
                if there.mac == Some(wanted.mac) && there.virtual_router.as_ref().is_some_and(is_it)
                {
                    return Ok(there.index);
                }
                if there.virtual_router.is_none() && there.mac != Some(wanted.mac) {
                    let text = format!("there is an interface {name} of somebody else: remove it");
                    return Err(io::Error::other(text));
                }
                self.remove_link(there.index)?;
                self.acknowledged(create(wanted, &name))?;
            }
            result => result?,
        }
        let index = self.link(&name)?.index;
        self.acknowledged(settings(index, wanted, before))?;
        if wanted.is_ipv6 {
            // Inherited from the host's defaults, not settable over rtnetlink, and read-only in some
            // containers.
            for setting in ["accept_ra", "autoconf", "disable_ipv6"] {
                drop(fs::write(
                    format!("/proc/sys/net/ipv6/conf/{name}/{setting}"),
                    "0",
                ));
            }
        }
        Ok(index)
    }

    /// Switches a link on or off. Nothing is sent by one that is off, nor received.
    pub fn switch_link(&mut self, index: u32, on: bool) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, ACK);
        link_header(&mut request, index, if on { IFF_UP } else { 0 }, IFF_UP);
        self.acknowledged(request)
    }

    /// Removes a link. That it is not there is success.
    pub fn remove_link(&mut self, index: u32) -> io::Result<()> {
        let mut request = Request::new(RTM_DELLINK, ACK);
        link_header(&mut request, index, 0, 0);
        match self.acknowledged(request) {
            Err(error) if error.raw_os_error() == Some(libc::ENODEV) => Ok(()),
            result => result,
        }
    }

    /// What the interface with this number says of addresses of IPv4.
    pub fn arp_settings(&mut self, index: u32) -> io::Result<ArpSettings> {
        let mut request = Request::new(RTM_GETLINK, ACK);
        link_header(&mut request, index, 0, 0);
        Ok(self.one_link(request)?.arp)
    }

    /// Sets that.
    pub fn set_arp_settings(&mut self, index: u32, to: ArpSettings) -> io::Result<()> {
        let mut request = Request::new(RTM_NEWLINK, ACK);
        link_header(&mut request, index, 0, 0);
        request.nested(IFLA_AF_SPEC, |request| {
            inet(
                request,
                &[(ARP_IGNORE, to.ignore), (ARP_ANNOUNCE, to.announce)],
            );
        });
        self.acknowledged(request)
    }

    fn link(&mut self, name: &str) -> io::Result<Link> {
        let mut request = Request::new(RTM_GETLINK, ACK);
        link_header(&mut request, 0, 0, 0);
        request.attribute(IFLA_IFNAME, &with_end(name));
        self.one_link(request)
    }

    fn one_link(&mut self, request: Request) -> io::Result<Link> {
        let mut found = None;
        self.exchange(request, |message| {
            if let Some(Change::Link(link)) = message.change() {
                found = Some(link);
            }
        })?;
        found.ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}

/// A request for a macvlan that is not there yet.
fn create(wanted: &NewVirtualLink, name: &str) -> Request {
    let mut request = Request::new(RTM_NEWLINK, ACK | CREATE | EXCLUSIVE);
    link_header(&mut request, 0, 0, 0);
    request.attribute(IFLA_IFNAME, &with_end(name));
    request.attribute(IFLA_LINK, &wanted.beneath.to_ne_bytes());
    request.attribute(IFLA_ADDRESS, &wanted.mac);
    if !wanted.is_ipv6 {
        request.attribute(IFLA_MTU, &NO_IPV6.to_ne_bytes());
    }
    request.nested(IFLA_LINKINFO, |request| {
        request.attribute(IFLA_INFO_KIND, b"macvlan\0");
        request.nested(IFLA_INFO_DATA, |request| {
            request.attribute(IFLA_MACVLAN_MODE, &MACVLAN_MODE_BRIDGE.to_ne_bytes());
        });
    });
    request
}

/// The mark, and how the link treats its families.
fn settings(index: u32, wanted: &NewVirtualLink, before: Option<ArpSettings>) -> Request {
    let mut request = Request::new(RTM_NEWLINK, ACK);
    link_header(&mut request, index, 0, 0);
    request.attribute(IFLA_IFALIAS, alias(before).as_bytes());
    request.nested(IFLA_AF_SPEC, |request| {
        // It answers for its own addresses alone, and takes packets whose answers leave by the
        // interface beneath: the loose filter overrules a strict one of the whole host.
        inet(request, &[(ARP_IGNORE, 1), (RP_FILTER, 2)]);
        if wanted.is_ipv6 {
            request.nested(AF_INET6.into(), |request| {
                request.attribute(IFLA_INET6_ADDR_GEN_MODE, &[IN6_ADDR_GEN_MODE_NONE]);
            });
        }
    });
    request
}

/// The mark, and what is to be put back.
fn alias(before: Option<ArpSettings>) -> String {
    before.map_or_else(
        || MARK.to_owned(),
        |ArpSettings { ignore, announce }| {
            format!("{MARK}; before: {IGNORE} {ignore}, {ANNOUNCE} {announce}")
        },
    )
}

fn inet(request: &mut Request, settings: &[(u16, u32)]) {
    request.nested(AF_INET.into(), |request| {
        request.nested(IFLA_INET_CONF, |request| {
            for (setting, value) in settings {
                request.attribute(*setting, &value.to_ne_bytes());
            }
        });
    });
}

/// An `ifinfomsg`; `mask` says which of `flags` are to change.
fn link_header(request: &mut Request, index: u32, flags: u32, mask: u32) {
    request.bytes(&[AF_UNSPEC, 0, 0, 0]);
    for field in [index, flags, mask] {
        request.bytes(&field.to_ne_bytes());
    }
}

fn with_end(name: &str) -> Vec<u8> {
    let mut bytes = name.as_bytes().to_vec();
    bytes.push(0);
    bytes
}

/// Whether the attributes of a link are those of one of ours.
pub(super) fn read(attached: &[u8], is_on: bool) -> Option<VirtualLink> {
    let (mut alias, mut beneath, mut is_macvlan) = (None, None, false);
    for (kind, value) in attributes(attached) {
        match kind {
            IFLA_IFALIAS => alias = std::str::from_utf8(value).ok(),
            IFLA_LINK => beneath = number(value, 0),
            IFLA_LINKINFO => {
                let mut info = attributes(value);
                is_macvlan =
                    info.any(|(kind, value)| kind == IFLA_INFO_KIND && value == b"macvlan\0");
            }
            _ => {}
        }
    }
    let alias = alias.filter(|_| is_macvlan)?.strip_prefix(MARK)?;
    Some(VirtualLink {
        beneath: beneath?,
        is_on,
        before: setting(alias, IGNORE)
            .zip(setting(alias, ANNOUNCE))
            .map(|(ignore, announce)| ArpSettings { ignore, announce }),
    })
}

/// The number behind a word.
fn setting(alias: &str, name: &str) -> Option<u32> {
    let mut words = alias
        .split(|byte: char| !(byte.is_alphanumeric() || byte == '_'))
        .skip_while(|word| *word != name);
    words.nth(1)?.parse().ok()
}

/// The settings among the attributes of a link: an array that begins with number 1.
pub(super) fn arp_settings(attached: &[u8]) -> ArpSettings {
    let mut attached = attributes(attached);
    let array = attached
        .find(|(kind, _)| *kind == IFLA_AF_SPEC)
        .and_then(|(_, families)| {
            attributes(families).find(|(kind, _)| *kind == u16::from(AF_INET))
        })
        .and_then(|(_, inet)| attributes(inet).find(|(kind, _)| *kind == IFLA_INET_CONF));
    let value = |setting: u16| {
        let (_, array) = array?;
        number(array, usize::from(setting - 1) * 4)
    };
    ArpSettings {
        ignore: value(ARP_IGNORE).unwrap_or_default(),
        announce: value(ARP_ANNOUNCE).unwrap_or_default(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::message, *};

    const WANTED: NewVirtualLink = NewVirtualLink {
        beneath: 7,
        mac: [0, 0, 0x5e, 0, 1, 51],
        is_ipv6: false,
    };

    #[test]
    fn names_fit() {
        assert_eq!(WANTED.name(), "wsha4-51-7");
        let longest = NewVirtualLink {
            beneath: u32::MAX,
            mac: [0, 0, 0x5e, 0, 2, 255],
            is_ipv6: true,
        };
        assert_eq!(longest.name(), "wsha6-255-fffff");
    }

    /// As the kernel tells of it: what it was made with, and the alias.
    fn told(before: Option<ArpSettings>) -> Vec<u8> {
        let mut request = create(&WANTED, &WANTED.name());
        request.attribute(IFLA_IFALIAS, alias(before).as_bytes());
        request.finish(1)
    }

    fn read_back(bytes: &[u8]) -> Option<Link> {
        match message::messages(bytes).next()?.change()? {
            Change::Link(link) => Some(link),
            _ => None,
        }
    }

    #[test]
    fn a_link_of_ours_says_what_the_interface_beneath_was_set_to() {
        let before = Some(ArpSettings {
            ignore: 0,
            announce: 1,
        });
        let bytes = told(before);
        let link = read_back(&bytes).unwrap();
        let expected = VirtualLink {
            beneath: 7,
            is_on: false,
            before,
        };
        assert_eq!(link.virtual_router, Some(expected));
        for end in 0..bytes.len() {
            read_back(&bytes[..end]);
        }
        let of_ipv6 = read_back(&told(None)).unwrap().virtual_router.unwrap();
        assert_eq!(of_ipv6.before, None);
        let of_somebody = create(&WANTED, &WANTED.name()).finish(1);
        assert_eq!(read_back(&of_somebody).unwrap().virtual_router, None);
    }
}
