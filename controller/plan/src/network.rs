//! What nodes report of their networks, in the form in which the planner asks for it: an installation
//! has a thousand addresses, and nodes with a hundred interfaces each.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use ipnet::IpNet;
use k8s_openapi::api::core::v1::Node;
use node_api::stream::HeardRouter;

use crate::{Inputs, InterfaceFacts, NodeFacts};

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

/// A virtual router that is none of ours, as a node heard it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Heard<'a> {
    /// The node.
    pub(crate) node: &'a str,
    /// The interface on which it was heard.
    pub(crate) interface: &'a InterfaceFacts,
    /// What was heard.
    pub(crate) router: &'a HeardRouter,
}

impl Heard<'_> {
    /// Whether it is where the address is to be: on the interface that the user names, or on the link
    /// where it lies.
    fn is_beside(&self, address: IpAddr, interface: Option<&str>) -> bool {
        let mut prefixes = self.interface.prefixes.iter();
        interface == Some(self.interface.name.as_str())
            || prefixes.any(|prefix| prefix.contains(&address))
    }
}

/// The networks of all nodes.
pub(crate) struct Network<'a> {
    nodes: BTreeMap<&'a str, Links<'a>>,
    prefixes: Prefixes,
    default_routers: BTreeSet<IpAddr>,
    /// By VRID, what was heard from routers that are none of ours.
    heard: BTreeMap<u8, Vec<Heard<'a>>>,
}

impl<'a> Network<'a> {
    pub(crate) fn new(inputs: &'a Inputs) -> Self {
        let facts = &inputs.facts;
        let interfaces = || facts.values().flat_map(|facts| &facts.interfaces);
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
            heard: heard(inputs),
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

    /// Whether a router that is none of ours was heard with the VRID where the address is to be, or
    /// may be, as its link is unknown.
    pub(crate) fn heard(
        &self,
        address: IpAddr,
        interface: Option<&str>,
        virtual_router_id: u8,
    ) -> bool {
        let unknown = self.prefix(address).is_none();
        let mut heard = self.speakers(address, virtual_router_id);
        heard.any(|heard| unknown || heard.is_beside(address, interface))
    }

    /// A router that is none of ours and was heard where the address is, with the VRID but without the
    /// address: it does not mean to share the virtual router.
    pub(crate) fn clash(
        &self,
        address: IpAddr,
        interface: Option<&str>,
        virtual_router_id: u8,
    ) -> Option<&Heard<'a>> {
        let mut heard = self.speakers(address, virtual_router_id);
        heard.find(|heard| {
            !heard.router.addresses.contains(&address) && heard.is_beside(address, interface)
        })
    }

    /// Each family has VRIDs of its own.
    fn speakers(&self, address: IpAddr, virtual_router_id: u8) -> impl Iterator<Item = &Heard<'a>> {
        let heard = self.heard.get(&virtual_router_id).into_iter().flatten();
        heard.filter(move |heard| heard.router.source.is_ipv4() == address.is_ipv4())
    }
}

/// What was heard from hosts that are none of the nodes: nodes hear those of other pools, too.
fn heard(inputs: &Inputs) -> BTreeMap<u8, Vec<Heard<'_>>> {
    let interfaces = inputs.facts.values().flat_map(|facts| &facts.interfaces);
    let told = interfaces.flat_map(|interface| interface.addresses.iter().copied());
    let nodes = inputs.objects.nodes.iter();
    let own: BTreeSet<IpAddr> = told
        .chain(nodes.flat_map(|node| own_addresses(node)))
        .collect();
    let mut heard: BTreeMap<u8, Vec<Heard<'_>>> = BTreeMap::new();
    for (node, facts) in &inputs.facts {
        for interface in &facts.interfaces {
            for router in &interface.heard {
                if !own.contains(&router.source) {
                    let same_vrid = heard.entry(router.virtual_router_id).or_default();
                    same_vrid.push(Heard {
                        node,
                        interface,
                        router,
                    });
                }
            }
        }
    }
    heard
}

/// The addresses that a Node gives as its own. Names of hosts stand among them.
pub(crate) fn own_addresses(node: &Node) -> impl Iterator<Item = IpAddr> {
    let addresses = node
        .status
        .iter()
        .flat_map(|it| it.addresses.iter().flatten());
    let parsed = addresses.filter_map(|it| it.address.parse::<IpAddr>().ok());
    parsed.map(|address| address.to_canonical())
}
