//! Content both ways, however it is framed.

use std::time::Duration;

use proxy::RequestResult;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::support::{answering, head, read_until, rest, rig, send, server};
use crate::support::{Rig, pattern, read_head, soon};

#[tokio::test]
async fn a_request_with_content_gets_its_answer_and_the_connection_carries_another() {
    let answer = b"HTTP/1.1 200 Fine\r\nContent-Length: 5\r\nConnection: keep-alive, x-own\r\n\
        X-Own: 1\r\nX-All: 2\r\n\r\nhello";
    let (backend, mut requests) = answering(answer, |text| text.ends_with("\r\n\r\nping")).await;
    let rig = rig(&[backend]);
    let request = b"POST /poll?x=1 HTTP/1.1\r\nHost: example.org\r\nContent-Length: 4\r\n\
        Connection: keep-alive, X-Mine\r\nX-Mine: 1\r\nX-Other: 2\r\n\r\nping";
    let mut client = send(rig.address, request).await;
    for round in 1..=2 {
        let answer = soon(read_until(&mut client, |text| text.ends_with("hello"))).await;
        let answer = answer.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200 Fine\r\n"), "{answer}");
        assert!(answer.contains("\r\nContent-Length: 5\r\n"), "{answer}");
        assert!(answer.contains("\r\nX-All: 2\r\n"), "{answer}");
        assert!(
            !answer.contains("X-Own") && !answer.contains("Connection"),
            "{answer}"
        );
        let got = soon(requests.recv()).await.unwrap();
        let line = "POST /poll?x=1 HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n";
        assert!(got.starts_with(line), "{got}");
        assert!(got.contains("\r\nContent-Length: 4\r\n"), "{got}");
        assert!(
            got.contains("\r\nX-Other: 2\r\n") && !got.contains("X-Mine"),
            "{got}"
        );
        assert!(got.contains("\r\nX-Forwarded-For: 127.0.0.1\r\n"), "{got}");
        assert!(got.contains("\r\nVia: 1.1 wsha\r\n"), "{got}");
        if round == 1 {
            client.write_all(request).await.unwrap();
        }
    }
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::Answered) == 2 && s.counters.live_requests == 0
    })
    .await;
    drop(client);
    rig.until("over", |s| s.counters.plain_connections == 0)
        .await;
}

#[tokio::test]
async fn without_the_option_it_is_refused() {
    let (backend, _requests) = answering(b"", head).await;
    let rig = Rig::new(&[backend]);
    let mut client = send(rig.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 426 "), "{answer}");
}

#[tokio::test]
async fn an_answer_is_framed_as_its_client_understands_it() {
    const LENGTH: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
    const CHUNKS: &[u8] = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n\
        2;a=b\r\nhe\r\n03\r\nllo\r\n0\r\n\r\n";
    const END: &[u8] = b"HTTP/1.1 200 OK\r\n\r\nhello";
    const OLD: &[u8] = b"HTTP/1.0 200 OK\r\n\r\nhello";
    const EMPTY: &[u8] = b"HTTP/1.1 204 None\r\nContent-Length: 9\r\n\r\n";
    const UNCHANGED: &[u8] = b"HTTP/1.1 304 Same\r\nContent-Length: 9\r\nETag: \"x\"\r\n\r\n";
    let coded = "Transfer-Encoding: chunked";
    let chunks = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let parts = "\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    // The answer, the request's method and version, a field of the head, the end.
    for (answer, method, version, field, end) in [
        (LENGTH, "GET", "1.1", "Content-Length: 5", "\r\n\r\nhello"),
        (CHUNKS, "GET", "1.1", coded, parts),
        (END, "GET", "1.1", coded, chunks),
        (OLD, "GET", "1.1", coded, chunks),
        (LENGTH, "GET", "1.0", "Content-Length: 5", "\r\n\r\nhello"),
        (CHUNKS, "GET", "1.0", "Connection: close", "\r\n\r\nhello"),
        (END, "GET", "1.0", "Connection: close", "\r\n\r\nhello"),
        (LENGTH, "HEAD", "1.1", "Content-Length: 5", "\r\n\r\n"),
        (EMPTY, "GET", "1.1", "Date: ", "\r\n\r\n"),
        (UNCHANGED, "GET", "1.1", "Content-Length: 9", "\r\n\r\n"),
    ] {
        let backend = server(move |mut stream| async move {
            if read_head(&mut stream).await.is_some() {
                stream.write_all(answer).await.unwrap();
            }
        })
        .await;
        let rig = rig(&[backend]);
        let request = format!("{method} / HTTP/{version}\r\nHost: a\r\n\r\n");
        let mut client = send(rig.address, request.as_bytes()).await;
        let case = format!("{request}{}", String::from_utf8_lossy(answer));
        let is_whole = |text: &str| text.contains("\r\n\r\n") && text.ends_with(end);
        let got = soon(read_until(&mut client, is_whole)).await.unwrap();
        assert!(got.contains(&format!("\r\n{field}")), "{case}\n{got}");
        assert_eq!(
            got.matches("\r\n\r\n").count(),
            end.matches("\r\n\r\n").count()
        );
        if version == "1.0" {
            assert!(!got.contains("chunked"), "{got}");
            assert_eq!(rest(&mut client).await.unwrap(), "", "{case}");
            continue;
        }
        assert!(!got.contains("Connection: close"), "{got}");
        // The connection is in order: it carries another request.
        client.write_all(request.as_bytes()).await.unwrap();
        let again = soon(read_until(&mut client, is_whole)).await.unwrap();
        assert_eq!(again.len(), got.len(), "{case}\n{again}");
    }
}

#[tokio::test]
async fn chunks_of_a_client_reach_the_endpoint_as_chunks_of_ours() {
    let (backend, mut requests) =
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", |text| {
            text.ends_with("\r\n0\r\nX-Sum: 5\r\n\r\n")
        })
        .await;
    let rig = rig(&[backend]);
    let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTE: trailers\r\n\
        Connection: TE\r\n\r\n0003 ; note=\"x\"\r\nhel\r\n2\r\nlo\r\n0\r\nX-Sum: 5\r\nHost: evil\r\n\
        Content-Length: 7\r\n\r\n";
    let mut client = send(rig.address, &[]).await;
    for byte in request {
        client.write_u8(*byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    let got = soon(requests.recv()).await.unwrap();
    let (head, content) = got.split_once("\r\n\r\n").unwrap();
    assert!(head.contains("\r\nTransfer-Encoding: chunked"), "{got}");
    assert!(head.contains("\r\nTE: trailers"), "{got}");
    assert!(head.contains("\r\nConnection: close, TE"), "{got}");
    assert!(!got.contains("note") && !got.contains("evil"), "{got}");
    let data: String = content.split("\r\n").skip(1).step_by(2).collect();
    assert!(data.starts_with("hello"), "{content}");
    assert!(soon(read_head(&mut client)).await.is_some());
}

#[tokio::test]
async fn interim_answers_are_passed_on_and_content_that_waits_for_one_comes_behind_it() {
    let backend = server(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        let early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: 1\r\n\r\n";
        stream.write_all(early).await.unwrap();
        if head.contains("Expect: 100-continue") {
            stream
                .write_all(b"HTTP/1.1 100 Continue\r\n\r\n")
                .await
                .unwrap();
        }
        let mut content = [0; 5];
        stream.read_exact(&mut content).await.unwrap();
        assert_eq!(&content, b"hello");
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let rig = rig(&[backend]);
    let request = "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n";
    let mut client = send(rig.address, request.as_bytes()).await;
    let early = soon(read_head(&mut client)).await.unwrap();
    assert_eq!(early, "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n");
    let go_on = soon(read_head(&mut client)).await.unwrap();
    assert_eq!(go_on, "HTTP/1.1 100 Continue\r\n\r\n");
    client.write_all(b"hello").await.unwrap();
    let answer = soon(read_until(&mut client, |text| text.ends_with("\r\n\r\nok"))).await;
    assert!(answer.unwrap().starts_with("HTTP/1.1 200 OK\r\n"));

    // RFC 9110 sections 10.1.1 and 15.2: not so with HTTP/1.0.
    let request = format!("{}hello", request.replace("HTTP/1.1", "HTTP/1.0"));
    let mut client = send(rig.address, request.as_bytes()).await;
    let answer = rest(&mut client).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
}

/// A server that sends back what it gets, as it gets it.
async fn echoing(length: usize) -> std::net::SocketAddr {
    server(move |mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n");
        stream.write_all(head.as_bytes()).await.unwrap();
        let (mut from, mut to) = stream.split();
        tokio::io::copy(&mut (&mut from).take(length as u64), &mut to)
            .await
            .unwrap();
    })
    .await
}

#[tokio::test]
async fn much_content_goes_both_ways_at_once() {
    const LENGTH: usize = 4 << 20;
    let rig = rig(&[echoing(LENGTH).await]);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {LENGTH}\r\n\r\n");
    let mut client = send(rig.address, head.as_bytes()).await;
    let sent = pattern(LENGTH);
    let mut received = vec![0; LENGTH];
    let (mut from, mut to) = client.split();
    let receiving = async {
        soon(read_head(&mut from)).await.unwrap();
        from.read_exact(&mut received).await.unwrap();
    };
    let sending = async { to.write_all(&sent).await.unwrap() };
    soon(async { tokio::join!(receiving, sending) }).await;
    assert!(received == sent, "it came back otherwise");
}

/// How much a socket takes until it takes no more for a while.
async fn taken(stream: &mut TcpStream) -> usize {
    let (mut bytes, piece) = (0, vec![7; 64 * 1024]);
    while let Ok(n) = tokio::time::timeout(Duration::from_millis(500), stream.write(&piece)).await {
        bytes += n.unwrap();
    }
    bytes
}

#[tokio::test]
async fn content_waits_with_its_sender_for_as_long_as_its_receiver_does_not_read() {
    const MUCH: usize = 1 << 30;
    let (sender, mut takes) = tokio::sync::mpsc::channel(1);
    let backend = server(move |mut stream| {
        let sender = sender.clone();
        async move {
            let head = read_head(&mut stream).await.unwrap();
            if head.starts_with("GET") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {MUCH}\r\n\r\n");
                stream.write_all(head.as_bytes()).await.unwrap();
                sender.send(taken(&mut stream).await).await.unwrap();
            }
            // It is held open and not read.
            std::future::pending::<()>().await;
        }
    })
    .await;
    let rig = rig(&[backend]);
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n\r\n");
    let mut client = send(rig.address, head.as_bytes()).await;
    // Sockets have their buffers, four of them; the proxy has nothing beyond one read.
    assert!(taken(&mut client).await < 64 << 20);
    let _reader = send(rig.address, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(soon(takes.recv()).await.unwrap() < 64 << 20);
}
