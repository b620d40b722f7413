//! Requests in streams of HTTP/2.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use bytes::Bytes;
use h2::{Reason, RecvStream};
use http::{HeaderMap, Method, Request, Response};
use proxy::{Phase, RequestResult};
use tokio::{
    io::AsyncWriteExt,
    sync::{Notify, mpsc},
};

use super::support::{proxied, read_until, server};
use crate::{
    http2::support::Client,
    support::{Rig, read_head, soon},
    tls::support::{Authority, HOST, rig},
};

/// A listener with TLS that proxies requests, and a client of it.
async fn client(backends: &[SocketAddr]) -> (Rig, Client, Authority) {
    let (mut rig, authority) = rig(backends);
    rig.edit(proxied);
    let client = Client::connect(&rig, &authority).await;
    (rig, client, authority)
}

fn request(method: Method, fields: &[(&str, &str)]) -> Request<()> {
    let uri = format!("https://{HOST}/poll?x=1");
    let mut request = Request::builder().method(method).uri(uri);
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(()).unwrap()
}

/// The content of an answer and what comes behind it; `Err`: it was cut.
async fn whole(
    response: Response<RecvStream>,
) -> Result<(String, Option<HeaderMap>), Option<Reason>> {
    let mut body = response.into_body();
    let mut text = Vec::new();
    while let Some(data) = soon(body.data()).await {
        text.extend_from_slice(&data.map_err(|error| error.reason())?);
    }
    let trailer = soon(body.trailers())
        .await
        .map_err(|error| error.reason())?;
    Ok((String::from_utf8(text).unwrap(), trailer))
}

#[tokio::test]
async fn content_and_trailers_go_both_ways() {
    let (told, mut requests) = mpsc::channel(8);
    let backend = server(move |mut stream| {
        let told = told.clone();
        async move {
            let is_whole = |text: &str| text.ends_with("\r\n0\r\nx-sum: 5\r\n\r\n");
            let request = read_until(&mut stream, is_whole).await.unwrap();
            told.send(request).await.unwrap();
            let answer = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n\
                HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x-own\r\nX-Own: 1\r\n\r\n\
                3\r\nfin\r\n1\r\ne\r\n0\r\nX-Sum: 4\r\nContent-Length: 3\r\n\r\n";
            stream.write_all(answer).await.unwrap();
        }
    })
    .await;
    let (rig, client, _authority) = client(&[backend]).await;
    let mut sender = client.requests.clone().ready().await.unwrap();
    let asked = request(Method::POST, &[("te", "trailers"), ("cookie", "a=1")]);
    let (response, mut output) = sender.send_request(asked, false).unwrap();
    output.send_data(Bytes::from_static(b"hel"), false).unwrap();
    output.send_data(Bytes::from_static(b"lo"), false).unwrap();
    let mut trailer = HeaderMap::new();
    trailer.insert("x-sum", "5".parse().unwrap());
    output.send_trailers(trailer).unwrap();
    let response = soon(response).await.unwrap();
    assert_eq!(response.status(), 200);
    assert!(!response.headers().contains_key("x-own"), "{response:?}");
    let (content, trailer) = whole(response).await.unwrap();
    assert_eq!(content, "fine");
    let trailer = trailer.unwrap();
    assert_eq!(
        (trailer.len(), &trailer["x-sum"]),
        (1, &"4".parse().unwrap())
    );
    let got = soon(requests.recv()).await.unwrap();
    assert!(got.starts_with("POST /poll?x=1 HTTP/1.1\r\n"), "{got}");
    for field in [
        "Transfer-Encoding: chunked",
        "cookie: a=1",
        "TE: trailers",
        "Via: 2.0 wsha",
    ] {
        assert!(
            got.contains(&format!("\r\n{field}\r\n")),
            "{field} in {got}"
        );
    }
    assert_eq!(got.matches("hel").count(), 1);
    rig.until("counted", |s| {
        let counters = &s.counters;
        counters.requests(RequestResult::Answered) == 1 && counters.plain_connections == 0
    })
    .await;
}

#[tokio::test]
async fn lengths_are_kept_and_what_has_no_content_ends_with_its_head() {
    let backend = server(|mut stream| async move {
        let head = read_head(&mut stream).await.unwrap();
        let answer: &[u8] = if head.starts_with("HEAD") {
            assert!(!head.contains("ransfer-"), "{head}");
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"
        } else if head.starts_with("DELETE") {
            b"HTTP/1.1 204 Gone\r\n\r\n"
        } else {
            assert!(head.contains("Content-Length: 2"), "{head}");
            b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
        };
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let (_rig, client, _authority) = client(&[backend]).await;
    for (method, length, content) in [
        (Method::HEAD, Some("5"), ""),
        (Method::DELETE, None, ""),
        (Method::PUT, Some("5"), "hello"),
    ] {
        let mut sender = client.requests.clone().ready().await.unwrap();
        let has_content = method == Method::PUT;
        let fields: &[_] = if has_content {
            &[("content-length", "2")]
        } else {
            &[]
        };
        let asked = request(method.clone(), fields);
        let (response, mut output) = sender.send_request(asked, !has_content).unwrap();
        if has_content {
            output.send_data(Bytes::from_static(b"hi"), true).unwrap();
        }
        let response = soon(response).await.unwrap();
        let said = response.headers().get("content-length");
        assert_eq!(said.map(|it| it.to_str().unwrap()), length, "{method}");
        assert_eq!(whole(response).await.unwrap().0, content, "{method}");
    }
}

#[tokio::test]
async fn what_is_refused_or_cut_is_so_for_its_stream_alone() {
    // It breaks off once the client has the beginning: a reset would take that along.
    let cut = Arc::new(Notify::new());
    let told = Arc::clone(&cut);
    let backend = server(move |mut stream| {
        let told = Arc::clone(&told);
        async move {
            let head = read_head(&mut stream).await.unwrap();
            if head.contains("x-way: cut") {
                let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n";
                stream.write_all(answer).await.unwrap();
                told.notified().await;
            }
        }
    })
    .await;
    let (rig, client, _authority) = client(&[backend]).await;
    let ask = async |way: &str| {
        let mut sender = client.requests.clone().ready().await.unwrap();
        let asked = request(Method::GET, &[("x-way", way)]);
        let (response, _) = sender.send_request(asked, true).unwrap();
        soon(response).await
    };
    let response = ask("cut").await.unwrap();
    assert_eq!(response.status(), 200);
    cut.notify_one();
    assert_eq!(whole(response).await.unwrap_err(), Some(Reason::CANCEL));
    let response = ask("nothing").await.unwrap();
    assert_eq!(response.status(), 502);
    whole(response).await.unwrap();
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::BadGateway) == 2
    })
    .await;
    let (response, _) = client.ask(request(Method::TRACE, &[])).await;
    assert_eq!(response.status(), 501);
}

#[tokio::test]
async fn many_requests_that_come_to_something_are_no_flood() {
    const REQUESTS: u64 = 700;
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.unwrap();
    })
    .await;
    let (rig, client, _authority) = client(&[backend]).await;
    for _ in 0..REQUESTS {
        let mut sender = client.requests.clone().ready().await.unwrap();
        let (response, _) = sender
            .send_request(request(Method::GET, &[]), true)
            .unwrap();
        assert_eq!(whole(soon(response).await.unwrap()).await.unwrap().0, "ok");
    }
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::Answered) == REQUESTS
    })
    .await;
}

#[tokio::test]
async fn a_poll_ends_when_its_client_takes_it_back_and_by_the_rules_of_sessions() {
    let backend = server(|mut stream| async move {
        read_head(&mut stream).await.unwrap();
        let answer = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n";
        stream.write_all(answer).await.unwrap();
        let _end = read_head(&mut stream).await;
    })
    .await;
    let (mut rig, client, _authority) = client(&[backend]).await;
    let poll = async || {
        let mut sender = client.requests.clone().ready().await.unwrap();
        let (response, output) = sender
            .send_request(request(Method::GET, &[]), true)
            .unwrap();
        (soon(response).await.unwrap(), output)
    };
    let (response, mut output) = poll().await;
    output.send_reset(Reason::CANCEL);
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::ClientGone) == 1 && s.counters.live_requests == 0
    })
    .await;
    drop(response);
    let (response, _output) = poll().await;
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating);
    assert_eq!(whole(response).await.unwrap_err(), Some(Reason::CANCEL));
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Ready);
    let (response, _output) = poll().await;
    let home = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let limit = std::time::Duration::from_secs(5);
    rig.proxy.leave(&[home], limit).unwrap();
    assert_eq!(whole(response).await.unwrap_err(), Some(Reason::CANCEL));
    rig.until("counted", |s| {
        s.counters.requests(RequestResult::Drained) == 2
    })
    .await;
}
