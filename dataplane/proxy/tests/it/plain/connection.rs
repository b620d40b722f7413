//! A connection that carries several requests, and perhaps a session behind them.

use futures_util::{SinkExt, StreamExt};
use proxy::{HandshakeResult, RequestResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::Message;

use super::support::{proxied, read_until, rest, rig, send, server};
use crate::support::{REQUEST, Rig, SWITCH, read_head, soon};

const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";

/// A server that answers a request with its path, and one for a session with a session that sends back what it
/// gets.
async fn both() -> std::net::SocketAddr {
    server(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        let path = head.split(' ').nth(1).unwrap();
        if head.contains("Upgrade: websocket") {
            stream.write_all(SWITCH).await.unwrap();
            let (mut from, mut to) = stream.split();
            let _end = tokio::io::copy(&mut from, &mut to).await;
            return;
        }
        let length = path.len();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{path}");
        stream.write_all(answer.as_bytes()).await.unwrap();
    })
    .await
}

#[tokio::test]
async fn a_connection_may_ask_for_a_session_behind_its_requests() {
    let rig = rig(&[both().await]);
    let mut client = send(rig.address, GET).await;
    let is_whole = |text: &str| text.ends_with("\r\n\r\n/");
    soon(read_until(&mut client, is_whole)).await.unwrap();
    client.write_all(GET).await.unwrap();
    soon(read_until(&mut client, is_whole)).await.unwrap();
    let frame = b"\x81\x85abcd\x09\x07\x0f\x08\x0e";
    client.write_all(&[REQUEST, frame].concat()).await.unwrap();
    let head = soon(read_head(&mut client)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    let mut echoed = [0; 11];
    soon(client.read_exact(&mut echoed)).await.unwrap();
    assert_eq!(&echoed, frame);
    let snapshot = rig
        .until("a session", |s| s.counters.live_sessions == 1)
        .await;
    let counters = &snapshot.counters;
    assert_eq!(counters.accepted, 1);
    assert_eq!(counters.requests(RequestResult::Answered), 2);
    assert_eq!(counters.handshakes(HandshakeResult::Plain), 1);
    assert_eq!(counters.handshakes(HandshakeResult::Upgraded), 1);
    assert_eq!(
        (counters.plain_connections, counters.plain_upgrades),
        (0, 1)
    );
}

#[tokio::test]
async fn a_session_at_once_is_what_it_was() {
    let rig = rig(&[crate::support::echo().await]);
    let mut ws = rig.connect().await;
    ws.send(Message::text("hello")).await.unwrap();
    let echoed = soon(ws.next()).await.unwrap().unwrap();
    assert_eq!(echoed, Message::text("hello"));
}

#[tokio::test]
async fn requests_that_come_together_are_answered_one_after_the_other() {
    let (sender, mut served) = tokio::sync::mpsc::channel(8);
    let backend = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            let end = match &*head {
                head if head.contains("chunked") => "0\r\n\r\n",
                head if head.starts_with("POST") => "GET ",
                _ => "",
            };
            let content = read_until(&mut stream, |text| text.ends_with(end)).await;
            let content = content.unwrap();
            let path = head.split(' ').nth(1).unwrap().to_owned();
            sender.send((path.clone(), content)).await.unwrap();
            let answer = format!("HTTP/1.1 200 OK\r\n\r\n{path}");
            stream.write_all(answer.as_bytes()).await.unwrap();
        }
    })
    .await;
    let rig = rig(&[backend]);
    let together = b"POST /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nGET \
        GET /2 HTTP/1.1\r\nHost: a\r\n\r\n\
        POST /3 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nmore\r\n0\r\n\r\n\
        GET /4 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n\
        GET /5 HTTP/1.1\r\nHost: a\r\n\r\n";
    let mut client = send(rig.address, together).await;
    let answers = rest(&mut client).await.unwrap();
    let at = |path| answers.find(&format!("\r\n\r\n2\r\n{path}\r\n0\r\n\r\n"));
    let places: Vec<_> = ["/1", "/2", "/3", "/4"].iter().map(at).collect();
    assert!(
        places.iter().all(Option::is_some) && places.is_sorted(),
        "{answers}"
    );
    assert_eq!(answers.matches("HTTP/1.1 200 OK").count(), 4);
    assert_eq!(answers.matches("Connection: close").count(), 1);
    let mut paths = Vec::new();
    while let Ok((path, content)) = served.try_recv() {
        let expected = match &*path {
            "/1" => "GET ",
            "/3" => "4\r\nmore\r\n0\r\n\r\n",
            _ => "",
        };
        assert_eq!(content, expected, "{path}");
        paths.push(path);
    }
    assert_eq!(paths, ["/1", "/2", "/3", "/4"]);
}

#[tokio::test]
async fn an_answer_before_all_of_the_content_ends_the_connection() {
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 413 Too Much\r\nContent-Length: 2\r\n\r\nno";
        stream.write_all(answer).await.unwrap();
        let _rest = stream.read_to_end(&mut Vec::new()).await;
    })
    .await;
    let rig = rig(&[backend]);
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin";
    let mut client = send(rig.address, request).await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 413 "), "{answer}");
    assert!(answer.contains("\r\nConnection: close\r\n") && answer.ends_with("no"));
}

#[tokio::test]
async fn what_is_refused_from_now_on_is_so_on_connections_that_are_there() {
    let mut rig = rig(&[both().await]);
    let mut client = send(rig.address, GET).await;
    let is_whole = |text: &str| text.ends_with("\r\n\r\n/");
    soon(read_until(&mut client, is_whole)).await.unwrap();
    rig.edit(|pool| pool.listeners[0].plain_requests = None);
    client.write_all(GET).await.unwrap();
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
    let mut client = send(rig.address, GET).await;
    assert!(
        rest(&mut client)
            .await
            .unwrap()
            .starts_with("HTTP/1.1 426 ")
    );
}

#[tokio::test]
async fn a_request_has_a_record_and_counts_as_a_session_while_it_is_under_way() {
    let (release, held) = tokio::sync::watch::channel(false);
    let backend = server(move |mut stream| {
        let mut held = held.clone();
        async move {
            assert!(
                read_until(&mut stream, |text| text.ends_with("ping"))
                    .await
                    .is_some()
            );
            held.wait_for(|free| *free).await.unwrap();
            let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        proxied(pool);
        pool.access_log = Some(100);
        pool.limits.sessions_per_source = Some(1);
    });
    let request = b"POST /poll?token=x HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nping";
    let mut client = send(rig.address, request).await;
    rig.until("under way", |s| s.counters.live_requests == 1)
        .await;
    let mut other = send(rig.address, GET).await;
    let refused = rest(&mut other).await.unwrap();
    assert!(refused.starts_with("HTTP/1.1 429 "), "{refused}");
    let record = rig.record().await;
    assert_eq!(record.request, Some(RequestResult::Limited));
    release.send(true).unwrap();
    soon(read_until(&mut client, |text| text.ends_with("hello")))
        .await
        .unwrap();
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::Plain);
    assert_eq!(record.request, Some(RequestResult::Answered));
    assert_eq!(record.method.as_deref(), Some("POST"));
    assert_eq!(record.path.as_deref(), Some("/poll"));
    assert_eq!(record.status, Some(200));
    assert_eq!(record.endpoint, Some(backend));
    let bytes = (record.from_client.bytes, record.from_endpoint.bytes);
    assert_eq!(bytes, (4, 5));
    // Its place is free though its connection is there.
    let mut other = send(rig.address, request).await;
    let answer = soon(read_until(&mut other, |text| text.ends_with("hello"))).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 "));
    drop(client);
}
