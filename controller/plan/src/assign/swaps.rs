//! The cheapest demand that could pass from one node to another, for each pair of nodes.

use std::collections::{BTreeMap, BTreeSet};

use super::spread::Taste;

/// What a demand thinks more of the other node, and the demand.
type Swap = (Taste, usize);

pub(super) struct Swaps {
    nodes: usize,
    /// All demands that could pass, by the node they have and the one they could have.
    all: Vec<BTreeSet<Swap>>,
    /// The first of each: what searches ask for, over and over.
    cheapest: Vec<Option<Swap>>,
}

impl Swaps {
    pub(super) fn new(nodes: usize) -> Self {
        Self {
            nodes,
            all: vec![BTreeSet::new(); nodes * nodes],
            cheapest: vec![None; nodes * nodes],
        }
    }

    /// The cheapest swap from `node` to each node.
    pub(super) fn from(&self, node: usize) -> &[Option<Swap>] {
        &self.cheapest[node * self.nodes..][..self.nodes]
    }

    /// `demand`, which has the `others`, takes `node` as well.
    pub(super) fn taken(
        &mut self,
        demand: usize,
        options: &BTreeMap<usize, Taste>,
        others: &BTreeSet<usize>,
        node: usize,
    ) {
        let here = options.get(&node).copied().unwrap_or_default();
        for (&option, &taste) in options {
            if others.contains(&option) {
                self.change(option, node, (here - taste, demand), false);
            } else if option != node {
                self.change(node, option, (taste - here, demand), true);
            }
        }
    }

    /// `demand` gave `node` up and has the `others` left.
    pub(super) fn left(
        &mut self,
        demand: usize,
        options: &BTreeMap<usize, Taste>,
        others: &BTreeSet<usize>,
        node: usize,
    ) {
        let here = options.get(&node).copied().unwrap_or_default();
        for (&option, &taste) in options {
            if others.contains(&option) {
                self.change(option, node, (here - taste, demand), true);
            } else if option != node {
                self.change(node, option, (taste - here, demand), false);
            }
        }
    }

    fn change(&mut self, from: usize, to: usize, swap: Swap, is_possible: bool) {
        let pair = from * self.nodes + to;
        let all = &mut self.all[pair];
        if is_possible {
            all.insert(swap);
        } else {
            all.remove(&swap);
        }
        self.cheapest[pair] = all.first().copied();
    }
}
