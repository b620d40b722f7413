//! The handshake through the proxy: what the backend sees, what the client gets.

use std::time::Duration;

use proxy::HandshakeResult;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};

use crate::support::{
    REQUEST, Rig, SWITCH, echo, listen, nowhere, raw_backend, raw_client, read_head, soon,
};

/// Everything until the proxy ends the connection.
async fn exchange(rig: &Rig, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let mut answer = Vec::new();
    soon(stream.read_to_end(&mut answer)).await.unwrap();
    String::from_utf8(answer).unwrap()
}

/// A backend that gives each request it gets away and answers with `answer`.
async fn answering(answer: &'static [u8]) -> (std::net::SocketAddr, mpsc::Receiver<String>) {
    let (listener, address) = listen().await;
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let sender = sender.clone();
            tokio::spawn(async move {
                if let Some(head) = read_head(&mut stream).await {
                    sender.send(head).await.unwrap();
                    stream.write_all(answer).await.unwrap();
                    // Kept open, as a backend that keeps connections alive would.
                    let _rest = stream.read_u8().await;
                }
            });
        }
    });
    (address, receiver)
}

#[tokio::test]
async fn the_backend_sees_the_request_and_where_it_came_from() {
    let (backend, mut heads) = answering(SWITCH).await;
    let rig = Rig::new(&[backend]);
    let request = String::from_utf8(REQUEST.to_vec()).unwrap();
    let request = request.replace(
        "Connection: Upgrade\r\n",
        "Connection: keep-alive, Upgrade, X-Private\r\nKeep-Alive: 5\r\nX-Private: a\r\n\
         Origin: https://example.org\r\nCookie: a=b\r\n\
         Via: 1.0 fred\r\nX-Forwarded-For: 10.9.9.9\r\nForwarded: for=10.9.9.9\r\nX-Real-IP: 10.9.9.9\r\n\
         Sec-WebSocket-Protocol: chat, superchat\r\n\
         Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n",
    );
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(request.as_bytes()).await.unwrap();
    assert!(soon(read_head(&mut client)).await.is_some());
    let head = soon(heads.recv()).await.unwrap();
    assert!(
        head.starts_with("GET /chat HTTP/1.1\r\nHost: example.org\r\n"),
        "{head}"
    );
    let port = rig.address.port();
    for line in [
        "Upgrade: websocket".to_owned(),
        "Connection: Upgrade".to_owned(),
        "Origin: https://example.org".to_owned(),
        "Cookie: a=b".to_owned(),
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==".to_owned(),
        "Sec-WebSocket-Version: 13".to_owned(),
        "Sec-WebSocket-Protocol: chat, superchat".to_owned(),
        "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits".to_owned(),
        "X-Forwarded-For: 127.0.0.1".to_owned(),
        "X-Forwarded-Proto: http".to_owned(),
        "X-Forwarded-Host: example.org".to_owned(),
        format!("X-Forwarded-Port: {port}"),
        "Forwarded: for=127.0.0.1;host=\"example.org\";proto=http".to_owned(),
    ] {
        let count = head.split("\r\n").filter(|other| *other == line).count();
        assert_eq!(count, 1, "{line} in {head}");
    }
    let via = head.split("\r\n").filter(|line| line.starts_with("Via: "));
    let via: Vec<_> = via.collect();
    assert_eq!(via, ["Via: 1.0 fred", "Via: 1.1 wsha"], "in their order");
    for gone in [
        "X-Private",
        "Keep-Alive",
        "keep-alive",
        "10.9.9.9",
        "X-Real-IP",
    ] {
        assert!(!head.contains(gone), "{gone} in {head}");
    }
}

#[tokio::test]
async fn the_client_sees_the_101_without_fields_of_the_connection() {
    let (backend, _heads) = answering(
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
        HTTP/1.1 101 Web Socket Protocol Handshake\r\nUPGRADE: WebSocket\r\n\
        connection: upgrade, x-hop\r\nX-Hop: 1\r\nKeep-Alive: 5\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\
        Sec-WebSocket-Protocol: chat\r\nSet-Cookie: a=b\r\nSet-Cookie: c=d\r\n\r\n",
    )
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut client)).await.unwrap();
    let [date] = dates(&head)[..] else {
        panic!("not one date: {head}");
    };
    assert_eq!(
        head.replace(date, "now"),
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\
        Set-Cookie: a=b\r\nSet-Cookie: c=d\r\nDate: now\r\n\r\n"
    );
}

#[tokio::test]
async fn another_answer_is_passed_on_whole() {
    let content_length: &[u8] = b"HTTP/1.1 403 Not You\r\nContent-Length: 5\r\n\
        Connection: keep-alive\r\nX-Why: a\r\n\r\nnever";
    let chunked: &[u8] = b"HTTP/1.1 401 Who\r\nTransfer-Encoding: chunked\r\n\
        WWW-Authenticate: Basic\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    let cases = [
        (content_length, "HTTP/1.1 403 Not You\r\n", "\r\n\r\nnever"),
        (
            chunked,
            "HTTP/1.1 401 Who\r\n",
            "\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        ),
    ];
    for (answer, line, end) in cases {
        let (backend, _heads) = answering(answer).await;
        let rig = Rig::new(&[backend]);
        let got = exchange(&rig, REQUEST).await;
        assert!(got.starts_with(line) && got.ends_with(end), "{got}");
        assert!(
            got.contains("\r\nConnection: close\r\n") && !got.contains("keep-alive"),
            "{got}"
        );
        rig.until("counted", |s| {
            s.counters.handshakes(HandshakeResult::Answered) == 1
        })
        .await;
    }
}

#[tokio::test]
async fn early_frames_of_both_sides_are_passed_on() {
    let backend = raw_backend(|mut stream| async move {
        stream.write_all(b"\x81\x05early").await.unwrap();
        let mut frame = [0; 9];
        stream.read_exact(&mut frame).await.unwrap();
        assert_eq!(&frame, b"\x81\x83abcdxyz");
        stream.write_all(b"\x81\x03got").await.unwrap();
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    let early = [REQUEST, b"\x81\x83abcdxyz"].concat();
    client.write_all(&early).await.unwrap();
    assert!(
        soon(read_head(&mut client))
            .await
            .unwrap()
            .starts_with("HTTP/1.1 101")
    );
    let mut frames = [0; 12];
    soon(client.read_exact(&mut frames)).await.unwrap();
    assert_eq!(&frames, b"\x81\x05early\x81\x03got");
}

#[tokio::test]
async fn a_request_in_single_bytes_is_understood() {
    let rig = Rig::new(&[echo().await]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.set_nodelay(true).unwrap();
    for byte in REQUEST {
        client.write_u8(*byte).await.unwrap();
        tokio::task::yield_now().await;
    }
    assert!(
        soon(read_head(&mut client))
            .await
            .unwrap()
            .starts_with("HTTP/1.1 101")
    );
}

#[tokio::test]
async fn refusals_are_whole_answers() {
    let rig = Rig::new(&[echo().await]);
    let plain = exchange(&rig, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").await;
    assert!(
        plain.starts_with("HTTP/1.1 426 Upgrade Required\r\n"),
        "{plain}"
    );
    let smuggled = exchange(
        &rig,
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
        Content-Length: 4\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /admin HTTP/1.1\r\n\r\n",
    )
    .await;
    assert!(
        smuggled.starts_with("HTTP/1.1 400 Bad Request\r\n"),
        "{smuggled}"
    );
    assert_eq!(smuggled.matches("HTTP/1.1").count(), 1, "{smuggled}");
    // More is on its way than is ever read: the answer must arrive all the same.
    let long = [&b"GET /"[..], &vec![b'a'; 100_000]].concat();
    let answer = exchange(&rig, &long).await;
    assert!(answer.starts_with("HTTP/1.1 414 "), "{answer}");
    let snapshot = rig
        .until("counted", |s| {
            s.counters.handshakes(HandshakeResult::Refused) == 3
        })
        .await;
    assert_eq!(snapshot.counters.live_sessions, 0);
}

/// Seconds after which a client is asked to come again.
pub(crate) fn retry_after(answer: &str) -> u32 {
    let mut lines = answer.lines();
    let seconds = lines.find_map(|line| line.strip_prefix("Retry-After: "));
    seconds.expect("no Retry-After").parse().unwrap()
}

#[tokio::test]
async fn pages_of_other_origins_are_refused() {
    let mut rig = Rig::new(&[echo().await]);
    let from = |origin: &str| {
        let request = str::from_utf8(REQUEST).unwrap();
        let fields = format!("{origin}Host:");
        request.replacen("Host:", &fields, 1).into_bytes()
    };
    let evil = from("Origin: https://evil.example\r\n");
    assert!(upgraded(&rig, &evil).await, "all are let in");
    rig.edit(|pool| {
        let origins = ["https://chat.example.com", "https://*.example.org"];
        pool.listeners[0].allowed_origins = origins.map(ToOwned::to_owned).to_vec();
    });
    assert!(upgraded(&rig, &from("Origin: https://chat.example.com\r\n")).await);
    assert!(upgraded(&rig, &from("origin: https://a.example.org\r\n")).await);
    assert!(upgraded(&rig, &from("")).await, "not a browser");
    let both = "Origin: https://chat.example.com\r\nOrigin: https://evil.example\r\n";
    for refused in [evil, from("Origin: null\r\n"), from(both)] {
        let answer = exchange(&rig, &refused).await;
        assert!(answer.starts_with("HTTP/1.1 403 Forbidden\r\n"), "{answer}");
    }
    rig.until("counted", |s| {
        s.counters.handshakes(HandshakeResult::Forbidden) == 3
    })
    .await;
}

async fn upgraded(rig: &Rig, request: &[u8]) -> bool {
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(request).await.unwrap();
    let head = soon(read_head(&mut client)).await.unwrap();
    head.starts_with("HTTP/1.1 101")
}

#[tokio::test]
async fn a_slow_request_is_answered_408_and_a_silent_one_closed() {
    let rig = Rig::with(&[echo().await], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_millis(100);
    });
    let slow = exchange(&rig, &REQUEST[..40]).await;
    assert!(
        slow.starts_with("HTTP/1.1 408 Request Timeout\r\n"),
        "{slow}"
    );
    assert_eq!(exchange(&rig, b"").await, "");
    rig.until("counted", |s| {
        s.counters.handshakes(HandshakeResult::ClientTimeout) == 2
    })
    .await;
}

#[tokio::test]
async fn failures_of_backends_have_their_status() {
    let rig = Rig::new(&[]);
    let none = exchange(&rig, REQUEST).await;
    assert!(
        none.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
        "{none}"
    );
    assert!((1..=10).contains(&retry_after(&none)), "{none}");

    let rig = Rig::new(&[nowhere()]);
    let refused = exchange(&rig, REQUEST).await;
    assert!(
        refused.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{refused}"
    );

    let (garbage, _heads) = answering(b"SSH-2.0-OpenSSH_9\r\n\r\n").await;
    let rig = Rig::new(&[garbage]);
    let garbage = exchange(&rig, REQUEST).await;
    assert!(
        garbage.starts_with("HTTP/1.1 502 Bad Gateway\r\n"),
        "{garbage}"
    );

    let (mute, _heads) = answering(b"").await;
    let rig = Rig::with(&[mute], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_millis(100);
    });
    let timeout = exchange(&rig, REQUEST).await;
    assert!(
        timeout.starts_with("HTTP/1.1 504 Gateway Timeout\r\n"),
        "{timeout}"
    );
}

#[tokio::test]
async fn who_asks_for_a_head_gets_no_content() {
    let rig = Rig::with(&[echo().await], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_millis(300);
    });
    let requests: [&[u8]; 3] = [
        b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost: a b\r\n\r\n",
        b"HEAD / HTTP/1.1\r\nHost",
    ];
    for (request, status) in requests.into_iter().zip([426, 400, 408]) {
        let answer = exchange(&rig, request).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        // RFC 9110 section 8.6: its length is that of the answer to GET.
        assert!(answer.contains("\r\nContent-Length: "), "{answer}");
        assert!(answer.ends_with("\r\n\r\n"), "{answer}");
    }
}

/// What an answer says of when it was made.
fn dates(answer: &str) -> Vec<&str> {
    let fields = answer.lines().filter_map(|line| line.split_once(": "));
    let dates = fields.filter(|(name, _)| name.eq_ignore_ascii_case("date"));
    dates.map(|(_, value)| value).collect()
}

#[tokio::test]
async fn answers_say_when_they_were_made() {
    const THEN: &str = "Sun, 06 Nov 1994 08:49:37 GMT";
    let rig = Rig::new(&[]);
    for request in [REQUEST, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"] {
        let answer = exchange(&rig, request).await;
        let [date] = dates(&answer)[..] else {
            panic!("not one date: {answer}");
        };
        assert!(date.ends_with(" GMT") && date != THEN, "{date}");
    }
    for (answer, is_then) in [
        (&b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n"[..], false),
        (
            b"HTTP/1.1 403 No\r\nContent-Length: 0\r\ndate: Sun, 06 Nov 1994 08:49:37 GMT\r\n\r\n",
            true,
        ),
    ] {
        let (backend, _heads) = answering(answer).await;
        let answer = exchange(&Rig::new(&[backend]), REQUEST).await;
        let [date] = dates(&answer)[..] else {
            panic!("not one date: {answer}");
        };
        assert_eq!(date == THEN, is_then, "{answer}");
    }
}

#[tokio::test]
async fn many_slow_handshakes_do_not_hold_up_others() {
    let rig = Rig::new(&[echo().await]);
    let mut slow = Vec::new();
    for _ in 0..200 {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&REQUEST[..50]).await.unwrap();
        slow.push(stream);
    }
    let mut ws = rig.connect().await;
    crate::support::round_trip(&mut ws, "quick").await;
    let raw = raw_client(rig.address).await;
    drop((slow, raw));
}

#[tokio::test]
async fn an_answer_that_is_cut_does_not_look_whole() {
    let (listener, backend) = listen().await;
    tokio::spawn(async move {
        let mut kept = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            if read_head(&mut stream).await.is_some() {
                let part = b"HTTP/1.1 200 OK\r\n\r\nhalf";
                stream.write_all(part).await.unwrap();
                kept.push(stream);
            }
        }
    });
    let rig = Rig::with(&[backend], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_millis(300);
    });
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let mut answer = Vec::new();
    let end = soon(client.read_to_end(&mut answer)).await;
    assert!(answer.ends_with(b"half"), "{answer:?}");
    let error = end.expect_err("a FIN says that all is there");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    rig.until("counted", |s| {
        s.counters.handshakes(HandshakeResult::GatewayTimeout) == 1
    })
    .await;
}

#[tokio::test]
async fn an_answer_of_which_the_backend_sends_a_part_does_not_look_whole() {
    for (coding, part) in [
        ("Transfer-Encoding: chunked", "8\r\nhalf"),
        ("Transfer-Encoding: chunked", "4\r\nhalf\r\n"),
        ("Content-Length: 8", "half"),
    ] {
        let (listener, backend) = listen().await;
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                if read_head(&mut stream).await.is_some() {
                    let answer = format!("HTTP/1.1 200 OK\r\n{coding}\r\n\r\n{part}");
                    stream.write_all(answer.as_bytes()).await.unwrap();
                }
            }
        });
        let rig = Rig::new(&[backend]);
        let mut client = TcpStream::connect(rig.address).await.unwrap();
        client.write_all(REQUEST).await.unwrap();
        let end = soon(client.read_to_end(&mut Vec::new())).await;
        let error = end.expect_err("a FIN says that all is there");
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{part}");
        rig.until("counted", |s| {
            s.counters.handshakes(HandshakeResult::BadGateway) == 1
        })
        .await;
    }
}
