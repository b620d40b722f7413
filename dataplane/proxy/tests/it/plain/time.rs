//! Who is slow, and what becomes of it.

use std::{net::SocketAddr, time::Duration};

use proxy::{Patience, PlainRequests, RequestResult};
use tokio::io::AsyncWriteExt;

use super::support::{read_until, rest, send, server};
use crate::support::{Rig, read_head, soon};

/// A listener that lets nothing stand still for longer than a moment.
fn hasty(backends: &[SocketAddr]) -> Rig {
    let patience = Patience {
        idle: Duration::from_millis(300),
        ..Patience::default()
    };
    Rig::start([127, 0, 0, 1].into(), backends, patience, |pool| {
        pool.listeners[0].plain_requests = Some(PlainRequests {
            timeout: Duration::from_millis(300),
        });
        pool.upstreams[0].handshake_timeout = Duration::from_secs(1);
    })
}

async fn silent() -> SocketAddr {
    server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await
}

#[tokio::test]
async fn an_endpoint_that_does_not_answer_is_504() {
    let rig = hasty(&[silent().await]);
    for request in [
        &b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"[..],
        b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi",
    ] {
        let mut client = send(rig.address, request).await;
        let answer = rest(&mut client).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    }
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::GatewayTimeout) == 2
    })
    .await;
}

#[tokio::test]
async fn a_client_that_does_not_send_its_content_is_408() {
    let rig = hasty(&[silent().await]);
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhi";
    let mut client = send(rig.address, request).await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    // One that does not send all of its head is so, too, behind another request or not.
    let mut client = send(rig.address, b"POST / HTTP/1.1\r\nHo").await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 408 "), "{answer}");
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::ClientTimeout) == 1
    })
    .await;
}

#[tokio::test]
async fn an_answer_that_stands_still_is_cut_off() {
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\n\r\nhello";
        stream.write_all(answer).await.unwrap();
        std::future::pending::<()>().await;
    })
    .await;
    let rig = hasty(&[backend]);
    let mut client = send(rig.address, b"GET / HTTP/1.0\r\nHost: a\r\n\r\n").await;
    let kind = rest(&mut client).await.unwrap_err();
    assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::GatewayTimeout) == 1
    })
    .await;
}

#[tokio::test]
async fn content_that_comes_bit_by_bit_has_time() {
    const PIECES: usize = 8;
    let backend = server(|mut stream| async move {
        let is_whole = |text: &str| text.ends_with(&"x".repeat(PIECES));
        read_until(&mut stream, is_whole).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let rig = hasty(&[backend]);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {PIECES}\r\n\r\n");
    let mut client = send(rig.address, head.as_bytes()).await;
    // Longer than anything may stand still, in all.
    for _ in 0..PIECES {
        tokio::time::sleep(Duration::from_millis(100)).await;
        client.write_all(b"x").await.unwrap();
    }
    let answer = soon(read_until(&mut client, |text| text.ends_with("ok"))).await;
    assert!(answer.is_some());
}

#[tokio::test]
async fn a_connection_without_a_request_is_closed_after_a_while() {
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let rig = hasty(&[backend]);
    let mut client = send(rig.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.ends_with("ok"), "{answer}");
    drop(client);
    rig.until("over", |s| s.counters.plain_connections == 0)
        .await;
}
