//! Sessions move to endpoints that were added, and not while one is ill.

use std::{collections::BTreeMap, net::SocketAddr};

use proxy::{
    Balancing, ConfigError, ConsistentHash, Ended, Error, HashKey, Pool, Rebalance, Snapshot,
};
use tokio::task::JoinSet;

use crate::support::{POOL, Rig, closed, connect, echo, endpoint, nowhere, pool};

const SESSIONS: u64 = 40;

/// What an endpoint may have of them, of two with a tolerance of 10 %.
const BOUND: u64 = 22;

const ILL: &str = "default/ill";

fn rebalanced(pool: &mut Pool) {
    let upstream = &mut pool.upstreams[0];
    upstream.balancing = Balancing::LeastConnections;
    upstream.rebalance = Some(Rebalance {
        percent_per_minute: 6000,
        tolerance_percent: 10,
    });
}

/// Clients that come again when they are told to, for as long as the set lives.
async fn faithful(address: SocketAddr) -> JoinSet<()> {
    let mut clients = JoinSet::new();
    for _ in 0..SESSIONS {
        let mut ws = connect(address).await;
        clients.spawn(async move {
            loop {
                // Nothing else comes: no one here speaks.
                let close = closed(&mut ws).await;
                let (code, reason) = close.expect("a Close");
                assert_eq!(
                    (code, reason.as_str()),
                    (1012, "another backend has less to do")
                );
                ws = connect(address).await;
            }
        });
    }
    clients
}

fn sessions(snapshot: &Snapshot, of: &str) -> Vec<u64> {
    let endpoints = snapshot.endpoints.iter().filter(|one| one.pool == of);
    endpoints.map(|one| one.sessions).collect()
}

fn moved(snapshot: &Snapshot, of: &str) -> u64 {
    let pool = snapshot.traffic.iter().filter(|one| one.pool == of);
    pool.map(|one| one.counters.ended_by(Ended::Rebalanced))
        .sum()
}

/// Whether all sessions are there and the endpoints are even.
fn is_even(snapshot: &Snapshot, of: &str) -> bool {
    let sessions = sessions(snapshot, of);
    sessions.iter().sum::<u64>() == SESSIONS && sessions.iter().all(|own| *own <= BOUND)
}

#[tokio::test]
async fn sessions_move_to_an_endpoint_that_was_added_unless_one_is_ill() {
    let mut rig = Rig::with(&[echo().await], rebalanced);
    let address = nowhere();
    let mut ill = pool(&[address], &[echo().await]);
    rebalanced(&mut ill);
    rig.config.pools.insert(ILL.to_owned(), ill);
    rig.apply();
    let clients = (faithful(rig.address).await, faithful(address).await);
    let snapshot = rig.proxy.snapshot();
    assert_eq!(sessions(&snapshot, POOL), [SESSIONS]);
    assert_eq!((moved(&snapshot, POOL), moved(&snapshot, ILL)), (0, 0));

    let added = [echo().await, echo().await, nowhere()].map(endpoint);
    let of = |pools: &mut BTreeMap<String, Pool>, name: &str, more: &[proxy::Endpoint]| {
        let pool = pools.get_mut(name).unwrap();
        pool.upstreams[0].endpoints.extend_from_slice(more);
    };
    of(&mut rig.config.pools, POOL, &added[..1]);
    of(&mut rig.config.pools, ILL, &added[1..]);
    rig.apply();
    // Each session that moved has found the new one.
    let snapshot = rig
        .until("even", |s| {
            is_even(s, POOL) && sessions(s, POOL)[1] == moved(s, POOL)
        })
        .await;
    let moved_there = moved(&snapshot, POOL);
    // In the same rounds nothing was moved where an endpoint refuses connections.
    assert_eq!(moved(&snapshot, ILL), 0);
    assert_eq!(sessions(&snapshot, ILL), [SESSIONS, 0, 0]);

    rig.config.pools.get_mut(ILL).unwrap().upstreams[0]
        .endpoints
        .truncate(2);
    rig.apply();
    let snapshot = rig.until("even, too", |s| is_even(s, ILL)).await;
    // Some rounds later no more have moved than had to: but for those that were under way.
    assert!(
        moved(&snapshot, POOL) <= moved_there + 2,
        "{moved_there} {snapshot:?}"
    );
    let all: u64 = Ended::ALL
        .iter()
        .map(|by| snapshot.counters.ended_by(*by))
        .sum();
    assert_eq!(all, snapshot.counters.ended_by(Ended::Rebalanced));
    drop(clients);
}

#[tokio::test]
async fn sessions_that_a_hash_would_bring_back_are_not_moved() {
    let mut rig = Rig::new(&[echo().await]);
    let pool = rig.config.pools.get_mut(POOL).unwrap();
    rebalanced(pool);
    pool.upstreams[0].balancing = Balancing::ConsistentHash(ConsistentHash {
        key: HashKey::SourceAddress,
        max_load_percent: None,
    });
    let refused = rig.proxy.apply(rig.config.clone(), Vec::new());
    assert!(matches!(
        refused,
        Err(Error::Config(ConfigError::RebalancedHash { .. }))
    ));
}
