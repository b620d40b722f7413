//! From the names that pools mention to nodes that can hold their addresses.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use node_api::PoolRef;

use crate::{
    Inputs, Problem, Reason,
    assign::{Router, Wish},
    draft::Draft,
    membership::{EXCLUDE_LABEL, Members, Nodes},
    model::{Order, Peering, VirtualIpIntent, family},
    peers::{Peer, peer},
};

/// Most names in a sentence.
const MOST_NAMES: usize = 20;

/// The virtual routers of a pool with names of nodes turned into indices.
#[derive(Debug, Default)]
pub(crate) struct Resolved {
    /// Each with what it is known by.
    pub(crate) routers: Vec<((IpAddr, PoolRef), Router)>,
    /// Addresses under which candidates are unicast peers, as far as they are known.
    pub(crate) peers: Vec<((IpAddr, PoolRef), BTreeMap<usize, IpAddr>)>,
    /// What leads nowhere.
    pub(crate) unresolved: Vec<Problem>,
}

/// Turns names of nodes into indices, and notes those that lead nowhere.
pub(crate) fn resolve(
    nodes: &Nodes<'_>,
    members: &Members,
    inputs: &Inputs,
    draft: &Draft,
) -> Resolved {
    let mut unresolved = Vec::new();
    if members.nodes.is_empty() {
        unresolved.push(Problem::of(
            Reason::Unresolved,
            "spec.gateways.nodeSelector.matchLabels",
            "matches no Node that may take part; label the gateway nodes or correct the labels",
        ));
    }
    let mut routers = Vec::new();
    let mut all_peers = Vec::new();
    for (index, virtual_ip) in draft.intent.virtual_ips.iter().enumerate() {
        let path = format!("spec.virtualIPs[{index}]");
        let key = (draft.intent.name.clone(), virtual_ip.address);
        let committed = inputs.committed.routers.get(&key).into_iter();
        let committed = committed.flat_map(|it| &it.nodes);
        let committed: Vec<usize> = committed.filter_map(|name| nodes.index_of(name)).collect();
        let in_cluster = inputs.policy.cluster.is_some();
        let before = unresolved.len();
        let mut candidates = candidates(nodes, members, virtual_ip, &committed, in_cluster);
        let (peers, strange) = peers(nodes, inputs, draft, virtual_ip, &candidates);
        candidates.retain(|node| !strange.contains(node));
        unresolved.extend(no_peers(nodes, draft, virtual_ip, &strange));
        let index_of = |name: &str| {
            let node = nodes.index_of(name)?;
            candidates.contains(&node).then_some(node)
        };
        let mut missing = |field: &str, name: &str| {
            if nodes.index_of(name).is_some_and(|it| strange.contains(&it)) {
                return; // told already
            }
            let (reason, message) = why_not(nodes, members, virtual_ip, name);
            unresolved.push(Problem::of(reason, format!("{path}.{field}"), message));
        };
        let wish = match &virtual_ip.order {
            Order::Spread => Wish::None,
            Order::Preferred(name) => index_of(name).map_or_else(
                || {
                    missing("preferredNodeName", name);
                    Wish::None
                },
                Wish::First,
            ),
            Order::Fixed(listed) => {
                let order = listed.iter().filter_map(|(name, _)| {
                    let node = index_of(name);
                    if node.is_none() {
                        missing("nodePriorities", name);
                    }
                    node
                });
                Wish::Order(order.collect())
            }
        };
        let is_told = unresolved[before..]
            .iter()
            .any(|problem| !problem.reason.may_be_meant());
        if !members.nodes.is_empty() && !is_told {
            unresolved.extend(nobody(&path, virtual_ip, &candidates, &wish));
        }
        let committed = committed.into_iter();
        let cordoned = candidates.iter().copied();
        let router = Router {
            key: virtual_ip.address.to_string(),
            cordoned: cordoned.filter(|&node| nodes.cordoned(node)).collect(),
            wish,
            committed: committed.filter(|node| candidates.contains(node)).collect(),
            candidates,
        };
        let key = (virtual_ip.address, key.0);
        all_peers.push((key.clone(), peers));
        routers.push((key, router));
    }
    Resolved {
        routers,
        peers: all_peers,
        unresolved,
    }
}

/// The addresses of candidates that are unicast peers, and candidates that cannot be any.
fn peers(
    nodes: &Nodes<'_>,
    inputs: &Inputs,
    draft: &Draft,
    virtual_ip: &VirtualIpIntent,
    candidates: &BTreeSet<usize>,
) -> (BTreeMap<usize, IpAddr>, BTreeSet<usize>) {
    let (mut known, mut strange) = (BTreeMap::new(), BTreeSet::new());
    let peering = &draft.intent.peering;
    if *peering == Peering::Multicast {
        return (known, strange);
    }
    let in_cluster = inputs.policy.cluster.is_some();
    for &node in candidates {
        let facts = inputs.facts.get(nodes.names()[node]);
        let facts = facts.filter(|facts| !facts.interfaces.is_empty());
        match peer(nodes.object(node), facts, in_cluster, virtual_ip, peering) {
            Peer::Known(address) => {
                known.insert(node, address);
            }
            Peer::Unknown => {}
            Peer::Impossible => {
                strange.insert(node);
            }
        }
    }
    (known, strange)
}

/// What to say of candidates that cannot be peers.
fn no_peers(
    nodes: &Nodes<'_>,
    draft: &Draft,
    virtual_ip: &VirtualIpIntent,
    strange: &BTreeSet<usize>,
) -> Option<Problem> {
    if strange.is_empty() {
        return None;
    }
    let names: Vec<_> = strange.iter().map(|&node| nodes.names()[node]).collect();
    let (names, address) = (present(&names), virtual_ip.address);
    let (path, message) = match &draft.intent.peering {
        Peering::Listed(_) => (
            "spec.vrrp.peering.addresses",
            format!(
                "lists no address that {names} has on the link of {address}; list it, or choose other \
                 nodes"
            ),
        ),
        Peering::Candidates | Peering::Multicast => (
            "spec.vrrp.peering.mode",
            format!(
                "is Unicast, and {names} has no {} address on the link of {address}; give it one (on \
                 plain hosts, an InternalIP of its Node), or choose other nodes",
                family(address)
            ),
        ),
    };
    Some(Problem::of(Reason::Unresolved, path, message))
}

/// Members that can hold the address. In a cluster one that has not told of its network has no data
/// plane yet, or has just restarted: it stays where it is and gets no new part. And where networks
/// went from all nodes at once, none loses what it has.
fn candidates(
    nodes: &Nodes<'_>,
    members: &Members,
    virtual_ip: &VirtualIpIntent,
    committed: &[usize],
    in_cluster: bool,
) -> BTreeSet<usize> {
    let reaches = |node: &usize| {
        let unknown = !in_cluster || committed.contains(node);
        nodes.reaches(*node, virtual_ip).unwrap_or(unknown)
    };
    let reaching: BTreeSet<usize> = members.nodes.iter().copied().filter(reaches).collect();
    if !reaching.is_empty() {
        return reaching;
    }
    let stay = committed.iter().copied();
    stay.filter(|node| members.nodes.contains(node)).collect()
}

/// Why a node that a user names is no candidate.
fn why_not(
    nodes: &Nodes<'_>,
    members: &Members,
    virtual_ip: &VirtualIpIntent,
    name: &str,
) -> (Reason, String) {
    let Some(node) = nodes.index_of(name) else {
        let message = format!(
            "names node {name}, which does not exist; the nodes present are {}",
            present(nodes.names())
        );
        return (Reason::Unresolved, message);
    };
    if members.excluded.contains(&node) {
        let message = format!(
            "names node {name}, which its label {EXCLUDE_LABEL} excludes; remove the label when \
             the node is to take part again"
        );
        return (Reason::NodeExcluded, message);
    }
    let message = if members.nodes.contains(&node) {
        format!(
            "names node {name}, whose network does not reach {}; name another or set interface",
            virtual_ip.address
        )
    } else {
        format!(
            "names node {name}, which spec.gateways.nodeSelector does not choose; label the node \
             or name another"
        )
    };
    (Reason::Unresolved, message)
}

fn present(names: &[&str]) -> String {
    let listed = names[..names.len().min(MOST_NAMES)].join(", ");
    match names.len().saturating_sub(MOST_NAMES) {
        0 if names.is_empty() => "none".to_owned(),
        0 => listed,
        more => format!("{listed} and {more} more"),
    }
}

/// What to say where no node at all can hold the address.
fn nobody(
    path: &str,
    virtual_ip: &VirtualIpIntent,
    candidates: &BTreeSet<usize>,
    wish: &Wish,
) -> Option<Problem> {
    let (field, message) = match wish {
        Wish::Order(order) if order.is_empty() => (
            "nodePriorities",
            "lists no node that can hold the address now; list another".to_owned(),
        ),
        _ if candidates.is_empty() => (
            "address",
            match &virtual_ip.interface {
                Some(interface) => format!(
                    "is {}, for which interface {interface} is named, and no gateway node has one \
                     of that name; correct the interface",
                    virtual_ip.address
                ),
                None => format!(
                    "is {}, which no gateway node's network reaches; correct the address or set \
                     interface",
                    virtual_ip.address
                ),
            },
        ),
        _ => return None,
    };
    let path = format!("{path}.{field}");
    Some(Problem::of(Reason::Unresolved, path, message))
}
