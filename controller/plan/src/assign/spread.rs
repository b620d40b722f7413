//! Spreads demands over nodes: evenly first, then by taste. Exact.
//!
//! This is a minimum-cost flow from demands to nodes, where the cost of a node grows with the square
//! of its load. Costs are compared part by part, the first part that differs decides; such tuples
//! add and compare as numbers do, so the theory of flows holds for them. Units are added one by
//! one, each along a cheapest augmenting path (it may push units that were placed before to other
//! nodes), which keeps the flow the cheapest of its size (successive shortest paths; marginal costs
//! of squares grow, so convexity is given).
//!
//! Effort: each unit takes one search over the nodes, not over the demands: [`Swaps`] knows the
//! cheapest way from each node to each other one, and only a demand whose nodes changed is entered
//! anew. Thousands of units over a hundred nodes take a second or two without optimisation.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::{Add, Sub},
};

use super::swaps::Swaps;

/// What one demand thinks of one node; less is better, `moves` before `score`.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Taste {
    pub(super) moves: i64,
    pub(super) score: i64,
}

impl Add for Taste {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            moves: self.moves + other.moves,
            score: self.score + other.score,
        }
    }
}

impl Sub for Taste {
    type Output = Self;

    fn sub(self, other: Self) -> Self {
        Self {
            moves: self.moves - other.moves,
            score: self.score - other.score,
        }
    }
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
    taste: Taste,
}

/// What the nodes have already, one entry for each.
#[derive(Clone, Copy)]
pub(super) struct Base<'a> {
    /// Loads, to be even before all else.
    pub(super) loads: &'a [i64],
    /// How often they take part, to be even where there is a choice left.
    pub(super) parts: &'a [i64],
    /// Whether what is added here is to be even by itself, and parts too. Not where a move costs
    /// more than that: nothing but `loads` comes before moves then.
    pub(super) shares: bool,
}

/// Gives each demand its nodes, added to what `base` says.
pub(super) fn spread(demands: &[Demand], base: Base<'_>) -> Vec<BTreeSet<usize>> {
    // Most demands concern few of all nodes: the search looks at no others.
    let options = demands.iter().flat_map(|demand| demand.options.keys());
    let nodes: BTreeSet<usize> = options.copied().collect();
    let nodes: Vec<usize> = nodes.into_iter().collect();
    let mut flow = Flow::new(demands, base, &nodes);
    for (index, demand) in demands.iter().enumerate() {
        for _ in 0..demand.count.min(demand.options.len()) {
            flow.add(index);
        }
    }
    let chosen = flow.chosen.iter();
    let chosen = chosen.map(|places| places.iter().map(|&place| nodes[place]).collect());
    chosen.collect()
}

/// Nodes are places in the list of those that some demand has as an option.
struct Flow {
    /// Options of each demand.
    options: Vec<BTreeMap<usize, Taste>>,
    /// Nodes of each demand.
    chosen: Vec<BTreeSet<usize>>,
    /// What a unit more would cost on each node.
    marginals: Vec<Cost>,
    /// What each unit more adds to that: the second difference of a square.
    step: Cost,
    swaps: Swaps,
}

/// The cheapest way known to bring one more unit to a node.
#[derive(Clone, Copy)]
struct Reached {
    taste: Taste,
    /// The demand that takes the node, and the node it leaves for it; the new unit leaves none.
    by: usize,
    from: Option<usize>,
}

impl Flow {
    fn new(demands: &[Demand], base: Base<'_>, nodes: &[usize]) -> Self {
        let options = demands.iter().map(|demand| {
            let options = demand.options.iter();
            let places = options.filter_map(|(node, taste)| {
                let place = nodes.binary_search(node).ok()?;
                Some((place, *taste))
            });
            places.collect()
        });
        let shares = i64::from(base.shares);
        // (x + 1)² - x² = 2x + 1.
        let marginals = nodes.iter().map(|&node| Cost {
            load: 2 * base.loads[node] + 1,
            added: shares,
            part: shares * (2 * base.parts[node] + 1),
            taste: Taste::default(),
        });
        Self {
            options: options.collect(),
            chosen: vec![BTreeSet::new(); demands.len()],
            marginals: marginals.collect(),
            step: Cost {
                load: 2,
                added: 2 * shares,
                part: 2 * shares,
                taste: Taste::default(),
            },
            swaps: Swaps::new(nodes.len()),
        }
    }

    /// Places one more unit of `new`.
    fn add(&mut self, new: usize) {
        let reached = self.search(new);
        let ends = reached.iter().enumerate().filter_map(|(node, reached)| {
            let taste = (*reached)?.taste;
            Some((
                Cost {
                    taste,
                    ..self.marginals[node]
                },
                node,
            ))
        });
        let Some((_, end)) = ends.min() else { return };
        self.marginals[end].load += self.step.load;
        self.marginals[end].added += self.step.added;
        self.marginals[end].part += self.step.part;
        let mut next = Some(end);
        while let Some(node) = next {
            let Some(Reached { by, from, .. }) = reached[node] else {
                break;
            };
            if let Some(left) = from {
                self.chosen[by].remove(&left);
                self.swaps
                    .left(by, &self.options[by], &self.chosen[by], left);
            }
            self.swaps
                .taken(by, &self.options[by], &self.chosen[by], node);
            self.chosen[by].insert(node);
            next = from;
        }
    }

    /// Cheapest paths from `new` to every node (Bellman and Ford with a queue: costs of giving a
    /// node up are negative, but no cycle is, since the flow so far is a cheapest one). Only tastes
    /// differ along the way: a unit that is passed on leaves the loads as they were but for its end.
    fn search(&self, new: usize) -> Vec<Option<Reached>> {
        let nodes = self.marginals.len();
        let mut reached: Vec<Option<Reached>> = vec![None; nodes];
        let mut queue = VecDeque::new();
        let mut queued = vec![false; nodes];
        for (&node, &taste) in &self.options[new] {
            if !self.chosen[new].contains(&node) {
                reached[node] = Some(Reached {
                    taste,
                    by: new,
                    from: None,
                });
                queue.push_back(node);
                queued[node] = true;
            }
        }
        while let Some(node) = queue.pop_front() {
            queued[node] = false;
            let Some(Reached { taste, .. }) = reached[node] else {
                continue;
            };
            for (other, cheapest) in self.swaps.from(node).iter().enumerate() {
                let Some((more, by)) = *cheapest else {
                    continue;
                };
                let taste = taste + more;
                if reached[other].is_none_or(|known| taste < known.taste) {
                    reached[other] = Some(Reached {
                        taste,
                        by,
                        from: Some(node),
                    });
                    if !queued[other] {
                        queued[other] = true;
                        queue.push_back(other);
                    }
                }
            }
        }
        reached
    }
}
