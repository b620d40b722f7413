//! How a list of unicast peers changes while nodes learn of it one by one.
//!
//! A node hears nobody but its peers, and two that do not hear each other both hold the address. So a
//! router is on everybody's list before it takes part, and stays there until it has given up; and an address
//! that is sent from is on everybody's list before and after. Each step is committed once all nodes
//! carry the one before out; a node that is out of reach holds the steps up until it is back or its Node
//! is gone.

use std::{collections::BTreeMap, net::IpAddr};

use crds::{Committed, CommittedPeering, NodePriority, PeeringMode};
use node_api::{Peering, VirtualRouter};

/// Most entries of a list, which is longer for as long as it changes.
const MOST: usize = 32;

/// The nodes of a virtual router and how they reach each other.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) nodes: Vec<NodePriority>,
    pub(crate) peering: Option<CommittedPeering>,
}

/// What to commit next of what is `planned`. `standing`: what the nodes that exist were told; `None`: there
/// are no such nodes. `settled`: they all carry it out, and those that left have given up.
pub(crate) fn step(planned: &VirtualRouter, standing: Option<&Committed>, settled: bool) -> Step {
    let nodes: Vec<NodePriority> = planned.nodes.iter().map(priority).collect();
    let Peering::Unicast { addresses } = &planned.peering else {
        return Step {
            nodes,
            peering: None,
        };
    };
    let unicast = standing.and_then(|it| Some((it, it.peering.as_ref()?)));
    let Some((standing, peering)) = unicast else {
        return Step {
            nodes,
            peering: Some(committed(addresses)),
        };
    };
    let list: Vec<IpAddr> = parsed(peering).collect();
    let mut wanted = addresses.clone();
    if planned.nodes.iter().any(|node| node.address.is_none()) {
        // One that has not told of its network keeps what it has.
        let kept = list.iter().filter(|it| !addresses.contains(it));
        wanted.extend(kept);
    }
    let may_join = settled && wanted.iter().all(|it| list.contains(it));
    let nodes = if may_join {
        nodes
    } else {
        without_new(nodes, standing)
    };
    let is_left = |node: &NodePriority| !nodes.iter().any(|it| it.node_name == node.node_name);
    let settled = settled && !standing.nodes.iter().any(is_left);
    Step {
        peering: Some(committed(&next(&list, &wanted, settled))),
        nodes,
    }
}

/// The nodes of `standing` as they are planned now; as they are where others take the place of all.
fn without_new(planned: Vec<NodePriority>, standing: &Committed) -> Vec<NodePriority> {
    if planned.is_empty() {
        return planned;
    }
    let old: BTreeMap<_, _> = standing
        .nodes
        .iter()
        .map(|it| (&it.node_name, it))
        .collect();
    let stay = planned.into_iter();
    let stay: Vec<_> = stay
        .filter(|node| old.contains_key(&node.node_name))
        .collect();
    if stay.is_empty() {
        standing.nodes.clone()
    } else {
        stay
    }
}

/// The list after `list` on the way to `wanted`: first it grows, then nodes send from the addresses that
/// stay, which are the first they find, and then the others go.
fn next(list: &[IpAddr], wanted: &[IpAddr], settled: bool) -> Vec<IpAddr> {
    let rest = |of: &[IpAddr], without: &[IpAddr]| -> Vec<IpAddr> {
        let rest = of.iter().filter(|it| !without.contains(it));
        rest.copied().collect()
    };
    let new = rest(wanted, list);
    if !new.is_empty() {
        let longer = [list, &new].concat();
        return if longer.len() <= MOST {
            longer
        } else {
            list.to_vec()
        };
    }
    if !settled {
        list.to_vec()
    } else if list.starts_with(wanted) {
        wanted.to_vec()
    } else {
        [wanted, &rest(list, wanted)].concat()
    }
}

fn priority(node: &node_api::RankedNode) -> NodePriority {
    NodePriority {
        node_name: node.node_name.clone(),
        priority: node.priority,
    }
}

fn committed(addresses: &[IpAddr]) -> CommittedPeering {
    CommittedPeering {
        mode: PeeringMode::Unicast,
        addresses: addresses.iter().map(ToString::to_string).collect(),
    }
}

fn parsed(peering: &CommittedPeering) -> impl Iterator<Item = IpAddr> {
    let texts = peering.addresses.iter();
    texts.filter_map(|text| text.parse().ok())
}

/// What nodes are told.
pub(crate) fn told(agreed: &Committed) -> Peering {
    let unicast = agreed.peering.as_ref();
    let unicast = unicast.filter(|it| it.mode == PeeringMode::Unicast);
    unicast.map_or(Peering::Multicast, |it| Peering::Unicast {
        addresses: parsed(it).collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(lasts: &[u8]) -> Vec<IpAddr> {
        lasts.iter().map(|last| [10, 0, 0, *last].into()).collect()
    }

    #[test]
    fn a_list_grows_at_once_and_shrinks_when_all_know() {
        let list_after = |from: &[u8], to: &[u8], settled| next(&list(from), &list(to), settled);
        assert_eq!(list_after(&[1, 2], &[1, 2, 3], false), list(&[1, 2, 3]));
        assert_eq!(list_after(&[1, 2, 3], &[1, 2], false), list(&[1, 2, 3]));
        assert_eq!(list_after(&[1, 2, 3], &[1, 2], true), list(&[1, 2]));
        // Another address for each.
        assert_eq!(list_after(&[1, 2], &[3, 4], true), list(&[1, 2, 3, 4]));
        assert_eq!(
            list_after(&[1, 2, 3, 4], &[3, 4], true),
            list(&[3, 4, 1, 2])
        );
        assert_eq!(list_after(&[3, 4, 1, 2], &[3, 4], true), list(&[3, 4]));
        assert_eq!(list_after(&[3, 4], &[3, 4], true), list(&[3, 4]));
        let many: Vec<u8> = (1..).take(MOST).collect();
        assert_eq!(
            list_after(&many, &[200], true),
            list(&many),
            "never too long"
        );
    }
}
