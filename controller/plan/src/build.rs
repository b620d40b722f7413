//! From checked pools to what nodes carry out.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use node_api::{Pool, PoolRef, RankedNode, Upstream, VirtualRouter};

use crate::{
    Inputs, Problem,
    assign::{Router, Wish},
    endpoints,
    membership::Nodes,
    model::{Order, VirtualIpIntent},
    planner::Draft,
};

/// Turns names of nodes into indices, and notes those that lead nowhere.
pub(crate) fn resolve(
    nodes: &Nodes<'_>,
    names: &[&str],
    inputs: &Inputs,
    draft: &mut Draft,
) -> Vec<((IpAddr, PoolRef), Router)> {
    let members = nodes.members(&draft.intent);
    if members.is_empty() {
        draft.unresolved.push(Problem::new(
            "spec.gateways.nodeSelector.matchLabels",
            "matches no Node that may take part; label the gateway nodes or correct the labels",
        ));
    }
    let mut routers = Vec::new();
    for (index, virtual_ip) in draft.intent.virtual_ips.iter().enumerate() {
        let index_of = |name: &str| {
            let place = names.binary_search(&name).ok()?;
            (members.contains(name) && nodes.reaches(name, virtual_ip)).then_some(place)
        };
        let mut missing = |path: String, name: &str| {
            draft.unresolved.push(Problem::new(
                format!("spec.virtualIPs[{index}].{path}"),
                why_not(nodes, names, &members, virtual_ip, name),
            ));
        };
        let candidates: BTreeSet<usize> = members.iter().filter_map(|it| index_of(it)).collect();
        let wish = match &virtual_ip.order {
            Order::Spread => Wish::None,
            Order::Preferred(name) => index_of(name).map_or_else(
                || {
                    missing("preferredNodeName".to_owned(), name);
                    Wish::None
                },
                Wish::First,
            ),
            Order::Fixed(listed) => {
                let order = listed.iter().filter_map(|(name, _)| {
                    let place = index_of(name);
                    if place.is_none() {
                        missing("nodePriorities".to_owned(), name);
                    }
                    place
                });
                Wish::Order(order.collect())
            }
        };
        let key = (draft.intent.name.clone(), virtual_ip.address);
        let committed = inputs.committed.routers.get(&key).into_iter();
        let committed = committed.flat_map(|it| &it.nodes);
        let router = Router {
            key: virtual_ip.address.to_string(),
            cordoned: candidates
                .iter()
                .filter(|&&it| nodes.cordoned(names[it]))
                .copied()
                .collect(),
            candidates,
            wish,
            committed: committed.filter_map(|name| index_of(name)).collect(),
        };
        routers.push(((virtual_ip.address, key.0), router));
    }
    routers
}

/// Why a node that a user names is no candidate.
fn why_not(
    nodes: &Nodes<'_>,
    names: &[&str],
    members: &BTreeSet<&str>,
    virtual_ip: &VirtualIpIntent,
    name: &str,
) -> String {
    if names.binary_search(&name).is_err() {
        let present = if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        };
        format!("names node {name}, which does not exist; the nodes present are {present}")
    } else if !members.contains(name) {
        format!(
            "names node {name}, which spec.gateways.nodeSelector does not choose; label the node \
             or name another"
        )
    } else if nodes.reaches(name, virtual_ip) {
        format!("names node {name}, which cannot be used")
    } else {
        format!(
            "names node {name}, whose network does not reach {}; name another or set interface",
            virtual_ip.address
        )
    }
}

/// The pool as nodes carry it out, and what leads nowhere in it.
pub(crate) fn build(
    inputs: &Inputs,
    names: &[&str],
    draft: &Draft,
    orders: &BTreeMap<(IpAddr, PoolRef), Vec<usize>>,
    virtual_addresses: &BTreeSet<IpAddr>,
) -> (Pool, Vec<Problem>) {
    let intent = &draft.intent;
    let mut virtual_routers = Vec::new();
    for (virtual_ip, virtual_router_id) in intent.virtual_ips.iter().zip(&draft.virtual_router_ids)
    {
        let key = (virtual_ip.address, intent.name.clone());
        let (Some(order), Some(virtual_router_id)) = (orders.get(&key), *virtual_router_id) else {
            continue; // neither happens to a draft without problems
        };
        virtual_routers.push(VirtualRouter {
            virtual_router_id,
            addresses: vec![virtual_ip.address],
            interface: virtual_ip.interface.clone(),
            version: intent.timing.version,
            advertisement_interval: intent.timing.advertisement_interval,
            preemption: intent.timing.preemption,
            nodes: ranked(names, order, &virtual_ip.order),
            sequence: 0,
        });
    }
    let mut unresolved = Vec::new();
    let upstreams = intent
        .upstreams
        .iter()
        .enumerate()
        .map(|(index, upstream)| {
            let path = format!("spec.upstreams[{index}]");
            let namespace = &intent.name.namespace;
            let found = endpoints::find(
                &inputs.objects,
                namespace,
                &path,
                &upstream.source,
                virtual_addresses,
            );
            unresolved.extend(found.problems);
            Upstream {
                name: upstream.name.clone(),
                endpoints: found.endpoints,
                balancing: upstream.balancing,
                connect_timeout: upstream.connect_timeout,
                handshake_timeout: upstream.handshake_timeout,
            }
        });
    let pool = Pool {
        virtual_routers,
        listeners: intent.listeners.clone(),
        upstreams: upstreams.collect(),
        heartbeat: intent.heartbeat,
        drain: intent.drain,
    };
    (pool, unresolved)
}

/// Priorities by rank. The planner's are 250, 235, ... 115: at 100 ms advertisements the first
/// Backup's skew is 8 ms and each further one's 6 ms more (RFC 9568 section 6.1). Without a usable
/// endpoint a node advertises its rank from the bottom, below every priority that anyone has.
fn ranked(names: &[&str], order: &[usize], wish: &Order) -> Vec<RankedNode> {
    let nodes = (0_u8..).zip(order).map(|(rank, &node)| {
        let name = names[node];
        let (priority, lowest) = match wish {
            Order::Fixed(listed) => {
                let entry = listed.iter().find(|(listed, _)| listed == name);
                let ranks = u8::try_from(listed.len()).unwrap_or(u8::MAX);
                (entry.map_or(1, |(_, priority)| *priority), ranks)
            }
            Order::Spread | Order::Preferred(_) => {
                (250_u8.saturating_sub(rank.saturating_mul(15)), 10)
            }
        };
        RankedNode {
            node_name: name.to_owned(),
            priority,
            priority_without_endpoint: lowest.saturating_sub(rank).max(1),
        }
    });
    nodes.collect()
}
