//! Who has what, and the cheapest demand that could pass from a node to each other one.

use std::collections::BTreeSet;

use super::spread::{Demand, Taste};

/// A demand that could pass.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Swap {
    /// What it thinks more of the other node.
    pub(super) taste: Taste,
    /// Which one.
    pub(super) demand: usize,
}

/// Nodes are places in a list.
pub(super) struct Swaps {
    nodes: usize,
    /// What each demand thinks of each node, if it would do.
    tastes: Vec<Option<Taste>>,
    /// Nodes of each demand.
    chosen: Vec<BTreeSet<usize>>,
    /// Demands of each node.
    holders: Vec<BTreeSet<usize>>,
    /// The cheapest swap from each node to each node.
    cheapest: Vec<Option<Swap>>,
}

impl Swaps {
    pub(super) fn new(demands: &[Demand], nodes: &[usize]) -> Self {
        let mut tastes = vec![None; demands.len() * nodes.len()];
        for (demand, row) in demands.iter().zip(tastes.chunks_mut(nodes.len().max(1))) {
            for (node, taste) in &demand.options {
                if let Ok(place) = nodes.binary_search(node) {
                    row[place] = Some(*taste);
                }
            }
        }
        Self {
            nodes: nodes.len(),
            tastes,
            chosen: vec![BTreeSet::new(); demands.len()],
            holders: vec![BTreeSet::new(); nodes.len()],
            cheapest: vec![None; nodes.len() * nodes.len()],
        }
    }

    /// Nodes of each demand.
    pub(super) fn chosen(&self) -> &[BTreeSet<usize>] {
        &self.chosen
    }

    /// Nodes that would do for a demand and that it does not have.
    pub(super) fn open(&self, demand: usize) -> impl Iterator<Item = (usize, Taste)> {
        let chosen = &self.chosen[demand];
        let tastes = self.tastes_of(demand).iter().enumerate();
        tastes.filter_map(move |(node, taste)| {
            let taste = (*taste)?;
            (!chosen.contains(&node)).then_some((node, taste))
        })
    }

    /// The cheapest swap from `node` to each node.
    pub(super) fn from(&self, node: usize) -> &[Option<Swap>] {
        &self.cheapest[node * self.nodes..][..self.nodes]
    }

    /// `demand` takes `node`, and leaves another one for it, if any.
    pub(super) fn take(&mut self, demand: usize, node: usize, left: Option<usize>) {
        if let Some(left) = left {
            self.chosen[demand].remove(&left);
            self.holders[left].remove(&demand);
            for other in 0..self.nodes {
                self.forget(left, other, demand);
            }
        }
        let others: Vec<usize> = self.chosen[demand].iter().copied().collect();
        self.chosen[demand].insert(node);
        self.holders[node].insert(demand);
        for other in others {
            self.forget(other, node, demand);
            if let Some(left) = left {
                self.offer(other, left, demand);
            }
        }
        for other in 0..self.nodes {
            self.offer(node, other, demand);
        }
    }

    /// What `demand` thinks of passing from `node` to another one, if it could.
    fn swap(&self, node: usize, other: usize, demand: usize) -> Option<Swap> {
        let tastes = self.tastes_of(demand);
        let taste = tastes[other].filter(|_| !self.chosen[demand].contains(&other))?;
        let here = tastes[node].unwrap_or_default();
        Some(Swap {
            taste: taste - here,
            demand,
        })
    }

    /// `demand` can pass from `node` to another one now.
    fn offer(&mut self, node: usize, other: usize, demand: usize) {
        let Some(swap) = self.swap(node, other, demand) else {
            return;
        };
        let cheapest = &mut self.cheapest[node * self.nodes + other];
        *cheapest = Some(cheapest.map_or(swap, |known| known.min(swap)));
    }

    /// `demand` cannot pass from `node` to another one any more.
    fn forget(&mut self, node: usize, other: usize, demand: usize) {
        let place = node * self.nodes + other;
        if self.cheapest[place].is_some_and(|known| known.demand == demand) {
            let holders = self.holders[node].iter();
            let swaps = holders.filter_map(|holder| self.swap(node, other, *holder));
            self.cheapest[place] = swaps.min();
        }
    }

    fn tastes_of(&self, demand: usize) -> &[Option<Taste>] {
        &self.tastes[demand * self.nodes..][..self.nodes]
    }
}
