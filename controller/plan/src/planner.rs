//! From inputs to a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use node_api::{Pool, PoolRef};

use crate::{
    Inputs, Problem, Retirement,
    assign::{self, Router},
    build::{build, resolve},
    membership::Nodes,
    model::{self, EndpointSource, PoolIntent},
    vrid::{Claims, Taken},
};

/// Who does what.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Plan {
    /// Names of all nodes that exist, members of a pool or not.
    pub nodes: BTreeSet<String>,
    /// What was accepted, each with all its virtual routers.
    pub pools: BTreeMap<PoolRef, Pool>,
    /// What was not, and why; none of these is planned in part.
    pub rejected: BTreeMap<PoolRef, Vec<Problem>>,
    /// What leads nowhere now in pools that were accepted, and may lead somewhere later: a Service,
    /// a node, an endpoint that is refused.
    pub unresolved: BTreeMap<PoolRef, Vec<Problem>>,
}

/// Plans everything; the same inputs give the same plan, whatever the order of objects.
pub fn plan(inputs: &Inputs) -> Plan {
    let mut planner = Planner::new(inputs);
    planner.check_addresses();
    planner.check_ports_and_endpoints();
    planner.choose_virtual_router_ids();
    planner.finish()
}

/// A pool on its way.
pub(crate) struct Draft {
    pub(crate) intent: PoolIntent,
    /// By index of the virtual address.
    pub(crate) virtual_router_ids: Vec<Option<u8>>,
    pub(crate) problems: Vec<Problem>,
    pub(crate) unresolved: Vec<Problem>,
}

impl Draft {
    /// Addresses for which there is no VRID yet and nobody named one, in their own order: that of
    /// the list must not matter.
    fn open(&self) -> Vec<usize> {
        let addresses = &self.intent.virtual_ips;
        let mut open: Vec<usize> = (0..addresses.len())
            .filter(|&index| {
                self.virtual_router_ids[index].is_none()
                    && addresses[index].virtual_router_id.is_none()
            })
            .collect();
        open.sort_by_key(|&index| addresses[index].address);
        open
    }
}

struct Planner<'a> {
    inputs: &'a Inputs,
    nodes: Nodes<'a>,
    /// The older first, then by name: of two that clash the first stands.
    drafts: Vec<Draft>,
    /// Of which nothing more is to be said.
    malformed: BTreeMap<PoolRef, Vec<Problem>>,
    /// Virtual routers that a node may still hold although their pool has no such address.
    retirements: Vec<Retirement>,
    /// All virtual addresses that users ask for.
    virtual_addresses: BTreeSet<IpAddr>,
}

impl<'a> Planner<'a> {
    fn new(inputs: &'a Inputs) -> Self {
        let mut malformed = BTreeMap::new();
        let mut drafts = BTreeMap::new();
        let mut virtual_addresses = BTreeSet::new();
        for pool in &inputs.objects.pools {
            let listed = pool.spec.virtual_ips.iter();
            virtual_addresses.extend(listed.filter_map(|it| it.address.parse::<IpAddr>().ok()));
            match PoolIntent::try_from(pool) {
                Ok(intent) => {
                    drafts.insert(
                        (intent.created, intent.name.clone()),
                        Draft {
                            virtual_router_ids: vec![None; intent.virtual_ips.len()],
                            intent,
                            problems: Vec::new(),
                            unresolved: Vec::new(),
                        },
                    );
                }
                Err(problems) => {
                    malformed.insert(model::pool_ref(pool), problems);
                }
            }
        }
        let nodes = Nodes::new(inputs);
        let present: BTreeSet<_> = nodes.names().into_iter().collect();
        // A node that left the cluster holds nothing any more.
        let retirements = inputs.committed.retirements.iter().filter(|retirement| {
            retirement
                .nodes
                .iter()
                .any(|node| present.contains(node.as_str()))
        });
        Self {
            inputs,
            retirements: retirements.cloned().collect(),
            nodes,
            drafts: drafts.into_values().collect(),
            malformed,
            virtual_addresses,
        }
    }

    /// Addresses and ports: one pool each, no host's own, permitted.
    fn check_addresses(&mut self) {
        let committed = self.inputs.committed.routers.keys();
        let mut owners: BTreeMap<IpAddr, PoolRef> = committed
            .map(|(pool, address)| (*address, pool.clone()))
            .collect();
        let leaving = &self.retirements;
        for draft in &mut self.drafts {
            let name = &draft.intent.name;
            for (index, virtual_ip) in draft.intent.virtual_ips.iter().enumerate() {
                let address = virtual_ip.address;
                let path = format!("spec.virtualIPs[{index}].address");
                let mut refuse = |message: String| {
                    draft.problems.push(Problem::new(path.clone(), message));
                };
                let owner = owners.entry(address).or_insert_with(|| name.clone());
                if owner != name {
                    refuse(format!(
                        "{address} is also an address of WebSocketHAPool {owner}; an address \
                         belongs to one pool, so remove it from one of the two"
                    ));
                }
                if let Some(held) = leaving
                    .iter()
                    .find(|held| held.address == address && held.pool != *name)
                {
                    refuse(format!(
                        "{address} is still being given up by WebSocketHAPool {}; it is free once \
                         its nodes have acknowledged that",
                        held.pool
                    ));
                }
                if let Some(node) = self.nodes.owner(address) {
                    refuse(format!(
                        "{address} is node {node}'s own address; use one that no host owns"
                    ));
                }
                if let Some(message) = forbidden(self.inputs, address) {
                    refuse(message);
                }
            }
        }
    }

    /// Ports that are permitted, endpoints that are no virtual addresses.
    fn check_ports_and_endpoints(&mut self) {
        for draft in &mut self.drafts {
            for (index, listener) in draft.intent.listeners.iter().enumerate() {
                let mut forbidden = self.inputs.policy.forbidden_ports.iter();
                if let Some(range) = forbidden.find(|range| range.contains(&listener.port)) {
                    draft.problems.push(Problem::new(
                        format!("spec.listeners[{index}].port"),
                        format!(
                            "{} lies in the range {}-{}, which is used otherwise; choose another",
                            listener.port,
                            range.start(),
                            range.end()
                        ),
                    ));
                }
            }
            for (index, upstream) in draft.intent.upstreams.iter().enumerate() {
                let EndpointSource::Listed(listed) = &upstream.source else {
                    continue;
                };
                for endpoint in listed {
                    if self.virtual_addresses.contains(&endpoint.address) {
                        draft.problems.push(Problem::new(
                            format!("spec.upstreams[{index}].endpoints"),
                            format!(
                                "{} is a virtual address, which would be a loop; use the server's \
                                 own address",
                                endpoint.address
                            ),
                        ));
                    }
                }
            }
        }
    }

    /// VRIDs that users name, then those that are committed, then what is free.
    fn choose_virtual_router_ids(&mut self) {
        let mut claims = Claims::new(self.inputs, &self.retirements);
        for draft in &mut self.drafts {
            for (index, virtual_ip) in draft.intent.virtual_ips.iter().enumerate() {
                let key = (draft.intent.name.clone(), virtual_ip.address);
                let Some(named) = virtual_ip.virtual_router_id else {
                    let committed = self.inputs.committed.routers.get(&key);
                    draft.virtual_router_ids[index] = committed.map(|it| it.virtual_router_id);
                    continue;
                };
                match claims.claim(&key, named) {
                    Ok(()) => draft.virtual_router_ids[index] = Some(named),
                    Err(taken) => draft.problems.push(Problem::new(
                        format!("spec.virtualIPs[{index}].virtualRouterID"),
                        format!(
                            "{named} is also that of {}; choose another from 1 to 255",
                            describe(&taken)
                        ),
                    )),
                }
            }
        }
        // All last bytes before any other number: none may take what is another's by nature.
        let mut left = Vec::new();
        for (place, draft) in self.drafts.iter_mut().enumerate() {
            for index in draft.open() {
                let key = (
                    draft.intent.name.clone(),
                    draft.intent.virtual_ips[index].address,
                );
                match claims.last_byte(&key) {
                    Ok(last) => draft.virtual_router_ids[index] = Some(last),
                    Err(taken) => left.push((place, index, key, taken)),
                }
            }
        }
        for (place, index, key, taken) in left {
            let draft = &mut self.drafts[place];
            draft.virtual_router_ids[index] = claims.next_free(&key);
            if draft.virtual_router_ids[index].is_none() {
                let why = taken.map_or_else(
                    || "is 0 or heard from a router that is none of ours".to_owned(),
                    |taken| format!("is also the VRID of {}", describe(&taken)),
                );
                draft.problems.push(Problem::new(
                    format!("spec.virtualIPs[{index}].virtualRouterID"),
                    format!(
                        "is left out, and the last byte of {} {why}; set virtualRouterID to a \
                         number from 1 to 255 that no other virtual router of the network has",
                        key.1
                    ),
                ));
            }
        }
    }

    fn finish(mut self) -> Plan {
        let names = self.nodes.names();
        let mut routers: BTreeMap<(IpAddr, PoolRef), Router> = BTreeMap::new();
        for draft in &mut self.drafts {
            let resolved = resolve(&self.nodes, &names, self.inputs, draft);
            if draft.problems.is_empty() {
                routers.extend(resolved);
            }
        }
        let (keys, routers): (Vec<_>, Vec<_>) = routers.into_iter().unzip();
        let orders = assign::orders(&names, &routers);
        let orders: BTreeMap<_, _> = keys.into_iter().zip(orders).collect();

        let mut plan = Plan {
            nodes: names.iter().map(|&name| name.to_owned()).collect(),
            rejected: self.malformed,
            ..Plan::default()
        };
        for draft in self.drafts {
            let name = draft.intent.name.clone();
            if !draft.problems.is_empty() {
                plan.rejected.insert(name, draft.problems);
                continue;
            }
            let (pool, mut unresolved) = build(
                self.inputs,
                &names,
                &draft,
                &orders,
                &self.virtual_addresses,
            );
            unresolved.splice(0..0, draft.unresolved);
            if !unresolved.is_empty() {
                plan.unresolved.insert(name.clone(), unresolved);
            }
            plan.pools.insert(name, pool);
        }
        plan
    }
}

/// Why the policy or the network forbids `address`.
fn forbidden(inputs: &Inputs, address: IpAddr) -> Option<String> {
    let policy = &inputs.policy;
    let facts = inputs.facts.values().flat_map(|facts| &facts.interfaces);
    let mut routers = facts.flat_map(|interface| &interface.default_routers);
    if routers.any(|router| *router == address) {
        return Some(format!(
            "{address} is a default router of the nodes; use one that no host owns"
        ));
    }
    if let Some(range) = policy
        .forbidden_addresses
        .iter()
        .find(|range| range.contains(&address))
    {
        return Some(format!(
            "{address} lies in {range}, which is used otherwise; use another"
        ));
    }
    let permitted = &policy.virtual_addresses;
    if !permitted.is_empty() && !permitted.iter().any(|range| range.contains(&address)) {
        let ranges: Vec<_> = permitted.iter().map(ToString::to_string).collect();
        return Some(format!(
            "{address} is not permitted; the administrator permits {}",
            ranges.join(", ")
        ));
    }
    None
}

fn describe(taken: &Taken) -> String {
    let (pool, address) = &taken.by;
    let leaving = if taken.leaving {
        ", which its nodes are still giving up"
    } else {
        ""
    };
    format!("{address} of WebSocketHAPool {pool}{leaving}")
}
