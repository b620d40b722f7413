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

use crds::{MacAddressMode, VirtualIPStatus, WebSocketHAPool};
use node_api::{
    Endpoint, MacAddress, Pool, PoolRef, Secret, TicketKeys, VirtualRouter, VrrpVersion,
    stream::{ResourceName, Revision},
};
use plan::{Outline, Plan};

use crate::{
    peers,
    snapshot::{Snapshot, entries},
};

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
    Pool(Arc<Pool>),
    /// Endpoints, of which changes are told one by one.
    Endpoints(Arc<Vec<Endpoint>>),
    /// Certificates and keys.
    Secret(Arc<Secret>),
    /// Keys of session tickets.
    TicketKeys(Arc<TicketKeys>),
}

/// What nodes with the same part in a pool are told of it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Part {
    /// What they are told. A Secret that several pools name stands in the part of each.
    pub resources: Vec<(ResourceName, Resource)>,
    /// What they keep if they have it: Secrets that cannot be used now.
    pub kept: BTreeSet<ResourceName>,
}

impl Part {
    fn resource(&self, name: &ResourceName) -> Option<&Resource> {
        let mut resources = self.resources.iter();
        resources.find_map(|(it, resource)| (it == name).then_some(resource))
    }
}

/// The state of one node.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct NodeState {
    /// What it is told, by pool. A part that has not changed is the object that it was before.
    pub parts: BTreeMap<Arc<PoolRef>, Arc<Part>>,
    /// What it keeps as it has it: of pools that are refused now and served before.
    pub held: BTreeSet<Arc<PoolRef>>,
}

impl NodeState {
    /// What it is told.
    pub fn resources(&self) -> impl Iterator<Item = &(ResourceName, Resource)> {
        self.parts.values().flat_map(|part| part.resources.iter())
    }

    /// The resource of that name, if the node is told it.
    pub fn resource(&self, name: &ResourceName) -> Option<&Resource> {
        match name {
            ResourceName::Pool(pool)
            | ResourceName::Endpoints { pool, .. }
            | ResourceName::TicketKeys(pool) => self.parts.get(pool)?.resource(name),
            ResourceName::Secret(_) => self.parts.values().find_map(|part| part.resource(name)),
            ResourceName::Other(_) => None,
        }
    }

    /// Whether the node is to have it: it is told that, or goes on with what it has.
    pub fn keeps(&self, name: &ResourceName) -> bool {
        let held = match name {
            ResourceName::Pool(pool) | ResourceName::Endpoints { pool, .. } => {
                self.held.contains(pool)
            }
            _ => false,
        };
        held || self.resource(name).is_some()
            || self.parts.values().any(|it| it.kept.contains(name))
    }

    /// The revision of a pool that the node is told; `None`: it has no part in it.
    pub fn pool_revision(&self, pool: &PoolRef) -> Option<&Revision> {
        let part = self.parts.get(pool)?;
        let resource = part.resource(&ResourceName::Pool(pool.clone()))?;
        Some(&resource.revision)
    }
}

/// The states of all nodes that have a part in anything, by name of the node.
pub type NodeStates = BTreeMap<String, Arc<NodeState>>;

/// What nodes are told, and the part of the plan that it follows from.
#[derive(Clone, Debug)]
pub struct Told {
    /// What is planned but for the nodes that hold it.
    pub outline: Outline,
    /// What each node is told.
    pub nodes: NodeStates,
    /// The highest sequence that went into it.
    pub sequence: i64,
}

/// Everything that follows from a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Desired {
    /// The plan.
    pub plan: Arc<Plan>,
    /// What each node is told.
    pub nodes: NodeStates,
    /// The highest sequence that went into it.
    pub sequence: i64,
}

/// Computes everything, once.
///
/// # Errors
/// If content has no JSON form, which no type of the contract is without.
pub fn desired(snapshot: &Snapshot) -> Result<Desired, serde_json::Error> {
    let told = Teller::default().tell(snapshot)?;
    Ok(Desired {
        plan: Arc::new(plan::Placer::default().place(&told.outline)),
        nodes: told.nodes,
        sequence: told.sequence,
    })
}

/// Computes what nodes are told, again and again; what has not changed costs no more than to see that.
#[derive(Debug, Default)]
pub struct Teller {
    outliner: plan::Outliner,
    pools: BTreeMap<Arc<PoolRef>, Memo>,
    nodes: NodeStates,
}

/// What nodes are told of one pool, and what that was made of.
#[derive(Debug, Default)]
struct Memo {
    object: Option<Arc<WebSocketHAPool>>,
    outlined: Option<Arc<Pool>>,
    routers: Vec<VirtualRouter>,
    secrets: Option<Arc<Part>>,
    parts: Parts,
}

impl Memo {
    fn is_of(
        &self,
        object: &Arc<WebSocketHAPool>,
        outlined: Option<&Arc<Pool>>,
        secrets: Option<&Arc<Part>>,
    ) -> bool {
        is_same(self.object.as_ref(), Some(object)) && self.is_made_of(outlined, secrets)
    }

    fn is_made_of(&self, outlined: Option<&Arc<Pool>>, secrets: Option<&Arc<Part>>) -> bool {
        is_same(self.outlined.as_ref(), outlined) && is_same(self.secrets.as_ref(), secrets)
    }
}

fn is_same<T>(one: Option<&Arc<T>>, other: Option<&Arc<T>>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => Arc::ptr_eq(one, other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

/// By name of the node.
#[derive(Debug, Default)]
struct Parts {
    told: BTreeMap<String, Arc<Part>>,
    held: BTreeSet<String>,
}

impl Teller {
    /// Computes what nodes are told.
    ///
    /// # Errors
    /// If content has no JSON form, which no type of the contract is without.
    pub fn tell(&mut self, snapshot: &Snapshot) -> Result<Told, serde_json::Error> {
        let outline = self.outliner.outline(Arc::new(snapshot.inputs()));
        let mut before = std::mem::take(&mut self.pools);
        for object in &snapshot.pools {
            let name = plan::model::pool_ref(object);
            let outlined = outline.pool(&name);
            let secrets = snapshot.keyring.part(&name);
            let (name, former) = before
                .remove_entry(&name)
                .unwrap_or_else(|| (Arc::new(name), Memo::default()));
            let mut memo = if former.is_of(object, outlined, secrets) {
                former
            } else if let Some(outlined) = outlined {
                self.part(&name, outlined, secrets, &entries(object), former)?
            } else {
                self.hold(&name, secrets, &entries(object), &former.parts)
            };
            memo.object = Some(Arc::clone(object));
            self.pools.insert(name, memo);
        }
        for (name, former) in before {
            self.exchange(&name, &former.parts, &Parts::default());
        }
        Ok(Told {
            outline,
            nodes: self.nodes.clone(),
            sequence: snapshot.sequence(),
        })
    }

    fn part(
        &mut self,
        name: &Arc<PoolRef>,
        outlined: &Arc<Pool>,
        secrets: Option<&Arc<Part>>,
        agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
        former: Memo,
    ) -> Result<Memo, serde_json::Error> {
        let routers = outlined.virtual_routers.iter();
        let routers: Vec<_> = routers
            .filter_map(|router| {
                let entry = agreed.get(router.addresses.first()?)?;
                committed(router, entry)
            })
            .collect();
        // What is merely observed changes nothing.
        if former.is_made_of(Some(outlined), secrets) && former.routers == routers {
            return Ok(former);
        }
        let parts = Parts {
            told: parts(name, outlined, secrets, &routers)?,
            held: BTreeSet::new(),
        };
        self.exchange(name, &former.parts, &parts);
        Ok(Memo {
            object: None,
            outlined: Some(Arc::clone(outlined)),
            routers,
            secrets: secrets.cloned(),
            parts,
        })
    }

    /// A pool that is refused serves on as its nodes have it: only what is said of it stops. Its certificates
    /// are renewed all the same.
    fn hold(
        &mut self,
        name: &Arc<PoolRef>,
        secrets: Option<&Arc<Part>>,
        agreed: &BTreeMap<IpAddr, &VirtualIPStatus>,
        former: &Parts,
    ) -> Memo {
        let committed = agreed.values().filter_map(|entry| entry.committed.as_ref());
        let nodes = committed.flat_map(|committed| &committed.nodes);
        let held: BTreeSet<_> = nodes.map(|node| node.node_name.clone()).collect();
        let told = secrets.into_iter().flat_map(|secrets| {
            let nodes = held.iter();
            nodes.map(|node| (node.clone(), Arc::clone(secrets)))
        });
        let parts = Parts {
            told: told.collect(),
            held,
        };
        if former.told != parts.told || former.held != parts.held {
            self.exchange(name, former, &parts);
        }
        Memo {
            secrets: secrets.cloned(),
            parts,
            ..Memo::default()
        }
    }

    /// Puts the parts of a pool in the place of its former ones, in the states of the nodes concerned.
    fn exchange(&mut self, name: &Arc<PoolRef>, former: &Parts, parts: &Parts) {
        let gone = former
            .told
            .keys()
            .filter(|node| !parts.told.contains_key(*node));
        for node in gone {
            self.state(node).parts.remove(name);
        }
        for node in former.held.difference(&parts.held) {
            self.state(node).held.remove(name);
        }
        for (node, part) in &parts.told {
            let state = self.state(node);
            state.parts.insert(Arc::clone(name), Arc::clone(part));
        }
        for node in parts.held.difference(&former.held) {
            self.state(node).held.insert(Arc::clone(name));
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
    outlined: &Pool,
    secrets: Option<&Arc<Part>>,
    routers: &[VirtualRouter],
) -> Result<BTreeMap<String, Arc<Part>>, serde_json::Error> {
    let members: BTreeSet<&str> = routers
        .iter()
        .flat_map(|router| &router.nodes)
        .map(|node| node.node_name.as_str())
        .collect();
    if members.is_empty() {
        return Ok(BTreeMap::new());
    }
    let (settings, endpoints) = outlined.clone().split();
    let mut shared = secrets.map(|it| Part::clone(it)).unwrap_or_default();
    for (upstream, endpoints) in endpoints {
        let resource = Resource {
            revision: Revision::of(&endpoints)?,
            body: Body::Endpoints(Arc::new(endpoints)),
        };
        let pool = name.clone();
        let name = ResourceName::Endpoints { pool, upstream };
        shared.resources.push((name, resource));
    }
    let mut alike: BTreeMap<Vec<usize>, Arc<Part>> = BTreeMap::new();
    let mut parts = BTreeMap::new();
    for member in members {
        let held: Vec<usize> = (0..routers.len())
            .filter(|&at| routers[at].candidate(member).is_some())
            .collect();
        let part = if let Some(part) = alike.get(&held) {
            Arc::clone(part)
        } else {
            let pool = Pool {
                virtual_routers: held.iter().map(|&at| routers[at].clone()).collect(),
                ..settings.clone()
            };
            let resource = Resource {
                // Of the value, whose fields are in the same order in every version.
                revision: Revision::of(&serde_json::to_value(&pool)?)?,
                body: Body::Pool(Arc::new(pool)),
            };
            let mut part = shared.clone();
            let name = ResourceName::Pool(name.clone());
            part.resources.push((name, resource));
            let part = Arc::new(part);
            alike.insert(held, Arc::clone(&part));
            part
        };
        parts.insert(member.to_owned(), part);
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
        mac_address: match agreed.mac_address.mode {
            MacAddressMode::Interface => MacAddress::Interface,
            MacAddressMode::VirtualRouter => MacAddress::VirtualRouter,
        },
        nodes: plan::ranked_nodes(priorities),
        peering: peers::told(agreed),
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

/// Hardware address as the API writes it.
pub fn written_mac_address(mac_address: MacAddress) -> crds::MacAddress {
    let mode = match mac_address {
        MacAddress::Interface => MacAddressMode::Interface,
        MacAddress::VirtualRouter => MacAddressMode::VirtualRouter,
    };
    crds::MacAddress { mode }
}

/// Interval as the API writes it.
pub fn interval(duration: Duration) -> crds::Duration {
    crds::Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}
