//! Which nodes hold which address, and in what order.
//!
//! One rule gives all ranks: **the node of rank `k` is chosen as if all nodes above it were lost.**
//! Rank 1 is the case that none is. For the routers whose nodes above rank `k` are the set `S`, the
//! load of every other node in that event is known (the routers whose best node outside of `S` it
//! is), and [`mod@spread`] adds these routers to it, which
//! 1. makes the loads after the loss of `S` as even as they can be (least sum of squares, so that
//!    no router could move from one node to another whose load is smaller by two or more),
//! 2. among such choices, gives each node as even a part as can be of what `S` had,
//! 3. among such choices, lets nodes take part equally often (2 and 3 below rank 1 only: they must
//!    not cost a move of an Active role),
//! 4. among such choices, departs least from the committed order,
//! 5. among such choices, has the least sum of scores, where every address has a fixed score with
//!    every node (as in rendezvous hashing), so that nothing depends on the order of anything.
//!
//! `spread` is exact. Without committed orders, points 1, 2 and 5 make the optimum unique but for
//! equal sums of 40-bit scores; one router more or less then changes the flow along one shortest
//! augmenting path, so that at most one router per other node moves with it.
//!
//! What the user fixed comes first and counts as load: `nodePriorities` is the whole order,
//! `preferredNodeName` the first rank. Cordoned nodes follow after all others. With more nodes than
//! ranks, the nodes below rank 2 are chosen so that nodes take part in equally many routers.

mod score;
mod spread;
mod swaps;

use std::collections::{BTreeMap, BTreeSet};

use self::spread::{Base, Demand, Taste, spread};
use crate::model::MAX_NODES;

/// A virtual router as the assignment sees it. Nodes are indices into one list.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) struct Router {
    /// What its scores are made of: the address.
    pub(crate) key: String,
    /// Nodes that may hold it.
    pub(crate) candidates: BTreeSet<usize>,
    /// Of these, the ones to use only behind all others.
    pub(crate) cordoned: BTreeSet<usize>,
    /// What the user says.
    pub(crate) wish: Wish,
    /// The committed order.
    pub(crate) committed: Vec<usize>,
}

/// What the user says of the order.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub(crate) enum Wish {
    /// Nothing.
    #[default]
    None,
    /// This node first.
    First(usize),
    /// This order, whatever else.
    Order(Vec<usize>),
}

impl Router {
    /// Nodes for the next rank, behind `order`.
    fn next(&self, order: &[usize]) -> BTreeSet<usize> {
        let left = |nodes: &BTreeSet<usize>| -> BTreeSet<usize> {
            nodes
                .iter()
                .filter(|node| !order.contains(node))
                .copied()
                .collect()
        };
        let free = left(&(&self.candidates - &self.cordoned));
        if free.is_empty() {
            left(&self.candidates)
        } else {
            free
        }
    }

    /// The one of the nodes for the next rank that stays where it is if it gets it.
    fn expected(&self, next: &BTreeSet<usize>) -> Option<usize> {
        let mut committed = self.committed.iter();
        committed.find(|node| next.contains(node)).copied()
    }
}

/// The order of nodes of each of `routers`, best first, [`MAX_NODES`] at most. `names` are the
/// nodes' names. The caller gives both in an order of their own, not in that of their files.
pub(crate) fn orders(names: &[&str], routers: &[Router]) -> Vec<Vec<usize>> {
    let mut routers = routers.to_vec();
    let mut orders: Vec<Vec<usize>> = routers
        .iter()
        .map(|router| match &router.wish {
            Wish::Order(order) => order.clone(),
            // A cordoned node is to be emptied: it is not preferred while another can serve.
            Wish::First(node) if router.next(&[]).contains(node) => vec![*node],
            Wish::First(_) | Wish::None => Vec::new(),
        })
        .collect();
    let mut parts = parts(names.len(), &orders);
    for rank in 0..MAX_NODES {
        if rank == 2 {
            limit(names, &mut routers, &orders, &parts);
        }
        for (lost, group) in groups(&routers, &orders, rank) {
            let loads = loads(names.len(), &orders, &lost);
            let base = Base {
                loads: &loads,
                parts: &parts,
                // None are lost: there is nothing to share, and a preferred node that holds its
                // address already would push the Active roles of others about.
                shares: rank > 0,
            };
            let demands = group.iter().map(|&index| {
                let router = &routers[index];
                let next = router.next(&orders[index]);
                let expected = router.expected(&next);
                demand(names, router, next, 1, |node| {
                    expected.is_some_and(|expected| expected != node)
                })
            });
            let demands: Vec<_> = demands.collect();
            for (&index, chosen) in group.iter().zip(spread(&demands, base)) {
                for node in chosen {
                    parts[node] += 1;
                    orders[index].push(node);
                }
            }
        }
    }
    orders
}

/// Routers that get their node of `rank` from the planner, by the set of nodes above it.
fn groups(
    routers: &[Router],
    orders: &[Vec<usize>],
    rank: usize,
) -> BTreeMap<BTreeSet<usize>, Vec<usize>> {
    let mut groups: BTreeMap<_, Vec<_>> = BTreeMap::new();
    for (index, router) in routers.iter().enumerate() {
        let fixed = matches!(router.wish, Wish::Order(_));
        if !fixed && orders[index].len() == rank && !router.next(&orders[index]).is_empty() {
            let above = orders[index].iter().copied().collect();
            groups.entry(above).or_default().push(index);
        }
    }
    groups
}

/// How many routers each node holds when `lost` are gone.
fn loads(nodes: usize, orders: &[Vec<usize>], lost: &BTreeSet<usize>) -> Vec<i64> {
    let mut loads = vec![0; nodes];
    let is_lost: Vec<bool> = (0..nodes).map(|node| lost.contains(&node)).collect();
    for order in orders {
        if let Some(&holder) = order.iter().find(|&&node| !is_lost[node]) {
            loads[holder] += 1;
        }
    }
    loads
}

/// In how many routers each node takes part.
fn parts(nodes: usize, orders: &[Vec<usize>]) -> Vec<i64> {
    let mut parts = vec![0; nodes];
    for &node in orders.iter().flatten() {
        parts[node] += 1;
    }
    parts
}

/// Where there are more nodes than ranks: reduces each router's candidates to [`MAX_NODES`], the
/// ones ranked already among them, so that nodes take part in equally many routers.
fn limit(names: &[&str], routers: &mut [Router], orders: &[Vec<usize>], parts: &[i64]) {
    let mut taking_part = parts.to_vec();
    let is_free = |router: &Router| !matches!(router.wish, Wish::Order(_));
    let is_wide = |router: &Router| is_free(router) && router.candidates.len() > MAX_NODES;
    let wide: Vec<usize> = (0..routers.len())
        .filter(|&index| is_wide(&routers[index]))
        .collect();
    for (index, router) in routers.iter().enumerate() {
        if is_free(router) && !is_wide(router) {
            let below = router
                .candidates
                .iter()
                .filter(|node| !orders[index].contains(node));
            for &node in below {
                taking_part[node] += 1;
            }
        }
    }
    let mut chosen: Vec<BTreeSet<usize>> = wide
        .iter()
        .map(|&index| orders[index].iter().copied().collect())
        .collect();
    // Cordoned nodes only where the others do not suffice.
    for cordoned in [false, true] {
        let demands = wide.iter().zip(&chosen).map(|(&index, chosen)| {
            let router = &routers[index];
            let options: BTreeSet<usize> = router
                .candidates
                .iter()
                .filter(|node| router.cordoned.contains(node) == cordoned && !chosen.contains(node))
                .copied()
                .collect();
            let count = options.len().min(MAX_NODES.saturating_sub(chosen.len()));
            let committed = &router.committed;
            demand(names, router, options, count, |node| {
                !committed.is_empty() && !committed.contains(&node)
            })
        });
        let demands: Vec<_> = demands.collect();
        let base = Base {
            loads: &taking_part,
            parts: &taking_part,
            shares: true,
        };
        for (chosen, more) in chosen.iter_mut().zip(spread(&demands, base)) {
            for &node in &more {
                taking_part[node] += 1;
            }
            chosen.extend(more);
        }
    }
    for (index, chosen) in wide.into_iter().zip(chosen) {
        routers[index].candidates = chosen;
    }
}

fn demand(
    names: &[&str],
    router: &Router,
    options: BTreeSet<usize>,
    count: usize,
    moves: impl Fn(usize) -> bool,
) -> Demand {
    let options = options.into_iter().map(|node| {
        let taste = Taste {
            moves: i64::from(moves(node)),
            score: score::score(&router.key, names[node]),
        };
        (node, taste)
    });
    Demand {
        options: options.collect(),
        count,
    }
}

#[cfg(test)]
mod tests;
