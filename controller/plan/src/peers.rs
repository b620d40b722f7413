//! Under which address each node is a unicast peer.
//!
//! Peers listen to nobody else and answer nobody else, so a node takes part only under an address that the
//! others know, and that it can send from on the interface of the virtual router.

use std::net::IpAddr;

use k8s_openapi::api::core::v1::Node;
use node_api::is_link_local_v6;

use crate::{
    InterfaceFacts, NodeFacts,
    model::{Peering, VirtualIpIntent},
};

/// What is known of a node as a peer.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Peer {
    /// Its address.
    Known(IpAddr),
    /// It has to say by itself: nothing is known of its network.
    Unknown,
    /// It cannot be one.
    Impossible,
}

/// A node as the peer of others for `virtual_ip`. `facts`: what it told of its network.
pub(crate) fn peer(
    node: &Node,
    facts: Option<&NodeFacts>,
    in_cluster: bool,
    virtual_ip: &VirtualIpIntent,
    peering: &Peering,
) -> Peer {
    let address = virtual_ip.address;
    let mut internal = internal_addresses(node).filter(|own| own.is_ipv4() == address.is_ipv4());
    match (peering, facts) {
        (Peering::Multicast, _) => Peer::Unknown,
        (Peering::Candidates, None) if in_cluster => Peer::Unknown,
        (Peering::Candidates, None) => internal.next().map_or(Peer::Impossible, Peer::Known),
        (Peering::Candidates, Some(facts)) => {
            let link = link(facts, virtual_ip);
            let own: Vec<IpAddr> = link
                .iter()
                .flat_map(|link| addresses(link, address))
                .filter(|own| !is_link_local_v6(*own))
                .collect();
            let named = internal.find(|internal| own.contains(internal));
            let own = named.or_else(|| own.first().copied());
            own.map_or(Peer::Impossible, Peer::Known)
        }
        (Peering::Listed(_), None) => {
            let listed = internal.find(|own| peering.listed(address).any(|it| it == *own));
            listed.map_or(Peer::Unknown, Peer::Known)
        }
        (Peering::Listed(_), Some(facts)) => {
            let link = link(facts, virtual_ip);
            let is_own = |listed: &IpAddr| link.is_some_and(|it| it.addresses.contains(listed));
            let own = peering.listed(address).find(is_own);
            own.map_or(Peer::Impossible, Peer::Known)
        }
    }
}

/// The interface of the virtual router, as the node finds it: the one that is named, else the one with
/// the longest prefix that contains the address.
fn link<'a>(facts: &'a NodeFacts, virtual_ip: &VirtualIpIntent) -> Option<&'a InterfaceFacts> {
    if let Some(name) = &virtual_ip.interface {
        return facts.interfaces.iter().find(|it| it.name == *name);
    }
    let longest = |interface: &&InterfaceFacts| {
        let prefixes = interface.prefixes.iter();
        let around = prefixes.filter(|prefix| prefix.contains(&virtual_ip.address));
        around.map(ipnet::IpNet::prefix_len).max()
    };
    let interfaces = facts.interfaces.iter().rev();
    let around = interfaces.filter(|it| longest(it).is_some());
    around.max_by_key(longest)
}

/// The interface's own addresses of the family, those on the link of `address` first.
fn addresses(interface: &InterfaceFacts, address: IpAddr) -> impl Iterator<Item = IpAddr> {
    let mut prefixes = interface.prefixes.iter();
    let prefix = prefixes.find(|prefix| prefix.contains(&address));
    let own = interface.addresses.iter().copied();
    let own = own.filter(|own| own.is_ipv4() == address.is_ipv4());
    let is_near = |own: &IpAddr| prefix.is_some_and(|prefix| prefix.contains(own));
    let (near, far): (Vec<_>, Vec<_>) = own.partition(is_near);
    near.into_iter().chain(far)
}

fn internal_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let status = node.status.iter();
    let addresses = status.flat_map(|status| status.addresses.iter().flatten());
    let internal = addresses.filter(|it| it.type_ == "InternalIP");
    internal.filter_map(|it| it.address.parse().ok())
}
