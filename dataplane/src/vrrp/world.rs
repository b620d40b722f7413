//! Interfaces and addresses of the host, and which of them a virtual router gets.

use std::{collections::BTreeMap, net::IpAddr};

use ipnet::IpNet;
use node_api::is_link_local_v6;

use crate::sys::netlink::{Address, Change, Link, VirtualLink};

/// What rtnetlink told.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(super) struct World {
    links: BTreeMap<u32, Link>,
    /// In the kernel's order: the first of an interface is its primary one.
    addresses: Vec<Address>,
}

/// Interface and source address of a virtual router.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Binding {
    pub(super) index: u32,
    pub(super) interface: String,
    pub(super) source: IpAddr,
    pub(super) mac: [u8; 6],
    pub(super) is_up: bool,
}

/// Where a virtual router runs already.
#[derive(Clone, Copy, Debug)]
pub(super) struct Present {
    pub(super) index: u32,
    pub(super) source: IpAddr,
}

/// Why a virtual router has no interface, as a sentence with its remedy.
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
pub(super) enum Unbound {
    #[error("it has no address")]
    NoAddress,
    #[error("there is no interface {0}: name one that exists, or leave `interface` out")]
    NoInterface(String),
    #[error(
        "no interface has an on-link prefix that contains {0}: give the host an address of that \
         network, or set `interface`"
    )]
    NoPrefix(IpAddr),
    #[error("interface {interface} has no {family} address to send from: give it one")]
    NoSource {
        interface: String,
        family: &'static str,
    },
    #[error(
        "none of this host's addresses on {interface} is among the unicast peers ({peers}): list the one \
         that it has there in spec.vrrp.peering.addresses, or make it the InternalIP of its Node"
    )]
    NoPeer { interface: String, peers: String },
    #[error("interface {0} is not an Ethernet: choose another")]
    NotEthernet(String),
    #[error("{0} is on every link: set `interface`")]
    OnEveryLink(IpAddr),
}

impl World {
    /// The state after a dump.
    pub(super) fn of(changes: Vec<Change>) -> Self {
        let mut world = Self::default();
        for change in changes {
            world.apply(change);
        }
        world
    }

    /// Applies a change; tells whether anything but own addresses differs now.
    pub(super) fn apply(&mut self, change: Change) -> bool {
        match change {
            Change::Link(link) => {
                let is_own = link.virtual_router.is_some();
                self.links.insert(link.index, link.clone()) != Some(link) && !is_own
            }
            Change::LinkGone(index) => {
                self.addresses.retain(|address| address.index != index);
                let gone = self.links.remove(&index);
                gone.is_some_and(|link| link.virtual_router.is_none())
            }
            Change::Address(address) => {
                if self.addresses.contains(&address) {
                    return false;
                }
                let matters = !address.is_own;
                self.remove(&address);
                self.addresses.push(address);
                matters
            }
            Change::AddressGone(address) => self.remove(&address) && !address.is_own,
        }
    }

    fn remove(&mut self, gone: &Address) -> bool {
        let before = self.addresses.len();
        self.addresses
            .retain(|a| (a.index, a.address, a.prefix) != (gone.index, gone.address, gone.prefix));
        self.addresses.len() != before
    }

    /// Whether the host has `address` on this interface.
    pub(super) fn has(&self, index: u32, address: IpAddr) -> bool {
        self.addresses
            .iter()
            .any(|a| a.index == index && a.address == address)
    }

    /// Whether the interface has a link.
    pub(super) fn is_up(&self, index: u32) -> bool {
        self.links.get(&index).is_some_and(|link| link.is_up)
    }

    /// The interface of this name, and whether it has a link.
    pub(super) fn interface(&self, name: &str) -> Option<(u32, bool)> {
        let mut links = self.links.values();
        let link = links.find(|link| link.name == name)?;
        Some((link.index, link.is_up))
    }

    /// The links that carry hardware addresses of virtual routers.
    pub(super) fn virtual_links(&self) -> impl Iterator<Item = (u32, VirtualLink)> {
        let links = self.links.values();
        links.filter_map(|link| Some((link.index, link.virtual_router?)))
    }

    /// Addresses that the kernel gave to such links, as a router advertisement says.
    pub(super) fn learned_on_virtual_links(&self) -> Vec<Address> {
        let is_virtual = |index: u32| self.virtual_links().any(|(of, _)| of == index);
        let learned = self.addresses.iter().filter(|it| it.is_learned);
        learned.filter(|it| is_virtual(it.index)).cloned().collect()
    }

    /// Whether such a link is switched on.
    pub(super) fn is_on(&self, index: u32) -> bool {
        let link = self.links.get(&index).and_then(|it| it.virtual_router);
        link.is_some_and(|link| link.is_on)
    }

    /// The interface on whose segment this one is: itself, but for such a link.
    pub(super) fn beneath(&self, index: u32) -> u32 {
        let link = self.links.get(&index).and_then(|it| it.virtual_router);
        link.map_or(index, |link| link.beneath)
    }

    /// Addresses that carry our mark.
    pub(super) fn own(&self) -> impl Iterator<Item = (u32, IpAddr)> {
        self.addresses
            .iter()
            .filter(|address| address.is_own)
            .map(|address| (address.index, address.address))
    }

    /// The interface on which somebody else configured `address`.
    pub(super) fn foreign(&self, address: IpAddr) -> Option<&str> {
        let own = self
            .addresses
            .iter()
            .find(|a| a.address == address && !a.is_own)?;
        self.links.get(&own.index).map(|link| link.name.as_str())
    }

    /// The interface with this hardware address.
    pub(super) fn interface_with(&self, mac: [u8; 6]) -> Option<&str> {
        let mut links = self.links.values();
        let link = links.find(|link| link.mac == Some(mac))?;
        Some(&link.name)
    }

    /// Interface and source for a virtual router with these addresses: the named interface, or the
    /// one on whose link the first address lies, that of `present` among several.
    ///
    /// From an interface that goes down the kernel takes its IPv6 addresses, and one that comes up
    /// has none before it knows that nobody else has them: a virtual router that is there already
    /// stays meanwhile, as without a link. Of unicast `peers` the host is one: others listen to none
    /// that is not.
    pub(super) fn bind(
        &self,
        interface: Option<&str>,
        addresses: &[IpAddr],
        peers: Option<&[IpAddr]>,
        present: Option<Present>,
    ) -> Result<Binding, Unbound> {
        let is_v6 = addresses.first().is_some_and(IpAddr::is_ipv6);
        let link = self.link(interface, addresses, present)?;
        let mac = link
            .mac
            .filter(|_| !link.is_loopback)
            .ok_or_else(|| Unbound::NotEthernet(link.name.clone()))?;
        let former = present.filter(|present| {
            let is_soon = !link.is_up || self.is_tentative(link.index);
            let is_peer = peers.is_none_or(|peers| peers.contains(&present.source));
            is_v6 && present.index == link.index && is_soon && is_peer
        });
        let found = match peers {
            None => self.source(link.index, addresses),
            Some(peers) => self.own_among(peers, link.index),
        };
        let source = found.or_else(|| former.map(|former| former.source));
        let interface = link.name.clone();
        let source = source.ok_or_else(|| match peers {
            None => Unbound::NoSource {
                interface,
                family: if is_v6 { "IPv6 link-local" } else { "IPv4" },
            },
            Some(peers) => {
                let peers: Vec<_> = peers.iter().map(ToString::to_string).collect();
                let peers = peers.join(", ");
                Unbound::NoPeer { interface, peers }
            }
        })?;
        Ok(Binding {
            index: link.index,
            interface: link.name.clone(),
            source,
            mac,
            is_up: link.is_up && found.is_some(),
        })
    }

    fn link(
        &self,
        interface: Option<&str>,
        addresses: &[IpAddr],
        present: Option<Present>,
    ) -> Result<&Link, Unbound> {
        if let Some(name) = interface {
            let link = self.links.values().find(|link| link.name == name);
            return link.ok_or_else(|| Unbound::NoInterface(name.to_owned()));
        }
        let mut placed = addresses
            .iter()
            .filter(|address| !is_link_local_v6(**address));
        let Some(address) = placed.next().copied() else {
            return Err(addresses
                .first()
                .copied()
                .map_or(Unbound::NoAddress, Unbound::OnEveryLink));
        };
        let down = || {
            let link = self.links.get(&present?.index)?;
            (address.is_ipv6() && !link.is_up).then_some(link)
        };
        self.on_link(address, present)
            .or_else(down)
            .ok_or(Unbound::NoPrefix(address))
    }

    /// The interface with the longest prefix that contains `address`; among several that where it is
    /// at `present`, else the first: another one that appears must not draw an address away.
    fn on_link(&self, address: IpAddr, present: Option<Present>) -> Option<&Link> {
        let present = present.map(|present| present.index);
        self.addresses
            .iter()
            .filter(|own| {
                self.links
                    .get(&own.index)
                    .is_some_and(|link| !link.is_loopback)
            })
            .filter(|own| contains(own, address))
            .rev()
            .max_by_key(|own| (own.prefix, Some(own.index) == present))
            .and_then(|own| self.links.get(&own.index))
    }

    /// Whether an address of the interface is about to become usable.
    fn is_tentative(&self, index: u32) -> bool {
        let mut addresses = self.addresses.iter();
        addresses.any(|own| own.index == index && own.is_tentative && is_link_local_v6(own.address))
    }

    /// The first of `peers` that the interface has for itself, and may use.
    fn own_among(&self, peers: &[IpAddr], index: u32) -> Option<IpAddr> {
        let is_here = |peer: &IpAddr| {
            let mut addresses = self.addresses.iter();
            addresses.any(|own| {
                own.index == index && own.address == *peer && !own.is_own && !own.is_tentative
            })
        };
        peers.iter().copied().find(is_here)
    }

    /// The primary address of the interface: the first whose prefix contains the first of
    /// `addresses`, else the first. For IPv6 the link-local one (RFC 9568 section 5.1.2.1).
    fn source(&self, index: u32, addresses: &[IpAddr]) -> Option<IpAddr> {
        let address = *addresses.first()?;
        let candidates = || {
            self.addresses.iter().filter(move |own| {
                own.index == index
                    && !own.is_own
                    && !own.is_tentative
                    && !addresses.contains(&own.address)
                    && own.address.is_ipv4() == address.is_ipv4()
            })
        };
        if address.is_ipv6() {
            return candidates()
                .map(|own| own.address)
                .find(|own| is_link_local_v6(*own));
        }
        candidates()
            .find(|own| contains(own, address))
            .or_else(|| candidates().next())
            .map(|own| own.address)
    }
}

/// Whether `address` lies on the link of `own`, which is not a virtual address itself.
fn contains(own: &Address, address: IpAddr) -> bool {
    !own.is_own
        && own.address != address
        && IpNet::new(own.address, own.prefix).is_ok_and(|net| net.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::netlink::ArpSettings;

    fn link(index: u32, name: &str) -> Change {
        Change::Link(Link {
            index,
            name: name.to_owned(),
            is_up: true,
            is_loopback: name == "lo",
            mac: Some([0, 0, 0, 0, 0, u8::try_from(index).unwrap()]),
            arp: ArpSettings::default(),
            virtual_router: None,
        })
    }

    fn address(index: u32, text: &str, is_own: bool) -> Change {
        let net: IpNet = text.parse().unwrap();
        Change::Address(Address {
            index,
            address: net.addr(),
            prefix: net.prefix_len(),
            is_own,
            is_learned: false,
            is_tentative: false,
        })
    }

    fn world() -> World {
        World::of(vec![
            link(1, "lo"),
            link(2, "eth0"),
            link(3, "eth1"),
            address(1, "127.0.0.1/8", false),
            address(2, "10.0.0.5/8", false),
            address(3, "192.168.1.1/24", false),
            address(3, "192.168.1.110/32", true),
        ])
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn among_equal_links_an_address_stays_where_it_is() {
        let mut world = world();
        world.apply(link(4, "eth2"));
        world.apply(address(4, "192.168.1.99/24", false));
        let at = |present: Option<u32>| {
            let source = ip("192.168.1.1");
            let present = present.map(|index| Present { index, source });
            let binding = world
                .bind(None, &[ip("192.168.1.110")], None, present)
                .unwrap();
            binding.interface
        };
        assert_eq!(at(None), "eth1");
        assert_eq!(at(Some(3)), "eth1");
        assert_eq!(at(Some(4)), "eth2");
        assert_eq!(at(Some(2)), "eth1", "not on that link");
    }

    #[test]
    fn interface_is_found_by_prefix_and_source_is_not_a_virtual_address() {
        let binding = world()
            .bind(None, &[ip("192.168.1.110")], None, None)
            .unwrap();
        assert_eq!(binding.interface, "eth1");
        assert_eq!(binding.source, ip("192.168.1.1"));
    }

    #[test]
    fn the_longest_prefix_wins() {
        let mut world = world();
        assert!(world.apply(address(3, "10.1.0.9/16", false)));
        let binding = world.bind(None, &[ip("10.1.2.3")], None, None).unwrap();
        assert_eq!(
            (binding.interface.as_str(), binding.source),
            ("eth1", ip("10.1.0.9"))
        );
    }

    #[test]
    fn a_named_interface_may_be_on_another_network() {
        let binding = world()
            .bind(Some("eth0"), &[ip("192.168.1.110")], None, None)
            .unwrap();
        assert_eq!(binding.source, ip("10.0.0.5"));
    }

    #[test]
    fn what_is_missing_is_named() {
        let world = world();
        assert_eq!(
            world.bind(Some("eth9"), &[ip("10.0.0.9")], None, None),
            Err(Unbound::NoInterface("eth9".to_owned()))
        );
        assert_eq!(
            world.bind(None, &[ip("172.16.0.1")], None, None),
            Err(Unbound::NoPrefix(ip("172.16.0.1")))
        );
        assert!(matches!(
            world.bind(Some("eth1"), &[ip("fe80::1")], None, None),
            Err(Unbound::NoSource { .. })
        ));
    }

    #[test]
    fn own_addresses_do_not_matter_to_others() {
        let mut world = world();
        assert!(!world.apply(address(3, "192.168.1.110/32", true)));
        assert!(!world.apply(address(3, "192.168.1.112/32", true)));
        assert!(world.has(3, ip("192.168.1.112")));
        assert_eq!(world.own().count(), 2);
        assert!(world.apply(Change::LinkGone(3)));
        assert_eq!(world.own().count(), 0);
    }

    fn v6_world() -> World {
        World::of(vec![
            link(2, "eth0"),
            link(3, "eth1"),
            address(2, "2001:db8:1::5/64", false),
            address(2, "fe80::5/64", false),
            address(3, "2001:db8:2::5/64", false),
            address(3, "fe80::110/128", true),
            address(3, "fe80::6/64", false),
        ])
    }

    /// RFC 9568 section 5.1.2.1: from the interface's own link-local address.
    #[test]
    fn ipv6_is_sent_from_the_link_local_address() {
        let world = v6_world();
        let both = [ip("2001:db8:2::110"), ip("fe80::110")];
        let binding = world.bind(None, &both, None, None).unwrap();
        assert_eq!(
            (binding.interface.as_str(), binding.source, binding.is_up),
            ("eth1", ip("fe80::6"), true)
        );
        let alone = [ip("fe80::110")];
        assert_eq!(
            world.bind(None, &alone, None, None),
            Err(Unbound::OnEveryLink(ip("fe80::110")))
        );
        let named = world.bind(Some("eth0"), &alone, None, None).unwrap();
        assert_eq!(named.source, ip("fe80::5"));
    }

    /// An interface that is switched off loses its addresses; one that is switched on again has a
    /// tentative one at first.
    #[test]
    fn a_virtual_router_of_ipv6_stays_on_a_link_that_goes_and_comes() {
        let mut world = v6_world();
        let addresses = [ip("2001:db8:2::110")];
        let present = Some(Present {
            index: 3,
            source: ip("fe80::6"),
        });
        let state = |world: &World| {
            let binding = world.bind(None, &addresses, None, present);
            binding.map(|binding| (binding.source, binding.is_up))
        };
        let mut link = Link {
            index: 3,
            name: "eth1".to_owned(),
            is_up: false,
            is_loopback: false,
            mac: Some([0; 6]),
            arp: ArpSettings::default(),
            virtual_router: None,
        };
        world.apply(Change::Link(link.clone()));
        for own in ["2001:db8:2::5/64", "fe80::6/64"] {
            let Change::Address(own) = address(3, own, false) else {
                unreachable!()
            };
            world.apply(Change::AddressGone(own));
        }
        assert_eq!(state(&world), Ok((ip("fe80::6"), false)));
        assert!(world.bind(None, &addresses, None, None).is_err());

        link.is_up = true;
        world.apply(Change::Link(link));
        world.apply(address(3, "2001:db8:2::5/64", false));
        let Change::Address(mut own) = address(3, "fe80::6/64", false) else {
            unreachable!()
        };
        own.is_tentative = true;
        world.apply(Change::Address(own.clone()));
        assert_eq!(state(&world), Ok((ip("fe80::6"), false)));
        own.is_tentative = false;
        assert!(world.apply(Change::Address(own)), "it matters");
        assert_eq!(state(&world), Ok((ip("fe80::6"), true)));
    }
}
