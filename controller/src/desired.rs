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
    pub nodes: BTreeMap<String, Arc<NodeState>>,
    /// The highest sequence that went into it.
    pub sequence: i64,
}

/// Computes everything, once.
///
/// # Errors
/// If content has no JSON form, which no type of the contract is without.
pub fn desired(snapshot: &Snapshot) -> Result<Desired, serde_json::Error> {
    Planner::default().desired(snapshot)
}

/// Computes everything again and again; what has not changed costs no more than to see that.
#[derive(Debug, Default)]
pub struct Planner {
    memo: plan::Memo,
    pools: BTreeMap<PoolRef, Told>,
    nodes: BTreeMap<String, Arc<NodeState>>,
}

/// What nodes are told of one pool, and what that was made of.
#[derive(Debug, Default)]
struct Told {
    planned: Option<Pool>,
    routers: Vec<VirtualRouter>,
    parts: Parts,
}

/// By name of the node.
#[derive(Debug, Default)]
struct Parts {
    told: BTreeMap<String, Vec<(ResourceName, Resource)>>,
    held: BTreeSet<String>,
}

impl Planner {
    /// Computes everything.
    ///
    /// # Errors
    /// If content has no JSON form, which no type of the contract is without.
    pub fn desired(&mut self, snapshot: &Snapshot) -> Result<Desired, serde_json::Error> {
        let plan = plan::plan_again(&snapshot.inputs(), &mut self.memo);
        let mut before = std::mem::take(&mut self.pools);
        for pool in &snapshot.pools {
            let name = plan::model::pool_ref(pool);
            let agreed = entries(pool);
            let former = before.remove(&name).unwrap_or_default();
            let told = match plan.pools.get(&name) {
                Some(planned) => self.tell(&name, planned, &agreed, former)?,
                None => self.hold(&name, &agreed, &former.parts),
            };
            self.pools.insert(name, told);
        }
        for (name, former) in before {
            self.exchange(&name, &former.parts, &Parts::default());
        }
        Ok(Desired {
            plan,
            nodes: self.nodes.clone(),
            sequence: snapshot.sequence(),
        })
    }

    fn tell(
        &mut self,
        name: &PoolRef,
        planned: &Pool,
        agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
        former: Told,
    ) -> Result<Told, serde_json::Error> {
        let routers = planned.virtual_routers.iter();
        let routers: Vec<_> = routers
            .filter_map(|router| {
                let entry = agreed.get(router.addresses.first()?)?;
                committed(router, entry)
            })
            .collect();
        if former.planned.as_ref() == Some(planned) && former.routers == routers {
            return Ok(former);
        }
        let parts = Parts {
            told: parts(name, planned, &routers)?,
            held: BTreeSet::new(),
        };
        self.exchange(name, &former.parts, &parts);
        Ok(Told {
            planned: Some(planned.clone()),
            routers,
            parts,
        })
    }

    /// A pool that is refused serves on as its nodes have it: only what is said of it stops.
    fn hold(
        &mut self,
        name: &PoolRef,
        agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
        former: &Parts,
    ) -> Told {
        let committed = agreed.values().filter_map(|entry| entry.committed.as_ref());
        let nodes = committed.flat_map(|committed| &committed.nodes);
        let parts = Parts {
            told: BTreeMap::new(),
            held: nodes.map(|node| node.node_name.clone()).collect(),
        };
        if !former.told.is_empty() || former.held != parts.held {
            self.exchange(name, former, &parts);
        }
        Told {
            parts,
            ..Told::default()
        }
    }

    /// Puts the parts of a pool in the place of its former ones, in the states of the nodes concerned.
    fn exchange(&mut self, name: &PoolRef, former: &Parts, parts: &Parts) {
        let pool = ResourceName::Pool(name.clone());
        for (node, resources) in &former.told {
            let state = self.state(node);
            for (resource, _) in resources {
                state.resources.remove(resource);
            }
        }
        for node in &former.held {
            self.state(node).held.remove(&pool);
        }
        for (node, resources) in &parts.told {
            let state = self.state(node);
            state.resources.extend(resources.iter().cloned());
        }
        for node in &parts.held {
            self.state(node).held.insert(pool.clone());
        }
        for node in former.told.keys().chain(&former.held) {
            let state = self.nodes.get(node);
            if state.is_some_and(|state| **state == NodeState::default()) {
                self.nodes.remove(node);
            }
        }
    }

    fn state(&mut self, node: &str) -> &mut NodeState {
        Arc::make_mut(self.nodes.entry(node.to_owned()).or_default())
    }
}

/// The pool for each node that is a committed candidate of any of its addresses.
fn parts(
    name: &PoolRef,
    planned: &Pool,
    routers: &[VirtualRouter],
) -> Result<BTreeMap<String, Vec<(ResourceName, Resource)>>, serde_json::Error> {
    let members: BTreeSet<&str> = routers
        .iter()
        .flat_map(|router| &router.nodes)
        .map(|node| node.node_name.as_str())
        .collect();
    if members.is_empty() {
        return Ok(BTreeMap::new());
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
    let mut parts = BTreeMap::new();
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
        let mut resources = shared.clone();
        resources.push((ResourceName::Pool(name.clone()), resource));
        parts.insert(member.to_owned(), resources);
    }
    Ok(parts)
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
