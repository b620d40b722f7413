//! What the handshake of a stream is to the backend, and which requests are refused.

use std::{process::Command, sync::Arc};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{Method, Request, Response};
use proxy::HandshakeResult;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};

use super::support::{Client, asking, backend_by_hand, switch, websocket};
use crate::{
    support::{echo, raw_backend, round_trip, soon},
    tls::support::{HOST, rig},
};

async fn text(response: Response<RecvStream>) -> String {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = soon(body.data()).await {
        text.extend_from_slice(&data.unwrap());
    }
    String::from_utf8(text).unwrap()
}

#[tokio::test]
async fn the_backend_gets_the_handshake_of_http_1_1_and_what_was_sent_behind_it() {
    let (told, mut heads) = mpsc::unbounded_channel();
    let at = backend_by_hand(move |head, mut stream| {
        let told = told.clone();
        async move {
            switch(&head, &mut stream).await;
            let mut frame = [0; 8];
            stream.read_exact(&mut frame).await.unwrap();
            told.send((head, frame)).unwrap();
        }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let fields = [
        ("sec-websocket-protocol", "chat"),
        ("origin", "https://chat.example"),
        ("cookie", "a=1"),
        ("cookie", "b=2"),
        ("x-forwarded-for", "192.0.2.1"),
    ];
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (_response, mut output) = requests.send_request(websocket(&fields), false).unwrap();
    let early = Bytes::from_static(b"\x81\x82\0\0\0\0hi");
    output.send_data(early, false).unwrap();
    let (head, frame) = soon(heads.recv()).await.unwrap();
    assert_eq!(&frame, b"\x81\x82\0\0\0\0hi");
    assert!(head.starts_with("GET /room?x=1 HTTP/1.1\r\n"), "{head}");
    for field in [
        "Host: chat.example",
        "Via: 2.0 wsha",
        "Upgrade: websocket",
        "Connection: Upgrade",
        "sec-websocket-version: 13",
        "sec-websocket-protocol: chat",
        "origin: https://chat.example",
        "cookie: a=1; b=2",
        "X-Forwarded-For: 127.0.0.1",
        "X-Forwarded-Proto: https",
    ] {
        assert!(
            head.contains(&format!("\r\n{field}\r\n")),
            "{field}: {head}"
        );
    }
}

#[tokio::test]
async fn what_is_no_handshake_is_refused_and_harms_no_other() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut ws = client.session().await;
    let uri = |path: &str| format!("https://{HOST}{path}");
    let plain = |method: Method, uri: String| {
        let request = Request::builder().method(method).uri(uri);
        request.body(()).unwrap()
    };
    let mut long = websocket(&[]);
    *long.uri_mut() = uri(&format!("/{}", "x".repeat(9000))).parse().unwrap();
    let names: Vec<_> = (0..101).map(|i| format!("x-{i}")).collect();
    let many: Vec<_> = names.iter().map(|name| (name.as_str(), "1")).collect();
    let large = "x".repeat(33 * 1024);
    let mut insecure = websocket(&[]);
    *insecure.uri_mut() = format!("http://{HOST}/").parse().unwrap();
    let old = [("sec-websocket-version", "8")];
    let body = [("sec-websocket-version", "13"), ("content-length", "3")];
    for (request, status) in [
        (plain(Method::GET, uri("/")), 400),
        (plain(Method::POST, uri("/")), 400),
        (plain(Method::CONNECT, format!("{HOST}:443")), 501),
        (asking("connect-udp", &old), 501),
        (asking("websocket", &[]), 400),
        (asking("websocket", &old), 400),
        (asking("websocket", &body), 400),
        (long, 414),
        (websocket(&many), 431),
        (insecure, 421),
        (websocket(&[("host", "other.example")]), 400),
        // This one is refused by the library.
        (websocket(&[("x", &large)]), 431),
    ] {
        let asked = format!("{request:?}");
        let (response, _output) = client.ask(request).await;
        assert_eq!(response.status(), status, "{asked:.200}");
        let headers = response.headers();
        assert!(!headers.contains_key("connection") && !headers.contains_key("upgrade"));
        assert!(
            status == 431 || headers.contains_key("date"),
            "{asked:.200}"
        );
        round_trip(&mut ws, "goes on").await;
    }
    let (response, _output) = client.ask(plain(Method::GET, uri("/"))).await;
    assert_eq!(
        text(response).await,
        "This address speaks WebSocket only.\n"
    );
    let (response, _output) = client.ask(plain(Method::HEAD, uri("/"))).await;
    assert!(response.headers().contains_key("content-length"));
    assert_eq!(text(response).await, "");
    let counted = |now: &proxy::Snapshot| now.counters.handshakes(HandshakeResult::Refused) == 13;
    let counters = rig.until("all counted", counted).await.counters;
    assert_eq!((counters.accepted, counters.streams), (1, 14));
}

#[tokio::test]
async fn an_accept_that_does_not_belong_to_the_key_is_found() {
    // One that belongs to another key.
    let at = raw_backend(|stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let (response, _output) = client.ask(websocket(&[])).await;
    assert_eq!(response.status(), 502);
    let counted = |now: &proxy::Snapshot| now.counters.handshakes(HandshakeResult::BadGateway) == 1;
    rig.until("counted", counted).await;
}

#[tokio::test]
async fn an_answer_of_the_backend_is_passed_on_without_its_chunks() {
    let at = backend_by_hand(|_, mut stream| async move {
        let answer = b"HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer\r\n\
            Transfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n";
        stream.write_all(answer).await.unwrap();
        stream.write_all(b"5\r\n talk\r\n0\r\n\r\n").await.unwrap();
        let _ended = stream.read(&mut [0; 16]).await;
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let (response, _output) = client.ask(websocket(&[])).await;
    assert_eq!(response.status(), 401);
    assert_eq!(response.headers()["www-authenticate"], "Bearer");
    assert!(!response.headers().contains_key("transfer-encoding"));
    assert_eq!(text(response).await, "plain talk");
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::Answered);
    assert_eq!(record.status, Some(401));
}

#[tokio::test]
async fn an_answer_that_is_cut_ends_with_a_reset() {
    // A stream that is cut at once may lose its head, too.
    let has_begun = Arc::new(Notify::new());
    let begun = Arc::clone(&has_begun);
    let at = backend_by_hand(move |_, mut stream| {
        let begun = Arc::clone(&begun);
        async move {
            let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nplain\r\n";
            stream.write_all(answer).await.unwrap();
            begun.notified().await;
        }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let (response, _output) = client.ask(websocket(&[])).await;
    has_begun.notify_one();
    let mut body = response.into_body();
    let end = loop {
        match soon(body.data()).await {
            Some(Ok(_part)) => {}
            Some(Err(error)) => break error.reason(),
            None => panic!("it looks whole"),
        }
    };
    assert_eq!(end, Some(Reason::CANCEL));
}

#[tokio::test]
async fn a_limit_counts_each_stream() {
    let (mut rig, authority) = rig(&[echo().await]);
    rig.edit(|pool| pool.limits.sessions_per_source = Some(2));
    let client = Client::connect(&rig, &authority).await;
    let mut one = client.session().await;
    let two = client.session().await;
    let (response, _output) = client.ask(websocket(&[])).await;
    assert_eq!(response.status(), 429);
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::Limited);
    assert_eq!(record.status, Some(429));
    round_trip(&mut one, "goes on").await;
    drop(two);
    rig.until("one to be over", |now| now.counters.live_sessions == 1)
        .await;
    round_trip(&mut client.session().await, "in its place").await;
}

#[tokio::test]
async fn a_header_of_the_proxy_protocol_is_about_every_stream() {
    let (mut rig, authority) = rig(&[echo().await]);
    rig.edit(|pool| {
        pool.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
        pool.listeners[0].proxy_protocol = true;
    });
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    let header = b"PROXY TCP4 192.0.2.7 192.0.2.1 4711 443\r\n";
    stream.write_all(header).await.unwrap();
    let client = Client::on(stream, &authority).await;
    for _ in 0..2 {
        drop(client.session().await);
        let record = rig.record().await;
        assert_eq!(record.client, "192.0.2.7:4711".parse().unwrap());
    }
}

#[tokio::test]
async fn curl_is_told_that_there_is_no_page() {
    let (rig, _authority) = rig(&[echo().await]);
    let port = rig.address.port();
    let curl = move || {
        Command::new("curl")
            .args(["--http2", "--insecure", "--silent", "--include"])
            .args(["--max-time", "10", "--noproxy", "*"])
            .args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .arg(format!("https://{HOST}:{port}/"))
            .output()
            .unwrap()
    };
    let output = soon(tokio::task::spawn_blocking(curl)).await.unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(said.starts_with("HTTP/2 400 "), "{said}");
    assert!(
        said.ends_with("This address speaks WebSocket only.\n"),
        "{said}"
    );
    assert!(output.status.success(), "{}", output.status);
}
