//! Which endpoint a request goes to when the first is not well, and what is not asked twice.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use proxy::RequestResult;
use tokio::io::AsyncWriteExt;

use super::support::{proxied, read_until, rest, rig, send, server};
use crate::support::{Rig, nowhere, soon};

const GET: &str = "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n";
const CONTENT: &str =
    "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 2\r\n\r\nhi";

/// A server that reads what ends so, says `answer` and closes; how often it was asked.
async fn saying(end: &'static str, answer: &'static str) -> (SocketAddr, Arc<AtomicUsize>) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let address = server(move |mut stream| {
        count.fetch_add(1, Relaxed);
        async move {
            if read_until(&mut stream, |text| text.ends_with(end))
                .await
                .is_some()
            {
                stream.write_all(answer.as_bytes()).await.unwrap();
            }
        }
    })
    .await;
    (address, asked)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";
const UNWELL: &str = "HTTP/1.1 503 Not Now\r\nContent-Length: 0\r\n\r\n";

async fn status(rig: &Rig, request: &str) -> u16 {
    let mut client = send(rig.address, request.as_bytes()).await;
    let answer = rest(&mut client).await.unwrap();
    answer[9..12].parse().unwrap()
}

#[tokio::test]
async fn one_that_takes_no_connection_costs_the_client_nothing() {
    for request in [GET, POST, CONTENT] {
        let end = if request == CONTENT { "hi" } else { "\r\n\r\n" };
        let (well, _) = saying(end, OK).await;
        let rig = rig(&[nowhere(), well, nowhere()]);
        for _ in 0..4 {
            assert_eq!(status(&rig, request).await, 200, "{request}");
        }
    }
}

#[tokio::test]
async fn what_may_be_asked_twice_is_and_nothing_else() {
    for (answer, request, expected) in [
        ("", GET, 200),
        ("", POST, 502),
        (UNWELL, GET, 200),
        (UNWELL, POST, 503),
        // Content has gone there.
        ("", CONTENT, 502),
        (UNWELL, CONTENT, 503),
    ] {
        let end = if request == CONTENT { "hi" } else { "\r\n\r\n" };
        let (unwell, asked) = saying(end, answer).await;
        let (well, _) = saying(end, OK).await;
        let rig = rig(&[unwell, well]);
        let mut got = Vec::new();
        while asked.load(Relaxed) == 0 {
            got.push(status(&rig, request).await);
        }
        assert_eq!(got.pop(), Some(expected), "{answer:?} to {request}");
        let retries = u64::from(expected == 200);
        rig.until("counted", |s| s.counters.retries == retries)
            .await;
    }
}

#[tokio::test]
async fn where_no_other_is_left_the_client_gets_what_there_is() {
    let (unwell, _) = saying("\r\n\r\n", UNWELL).await;
    let rig = rig(&[unwell]);
    let mut client = send(rig.address, GET.as_bytes()).await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 503 Not Now\r\n"), "{answer}");
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::Answered) == 1
    })
    .await;
    let mut rig = rig;
    rig.edit(|pool| pool.upstreams[0].endpoints.clear());
    assert_eq!(status(&rig, GET).await, 503);
}

#[tokio::test]
async fn one_that_fails_requests_is_left_out() {
    let (unwell, asked) = saying("\r\n\r\n", UNWELL).await;
    let (well, _) = saying("\r\n\r\n", OK).await;
    let rig = Rig::with(&[unwell, well], |pool| {
        proxied(pool);
        pool.upstreams[0].health.ejection.consecutive_failures = 2;
    });
    for _ in 0..12 {
        assert_eq!(status(&rig, GET).await, 200);
    }
    assert_eq!(asked.load(Relaxed), 2);
}

#[tokio::test]
async fn a_request_goes_where_its_route_leads_with_what_its_endpoint_wants_to_know() {
    let backend = server(|mut stream| async move {
        let header = soon(read_until(&mut stream, |text| text.ends_with("\r\n\r\n"))).await;
        assert!(
            header
                .unwrap()
                .starts_with("PROXY TCP4 192.0.2.7 127.0.0.1 ")
        );
        stream.write_all(OK.as_bytes()).await.unwrap();
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        proxied(pool);
        pool.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        pool.listeners[0].allowed_origins = vec!["https://chat.example".to_owned()];
        pool.upstreams[0].proxy_protocol = Some(proxy::proxy_protocol::Version::V1);
        pool.listeners[0].routes = vec![proxy::Route {
            hostnames: Vec::new(),
            path_prefix: "/in".to_owned(),
            upstream: "echo".to_owned(),
        }];
    });
    let ask = |path: &str, origin: &str| {
        format!(
            "GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\nOrigin: {origin}\r\n\
             X-Forwarded-For: 192.0.2.7\r\n\r\n"
        )
    };
    let page = "https://chat.example";
    assert_eq!(status(&rig, &ask("/in/x", page)).await, 200);
    assert_eq!(status(&rig, &ask("/out", page)).await, 404);
    assert_eq!(status(&rig, &ask("/in", "https://evil.example")).await, 403);
    rig.until("counted", |s| {
        let of = |result| s.counters.requests(result);
        (of(RequestResult::NoRoute), of(RequestResult::Forbidden)) == (1, 1)
    })
    .await;
}
