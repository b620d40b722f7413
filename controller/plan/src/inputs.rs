//! Everything the plan depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    ops::RangeInclusive,
};

use crds::WebSocketHAPool;
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use node_api::PoolRef;

/// The objects, from files or from the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// What users ask for.
    pub pools: Vec<WebSocketHAPool>,
    /// The nodes that exist.
    pub nodes: Vec<Node>,
    /// Services that pools may refer to.
    pub services: Vec<Service>,
    /// The endpoints of those Services.
    pub endpoint_slices: Vec<EndpointSlice>,
}

/// Everything the plan depends on.
#[derive(Clone, Debug)]
pub struct Inputs {
    /// The objects.
    pub objects: Objects,
    /// What nodes report of their networks, by node name; empty on plain hosts.
    pub facts: BTreeMap<String, NodeFacts>,
    /// What is fixed already; empty on plain hosts.
    pub committed: Committed,
    /// What the administrator permits.
    pub policy: Policy,
}

impl Inputs {
    /// The inputs of a plain host: the objects of its files and nothing else, so that two hosts with
    /// the same files plan the same whatever they did before.
    pub fn plain_hosts(objects: Objects) -> Self {
        Self {
            objects,
            facts: BTreeMap::new(),
            committed: Committed::default(),
            policy: Policy::plain_hosts(),
        }
    }
}

/// What one node reports of its network.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct NodeFacts {
    /// Its interfaces.
    pub interfaces: Vec<InterfaceFacts>,
}

/// One interface of a node.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct InterfaceFacts {
    /// Name.
    pub name: String,
    /// On-link prefixes.
    pub prefixes: Vec<IpNet>,
    /// Default routers reached through it.
    pub default_routers: Vec<IpAddr>,
    /// VRIDs heard on it from routers that are none of ours.
    pub foreign_virtual_router_ids: BTreeSet<u8>,
}

/// What the pools' status already fixes.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Committed {
    /// Virtual routers, by pool and address.
    pub routers: BTreeMap<(PoolRef, IpAddr), CommittedRouter>,
    /// Virtual routers that were taken from a pool and not yet given up by all their nodes.
    pub retirements: Vec<Retirement>,
}

/// A virtual router as committed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CommittedRouter {
    /// VRID.
    pub virtual_router_id: u8,
    /// Its nodes, best first.
    pub nodes: Vec<String>,
}

/// A virtual router that nodes may still hold although its pool no longer has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Retirement {
    /// The pool that had it; it may have it again at once.
    pub pool: PoolRef,
    /// Its address.
    pub address: IpAddr,
    /// Its VRID.
    pub virtual_router_id: u8,
    /// Nodes that have not acknowledged its removal.
    pub nodes: BTreeSet<String>,
}

/// What the administrator permits.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Policy {
    /// VRIDs to choose from where a user names none and the last byte of the address is taken;
    /// `None`: the user must name one.
    pub virtual_router_ids: Option<RangeInclusive<u8>>,
    /// Addresses that pools may use; empty: all.
    pub virtual_addresses: Vec<IpNet>,
    /// Addresses that no pool may use, such as those of Services and pods.
    pub forbidden_addresses: Vec<IpNet>,
    /// Ports that no listener may use, such as those of node ports.
    pub forbidden_ports: Vec<RangeInclusive<u16>>,
}

impl Policy {
    /// All is permitted, and nothing is chosen that could depend on a host's history.
    pub fn plain_hosts() -> Self {
        Self {
            virtual_router_ids: None,
            virtual_addresses: Vec::new(),
            forbidden_addresses: Vec::new(),
            forbidden_ports: Vec::new(),
        }
    }
}
