//! What each node is told: the virtual routers as they are committed, the rest as it is planned.
//!
//! Every replica computes this from what it has read, so that all of them push the same; nothing is
//! pushed that is not committed (DESIGN section 6).

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use crds::VirtualIPStatus;
use node_api::{
    Endpoint, Pool, PoolRef, VirtualRouter, VrrpVersion,
    stream::{ResourceName, Revision},
};
use plan::Plan;
use serde_json::Value;

use crate::snapshot::{Snapshot, entries};

/// A resource as it is told.
#[derive(Clone, Debug, PartialEq)]
pub struct Resource {
    /// Of the content.
    pub revision: Revision,
    /// The content.
    pub body: Body,
}

/// Content of a resource.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Settings of a pool.
    Pool(Arc<Value>),
    /// Endpoints, of which changes are told one by one.
    Endpoints(Arc<Vec<Endpoint>>),
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// What it is told.
    pub resources: BTreeMap<ResourceName, Resource>,
    /// What it keeps as it has it: of pools that are refused now and served before.
    pub held: BTreeSet<ResourceName>,
}

impl NodeState {
    /// The revision of a pool that the node is told; `None`: it has no part in it.
    pub fn pool_revision(&self, pool: &PoolRef) -> Option<&Revision> {
        let resource = self.resources.get(&ResourceName::Pool(pool.clone()))?;
        Some(&resource.revision)
    }
}

/// The states of all nodes that have a part in anything, and what they are made of.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The plan.
    pub plan: Plan,
    /// By name of the node.
    pub nodes: BTreeMap<String, NodeState>,
    /// The highest sequence that went into it.
    pub sequence: i64,
}

/// Computes everything.
///
/// # Errors
/// If content has no JSON form, which no type of the contract is without.
pub fn desired(snapshot: &Snapshot) -> Result<Desired, serde_json::Error> {
    let plan = plan::plan(&snapshot.inputs());
    let mut nodes: BTreeMap<String, NodeState> = BTreeMap::new();
    for pool in &snapshot.pools {
        let name = plan::model::pool_ref(pool);
        let agreed = entries(pool);
        if let Some(planned) = plan.pools.get(&name) {
            tell(&mut nodes, &name, planned, &agreed)?;
        } else {
            hold(&mut nodes, &name, &agreed);
        }
    }
    Ok(Desired {
        plan,
        nodes,
        sequence: snapshot.sequence(),
    })
}

/// The pool for each node that is a committed candidate of any of its addresses.
fn tell(
    nodes: &mut BTreeMap<String, NodeState>,
    name: &PoolRef,
    planned: &Pool,
    agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
) -> Result<(), serde_json::Error> {
    let routers = planned.virtual_routers.iter();
    let routers: Vec<_> = routers
        .filter_map(|router| {
            let entry = agreed.get(router.addresses.first()?)?;
            committed(router, entry)
        })
        .collect();
    let members: BTreeSet<&str> = routers
        .iter()
        .flat_map(|router| &router.nodes)
        .map(|node| node.node_name.as_str())
        .collect();
    if members.is_empty() {
        return Ok(());
    }
    let (settings, endpoints) = planned.clone().split();
    let mut shared = Vec::new();
    for (upstream, endpoints) in endpoints {
        let resource = Resource {
            revision: Revision::of(&endpoints)?,
            body: Body::Endpoints(Arc::new(endpoints)),
        };
        let pool = name.clone();
        shared.push((ResourceName::Endpoints { pool, upstream }, resource));
    }
    // Nodes with the same part share one body.
    let mut bodies: BTreeMap<Vec<usize>, Resource> = BTreeMap::new();
    for member in members {
        let part: Vec<usize> = (0..routers.len())
            .filter(|&at| routers[at].candidate(member).is_some())
            .collect();
        let resource = if let Some(resource) = bodies.get(&part) {
            resource.clone()
        } else {
            let pool = Pool {
                virtual_routers: part.iter().map(|&at| routers[at].clone()).collect(),
                ..settings.clone()
            };
            let body = serde_json::to_value(&pool)?;
            let resource = Resource {
                revision: Revision::of(&body)?,
                body: Body::Pool(Arc::new(body)),
            };
            bodies.insert(part, resource.clone());
            resource
        };
        let state = nodes.entry(member.to_owned()).or_default();
        state
            .resources
            .insert(ResourceName::Pool(name.clone()), resource);
        state.resources.extend(shared.iter().cloned());
    }
    Ok(())
}

/// A pool that is refused serves on as its nodes have it: only what is said of it stops.
fn hold(
    nodes: &mut BTreeMap<String, NodeState>,
    name: &PoolRef,
    agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
) {
    let committed = agreed.values().filter_map(|entry| entry.committed.as_ref());
    for node in committed.flat_map(|committed| &committed.nodes) {
        let state = nodes.entry(node.node_name.clone()).or_default();
        state.held.insert(ResourceName::Pool(name.clone()));
    }
}

/// `planned` with everything that all nodes must agree on as it is committed.
fn committed(planned: &VirtualRouter, entry: &VirtualIPStatus) -> Option<VirtualRouter> {
    let agreed = entry.committed.as_ref()?;
    let nodes = agreed.nodes.iter();
    let priorities = nodes.map(|node| (node.node_name.clone(), node.priority));
    Some(VirtualRouter {
        virtual_router_id: entry.virtual_router_id?,
        version: if agreed.version == 2 {
            VrrpVersion::V2
        } else {
            VrrpVersion::V3
        },
        advertisement_interval: agreed.advertisement_interval.get(),
        nodes: plan::ranked_nodes(priorities),
        sequence: agreed.sequence,
        ..planned.clone()
    })
}

/// Version as the API writes it.
pub fn version_number(version: VrrpVersion) -> u8 {
    match version {
        VrrpVersion::V2 => 2,
        VrrpVersion::V3 => 3,
    }
}

/// Interval as the API writes it.
pub fn interval(duration: Duration) -> crds::Duration {
    crds::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
