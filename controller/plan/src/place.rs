//! Which nodes hold what: the part of a plan that takes thought.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use node_api::{Peering, Pool, PoolRef, RankedNode, VirtualRouter};

use crate::{
    Inputs, Outline, Plan, Problem,
    assign::{self, Router},
    draft::{Draft, Drafts},
    membership::Nodes,
    model::{self, Order},
    network::Network,
    priorities::{of_rank, ranked_nodes},
    resolve::resolve,
};

/// Completes outlines, one after another.
#[derive(Debug, Default)]
pub struct Placer {
    orders: Orders,
    /// The drafts that were placed last.
    drafts: Option<Arc<Drafts>>,
    /// Names of all nodes, sorted.
    names: Vec<String>,
    /// The nodes of each virtual router, best first.
    placed: BTreeMap<(IpAddr, PoolRef), Vec<usize>>,
    /// The addresses under which nodes are unicast peers.
    peers: BTreeMap<(IpAddr, PoolRef), BTreeMap<usize, IpAddr>>,
    /// What leads nowhere among names of nodes, by place of the draft.
    unresolved: Vec<Vec<Problem>>,
    /// What was outlined, and what it is with its nodes.
    pools: BTreeMap<PoolRef, (Arc<Pool>, Arc<Pool>)>,
}

impl Placer {
    /// Completes `outline`; the same outline gives the same plan, whatever came before.
    pub fn place(&mut self, outline: &Outline) -> Plan {
        let drafts = &outline.drafts;
        let stand = self
            .drafts
            .as_ref()
            .is_some_and(|it| Arc::ptr_eq(it, drafts));
        if !stand {
            self.choose(&outline.inputs, drafts);
            self.drafts = Some(Arc::clone(drafts));
        }
        let mut plan = Plan {
            nodes: self.names.iter().cloned().collect(),
            rejected: drafts.rejected.clone(),
            ..Plan::default()
        };
        let mut former = std::mem::take(&mut self.pools);
        for (draft, unresolved) in drafts.accepted.iter().zip(&self.unresolved) {
            let name = &draft.intent.name;
            let Some(built) = outline.built.get(name) else {
                continue; // every draft that stands is built
            };
            let unresolved = [&draft.unresolved, unresolved, &*built.unresolved].concat();
            if !unresolved.is_empty() {
                plan.unresolved.insert(name.clone(), unresolved);
            }
            let pool = match former.remove(name) {
                Some((outlined, pool)) if stand && Arc::ptr_eq(&outlined, &built.pool) => pool,
                former => {
                    let pool = self.with_nodes(draft, &built.pool);
                    // What comes out as before is what was before, for those who look at nothing else.
                    let former = former.filter(|(_, former)| **former == pool);
                    former.map_or_else(|| Arc::new(pool), |(_, former)| former)
                }
            };
            plan.pools.insert(name.clone(), Arc::clone(&pool));
            self.pools
                .insert(name.clone(), (Arc::clone(&built.pool), pool));
        }
        plan
    }

    /// Chooses the nodes of all virtual routers.
    fn choose(&mut self, inputs: &Inputs, drafts: &Drafts) {
        let network = Network::new(inputs);
        let nodes = Nodes::new(inputs, &network);
        let mut routers: BTreeMap<(IpAddr, PoolRef), Router> = BTreeMap::new();
        self.unresolved.clear();
        self.peers.clear();
        for draft in &drafts.accepted {
            let members = nodes.members(&draft.intent.match_labels);
            let resolved = resolve(&nodes, &members, inputs, draft);
            routers.extend(resolved.routers);
            self.peers.extend(resolved.peers);
            self.unresolved.push(resolved.unresolved);
        }
        let (keys, routers): (Vec<_>, Vec<_>) = routers.into_iter().unzip();
        let orders = self.orders.of(nodes.names(), routers);
        self.placed = keys.into_iter().zip(orders.iter().cloned()).collect();
        self.names = nodes.names().iter().map(|&name| name.to_owned()).collect();
    }

    fn with_nodes(&self, draft: &Draft, outlined: &Pool) -> Pool {
        let mut pool = outlined.clone();
        let virtual_ips = &draft.intent.virtual_ips;
        for (router, virtual_ip) in pool.virtual_routers.iter_mut().zip(virtual_ips) {
            let key = (virtual_ip.address, draft.intent.name.clone());
            let order = self.placed.get(&key).map_or(&[][..], Vec::as_slice);
            router.nodes = ranked(&self.names, order, &virtual_ip.order);
            if !router.peering.is_multicast() {
                self.address(&key, router);
            }
            if draft.intent.peering == model::Peering::Candidates {
                let own = router.nodes.iter().filter_map(|node| node.address);
                let own: BTreeSet<_> = own.collect();
                router.peering = Peering::Unicast {
                    addresses: own.into_iter().collect(),
                };
            }
        }
        pool
    }
}

impl Placer {
    /// Writes the addresses under which nodes are unicast peers to them.
    fn address(&self, key: &(IpAddr, PoolRef), router: &mut VirtualRouter) {
        let known = self.peers.get(key);
        for node in &mut router.nodes {
            let index = self.names.binary_search(&node.node_name).ok();
            node.address = index.and_then(|index| known?.get(&index).copied());
        }
    }
}

/// The user's priorities, else those of the ranks.
fn ranked(names: &[String], order: &[usize], wish: &Order) -> Vec<RankedNode> {
    let nodes = order.iter().enumerate().map(|(rank, &node)| {
        let name = &names[node];
        let listed = match wish {
            Order::Fixed(listed) => listed.iter().find(|(listed, _)| listed == name),
            Order::Spread | Order::Preferred(_) => None,
        };
        let priority = listed.map_or_else(|| of_rank(rank), |(_, priority)| *priority);
        (name.clone(), priority)
    });
    ranked_nodes(nodes)
}

/// The dearest part of a plan, and what it was made of.
#[derive(Debug, Default)]
struct Orders {
    names: Vec<String>,
    routers: Vec<Router>,
    found: Vec<Vec<usize>>,
}

impl Orders {
    fn of(&mut self, names: &[&str], routers: Vec<Router>) -> &[Vec<usize>] {
        if self.names != names || !self.stand(&routers) {
            self.found = assign::orders(names, &routers);
            self.names = names.iter().map(|&name| name.to_owned()).collect();
        }
        self.routers = routers;
        &self.found
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
        self.routers.len() == routers.len() && pairs.zip(&self.found).all(same)
    }
}
