//! Which endpoint a new session goes to.

use std::{
    net::SocketAddr,
    sync::{Arc, PoisonError, atomic::Ordering::Relaxed},
};

use crate::{config::Balancing, endpoint::Endpoint, live::Upstream};

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

/// The endpoint for a new session, none of `tried`.
///
/// Those known to fail, or not to answer, come last instead of never: when nothing else is left, an
/// attempt costs the client nothing and may find that one of them is back.
pub(crate) fn choose(upstream: &Upstream, tried: &[SocketAddr]) -> Option<Lease> {
    let _turn = upstream.turn.lock().unwrap_or_else(PoisonError::into_inner);
    let open = |endpoint: &&Arc<Endpoint>| !tried.contains(&endpoint.address);
    let endpoints = || upstream.endpoints.iter().filter(open);
    let mut candidates: Vec<_> = endpoints()
        .filter(|endpoint| endpoint.is_usable() && !endpoint.is_shunned())
        .collect();
    if candidates.is_empty() {
        candidates = endpoints()
            .filter(|endpoint| endpoint.is_usable())
            .collect();
    }
    if candidates.is_empty() {
        candidates = endpoints().filter(|endpoint| endpoint.is_ready()).collect();
    }
    if upstream.balancing == Balancing::LeastConnections {
        keep_least_loaded(&mut candidates);
    }
    take_turn(&candidates).map(|endpoint| Lease::new(Arc::clone(endpoint)))
}

/// Keeps those with the smallest load per weight.
fn keep_least_loaded(candidates: &mut Vec<&Arc<Endpoint>>) {
    // a/b < c/d, in whole numbers.
    let load = |endpoint: &Endpoint| endpoint.load.load(Relaxed) as u128;
    let weight = |endpoint: &Endpoint| u128::from(endpoint.weight());
    let compare = |a: &Endpoint, b: &Endpoint| (load(a) * weight(b)).cmp(&(load(b) * weight(a)));
    let Some(least) = candidates.iter().copied().min_by(|a, b| compare(a, b)) else {
        return;
    };
    candidates.retain(|endpoint| compare(endpoint, least).is_eq());
}

/// Smooth weighted round robin: each candidate earns its weight, the richest is chosen and pays for
/// all. Heavy endpoints are so interleaved with light ones rather than served in bursts.
fn take_turn<'a>(candidates: &[&'a Arc<Endpoint>]) -> Option<&'a Arc<Endpoint>> {
    let mut total = 0;
    let mut richest: Option<(&Arc<Endpoint>, i64)> = None;
    for endpoint in candidates {
        let weight = i64::from(endpoint.weight());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::Phase;

    fn upstream(balancing: Balancing, weights: &[u16]) -> Upstream {
        let endpoint = |(i, weight): (usize, &u16)| {
            let port = u16::try_from(i).unwrap() + 1;
            let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)));
            endpoint.update(Some((*weight, Phase::Ready)));
            Arc::new(endpoint)
        };
        Upstream {
            name: "test".to_owned(),
            endpoints: weights.iter().enumerate().map(endpoint).collect(),
            balancing,
            connect_timeout: Duration::from_secs(1),
            handshake_timeout: Duration::from_secs(1),
            turn: Arc::default(),
        }
    }

    fn ports(upstream: &Upstream, n: usize) -> Vec<u16> {
        let port = |_| choose(upstream, &[]).unwrap().endpoint.address.port();
        (0..n).map(port).collect()
    }

    #[test]
    fn equal_weights_take_turns() {
        let upstream = upstream(Balancing::RoundRobin, &[1, 1, 1]);
        assert_eq!(ports(&upstream, 7), [1, 2, 3, 1, 2, 3, 1]);
    }

    #[test]
    fn weights_are_shares_and_interleaved() {
        let upstream = upstream(Balancing::RoundRobin, &[5, 1, 1]);
        assert_eq!(ports(&upstream, 7), [1, 1, 2, 1, 3, 1, 1]);
    }

    #[test]
    fn an_endpoint_that_is_terminating_or_not_ready_is_never_chosen() {
        let upstream = upstream(Balancing::RoundRobin, &[1, 1]);
        upstream.endpoints[0].update(Some((1, Phase::Terminating)));
        assert_eq!(ports(&upstream, 3), [2, 2, 2]);
        upstream.endpoints[1].update(Some((1, Phase::NotReady)));
        assert!(choose(&upstream, &[]).is_none());
    }

    #[test]
    fn one_that_does_not_answer_is_chosen_when_there_is_no_other() {
        let upstream = upstream(Balancing::RoundRobin, &[1, 1]);
        upstream.endpoints[0].shun(true);
        assert_eq!(ports(&upstream, 3), [2, 2, 2]);
        let second = upstream.endpoints[1].address;
        assert_eq!(
            choose(&upstream, &[second])
                .unwrap()
                .endpoint
                .address
                .port(),
            1
        );
        upstream.endpoints[0].shun(false);
        assert!(ports(&upstream, 3).contains(&1));
    }

    #[test]
    fn what_was_tried_is_not_chosen_again() {
        let upstream = upstream(Balancing::RoundRobin, &[1, 1]);
        let first = choose(&upstream, &[]).unwrap().endpoint.address;
        let second = choose(&upstream, &[first]).unwrap().endpoint.address;
        assert_ne!(first, second);
        assert!(choose(&upstream, &[first, second]).is_none());
    }

    #[test]
    fn least_connections_counts_what_is_held_for_its_weight() {
        let upstream = upstream(Balancing::LeastConnections, &[2, 1]);
        let held: Vec<_> = (0..6).map(|_| choose(&upstream, &[]).unwrap()).collect();
        let on_first = held
            .iter()
            .filter(|lease| lease.endpoint.address.port() == 1);
        assert_eq!(on_first.count(), 4);
        drop(held);
        assert_eq!(upstream.endpoints[0].load.load(Relaxed), 0);
    }
}
