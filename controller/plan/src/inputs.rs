//! Everything the plan depends on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::WebSocketHAPool;
use ipnet::IpNet;
use k8s_openapi::api::{
    core::v1::{Node, Service},
    discovery::v1::EndpointSlice,
};
use node_api::{PoolRef, stream::HeardRouter};

use crate::{Policy, Shared};

/// The objects, from files or from the API server.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Objects {
    /// What users ask for.
    pub pools: Vec<Shared<WebSocketHAPool>>,
    /// The nodes that exist.
    pub nodes: Vec<Shared<Node>>,
    /// Services that pools may refer to.
    pub services: Vec<Shared<Service>>,
    /// The endpoints of those Services.
    pub endpoint_slices: Vec<Shared<EndpointSlice>>,
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
    /// Addresses of the node's own on it.
    pub addresses: Vec<IpAddr>,
    /// Virtual routers heard on it that the node has no part in, ours or not.
    pub heard: Vec<HeardRouter>,
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
    /// Its addresses besides the one that it is known by.
    pub additional_addresses: Vec<IpAddr>,
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
    /// The address that it is known by.
    pub address: IpAddr,
    /// Its others.
    pub additional_addresses: Vec<IpAddr>,
    /// Its VRID.
    pub virtual_router_id: u8,
    /// Nodes that have not acknowledged its removal.
    pub nodes: BTreeSet<String>,
}
