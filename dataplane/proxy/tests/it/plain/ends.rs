//! What becomes of requests and their connections when what they stand on goes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use proxy::{Heartbeat, Phase, RequestResult};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::watch};

use super::support::{proxied, read_until, rest, rig, send, server};
use crate::support::{Rig, read_head, soon};

const GET: &[u8] = b"GET /poll HTTP/1.1\r\nHost: a\r\n\r\n";

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// A server that holds requests until it is told to answer.
async fn holding() -> (SocketAddr, watch::Sender<bool>) {
    let (release, held) = watch::channel(false);
    let address = server(move |mut stream| {
        let mut held = held.clone();
        async move {
            read_head(&mut stream).await.unwrap();
            if held.wait_for(|free| *free).await.is_ok() {
                let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
                let _sent = stream.write_all(answer).await;
            }
        }
    })
    .await;
    (address, release)
}

/// A request that waits for its answer.
async fn poll(rig: &Rig) -> TcpStream {
    let client = send(rig.address, GET).await;
    rig.until("under way", |s| s.counters.live_requests == 1)
        .await;
    client
}

async fn drained(rig: &Rig, count: u64) {
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::Drained) == count && s.counters.live_requests == 0
    })
    .await;
}

#[tokio::test]
async fn a_planned_stop_ends_a_poll_with_503_and_a_connection_between_requests() {
    let (backend, release) = holding().await;
    let rig = rig(&[backend]);
    release.send(true).unwrap();
    let mut idle = send(rig.address, GET).await;
    soon(read_until(&mut idle, |text| text.ends_with("ok")))
        .await
        .unwrap();
    release.send(false).unwrap();
    // Else it could be taken for the next one.
    rig.until("its end", |s| s.counters.live_requests == 0)
        .await;
    let mut polling = poll(&rig).await;
    let report = rig.proxy.leave(&[HOME], Duration::from_secs(5)).unwrap();
    assert_eq!(report.sessions, 0);
    let answer = rest(&mut polling).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("\r\nRetry-After: "), "{answer}");
    assert_eq!(rest(&mut idle).await.unwrap(), "");
    drained(&rig, 1).await;
}

#[tokio::test]
async fn an_answer_under_way_is_cut_by_a_planned_stop() {
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let rig = rig(&[backend]);
    let mut client = send(rig.address, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    soon(read_until(&mut client, |text| text.ends_with("hello")))
        .await
        .unwrap();
    rig.proxy.leave(&[HOME], Duration::from_secs(5)).unwrap();
    let kind = rest(&mut client).await.unwrap_err();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    drained(&rig, 1).await;
}

#[tokio::test]
async fn a_listener_that_goes_leaves_a_request_the_time_of_the_drain() {
    for timeout in [Duration::ZERO, Duration::from_hours(1)] {
        let (backend, release) = holding().await;
        let mut rig = Rig::with(&[backend], |pool| {
            proxied(pool);
            pool.drain.timeout = timeout;
        });
        let mut polling = poll(&rig).await;
        rig.edit(|pool| pool.listeners[0].addresses.clear());
        if timeout.is_zero() {
            let answer = rest(&mut polling).await.unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
            drained(&rig, 1).await;
            continue;
        }
        release.send(true).unwrap();
        let answer = rest(&mut polling).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
        assert!(answer.contains("\r\nConnection: close\r\n"), "{answer}");
        assert!(answer.ends_with("ok"), "{answer}");
    }
}

#[tokio::test]
async fn an_endpoint_that_goes_leaves_a_request_the_time_of_the_drain() {
    let (backend, release) = holding().await;
    let mut rig = rig(&[backend]);
    let mut polling = poll(&rig).await;
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating);
    let answer = rest(&mut polling).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    drained(&rig, 1).await;
    rig.edit(|pool| {
        pool.upstreams[0].endpoints[0].phase = Phase::Ready;
        pool.drain.timeout = Duration::from_hours(1);
    });
    let mut polling = poll(&rig).await;
    rig.edit(|pool| pool.upstreams[0].endpoints.clear());
    release.send(true).unwrap();
    let answer = soon(read_until(&mut polling, |text| text.ends_with("ok"))).await;
    // Its connection is none of the endpoint's.
    assert!(!answer.unwrap().contains("Connection: close"));
}

#[tokio::test]
async fn an_address_that_is_lost_ends_requests_unless_it_returns_in_time() {
    for returns in [true, false] {
        let (backend, release) = holding().await;
        let rig = Rig::with(&[backend], |pool| {
            proxied(pool);
            pool.heartbeat = Heartbeat {
                interval: Duration::ZERO,
                timeout: Duration::from_millis(if returns { 60_000 } else { 100 }),
            };
        });
        let mut polling = poll(&rig).await;
        rig.proxy.address_held(HOME, false).unwrap();
        if !returns {
            drained(&rig, 1).await;
            continue;
        }
        rig.proxy.address_held(HOME, true).unwrap();
        release.send(true).unwrap();
        let answer = soon(read_until(&mut polling, |text| text.ends_with("ok"))).await;
        assert!(answer.is_some());
    }
}

#[tokio::test]
async fn a_client_that_goes_takes_its_request_along() {
    let (backend, _release) = holding().await;
    let rig = rig(&[backend]);
    drop(poll(&rig).await);
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::ClientGone) == 1 && s.counters.live_requests == 0
    })
    .await;
    rig.until("over", |s| s.counters.plain_connections == 0)
        .await;
}
