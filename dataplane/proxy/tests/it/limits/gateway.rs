//! What all pools of a gateway together may have, and what it has memory for.

use std::{net::SocketAddr, time::Duration};

use proxy::{GatewayLimits, Limit, Snapshot};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use super::hits;
use crate::{
    http::retry_after,
    http2::support::{Client, websocket},
    support::{
        POOL, REQUEST, Rig, connect, echo, nowhere, pool, raw_client, read_head, round_trip, soon,
    },
    tls::support::{Authority, HOST, listener},
};

const OTHER: &str = "default/other";

/// A gateway with two pools; the address of the second.
async fn two_pools(limits: GatewayLimits, handshake_timeout: Duration) -> (Rig, SocketAddr) {
    let backend = echo().await;
    let mut rig = Rig::limited(&[backend], limits, |pool| {
        pool.upstreams[0].handshake_timeout = handshake_timeout;
    });
    let other = nowhere();
    let mut second = pool(&[other], &[backend]);
    second.upstreams[0].handshake_timeout = handshake_timeout;
    rig.config.pools.insert(OTHER.to_owned(), second);
    rig.apply();
    (rig, other)
}

/// The head of the answer to a request.
async fn ask(address: SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    soon(read_head(&mut stream)).await.expect("no answer")
}

fn assert_full(head: &str) {
    let full = head.starts_with("HTTP/1.1 503 Service Unavailable\r\n");
    assert!(full && (1..=10).contains(&retry_after(head)), "{head}");
}

/// How often clients of a pool ran into `limit`.
fn hits_of(snapshot: &Snapshot, pool: &str, limit: Limit) -> u64 {
    let mut limits = snapshot.limits.iter();
    let hit = limits.find(|one| one.pool == pool && one.limit == limit);
    hit.map_or(0, |one| one.hits)
}

#[tokio::test]
async fn pools_share_the_sessions_of_the_gateway() {
    let limits = GatewayLimits {
        sessions: Some(2),
        handshakes_per_second: None,
    };
    let (mut rig, other) = two_pools(limits, Duration::from_secs(5)).await;
    let first = rig.connect().await;
    let mut second = connect(other).await;
    assert_full(&ask(rig.address).await);
    assert_full(&ask(other).await);
    assert_full(&ask(other).await);
    // A pool's own limit is told of before.
    rig.edit(|pool| pool.limits.sessions = Some(1));
    assert_full(&ask(rig.address).await);
    let snapshot = rig.proxy.snapshot();
    assert_eq!(hits_of(&snapshot, POOL, Limit::GatewaySessions), 1);
    assert_eq!(hits_of(&snapshot, OTHER, Limit::GatewaySessions), 2);
    assert_eq!(hits_of(&snapshot, POOL, Limit::Sessions), 1);
    drop(first);
    rig.until("its end", |s| s.counters.live_sessions == 1)
        .await;
    round_trip(&mut connect(other).await, "in its place").await;
    round_trip(&mut second, "still there").await;
}

#[tokio::test]
async fn pools_share_the_handshakes_of_a_second() {
    let limits = GatewayLimits {
        sessions: None,
        handshakes_per_second: Some(1),
    };
    let (mut rig, other) = two_pools(limits, Duration::from_millis(500)).await;
    let _first = raw_client(rig.address).await;
    assert_full(&ask(other).await);
    let hit = Limit::GatewayHandshakesPerSecond;
    assert_eq!(hits_of(&rig.proxy.snapshot(), OTHER, hit), 1);
    // With more patience it waits, whichever queue is the longer.
    for (name, per_second) in [(POOL, Some(1)), (OTHER, None)] {
        let pool = rig.config.pools.get_mut(name).unwrap();
        pool.upstreams[0].handshake_timeout = Duration::from_mins(1);
        pool.limits.handshakes_per_second = per_second;
    }
    rig.apply();
    for address in [other, rig.address, rig.address, other] {
        round_trip(&mut connect(address).await, "after a while").await;
    }
    assert_eq!(hits(&rig.proxy.snapshot(), hit), 1);
}

#[tokio::test]
async fn without_memory_nobody_begins_by_any_way_and_sessions_go_on() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let rig = Rig::limited(&[echo().await], GatewayLimits::default(), |pool| {
        pool.listeners[0].tls = Some(listener(&[identity]));
    });
    let client = Client::connect(&rig, &authority).await;
    let mut session = client.session().await;
    rig.proxy.lacks_memory(true);
    let refused = async |client: &Client| {
        let (response, _) = client.ask(websocket(&[])).await;
        assert_eq!(response.status(), 503);
        let again = response.headers()["retry-after"].to_str().unwrap();
        assert!((1..=10).contains(&again.parse::<u32>().unwrap()), "{again}");
    };
    refused(&client).await;
    // One that comes anew is told behind TLS.
    refused(&Client::connect(&rig, &authority).await).await;
    round_trip(&mut session, "one that is there").await;
    assert_eq!(hits(&rig.proxy.snapshot(), Limit::GatewayMemory), 2);
    rig.proxy.lacks_memory(false);
    round_trip(&mut client.session().await, "there is some again").await;
}
