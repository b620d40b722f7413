//! Which endpoint a client gets, and what happens when one fails.

use std::{collections::BTreeMap, time::Duration};

use futures_util::StreamExt;
use proxy::{Balancing, EndpointProblem, Event, Phase};
use tokio::{io::AsyncWriteExt, net::TcpListener};

use crate::support::{
    POOL, Rig, Ws, black_hole, connect, echo, endpoint, listen, named, nowhere, round_trip, soon,
    try_connect,
};

async fn name(ws: &mut Ws) -> String {
    let message = soon(ws.next()).await.unwrap().unwrap();
    message.to_text().unwrap().to_owned()
}

#[tokio::test]
async fn round_robin_is_exact_over_all_workers() {
    let backends = [named("a").await, named("b").await, named("c").await];
    let rig = Rig::new(&backends);
    let mut names = Vec::new();
    let mut open = Vec::new();
    for _ in 0..9 {
        let mut ws = rig.connect().await;
        names.push(name(&mut ws).await);
        open.push(ws);
    }
    assert_eq!(names, ["a", "b", "c", "a", "b", "c", "a", "b", "c"]);
}

#[tokio::test]
async fn weights_give_shares() {
    let backends = [named("a").await, named("b").await];
    let rig = Rig::with(&backends, |pool| pool.upstreams[0].endpoints[0].weight = 3);
    let mut count = BTreeMap::new();
    for _ in 0..8 {
        *count
            .entry(name(&mut rig.connect().await).await)
            .or_insert(0) += 1;
    }
    assert_eq!(
        count,
        BTreeMap::from([("a".to_owned(), 6), ("b".to_owned(), 2)])
    );
}

#[tokio::test]
async fn least_connections_fills_the_emptiest() {
    let backends = [named("a").await, named("b").await];
    let mut rig = Rig::with(&backends, |pool| {
        pool.upstreams[0].balancing = Balancing::LeastConnections;
        pool.upstreams[0].endpoints.truncate(1);
    });
    let mut open = Vec::new();
    for _ in 0..4 {
        open.push(rig.connect().await);
    }
    rig.edit(|pool| pool.upstreams[0].endpoints.push(endpoint(backends[1])));
    for _ in 0..4 {
        let mut ws = rig.connect().await;
        assert_eq!(name(&mut ws).await, "b");
        open.push(ws);
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(
        snapshot
            .endpoints
            .iter()
            .map(|e| e.sessions)
            .collect::<Vec<_>>(),
        [4, 4]
    );
}

#[tokio::test]
async fn a_refusing_endpoint_costs_the_client_nothing_and_is_left_out() {
    let dead = nowhere();
    let rig = Rig::new(&[dead, named("b").await]);
    for _ in 0..4 {
        assert_eq!(name(&mut rig.connect().await).await, "b");
    }
    let snapshot = rig.until("left out", |s| !s.endpoints[0].usable).await;
    assert_eq!(
        snapshot.endpoints[0].problem,
        Some(EndpointProblem::Refused)
    );
    assert!(snapshot.endpoints[1].usable);
    assert!(
        snapshot.counters.retries <= 1,
        "tried again and again: {snapshot:?}"
    );
    // It comes, and within a second or two it is used.
    let listener = TcpListener::bind(dead).await.unwrap();
    rig.until("usable again", |s| s.endpoints[0].usable).await;
    drop(listener);
}

#[tokio::test]
async fn an_endpoint_that_dies_before_its_101_costs_the_client_nothing() {
    for answer in [&b""[..], b"HTTP/1.1 101 Swi", b"nonsense\r\n\r\n"] {
        let (listener, dying) = listen().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let answered = stream.write_all(answer).await;
                drop((answered, stream));
            }
        });
        let rig = Rig::new(&[dying, named("b").await]);
        for _ in 0..3 {
            assert_eq!(name(&mut rig.connect().await).await, "b");
        }
        let snapshot = rig.proxy.snapshot();
        assert!(snapshot.counters.retries >= 1);
        assert!(snapshot.endpoints[0].usable, "it does accept connections");
    }
}

async fn next_usable(rig: &Rig) -> usize {
    let next = async {
        loop {
            match rig.events.try_recv() {
                Ok(Event::UsableEndpoints {
                    pool,
                    upstream,
                    count,
                }) => {
                    assert_eq!((pool.as_str(), upstream.as_str()), (POOL, "echo"));
                    return count;
                }
                Ok(Event::ListenerState { .. } | Event::EndpointHealth { .. }) => {}
                Err(_) => tokio::time::sleep(Duration::from_millis(2)).await,
            }
        }
    };
    soon(next).await
}

#[tokio::test]
async fn usable_endpoints_are_told_as_they_change() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let mut rig = Rig::new(&[address, echo().await]);
    // One after the other is tried.
    while next_usable(&rig).await != 2 {}
    drop(listener);
    // The one gone is found when a client is to get it, and taken back when it accepts.
    let mut open = [rig.connect().await, rig.connect().await];
    assert_eq!(next_usable(&rig).await, 1);
    let listener = std::net::TcpListener::bind(address).unwrap();
    assert_eq!(next_usable(&rig).await, 2);
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating);
    assert_eq!(next_usable(&rig).await, 1);
    rig.edit(|pool| pool.upstreams[0].endpoints.remove(0).phase = Phase::Ready);
    drop(listener);
    round_trip(&mut open[0], "through all of it").await;
    // A new endpoint that is not there is found without any client.
    rig.edit(|pool| pool.upstreams[0].endpoints.push(endpoint(nowhere())));
    let snapshot = rig.until("found", |s| !s.endpoints[1].usable).await;
    assert!(snapshot.endpoints[0].usable);
}

#[tokio::test]
async fn a_lost_session_has_its_endpoint_checked() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&[address]);
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(ws) = tokio_tungstenite::accept_async(stream).await {
                return ws;
            }
        }
    };
    let (client, server) = tokio::join!(connect(rig.address), soon(accept));
    assert!(rig.proxy.snapshot().endpoints[0].usable);
    // As when the host of the endpoint crashes and its kernel answers with resets.
    drop(listener);
    drop(server);
    rig.until("found", |s| !s.endpoints[0].usable).await;
    drop(client);
}

#[tokio::test]
async fn with_nothing_else_left_an_endpoint_known_to_fail_is_tried_again() {
    let address = nowhere();
    let rig = Rig::with(&[address], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(2);
    });
    assert!(soon(try_connect(rig.address)).await.is_err());
    rig.until("left out", |s| !s.endpoints[0].usable).await;
    let listener = TcpListener::bind(address).await.unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                if let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await {
                    while let Some(Ok(_)) = ws.next().await {}
                }
            });
        }
    });
    let ws = connect(rig.address).await;
    assert!(rig.proxy.snapshot().endpoints[0].usable);
    drop(ws);
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_connections_costs_the_client_little() {
    let (hole, _kept) = black_hole();
    let rig = Rig::with(&[hole, named("b").await], |pool| {
        pool.upstreams[0].connect_timeout = Duration::from_millis(100);
    });
    for _ in 0..4 {
        assert_eq!(name(&mut rig.connect().await).await, "b");
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(snapshot.counters.retries, 1);
    assert_eq!(
        snapshot.endpoints[0].problem,
        Some(EndpointProblem::ConnectTimeout)
    );
}

#[tokio::test]
async fn an_endpoint_that_accepts_and_does_not_answer_is_passed_over() {
    // As one that is stopped: its kernel still takes connections.
    let mute = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let rig = Rig::with(&[mute.local_addr().unwrap(), named("b").await], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(2);
        pool.upstreams[0].health.ejection.consecutive_failures = 1;
    });
    for _ in 0..4 {
        assert_eq!(name(&mut rig.connect().await).await, "b");
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(
        snapshot.counters.retries, 1,
        "only the first was sent there"
    );
    let problem = snapshot.endpoints[0].problem;
    assert_eq!(problem, Some(EndpointProblem::Ejected));
}

#[tokio::test]
async fn endpoints_count_as_usable_once_they_were_reached() {
    let (hole, _kept) = black_hole();
    let mut rig = Rig::new(&[hole]);
    assert_eq!(next_usable(&rig).await, 0);
    assert!(rig.proxy.snapshot().endpoints[0].usable, "a client may try");
    let good = echo().await;
    rig.edit(|pool| pool.upstreams[0].endpoints = vec![endpoint(good)]);
    assert_eq!(next_usable(&rig).await, 1);
    // Those before were good, and of these nothing is known until they have been tried.
    rig.edit(|pool| pool.upstreams[0].endpoints = vec![endpoint(hole)]);
    assert_eq!(rig.proxy.snapshot().upstreams[0].usable, 1);
    assert_eq!(next_usable(&rig).await, 0);
    let problem = rig.proxy.snapshot().endpoints[0].problem;
    assert_eq!(problem, Some(EndpointProblem::ConnectTimeout));
}

#[tokio::test]
async fn an_endpoint_that_is_listed_again_is_tried_at_once() {
    let address = nowhere();
    let mut rig = Rig::new(&[address, named("b").await]);
    rig.until("left out", |s| !s.endpoints[0].usable).await;
    // A lease keeps it known while it is not listed: a session of its own does that.
    let listener = TcpListener::bind(address).await.unwrap();
    rig.until("back", |s| s.endpoints[0].usable).await;
    let accept = async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            if let Ok(ws) = tokio_tungstenite::accept_async(stream).await {
                return ws;
            }
        }
    };
    let (client, kept) = tokio::join!(connect(rig.address), accept);
    drop(listener);
    let clients = [rig.connect().await, rig.connect().await];
    rig.until("left out again", |s| !s.endpoints[0].usable)
        .await;
    let removed = rig.config.pools[POOL].upstreams[0].endpoints[0];
    rig.edit(|pool| {
        pool.drain.timeout = Duration::from_hours(1);
        pool.upstreams[0].endpoints.remove(0);
    });
    let listener = TcpListener::bind(address).await.unwrap();
    rig.edit(|pool| pool.upstreams[0].endpoints.insert(0, removed));
    let snapshot = rig.proxy.snapshot();
    assert!(snapshot.endpoints[0].usable, "{snapshot:?}");
    rig.until("reached", |s| s.upstreams[0].usable == 2).await;
    drop((client, kept, clients, listener));
}
