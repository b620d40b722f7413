//! The connection as such: how many streams it has at most, and how long it is kept without one.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use futures_util::StreamExt;
use h2::Reason;
use proxy::Patience;
use tokio::time::timeout;

use super::support::{Client, websocket};
use crate::{
    support::{Rig, echo, round_trip, soon},
    tls::support::{Authority, HOST, VERSIONS, connect, listener, rig},
};

#[tokio::test]
async fn clients_of_either_version_are_served_side_by_side() {
    let (rig, authority) = rig(&[echo().await]);
    let new = Client::connect(&rig, &authority).await;
    round_trip(&mut new.session().await, "in a stream").await;
    for protocols in [vec![], vec![b"http/1.1".to_vec()]] {
        let mut config = authority.client(&VERSIONS);
        config.alpn_protocols = protocols;
        let mut old = connect(rig.address, &Arc::new(config)).await;
        round_trip(&mut old, "in a connection").await;
    }
    assert_eq!(rig.proxy.snapshot().counters.streams, 1);
}

#[tokio::test]
async fn there_are_a_hundred_streams_at_once_and_the_next_has_to_wait() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    assert_eq!(client.requests.current_max_send_streams(), 100);
    let mut sessions = Vec::new();
    for _ in 0..100 {
        sessions.push(client.session().await);
    }
    let next = client.try_ask(websocket(&[]));
    tokio::pin!(next);
    assert!(
        timeout(Duration::from_millis(200), next.as_mut())
            .await
            .is_err()
    );
    for ws in &mut sessions {
        round_trip(ws, "all are served").await;
    }
    drop(sessions.pop());
    let (response, _output) = soon(next).await.unwrap();
    assert_eq!(response.status(), 200);
}

#[tokio::test]
async fn what_is_open_is_counted() {
    let (rig, authority) = rig(&[echo().await]);
    let idle = Client::connect(&rig, &authority).await;
    let busy = Client::connect(&rig, &authority).await;
    let (one, two) = (busy.session().await, busy.session().await);
    let open = |connections, streams| {
        move |now: &proxy::Snapshot| {
            let counters = &now.counters;
            (counters.http2_connections, counters.live_streams) == (connections, streams)
        }
    };
    rig.until("two connections, two streams", open(2, 2)).await;
    drop(two);
    rig.until("a stream to end", open(2, 1)).await;
    drop(idle);
    rig.until("an idle connection to end", open(1, 1)).await;
    drop((one, busy));
    rig.until("all to end", open(0, 0)).await;
}

#[tokio::test]
async fn a_connection_without_streams_ends_after_a_while() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let patience = Patience {
        idle: Duration::from_millis(500),
        ..Patience::default()
    };
    let ip = Ipv4Addr::LOCALHOST.into();
    let rig = Rig::start(ip, &[echo().await], patience, |pool| {
        pool.listeners[0].tls = Some(listener(&[identity]));
    });
    let idle = Client::connect(&rig, &authority).await;
    let busy = Client::connect(&rig, &authority).await;
    let mut ws = busy.session().await;
    // Others that are idle come to their end meanwhile, one after the other.
    idle.over().await;
    for _ in 0..3 {
        let idle = Client::connect(&rig, &authority).await;
        idle.over().await;
    }
    round_trip(&mut ws, "a session keeps it").await;
    ws.close(None).await.unwrap();
    while soon(ws.next()).await.is_some() {}
    drop(ws);
    busy.over().await;
}

#[tokio::test]
async fn switched_off_it_is_for_no_new_session_and_ends_none() {
    let (mut rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut ws = client.session().await;
    rig.edit(|pool| {
        let tls = &mut pool.listeners[0].tls;
        *tls = tls.take().map(proxy::tls::ServerTls::without_http2);
    });
    // It may be asked for again by another connection, which is one of HTTP/1.1.
    let refused = soon(client.try_ask(websocket(&[]))).await.unwrap_err();
    assert_eq!(refused.reason(), Some(Reason::REFUSED_STREAM));
    let mut config = authority.client(&VERSIONS);
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let mut other = connect(rig.address, &Arc::new(config)).await;
    let (_, tls) = other.get_ref().get_ref();
    assert_eq!(tls.alpn_protocol(), Some(&b"http/1.1"[..]));
    round_trip(&mut other, "in a connection").await;
    round_trip(&mut ws, "still in a stream").await;
    drop(ws);
    client.over().await;
}

#[tokio::test]
async fn one_whose_address_is_lost_is_kept_for_its_sessions_alone() {
    let (rig, authority) = rig(&[echo().await]);
    let idle = Client::connect(&rig, &authority).await;
    let busy = Client::connect(&rig, &authority).await;
    let mut ws = busy.session().await;
    rig.proxy.address_held(rig.address.ip(), false).unwrap();
    idle.over().await;
    round_trip(&mut ws, "the address may come back").await;
    drop(ws);
    busy.over().await;
}
