//! How many sessions the fullest endpoints are to give up, where others have less than their share: as
//! after a scale-up, since sessions stay where they began.
//!
//! Nothing is moved here: a session that is ended comes again, and then goes where new ones go.

use std::{
    sync::{Arc, Mutex, atomic::Ordering::Relaxed},
    time::Duration,
};

use super::{
    locked,
    share::{self, Candidate},
    zone,
};
use crate::{
    config::Rebalance,
    endpoint::Endpoint,
    live::{Gone, Pool, Upstream},
};

/// How often it is looked whether there is something to do.
pub(crate) const ROUND: Duration = Duration::from_secs(1);

/// One percent of a session in a minute, for a millisecond: so many make a session.
const SESSION: u128 = 100 * 60_000;

/// The rebalancing of an upstream.
#[derive(Clone, Debug)]
pub(crate) struct Rebalancing {
    pub(crate) settings: Rebalance,
    /// Parts of a session that may be shed, left over from the round before: in a small upstream a
    /// round has less than one.
    carry: Arc<Mutex<u128>>,
}

impl Rebalancing {
    /// As it is wanted now; `before` is how it was.
    pub(crate) fn new(settings: Rebalance, before: Option<&Self>) -> Self {
        Self {
            settings,
            carry: before
                .map(|before| Arc::clone(&before.carry))
                .unwrap_or_default(),
        }
    }
}

/// How many sessions each endpoint of an upstream is to give up in the round that begins; none where all
/// is well, or somebody is not.
pub(crate) fn round(pool: &Pool, upstream: &Upstream) -> Vec<(Arc<Endpoint>, usize)> {
    let Some(rebalancing) = at_work(pool, upstream) else {
        return Vec::new();
    };
    let (candidates, loads) = loads(upstream);
    let mut carry = locked(&rebalancing.carry);
    let quotas = quotas(&loads, rebalancing.settings, &mut carry);
    let given = candidates.into_iter().zip(quotas);
    given.filter(|(_, quota)| *quota > 0).collect()
}

/// Whether an endpoint of a pool still has more than it may, since the round began.
pub(crate) fn has_too_many(pool: &Pool, endpoint: &Arc<Endpoint>) -> bool {
    let is_it = |other: &Arc<Endpoint>| Arc::ptr_eq(other, endpoint);
    let mut upstreams = pool.upstreams.iter();
    let Some(upstream) = upstreams.find(|upstream| upstream.endpoints.iter().any(is_it)) else {
        return false;
    };
    let Some(rebalancing) = at_work(pool, upstream) else {
        return false;
    };
    let (candidates, loads) = loads(upstream);
    let shares = Shares::new(&loads, rebalancing.settings);
    let mut all = candidates.iter().zip(loads);
    all.any(|(other, load)| is_it(other) && shares.excess(load) > 0)
}

/// The rebalancing of an upstream, where it is wanted, clients are brought there, all endpoints take
/// sessions and none is about to go: while one is ill or leaves, the others need no clients that come
/// anew.
fn at_work<'a>(pool: &Pool, upstream: &'a Upstream) -> Option<&'a Rebalancing> {
    // One that nobody tried yet is usable and not sound, one that only answers wrongly the other way.
    let is_well = |endpoint: &Arc<Endpoint>| endpoint.is_sound() && endpoint.is_usable();
    let is_left =
        |gone: &Gone| gone.upstream != upstream.name || gone.endpoint.sessions.load(Relaxed) == 0;
    let rebalancing = upstream.rebalancing.as_ref()?;
    let is_calm = upstream.is_routed
        && upstream.endpoints.iter().all(is_well)
        && pool.gone.iter().all(is_left);
    is_calm.then_some(rebalancing)
}

/// The endpoints of an upstream to which new sessions go, and what each has. Where those that are near
/// take all, the others are left alone: what the near ones give up comes back to them.
fn loads(upstream: &Upstream) -> (Vec<Arc<Endpoint>>, Vec<Load>) {
    let near = upstream.min_near_percent;
    let near = near.is_some_and(|percent| zone::is_enough(&upstream.endpoints, percent));
    let endpoints = upstream.endpoints.iter();
    let endpoints = endpoints.filter(|endpoint| !near || endpoint.is_near());
    let candidates = share::candidates(endpoints, upstream.slow_start);
    let of = |candidate: &Candidate<'_>| {
        let load = Load {
            sessions: candidate.endpoint.staying(),
            weight: candidate.weight,
        };
        (Arc::clone(candidate.endpoint), load)
    };
    candidates.iter().map(of).unzip()
}

/// What an endpoint has, and its share relative to the others.
#[derive(Clone, Copy, Debug)]
struct Load {
    sessions: usize,
    weight: u32,
}

/// What all endpoints have together, and how much of its share one may have, in percent.
struct Shares {
    sessions: u128,
    weights: u128,
    tolerated: u128,
}

impl Shares {
    fn new(loads: &[Load], settings: Rebalance) -> Self {
        Self {
            sessions: loads.iter().map(|load| load.sessions as u128).sum(),
            weights: loads.iter().map(|load| u128::from(load.weight)).sum(),
            tolerated: 100 + u128::from(settings.tolerance_percent),
        }
    }

    /// What an endpoint has beyond what it may have.
    fn excess(&self, load: Load) -> usize {
        let share = self.sessions * u128::from(load.weight) * self.tolerated;
        let bound = share.div_ceil(self.weights.max(1) * 100);
        let bound = usize::try_from(bound).unwrap_or(usize::MAX);
        load.sessions.saturating_sub(bound)
    }
}

/// How many sessions each endpoint gives up in one round: the fullest first, none below its share and
/// the tolerance, and all together no more than a minute's part.
fn quotas(loads: &[Load], settings: Rebalance, carry: &mut u128) -> Vec<usize> {
    let shares = Shares::new(loads, settings);
    let mut excess: Vec<usize> = loads.iter().map(|load| shares.excess(*load)).collect();
    let needed: usize = excess.iter().sum();
    let mut quotas = vec![0; loads.len()];
    if needed == 0 {
        *carry = 0;
        return quotas;
    }
    let percent = u128::from(settings.percent_per_minute);
    let allowed = *carry + shares.sessions * percent * ROUND.as_millis();
    let budget = usize::try_from(allowed / SESSION).unwrap_or(usize::MAX);
    *carry = allowed % SESSION;
    for _ in 0..budget.min(needed) {
        // Sessions for each part of the share: a/b < c/d, in whole numbers.
        let fullest = (0..loads.len())
            .filter(|at| excess[*at] > 0)
            .max_by(|a, b| {
                let left = |at: usize| (loads[at].sessions - quotas[at]) as u128;
                let weight = |at: usize| u128::from(loads[at].weight);
                (left(*a) * weight(*b)).cmp(&(left(*b) * weight(*a)))
            });
        if let Some(at) = fullest {
            quotas[at] += 1;
            excess[at] -= 1;
        }
    }
    quotas
}

#[cfg(test)]
mod tests {
    use super::*;

    fn loads(of: &[(usize, u32)]) -> Vec<Load> {
        let load = |(sessions, weight): &(usize, u32)| Load {
            sessions: *sessions,
            weight: *weight,
        };
        of.iter().map(load).collect()
    }

    const SETTINGS: Rebalance = Rebalance {
        percent_per_minute: 5,
        tolerance_percent: 10,
    };

    /// All that a minute sheds, where those that are shed do not come back.
    fn minute(of: &[(usize, u32)], settings: Rebalance) -> Vec<usize> {
        let mut loads = loads(of);
        let mut carry = 0;
        let mut shed = vec![0; loads.len()];
        for _ in 0..60 {
            for (at, quota) in quotas(&loads, settings, &mut carry).into_iter().enumerate() {
                loads[at].sessions -= quota;
                shed[at] += quota;
            }
        }
        shed
    }

    #[test]
    fn what_is_within_the_tolerance_is_left_alone() {
        for even in [
            &[(100, 1), (100, 1)][..],
            &[(110, 1), (90, 1)],
            &[(100, 1), (300, 3)],
            &[(2, 1), (1, 1)],
            &[(1, 1), (0, 1)],
            &[(0, 1), (0, 1)],
            &[(500, 1)],
            &[],
        ] {
            let mut carry = 17;
            let shed: usize = quotas(&loads(even), SETTINGS, &mut carry).iter().sum();
            assert_eq!((shed, carry), (0, 0), "{even:?}");
        }
    }

    #[test]
    fn a_minute_sheds_its_part_and_no_more() {
        let shed = minute(&[(9000, 1), (1000, 1)], SETTINGS);
        // Five in a hundred of 10,000, and a little less as they become fewer.
        assert!((485..=500).contains(&shed[0]) && shed[1] == 0, "{shed:?}");
        // Twenty sessions: one in a minute, not one in each round.
        assert_eq!(minute(&[(20, 1), (0, 1)], SETTINGS), [1, 0]);
    }

    #[test]
    fn the_fullest_for_its_weight_sheds_first_and_none_below_its_bound() {
        let settings = Rebalance {
            percent_per_minute: 6000,
            tolerance_percent: 10,
        };
        let all = |of| quotas(&loads(of), settings, &mut 0);
        // A share of 400 / 5 for each part, a tenth of that is tolerated: 88.
        assert_eq!(all(&[(200, 1), (150, 1), (50, 3)]), [112, 62, 0]);
        let some = Rebalance {
            percent_per_minute: 600,
            ..settings
        };
        // Forty of them: first what the fullest has more than the next.
        assert_eq!(
            quotas(&loads(&[(200, 1), (180, 1), (20, 3)]), some, &mut 0),
            [30, 10, 0]
        );
    }
}
