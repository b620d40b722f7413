//! Spreads demands over nodes: evenly first, then by taste. Exact.
//!
//! This is a minimum-cost flow from demands to nodes, where the cost of a node grows with the square
//! of its load. Costs are compared part by part, the first part that differs decides; such tuples
//! add and compare as numbers do, so the theory of flows holds for them. Units are added one by
//! one, each along a cheapest augmenting path (it may push units that were placed before to other
//! nodes), which keeps the flow the cheapest of its size (successive shortest paths; marginal costs
//! of squares grow, so convexity is given).
//!
//! Effort: each unit takes one search over the nodes, whose edges are the options of the demands
//! placed; hundreds of routers over tens of nodes take milliseconds.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Add, Sub},
};

/// What one demand thinks of one node; less is better, `moves` before `score`.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub(super) struct Taste {
    pub(super) moves: i64,
    pub(super) score: i64,
}

/// Something that needs nodes.
#[derive(Clone, Debug)]
pub(super) struct Demand {
    /// The nodes that would do.
    pub(super) options: BTreeMap<usize, Taste>,
    /// How many of them it needs, each at most once; no more than there are.
    pub(super) count: usize,
}

/// Parts of a cost, the most important first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Cost {
    /// Sum of squares of the nodes' loads.
    load: i64,
    /// Sum of squares of what is added to them here.
    added: i64,
    /// Sum of squares of how often they take part.
    part: i64,
    moves: i64,
    score: i64,
}

impl Add for Cost {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            load: self.load + other.load,
            added: self.added + other.added,
            part: self.part + other.part,
            moves: self.moves + other.moves,
            score: self.score + other.score,
        }
    }
}

impl Sub for Cost {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            load: self.load - other.load,
            added: self.added - other.added,
            part: self.part - other.part,
            moves: self.moves - other.moves,
            score: self.score - other.score,
        }
    }
}

impl From<Taste> for Cost {
    fn from(taste: Taste) -> Self {
        Self {
            moves: taste.moves,
            score: taste.score,
            ..Self::default()
        }
    }
}

/// What the nodes have already, one entry for each.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    /// Loads, to be even before all else.
    pub(super) loads: &'a [i64],
    /// How often they take part, to be even where there is a choice left.
    pub(super) parts: &'a [i64],
}

/// Gives each demand its nodes, added to what `base` says.
pub(super) fn spread(demands: &[Demand], base: Base<'_>) -> Vec<BTreeSet<usize>> {
    let mut flow = Flow {
        demands,
        base,
        chosen: vec![BTreeSet::new(); demands.len()],
        holders: vec![BTreeSet::new(); base.loads.len()],
    };
    for (index, demand) in demands.iter().enumerate() {
        for _ in 0..demand.count.min(demand.options.len()) {
            flow.add(index);
        }
    }
    flow.chosen
}

struct Flow<'a> {
    demands: &'a [Demand],
    base: Base<'a>,
    /// Nodes of each demand.
    chosen: Vec<BTreeSet<usize>>,
    /// Demands of each node.
    holders: Vec<BTreeSet<usize>>,
}

/// The cheapest way known to bring one more unit to a node.
#[derive(Clone, Copy)]
struct Reached {
    cost: Cost,
    /// The demand that takes the node, and the node it leaves for it; the new unit leaves none.
    by: usize,
    from: Option<usize>,
}

impl Flow<'_> {
    /// Places one more unit of `new`.
    fn add(&mut self, new: usize) {
        let reached = self.search(new);
        let ends = reached.iter().enumerate().filter_map(|(node, reached)| {
            reached.map(|reached| (reached.cost + self.marginal(node), node))
        });
        let mut end = ends.min().map(|(_, node)| node);
        while let Some(node) = end {
            let Some(Reached { by, from, .. }) = reached[node] else {
                break;
            };
            self.chosen[by].insert(node);
            self.holders[node].insert(by);
            if let Some(left) = from {
                self.chosen[by].remove(&left);
                self.holders[left].remove(&by);
            }
            end = from;
        }
    }

    /// What one unit more on `node` costs: (x + 1)² - x².
    fn marginal(&self, node: usize) -> Cost {
        let added = i64::try_from(self.holders[node].len()).unwrap_or(i64::MAX);
        Cost {
            load: 2 * (self.base.loads[node] + added) + 1,
            added: 2 * added + 1,
            part: 2 * (self.base.parts[node] + added) + 1,
            ..Cost::default()
        }
    }

    /// Cheapest paths from `new` to every node (Bellman and Ford with a queue: costs of giving a
    /// node up are negative, but no cycle is, since the flow so far is a cheapest one).
    fn search(&self, new: usize) -> Vec<Option<Reached>> {
        let mut reached = vec![None; self.base.loads.len()];
        let mut queue = VecDeque::new();
        let mut queued = BTreeSet::new();
        for (&node, &taste) in &self.demands[new].options {
            if !self.chosen[new].contains(&node) {
                reached[node] = Some(Reached {
                    cost: taste.into(),
                    by: new,
                    from: None,
                });
                queue.push_back(node);
                queued.insert(node);
            }
        }
        while let Some(node) = queue.pop_front() {
            queued.remove(&node);
            let Some(Reached { cost, .. }) = reached[node] else {
                continue;
            };
            for &by in &self.holders[node] {
                let options = &self.demands[by].options;
                let here = options.get(&node).copied().unwrap_or_default();
                for (&other, &taste) in options {
                    if self.chosen[by].contains(&other) {
                        continue;
                    }
                    let cost = cost + taste.into() - here.into();
                    if reached[other].is_none_or(|known: Reached| cost < known.cost) {
                        reached[other] = Some(Reached {
                            cost,
                            by,
                            from: Some(node),
                        });
                        if queued.insert(other) {
                            queue.push_back(other);
                        }
                    }
                }
            }
        }
        reached
    }
}
