//! What could be read in two ways goes no further, in either direction, and what was cut does not look whole.

use proxy::RequestResult;
use tokio::io::AsyncWriteExt;

use super::support::{answering, head, rest, rig, send, server};
use crate::support::{Rig, read_head};

#[tokio::test]
async fn requests_that_could_be_read_in_two_ways_are_refused_and_reach_nobody() {
    let (backend, mut requests) = answering(b"", head).await;
    let rig = rig(&[backend]);
    let post = |fields: &str| format!("POST / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
    let chunks = |chunks: &str| post("Transfer-Encoding: chunked\r\n") + chunks;
    let long = "x".repeat(400);
    let cases = [
        (
            post("Content-Length: 3\r\nTransfer-Encoding: chunked\r\n"),
            400,
        ),
        (post("Content-Length: 3\r\nContent-Length: 3\r\n"), 400),
        (post("Content-Length: 3\r\nContent-Length: 4\r\n"), 400),
        (post("Content-Length: 3, 3\r\n"), 400),
        (post("Content-Length: +3\r\n"), 400),
        (post("Content-Length: 0x3\r\n"), 400),
        (post("Content-Length:\r\n"), 400),
        (post("Content-Length: 99999999999999999999\r\n"), 400),
        (post("Content-Length : 3\r\n"), 400),
        (post("Transfer-Encoding: identity\r\n"), 400),
        (post("Transfer-Encoding:\r\n"), 400),
        (post("Transfer-Encoding: chunked, gzip\r\n"), 400),
        (post("Transfer-Encoding: chunked, chunked\r\n"), 400),
        (post("Transfer-Encoding: xchunked\r\n"), 400),
        (post("Transfer-Encoding: \u{b}chunked\r\n"), 400),
        (post("Transfer-Encoding: gzip, chunked\r\n"), 501),
        (post("X: a\r\n b\r\n"), 400),
        (post("X: a\n"), 400),
        (post("X: a\rb\r\n"), 400),
        (post("X: \0\r\n"), 400),
        (
            post("Connection: close, Content-Length\r\nContent-Length: 3\r\n"),
            400,
        ),
        (post("Connection: Host\r\n"), 400),
        (post("Host: b\r\n"), 400),
        (
            "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n".into(),
            400,
        ),
        ("GET / HTTP/1.1\r\n\r\n".into(), 400),
        ("GET /a b HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET /#a HTTP/1.1\r\nHost: a\r\n\r\n".into(), 400),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n".into(), 505),
        ("CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        ("TRACE / HTTP/1.1\r\nHost: a\r\n\r\n".into(), 501),
        // One that asks for a session and is none is judged as such.
        (post("Connection: Upgrade\r\nUpgrade: websocket\r\n"), 405),
    ];
    for (request, status) in &cases {
        let mut client = send(rig.address, request.as_bytes()).await;
        let answer = rest(&mut client).await.unwrap();
        let expected = format!("HTTP/1.1 {status} ");
        assert!(answer.starts_with(&expected), "{request:?}: {answer}");
        assert!(answer.contains("close\r\n"), "{answer}");
    }
    assert!(requests.try_recv().is_err(), "one came through");
    // Of content that breaks the rules the beginning may have gone on.
    for content in [
        "x\r\n".to_owned(),
        "5 5\r\nhello\r\n0\r\n\r\n".to_owned(),
        "5\nhello\r\n0\r\n\r\n".to_owned(),
        "3\r\nhello\r\n0\r\n\r\n".to_owned(),
        "fffffffffffffffff\r\n".to_owned(),
        format!("5;{long}\r\nhello\r\n0\r\n\r\n"),
        format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(400)),
        "0\r\nX y: 1\r\n\r\n".to_owned(),
        "0\r\n folded\r\n\r\n".to_owned(),
        format!("0\r\nX: {}\r\n\r\n", long.repeat(40)),
    ] {
        let mut client = send(rig.address, chunks(&content).as_bytes()).await;
        let answer = rest(&mut client).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 400 "), "{content:?}: {answer}");
    }
    rig.until("counted", |s| {
        let refused = s.counters.requests(RequestResult::Refused);
        refused + s.counters.handshakes(proxy::HandshakeResult::Refused) == cases.len() as u64 + 10
    })
    .await;
}

#[tokio::test]
async fn an_upgrade_to_something_else_is_not_passed_on() {
    let (backend, mut requests) =
        answering(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", head).await;
    let rig = rig(&[backend]);
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\n\
        Upgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\nKeep-Alive: 5\r\n\r\n";
    let mut client = send(rig.address, request).await;
    assert!(read_head(&mut client).await.is_some());
    let got = requests.recv().await.unwrap().to_lowercase();
    for gone in ["upgrade", "http2-settings", "keep-alive"] {
        assert!(!got.contains(gone), "{gone} in {got}");
    }
}

/// What a client gets whose endpoint says `answer` and closes.
async fn outcome(rig: &Rig, request: &str) -> Result<String, std::io::ErrorKind> {
    let mut client = send(rig.address, request.as_bytes()).await;
    rest(&mut client).await
}

async fn saying(answer: &'static [u8]) -> Rig {
    let backend = server(move |mut stream| async move {
        if read_head(&mut stream).await.is_some() {
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    rig(&[backend])
}

#[tokio::test]
async fn answers_of_no_use_are_502() {
    let answers: [&[u8]; 13] = [
        b"",
        b"SSH-2.0-OpenSSH\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: 1\r\n",
        b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
        b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
        b"HTTP/1.1 200 OK\r\nContent-Length: one\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
          Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        b"HTTP/1.1 103 Early\r\n\r\nHTTP/9",
    ];
    for answer in answers {
        let rig = saying(answer).await;
        let got = outcome(&rig, "GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
        let case = String::from_utf8_lossy(answer);
        let got = got.unwrap();
        let last = got.split_once("103 Early\r\n\r\n").map_or(&*got, |it| it.1);
        assert!(last.starts_with("HTTP/1.1 502 "), "{case}: {got}");
        rig.until("counted", |s| {
            s.counters.requests(RequestResult::BadGateway) == 1
        })
        .await;
    }
}

#[tokio::test]
async fn an_answer_that_is_cut_does_not_look_whole() {
    let answers: [&[u8]; 4] = [
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nx",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nbad\r\n\r\n",
    ];
    for answer in answers {
        for version in ["1.1", "1.0"] {
            let rig = saying(answer).await;
            let request = format!("GET / HTTP/{version}\r\nHost: a\r\n\r\n");
            let got = outcome(&rig, &request).await;
            // Whether the head or the reset came first is the kernel's to say.
            let kind = got.unwrap_err();
            assert_eq!(kind, std::io::ErrorKind::ConnectionReset);
            rig.until("counted", |s| {
                s.counters.requests(RequestResult::BadGateway) == 1
            })
            .await;
        }
    }
}
