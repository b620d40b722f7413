//! Spreads demands over nodes: evenly first, then by taste. Exact.
//!
//! This is a minimum-cost flow from demands to nodes, where the cost of a node grows with the square
//! of its load. Costs are compared part by part, the first part that differs decides; such tuples
//! add and compare as numbers do, so the theory of flows holds for them. Units are added one by
//! one, each along a cheapest augmenting path (it may push units that were placed before to other
//! nodes), which keeps the flow the cheapest of its size (successive shortest paths; marginal costs
//! of squares grow, so convexity is given).
//!
//! Effort: each unit takes one search over the nodes, not over the demands ([`Swaps`] knows the cheapest
//! way from a node to each other one), and that search ends at the first good end: potentials (Johnson)
//! make all ways cost something, so that nodes are reached in the order of what they cost (Dijkstra).

use std::{
    collections::{BTreeMap, BTreeSet},
    ops::{Add, Sub},
};

use super::swaps::{Swap, Swaps};

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

/// What a unit on a node costs before tastes are asked, the most important part first.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
struct Burden {
    /// Sum of squares of the nodes' loads.
    load: i64,
    /// Sum of squares of what is added to them here.
    added: i64,
    /// Sum of squares of how often they take part.
    part: i64,
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
    let chosen = flow.swaps.chosen().iter();
    let chosen = chosen.map(|places| places.iter().map(|&place| nodes[place]).collect());
    chosen.collect()
}

/// Nodes are places in the list of those that some demand has as an option.
struct Flow {
    /// What a unit more would cost on each node.
    marginals: Vec<Burden>,
    /// What each unit more adds to that: the second difference of a square.
    step: Burden,
    /// With these, no swap costs less than nothing: its taste, and the potential of the node it leaves, less
    /// that of the node it takes.
    potentials: Vec<Taste>,
    swaps: Swaps,
}

/// The cheapest way known to bring one more unit to a node.
#[derive(Clone, Copy)]
struct Reached {
    /// What it costs, potentials included.
    distance: Taste,
    /// The demand that takes the node, and the node it leaves for it; the new unit leaves none.
    by: usize,
    from: Option<usize>,
    /// No cheaper way will be found.
    is_final: bool,
}

impl Flow {
    fn new(demands: &[Demand], base: Base<'_>, nodes: &[usize]) -> Self {
        let shares = i64::from(base.shares);
        // (x + 1)² - x² = 2x + 1.
        let marginals = nodes.iter().map(|&node| Burden {
            load: 2 * base.loads[node] + 1,
            added: shares,
            part: shares * (2 * base.parts[node] + 1),
        });
        Self {
            marginals: marginals.collect(),
            step: Burden {
                load: 2,
                added: 2 * shares,
                part: 2 * shares,
            },
            potentials: vec![Taste::default(); nodes.len()],
            swaps: Swaps::new(demands, nodes),
        }
    }

    /// Places one more unit of `new`.
    fn add(&mut self, new: usize) {
        let Some((end, reached)) = self.search(new) else {
            return;
        };
        let marginal = &mut self.marginals[end];
        marginal.load += self.step.load;
        marginal.added += self.step.added;
        marginal.part += self.step.part;
        let mut next = Some(end);
        while let Some(node) = next {
            let Some(Reached { by, from, .. }) = reached[node] else {
                break;
            };
            self.swaps.take(by, node, from);
            next = from;
        }
    }

    /// The cheapest path from `new` to an end: least burden first, then the least taste. Only tastes differ
    /// along the way: a unit that is passed on leaves the loads as they were but for its end.
    fn search(&mut self, new: usize) -> Option<(usize, Vec<Option<Reached>>)> {
        let start = self
            .swaps
            .open(new)
            .map(|(node, taste)| self.potentials[node] - taste)
            .max()?;
        let mut reached: Vec<Option<Reached>> = vec![None; self.marginals.len()];
        for (node, taste) in self.swaps.open(new) {
            reached[node] = Some(Reached {
                distance: taste + start - self.potentials[node],
                by: new,
                from: None,
                is_final: false,
            });
        }
        // The best ends of all; if one of them is reached, no other will do.
        let least = self.marginals.iter().min().copied()?;
        let mut best: Option<(Taste, usize)> = None;
        while let Some((distance, node)) = nearest(&reached) {
            // What an end costs in taste is its distance without the potentials.
            if best.is_some_and(|(taste, _)| distance + self.lowest(least) > taste) {
                break;
            }
            if let Some(way) = &mut reached[node] {
                way.is_final = true;
            }
            if self.marginals[node] == least {
                let end = (distance + self.potentials[node], node);
                best = Some(best.map_or(end, |best| best.min(end)));
            }
            let potentials = &self.potentials;
            for (other, cheapest) in self.swaps.from(node).iter().enumerate() {
                let Some(Swap { taste, demand }) = *cheapest else {
                    continue;
                };
                let distance = distance + taste + potentials[node] - potentials[other];
                if reached[other].is_none_or(|known| distance < known.distance) {
                    reached[other] = Some(Reached {
                        distance,
                        by: demand,
                        from: Some(node),
                        is_final: false,
                    });
                }
            }
        }
        let end = match best {
            Some((_, end)) => end,
            None => self.best_of(&reached)?,
        };
        self.raise(&reached, end);
        Some((end, reached))
    }

    /// The lowest potential of the nodes with that burden.
    fn lowest(&self, burden: Burden) -> Taste {
        let nodes = self.marginals.iter().zip(&self.potentials);
        let ends = nodes.filter(|(marginal, _)| **marginal == burden);
        let lowest = ends.map(|(_, potential)| *potential).min();
        lowest.unwrap_or_default()
    }

    /// The best end of those that were reached, all of them for good.
    fn best_of(&self, reached: &[Option<Reached>]) -> Option<usize> {
        let ends = reached.iter().enumerate().filter_map(|(node, reached)| {
            let taste = (*reached)?.distance + self.potentials[node];
            Some((self.marginals[node], taste, node))
        });
        ends.min().map(|(_, _, node)| node)
    }

    /// Raises potentials so that the swaps that the path to `end` brings about cost nothing less than
    /// nothing either.
    fn raise(&mut self, reached: &[Option<Reached>], end: usize) {
        let Some(most) = reached[end].map(|reached| reached.distance) else {
            return;
        };
        for (potential, reached) in self.potentials.iter_mut().zip(reached) {
            let distance = reached.filter(|reached| reached.is_final);
            let distance = distance.map_or(most, |reached| reached.distance.min(most));
            *potential = *potential + distance;
        }
    }
}

/// The node that is reached at the least cost and not for good yet.
fn nearest(reached: &[Option<Reached>]) -> Option<(Taste, usize)> {
    let open = reached.iter().enumerate().filter_map(|(node, reached)| {
        let reached = (*reached).filter(|reached| !reached.is_final)?;
        Some((reached.distance, node))
    });
    open.min()
}
