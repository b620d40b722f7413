//! What nodes report of their networks, in the form in which the planner asks for it: an installation
//! has a thousand addresses, and nodes with a hundred interfaces each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;

use crate::{InterfaceFacts, NodeFacts};

/// Prefixes, to be found by an address.
#[derive(Debug, Default)]
pub(crate) struct Prefixes {
    /// By length, the widest first.
    by_length: BTreeMap<u8, BTreeSet<IpNet>>,
}

impl Prefixes {
    fn of<'a>(interfaces: impl Iterator<Item = &'a InterfaceFacts>) -> Self {
        let mut prefixes = Self::default();
        for prefix in interfaces.flat_map(|interface| &interface.prefixes) {
            let same_length = prefixes.by_length.entry(prefix.prefix_len()).or_default();
            same_length.insert(prefix.trunc());
        }
        prefixes
    }

    /// The widest prefix that holds the address.
    pub(crate) fn widest(&self, address: IpAddr) -> Option<IpNet> {
        self.by_length.iter().find_map(|(&length, prefixes)| {
            let prefix = IpNet::new(address, length).ok()?.trunc();
            prefixes.get(&prefix).copied()
        })
    }
}

/// The network of one node.
pub(crate) struct Links<'a> {
    interfaces: BTreeSet<&'a str>,
    prefixes: Prefixes,
}

impl<'a> Links<'a> {
    fn of(facts: &'a NodeFacts) -> Self {
        let interfaces = facts.interfaces.iter();
        Self {
            interfaces: interfaces.map(|it| it.name.as_str()).collect(),
            prefixes: Prefixes::of(facts.interfaces.iter()),
        }
    }

    /// Whether there is a place for the address: on the named interface, else on any.
    pub(crate) fn reach(&self, address: IpAddr, interface: Option<&str>) -> bool {
        interface.map_or_else(
            || self.prefixes.widest(address).is_some(),
            |name| self.interfaces.contains(name),
        )
    }

    /// Whether the address lies on a network of the node. A prefix that holds one address alone is
    /// that host's own.
    pub(crate) fn on_link(&self, address: IpAddr) -> bool {
        let host = if address.is_ipv4() { 32 } else { 128 };
        let widest = self.prefixes.widest(address);
        widest.is_some_and(|prefix| prefix.prefix_len() < host)
    }

    /// Its networks, the widest first.
    pub(crate) fn networks(&self) -> impl Iterator<Item = &IpNet> {
        self.prefixes.by_length.values().flatten()
    }
}

/// The networks of all nodes.
pub(crate) struct Network<'a> {
    nodes: BTreeMap<&'a str, Links<'a>>,
    prefixes: Prefixes,
    default_routers: BTreeSet<IpAddr>,
    /// Interfaces on which a VRID was heard from a router that is none of ours.
    heard: BTreeMap<u8, Vec<&'a InterfaceFacts>>,
}

impl<'a> Network<'a> {
    pub(crate) fn new(facts: &'a BTreeMap<String, NodeFacts>) -> Self {
        let interfaces = || facts.values().flat_map(|facts| &facts.interfaces);
        let mut heard: BTreeMap<u8, Vec<&InterfaceFacts>> = BTreeMap::new();
        for interface in interfaces() {
            for &virtual_router_id in &interface.foreign_virtual_router_ids {
                heard.entry(virtual_router_id).or_default().push(interface);
            }
        }
        // A node that tells of no interface has not looked yet.
        let nodes = facts
            .iter()
            .filter(|(_, facts)| !facts.interfaces.is_empty());
        Self {
            nodes: nodes
                .map(|(name, facts)| (name.as_str(), Links::of(facts)))
                .collect(),
            prefixes: Prefixes::of(interfaces()),
            default_routers: interfaces()
                .flat_map(|interface| &interface.default_routers)
                .copied()
                .collect(),
            heard,
        }
    }

    /// The network of a node, if anything is known of it.
    pub(crate) fn links(&self, node: &str) -> Option<&Links<'a>> {
        self.nodes.get(node)
    }

    /// The widest on-link prefix that any node reports for the address.
    pub(crate) fn prefix(&self, address: IpAddr) -> Option<IpNet> {
        self.prefixes.widest(address)
    }

    /// Whether nodes send to the address what they have no route for.
    pub(crate) fn is_default_router(&self, address: IpAddr) -> bool {
        self.default_routers.contains(&address)
    }

    /// Whether a router that is none of ours was heard with the VRID where the address is to be: on
    /// the interface that the user names, on the link where it lies, anywhere if that is unknown.
    pub(crate) fn heard(
        &self,
        address: IpAddr,
        interface: Option<&str>,
        virtual_router_id: u8,
    ) -> bool {
        let Some(heard) = self.heard.get(&virtual_router_id) else {
            return false;
        };
        self.prefix(address).is_none()
            || heard.iter().any(|facts| {
                interface == Some(facts.name.as_str())
                    || facts
                        .prefixes
                        .iter()
                        .any(|prefix| prefix.contains(&address))
            })
    }
}
