//! Which endpoint a new session goes to.

mod hash;
pub(crate) mod rebalance;
mod share;
mod zone;

use std::{
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::Ordering::Relaxed},
};

pub(crate) use self::hash::key;
use self::share::Candidate;
use crate::{
    budget::Budget, config::Balancing, endpoint::Endpoint, health::HealthCounts, live::Upstream,
};

/// A place on an endpoint, counted from the choice until it is dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) endpoint: Arc<Endpoint>,
}

impl Lease {
    fn new(endpoint: Arc<Endpoint>) -> Self {
        endpoint.load.fetch_add(1, Relaxed);
        Self { endpoint }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        self.endpoint.load.fetch_sub(1, Relaxed);
    }
}

/// The endpoint for a new session, none of `tried`. `key` is what the client is known by, where that
/// matters.
///
/// Those near come first, where they are enough. Those that are not well come last instead of never,
/// and behind them those that took no connection: when nothing else is left, an attempt costs the
/// client nothing, and whoever found all of them unwell may be wrong. One that is full is never chosen.
pub(crate) fn choose(upstream: &Upstream, tried: &[SocketAddr], key: Option<u64>) -> Option<Lease> {
    let mut turn = locked(&upstream.turn);
    let most = upstream.endpoint_sessions.unwrap_or(usize::MAX);
    let open = |endpoint: &&Arc<Endpoint>| {
        !tried.contains(&endpoint.address) && endpoint.load.load(Relaxed) < most
    };
    let near = upstream.min_near_percent;
    let near = near.is_some_and(|percent| zone::is_enough(&upstream.endpoints, percent));
    let wanted: [&dyn Fn(&Endpoint) -> bool; 4] = [
        &|endpoint| near && endpoint.is_near() && endpoint.is_usable(),
        &Endpoint::is_usable,
        &Endpoint::is_reachable,
        &Endpoint::is_ready,
    ];
    let candidates = wanted.iter().find_map(|wanted| {
        let endpoints = upstream.endpoints.iter().filter(open);
        let found = endpoints.filter(|endpoint| wanted(endpoint));
        let found = share::candidates(found, upstream.slow_start);
        (!found.is_empty()).then_some(found)
    })?;
    let chosen = match (&upstream.balancing, key) {
        (Balancing::ConsistentHash(hash), Some(key)) => {
            hash::choose(&candidates, key, hash.max_load_percent)
        }
        (Balancing::RoundRobin | Balancing::ConsistentHash(_), _) => take_turn(&candidates),
        (Balancing::LeastConnections, _) => take_turn(&least_loaded(candidates)),
        (Balancing::PowerOfTwo, _) => less_loaded_of_two(&candidates, &mut || turn.random()),
    };
    chosen.map(|endpoint| Lease::new(Arc::clone(endpoint)))
}

/// Those with the smallest load per weight.
fn least_loaded(mut candidates: Vec<Candidate<'_>>) -> Vec<Candidate<'_>> {
    if let Some(least) = candidates.iter().copied().min_by(Candidate::compare_loads) {
        candidates.retain(|candidate| candidate.compare_loads(&least).is_eq());
    }
    candidates
}

/// Of two taken at random the one with the smaller load per weight. Gateways that do not know of each
/// other's sessions all see the same endpoint as the least loaded, as after one was added; by chance
/// they do not all go there.
fn less_loaded_of_two<'a>(
    candidates: &[Candidate<'a>],
    random: &mut impl FnMut() -> u64,
) -> Option<&'a Arc<Endpoint>> {
    let mut any = |count: usize| usize::try_from(random() % count.max(1) as u64).unwrap_or(0);
    let first = any(candidates.len());
    // Another one, wherever the first stands.
    let second = (first + 1 + any(candidates.len().saturating_sub(1))) % candidates.len().max(1);
    let pair = [candidates.get(first)?, candidates.get(second)?];
    let less = pair.into_iter().min_by(|a, b| a.compare_loads(b));
    less.map(|candidate| candidate.endpoint)
}

/// Smooth weighted round robin: each candidate earns its weight, the richest is chosen and pays for
/// all. Heavy endpoints are so interleaved with light ones rather than served in bursts.
fn take_turn<'a>(candidates: &[Candidate<'a>]) -> Option<&'a Arc<Endpoint>> {
    let mut total = 0;
    let mut richest: Option<(&Arc<Endpoint>, i64)> = None;
    for Candidate { endpoint, weight } in candidates {
        let weight = i64::from(*weight);
        total += weight;
        let credit = endpoint.credit.load(Relaxed) + weight;
        endpoint.credit.store(credit, Relaxed);
        if richest.is_none_or(|(_, most)| credit > most) {
            richest = Some((endpoint, credit));
        }
    }
    let (endpoint, credit) = richest?;
    endpoint.credit.store(credit - total, Relaxed);
    Some(endpoint)
}

/// What an upstream remembers, for all workers: who holds it chooses, so that turns and limits are
/// exact.
#[derive(Debug)]
pub(crate) struct SharedState {
    random: u64,
    pub(crate) budget: Budget,
    pub(crate) counts: HealthCounts,
}

/// Whoever panicked with it left nothing half done that would matter.
pub(crate) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Default for SharedState {
    fn default() -> Self {
        Self {
            random: RandomState::new().hash_one(()),
            budget: Budget::default(),
            counts: HealthCounts::default(),
        }
    }
}

impl SharedState {
    /// The next number of `SplitMix64`.
    fn random(&mut self) -> u64 {
        self.random = self.random.wrapping_add(0x9e37_79b9_7f4a_7c15);
        hash::mix(self.random)
    }
}

#[cfg(test)]
mod tests;
