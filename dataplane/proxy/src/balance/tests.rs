//! Whom each way to choose chooses.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, Instant},
};

use proptest::prelude::*;

use super::{hash, key as key_of, *};
use crate::{
    config::{self, ConsistentHash, HashKey, Phase},
    health::{self, CheckFailure, HealthCheck, Probe},
    live::Shared,
    proxy::Patience,
};

fn upstream(balancing: Balancing, weights: &[u16]) -> Upstream {
    let endpoint = |(i, weight): (usize, &u16)| {
        let port = u16::try_from(i).unwrap() + 1;
        let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], port)), 1);
        list(&endpoint, *weight, Phase::Ready);
        Arc::new(endpoint)
    };
    Upstream {
        endpoints: weights.iter().enumerate().map(endpoint).collect(),
        ..Upstream::for_tests("test", balancing)
    }
}

fn list(endpoint: &Endpoint, weight: u16, phase: Phase) {
    list_in_zone(endpoint, weight, phase, false);
}

fn list_in_zone(endpoint: &Endpoint, weight: u16, phase: Phase, is_near: bool) {
    endpoint.update(Some(config::Endpoint {
        address: endpoint.address,
        weight,
        phase,
        is_near,
    }));
}

fn ports(upstream: &Upstream, n: usize) -> Vec<u16> {
    let port = |_| choose(upstream, &[], None).unwrap().endpoint.address.port();
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
    list(&upstream.endpoints[0], 1, Phase::Terminating);
    assert_eq!(ports(&upstream, 3), [2, 2, 2]);
    list(&upstream.endpoints[1], 1, Phase::NotReady);
    assert!(choose(&upstream, &[], None).is_none());
}

/// A check answered so, which decides at once.
fn checked(endpoint: &Endpoint, answer: Result<(), CheckFailure>) {
    let check = HealthCheck {
        probe: Probe::Tcp,
        port: None,
        interval: Duration::from_secs(1),
        timeout: Duration::from_secs(1),
        failure_threshold: 1,
        success_threshold: 1,
    };
    let shared = Shared::new(1, None, None, Patience::default(), Arc::default());
    health::checked(endpoint, answer, &check, &shared);
}

#[test]
fn one_that_is_not_well_is_chosen_when_there_is_no_other() {
    let upstream = upstream(Balancing::RoundRobin, &[1, 1]);
    let ill = Err(CheckFailure::Status(503));
    checked(&upstream.endpoints[0], ill);
    assert_eq!(ports(&upstream, 3), [2, 2, 2]);
    let second = upstream.endpoints[1].address;
    let chosen = choose(&upstream, &[second], None).unwrap();
    assert_eq!(chosen.endpoint.address.port(), 1);
    checked(&upstream.endpoints[1], ill);
    let mut all = ports(&upstream, 4);
    all.sort_unstable();
    assert_eq!(all, [1, 1, 2, 2], "with all unwell all are used alike");
    checked(&upstream.endpoints[0], Ok(()));
    assert_eq!(ports(&upstream, 3), [1, 1, 1]);
}

#[test]
fn those_near_take_all_while_they_are_enough() {
    let mut upstream = upstream(Balancing::RoundRobin, &[1, 1, 1, 1, 1]);
    for endpoint in &upstream.endpoints[..2] {
        list_in_zone(endpoint, 1, Phase::Ready, true);
    }
    assert_eq!(
        ports(&upstream, 100).iter().max(),
        Some(&5),
        "not asked for"
    );
    upstream.min_near_percent = Some(40);
    assert_eq!(ports(&upstream, 4), [1, 2, 1, 2]);
    // One of two near, one of four in all: a quarter.
    checked(&upstream.endpoints[0], Err(CheckFailure::Timeout));
    let mut all = ports(&upstream, 4);
    all.sort_unstable();
    assert_eq!(all, [2, 3, 4, 5]);
    upstream.min_near_percent = Some(25);
    assert_eq!(ports(&upstream, 2), [2, 2]);
    let near = upstream.endpoints[1].address;
    let other = choose(&upstream, &[near], None).unwrap().endpoint.address;
    assert!(other.port() > 2, "none near is left to try");
    list_in_zone(&upstream.endpoints[1], 1, Phase::NotReady, true);
    assert!(ports(&upstream, 10).iter().all(|port| *port > 2));
}

#[test]
fn what_was_tried_is_not_chosen_again() {
    let upstream = upstream(Balancing::RoundRobin, &[1, 1]);
    let first = choose(&upstream, &[], None).unwrap().endpoint.address;
    let second = choose(&upstream, &[first], None).unwrap().endpoint.address;
    assert_ne!(first, second);
    assert!(choose(&upstream, &[first, second], None).is_none());
}

#[test]
fn least_connections_counts_what_is_held_for_its_weight() {
    let upstream = upstream(Balancing::LeastConnections, &[2, 1]);
    let held: Vec<_> = (0..6)
        .map(|_| choose(&upstream, &[], None).unwrap())
        .collect();
    let on_first = held
        .iter()
        .filter(|lease| lease.endpoint.address.port() == 1);
    assert_eq!(on_first.count(), 4);
    drop(held);
    assert_eq!(upstream.endpoints[0].load.load(Relaxed), 0);
}

#[test]
fn power_of_two_takes_the_less_loaded_and_not_always_the_same() {
    let upstream = upstream(Balancing::PowerOfTwo, &[1, 1, 1, 1]);
    let held: Vec<_> = (0..400)
        .map(|_| choose(&upstream, &[], None).unwrap())
        .collect();
    let loads = upstream.endpoints.iter().map(|e| e.load.load(Relaxed));
    assert!(loads.clone().all(|load| (90..=110).contains(&load)));
    drop(held);
    let seen: BTreeSet<_> = ports(&upstream, 100).into_iter().collect();
    assert_eq!(seen.len(), 4, "with equal loads chance decides");
    let alone = self::upstream(Balancing::PowerOfTwo, &[1]);
    assert_eq!(ports(&alone, 2), [1, 1]);
}

#[test]
fn a_full_endpoint_is_not_chosen_until_a_session_of_it_ends() {
    let mut upstream = upstream(Balancing::RoundRobin, &[1, 1]);
    upstream.endpoint_sessions = Some(2);
    let mut held: Vec<_> = (0..4)
        .map(|_| choose(&upstream, &[], None).unwrap())
        .collect();
    assert!(choose(&upstream, &[], None).is_none());
    let freed = held.pop().unwrap().endpoint.address;
    assert_eq!(
        choose(&upstream, &[], None).unwrap().endpoint.address,
        freed
    );
}

#[test]
fn an_endpoint_that_is_new_has_a_tenth_at_first() {
    let mut upstream = upstream(Balancing::RoundRobin, &[1, 1]);
    upstream.slow_start = Duration::from_hours(1);
    upstream.endpoints[0].started(Instant::now().checked_sub(Duration::from_hours(2)));
    upstream.endpoints[1].started(Some(Instant::now()));
    let second = |port: &u16| *port == 2;
    assert_eq!(ports(&upstream, 110).into_iter().filter(second).count(), 10);
    upstream.slow_start = Duration::ZERO;
    assert_eq!(ports(&upstream, 110).into_iter().filter(second).count(), 55);
}

fn hashed(max_load_percent: Option<u16>) -> Balancing {
    Balancing::ConsistentHash(ConsistentHash {
        key: HashKey::SourceAddress,
        max_load_percent,
    })
}

/// Where each of many keys goes, nothing being held.
fn places(upstream: &Upstream) -> HashMap<u64, u16> {
    let place = |number: u64| {
        let key = hash::mix(number);
        let lease = choose(upstream, &[], Some(key)).unwrap();
        (key, lease.endpoint.address.port())
    };
    (0..2000).map(place).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn one_that_goes_moves_its_own_keys_and_no_others(
        weights in prop::collection::vec(1_u16..=8, 2..12),
        gone in any::<prop::sample::Index>(),
    ) {
        let upstream = upstream(hashed(None), &weights);
        let before = places(&upstream);
        let gone = gone.index(weights.len());
        list(&upstream.endpoints[gone], 1, Phase::NotReady);
        let left = upstream.endpoints[gone].address.port();
        for (key, place) in places(&upstream) {
            let was = before[&key];
            let moves = was == left;
            prop_assert_eq!(place != was, moves);
        }
    }

    #[test]
    fn each_has_its_share_and_a_greater_weight_only_takes(
        weights in prop::collection::vec(1_u16..=4, 2..8),
        grown in any::<prop::sample::Index>(),
    ) {
        let upstream = upstream(hashed(None), &weights);
        let before = places(&upstream);
        let total: f64 = weights.iter().copied().map(f64::from).sum();
        for endpoint in &upstream.endpoints {
            let port = endpoint.address.port();
            let count = before.values().filter(|place| **place == port).count();
            let count = f64::from(u32::try_from(count).unwrap());
            let expected = 2000.0 * f64::from(endpoint.weight()) / total;
            // Five standard deviations of so many draws.
            let spread = 5.0 * (expected * (1.0 - expected / 2000.0)).sqrt();
            prop_assert!((count - expected).abs() <= spread, "{count} of {expected}");
        }
        let grown = &upstream.endpoints[grown.index(weights.len())];
        list(grown, 2 * grown.weight(), Phase::Ready);
        for (key, place) in places(&upstream) {
            prop_assert!(place == before[&key] || place == grown.address.port());
        }
    }

    #[test]
    fn none_has_more_than_its_bound_and_a_place_is_always_found(
        weights in prop::collection::vec(1_u16..=4, 1..8),
        percent in 101_u16..=200,
        keys in prop::collection::vec(0_u64..4, 1..300),
    ) {
        let upstream = upstream(hashed(Some(percent)), &weights);
        let held: Vec<_> = keys
            .iter()
            .map(|key| choose(&upstream, &[], Some(hash::mix(*key))).unwrap())
            .collect();
        let total: u64 = weights.iter().copied().map(u64::from).sum();
        for endpoint in &upstream.endpoints {
            let share = held.len() as u64 * u64::from(percent) * u64::from(endpoint.weight());
            let load = endpoint.load.load(Relaxed) as u64;
            prop_assert!(load <= share.div_ceil(total * 100));
        }
    }
}

#[test]
fn a_key_is_what_was_asked_for_and_all_forms_of_an_address_are_one() {
    use crate::handshake::{Outcome, RequestParser};
    let text = "GET /chat?room=a%20b&user=7 HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\
                Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\
                Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
                Cookie: theme=dark; session=s1\r\nX-User: alice\r\n\r\n";
    let Outcome::Done(request, _) = RequestParser::default().parse(text.as_bytes()) else {
        panic!("not a request");
    };
    let client: std::net::IpAddr = "192.0.2.1".parse().unwrap();
    let by = |key: HashKey| {
        let balancing = Balancing::ConsistentHash(ConsistentHash {
            key,
            max_load_percent: None,
        });
        key_of(&balancing, &request, client)
    };
    let named = |name: &str| name.to_owned();
    assert!(by(HashKey::Cookie(named("session"))).is_some());
    assert_ne!(
        by(HashKey::Cookie(named("session"))),
        by(HashKey::Cookie(named("theme")))
    );
    assert_eq!(by(HashKey::Cookie(named("sess"))), None);
    assert!(by(HashKey::Header(named("x-user"))).is_some());
    assert_eq!(by(HashKey::Header(named("x-other"))), None);
    assert!(by(HashKey::QueryParameter(named("user"))).is_some());
    assert_eq!(by(HashKey::QueryParameter(named("use"))), None);
    let mapped = "::ffff:192.0.2.1".parse().unwrap();
    assert_eq!(
        by(HashKey::SourceAddress),
        key_of(&hashed(None), &request, mapped)
    );
    assert_eq!(key_of(&Balancing::RoundRobin, &request, client), None);
}

/// Another release must not send clients elsewhere than this one.
#[test]
fn places_are_the_same_in_every_release() {
    let upstream = upstream(hashed(None), &[1, 1, 1, 1]);
    let place = |key| {
        choose(&upstream, &[], Some(key))
            .unwrap()
            .endpoint
            .address
            .port()
    };
    let places: Vec<_> = (0..12).map(place).collect();
    assert_eq!(places, [3, 3, 1, 2, 3, 3, 4, 2, 3, 2, 1, 3]);
}
