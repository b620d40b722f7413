//! From inputs to a plan.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use node_api::{Pool, PoolRef};

use crate::{
    Inputs, Problem,
    admission::Admission,
    assign::{self, Router},
    build::{build, resolve},
    endpoints::Servers,
    membership::Nodes,
    model::{self, PoolIntent},
    network::Network,
    vrid::Key,
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
    plan_again(inputs, &mut Memo::default())
}

/// The dearest part of a plan, and what it was made of: endpoints come and go, and leave it as it is.
#[derive(Clone, Debug, Default)]
pub struct Memo {
    names: Vec<String>,
    routers: Vec<Router>,
    orders: Vec<Vec<usize>>,
}

impl Memo {
    fn orders(&mut self, names: &[&str], routers: Vec<Router>) -> &[Vec<usize>] {
        if self.names != names || !self.stand(&routers) {
            self.orders = assign::orders(names, &routers);
            self.names = names.iter().map(|&name| name.to_owned()).collect();
        }
        self.routers = routers;
        &self.orders
    }

    /// Whether the orders are those of `routers` too. What was planned and is committed as it was planned is
    /// planned again, though the rest may not be committed yet: nothing is cheaper than not to move.
    fn stand(&self, routers: &[Router]) -> bool {
        let same = |((before, now), order): ((&Router, &Router), &Vec<usize>)| {
            (now.committed == before.committed || now.committed == *order)
                && (&now.key, &now.candidates) == (&before.key, &before.candidates)
                && (&now.cordoned, &now.wish) == (&before.cordoned, &before.wish)
        };
        let pairs = self.routers.iter().zip(routers);
        self.routers.len() == routers.len() && pairs.zip(&self.orders).all(same)
    }
}

/// As [`plan`], which gives the same, with the `memo` of an earlier plan.
pub fn plan_again(inputs: &Inputs, memo: &mut Memo) -> Plan {
    let network = Network::new(inputs);
    let nodes = Nodes::new(inputs, &network);
    let (mut drafts, malformed) = drafts(inputs);
    let mut admission = Admission::new(inputs, &network, &nodes, &drafts);
    for draft in &mut drafts {
        admission.admit(draft);
    }
    admission.choose_virtual_router_ids(&mut drafts);
    let orders = orders(inputs, &nodes, &mut drafts, memo);
    finish(inputs, &nodes, drafts, malformed, &orders)
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
    fn new(intent: PoolIntent) -> Self {
        Self {
            virtual_router_ids: vec![None; intent.virtual_ips.len()],
            intent,
            problems: Vec::new(),
            unresolved: Vec::new(),
        }
    }

    /// Its virtual routers, in the user's order.
    pub(crate) fn keys(&self) -> impl Iterator<Item = Key> {
        let addresses = self.intent.virtual_ips.iter();
        addresses.map(|virtual_ip| (self.intent.name.clone(), virtual_ip.address))
    }

    /// Addresses, by index, for which a VRID is to be chosen, in their own order: that of the list
    /// must not matter.
    pub(crate) fn open(&self) -> Vec<(usize, Key)> {
        if !self.problems.is_empty() {
            return Vec::new();
        }
        let keys = self.keys().enumerate();
        let mut open: Vec<_> = keys
            .filter(|(index, _)| self.virtual_router_ids[*index].is_none())
            .collect();
        open.sort_by_key(|(_, key)| key.1);
        open
    }
}

/// Pools that make sense by themselves, in the order in which they are admitted, and the others.
fn drafts(inputs: &Inputs) -> (Vec<Draft>, BTreeMap<PoolRef, Vec<Problem>>) {
    let committed: BTreeSet<&PoolRef> = inputs
        .committed
        .routers
        .keys()
        .map(|(pool, _)| pool)
        .collect();
    let mut malformed = BTreeMap::new();
    let mut drafts = BTreeMap::new();
    for pool in &inputs.objects.pools {
        match PoolIntent::try_from(&**pool) {
            Ok(intent) => {
                let is_new = !committed.contains(&intent.name);
                let key = (is_new, intent.created, intent.name.clone());
                drafts.insert(key, Draft::new(intent));
            }
            Err(problems) => {
                malformed.insert(model::pool_ref(pool), problems);
            }
        }
    }
    (drafts.into_values().collect(), malformed)
}

/// The nodes of each virtual router, best first.
fn orders(
    inputs: &Inputs,
    nodes: &Nodes<'_>,
    drafts: &mut [Draft],
    memo: &mut Memo,
) -> BTreeMap<(IpAddr, PoolRef), Vec<usize>> {
    let mut routers: BTreeMap<(IpAddr, PoolRef), Router> = BTreeMap::new();
    // Most pools choose the same nodes.
    let mut members = BTreeMap::new();
    for draft in drafts {
        let labels = &draft.intent.match_labels;
        if !members.contains_key(labels) {
            members.insert(labels.clone(), nodes.members(labels));
        }
        let Some(members) = members.get(labels) else {
            continue;
        };
        let resolved = resolve(nodes, members, inputs, draft);
        if draft.problems.is_empty() {
            routers.extend(resolved);
        }
    }
    let (keys, routers): (Vec<_>, Vec<_>) = routers.into_iter().unzip();
    let orders = memo.orders(nodes.names(), routers);
    keys.into_iter().zip(orders.iter().cloned()).collect()
}

fn finish(
    inputs: &Inputs,
    nodes: &Nodes<'_>,
    drafts: Vec<Draft>,
    malformed: BTreeMap<PoolRef, Vec<Problem>>,
    orders: &BTreeMap<(IpAddr, PoolRef), Vec<usize>>,
) -> Plan {
    let names = nodes.names();
    let mut plan = Plan {
        nodes: names.iter().map(|&name| name.to_owned()).collect(),
        rejected: malformed,
        ..Plan::default()
    };
    let accepted = drafts.iter().filter(|draft| draft.problems.is_empty());
    let virtual_addresses = accepted.flat_map(Draft::keys).map(|(_, address)| address);
    let servers = Servers::new(&inputs.objects, virtual_addresses.collect());
    for draft in drafts {
        let name = draft.intent.name.clone();
        if !draft.problems.is_empty() {
            plan.rejected.insert(name, draft.problems);
            continue;
        }
        let (pool, more) = build(&servers, names, &draft, orders);
        let unresolved = [draft.unresolved, more].concat();
        if !unresolved.is_empty() {
            plan.unresolved.insert(name.clone(), unresolved);
        }
        plan.pools.insert(name, pool);
    }
    plan
}
