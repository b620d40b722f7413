//! Clients that do not speak HTTP/2 as they should. What many of them cost is in `tests/floods.rs`.

use std::{
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use proxy::{Ended, HandshakeResult, Patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{
    raw::{ACK, GOAWAY, HEADERS, PING, RST_STREAM, Raw, WEBSOCKET, asking, block, frame},
    support::{Client, backend_by_hand, switch},
};
use crate::{
    support::{Rig, SOON, echo, round_trip, soon},
    tls::support::{Authority, HOST, listener, rig},
};

/// Error codes (RFC 9113 section 7).
const NO_ERROR: u32 = 0;
const PROTOCOL_ERROR: u32 = 1;
const REFUSED_STREAM: u32 = 7;
const CANCEL: u32 = 8;
const ENHANCE_YOUR_CALM: u32 = 11;

/// `:status` 200 and 400 as the static table has them (RFC 7541 appendix A).
const OK: u8 = 0x88;
const BAD_REQUEST: u8 = 0x8c;

fn with(fields: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [&WEBSOCKET[..], fields].concat()
}

fn without(name: &str) -> Vec<(&'static str, &'static str)> {
    let fields = WEBSOCKET.into_iter();
    fields.filter(|(other, _)| *other != name).collect()
}

fn instead(name: &str, value: &'static str) -> Vec<(&'static str, &'static str)> {
    let fields = WEBSOCKET.into_iter();
    fields
        .map(|field| {
            if field.0 == name {
                (field.0, value)
            } else {
                field
            }
        })
        .collect()
}

#[tokio::test]
async fn a_request_that_is_malformed_ends_its_stream_and_no_other() {
    let (rig, authority) = rig(&[echo().await]);
    let mut raw = Raw::connect(rig.address, &authority, &[]).await;
    let cases = [
        without(":method"),
        without(":scheme"),
        without(":path"),
        instead(":path", ""),
        instead(":method", "GET"),
        instead(":scheme", "no scheme"),
        instead(":authority", "no authority"),
        with(&[(":status", "200")]),
        with(&[(":path", "/again")]),
        [&[("x", "first")], &WEBSOCKET[..]].concat(),
        with(&[("connection", "upgrade")]),
        with(&[("upgrade", "websocket")]),
        with(&[("keep-alive", "timeout=5")]),
        with(&[("proxy-connection", "keep-alive")]),
        with(&[("transfer-encoding", "chunked")]),
        with(&[("te", "gzip")]),
    ];
    let mut stream = 1;
    for fields in cases {
        raw.send(&asking(stream, &fields)).await.unwrap();
        let ended = raw.until(|frame| frame.stream == stream).await;
        assert_eq!(ended.reason(), Some(PROTOCOL_ERROR), "{fields:?}");
        assert_eq!(ended.kind, RST_STREAM, "{fields:?}");
        stream += 2;
    }
    for (fields, status) in [(without(":authority"), BAD_REQUEST), (with(&[]), OK)] {
        raw.send(&asking(stream, &fields)).await.unwrap();
        let answer = raw.until(|frame| frame.stream == stream).await;
        assert_eq!((answer.kind, answer.payload[0]), (HEADERS, status));
        stream += 2;
    }
    let counters = rig.proxy.snapshot().counters;
    assert_eq!((counters.accepted, counters.streams), (1, 2));
}

#[tokio::test]
async fn fields_that_http_1_1_would_divide_end_the_connection_at_most() {
    for fields in [
        with(&[("X-Upper", "1")]),
        with(&[("x y", "1")]),
        with(&[(":unknown", "1")]),
        with(&[("x", "1\r\ny: 2")]),
        with(&[("x", "1\0")]),
        instead(":path", "/ HTTP/1.1\r\nx: y"),
        instead(":protocol", "web socket\r\n"),
    ] {
        let (asked, at) = counting_backend().await;
        let (rig, authority) = rig(&[at]);
        let mut raw = Raw::connect(rig.address, &authority, &[]).await;
        raw.send(&asking(1, &fields)).await.unwrap();
        let ends = |frame: &super::raw::Frame| frame.stream == 1 || frame.kind == GOAWAY;
        let ended = raw.until(ends).await;
        let is_refused = ended.kind == HEADERS && ended.payload[0] != OK;
        assert!(
            is_refused || ended.reason().is_some(),
            "{fields:?}: {ended:?}"
        );
        assert_eq!(asked.load(Ordering::Relaxed), 0, "{fields:?}");
    }
}

/// One that counts what it is asked and never answers.
async fn counting_backend() -> (Arc<AtomicUsize>, std::net::SocketAddr) {
    let asked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&asked);
    let at = backend_by_hand(move |_, mut stream| {
        count.fetch_add(1, Ordering::Relaxed);
        async move { drop(stream.read_to_end(&mut Vec::new()).await) }
    })
    .await;
    (asked, at)
}

#[tokio::test]
async fn streams_that_are_taken_back_again_and_again_end_their_connection() {
    let (asked, at) = counting_backend().await;
    let (mut rig, authority) = rig(&[at]);
    rig.edit(|pool| pool.upstreams[0].handshake_timeout = 10 * SOON);
    let mut raw = Raw::connect(rig.address, &authority, &[]).await;
    let mut reasons = Vec::new();
    let mut refused = 0;
    'ended: for stream in (1..).step_by(2) {
        // What it answers to a PING it says when it has taken what came before.
        let ask = [asking(stream, &WEBSOCKET), frame(PING, 0, 0, &[7; 8])].concat();
        if raw.send(&ask).await.is_err() {
            break;
        }
        loop {
            let Some(frame) = raw.next().await else {
                break 'ended;
            };
            match (frame.kind, frame.flags) {
                (PING, ACK) => break,
                (GOAWAY, _) => reasons.extend(frame.reason()),
                (RST_STREAM, _) => {
                    assert_eq!(frame.reason(), Some(REFUSED_STREAM));
                    refused += 1;
                }
                _ => {}
            }
        }
        let back = frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes());
        if raw.send(&back).await.is_err() {
            break;
        }
    }
    // What was told last may have come while the last words could not be sent any more.
    while let Some(frame) = raw.next().await {
        if frame.kind == GOAWAY {
            reasons.extend(frame.reason());
        }
    }
    assert_eq!(reasons.first(), Some(&NO_ERROR));
    assert_eq!(reasons.last(), Some(&ENHANCE_YOUR_CALM));
    assert!(refused > 0);
    // As many as a connection has at once, and once more.
    assert!(asked.load(Ordering::Relaxed) <= 201);
    let taken_back = |now: &proxy::Snapshot| {
        let gone = now.counters.handshakes(HandshakeResult::ClientGone);
        gone > 0 && now.counters.streams == gone
    };
    rig.until("all to be over", taken_back).await;
}

#[tokio::test]
async fn a_burst_of_streams_that_are_taken_back_ends_its_connection() {
    let (asked, at) = counting_backend().await;
    let (rig, authority) = rig(&[at]);
    let mut raw = Raw::connect(rig.address, &authority, &[]).await;
    let mut burst = Vec::new();
    for stream in (1..2000).step_by(2) {
        burst.extend(asking(stream, &WEBSOCKET));
        burst.extend(frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes()));
    }
    // It may be over before all was sent.
    let _sent = raw.send(&burst).await;
    let told = raw.until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(told.reason(), Some(ENHANCE_YOUR_CALM));
    assert!(asked.load(Ordering::Relaxed) <= 100);
}

#[tokio::test]
async fn a_window_that_never_opens_is_a_slow_reader() {
    let at = backend_by_hand(|head, mut stream| async move {
        switch(&head, &mut stream).await;
        while stream.write_all(b"\x82\x04much").await.is_ok() {}
    })
    .await;
    let (mut rig, authority) = rig(&[at]);
    rig.edit(|pool| pool.limits.slow_reader = Some(Duration::from_millis(300)));
    // SETTINGS_INITIAL_WINDOW_SIZE of 0 (RFC 9113 section 6.5.2).
    let mut raw = Raw::connect(rig.address, &authority, &[0, 4, 0, 0, 0, 0]).await;
    raw.send(&asking(1, &WEBSOCKET)).await.unwrap();
    let answer = raw.until(|frame| frame.stream == 1).await;
    assert_eq!((answer.kind, answer.payload[0]), (HEADERS, OK));
    let ended = raw.until(|frame| frame.stream == 1).await;
    assert_eq!((ended.kind, ended.reason()), (RST_STREAM, Some(CANCEL)));
    let over = |now: &proxy::Snapshot| now.counters.ended_by(Ended::Limit) == 1;
    rig.until("over", over).await;
}

#[tokio::test]
async fn a_connection_on_which_nothing_is_asked_ends_when_a_request_would_be_late() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let patience = Patience {
        close: Duration::from_millis(200),
        ..Patience::default()
    };
    let ip = Ipv4Addr::LOCALHOST.into();
    let rig = Rig::start(ip, &[echo().await], patience, |pool| {
        pool.listeners[0].tls = Some(listener(&[identity]));
        pool.upstreams[0].handshake_timeout = Duration::from_millis(500);
    });
    let mut other = Client::connect(&rig, &authority).await.session().await;
    // Without the preface, and without more than that, and with a head that does not end.
    let mut silent = Raw::silent(rig.address, &authority).await;
    let mut idle = Raw::connect(rig.address, &authority, &[]).await;
    let mut half = Raw::connect(rig.address, &authority, &[]).await;
    let head = block(&WEBSOCKET);
    half.send(&frame(HEADERS, 0, 1, &head)).await.unwrap();
    for raw in [&mut idle, &mut half] {
        let told = raw.until(|frame| frame.kind == GOAWAY).await;
        assert_eq!(told.reason(), Some(NO_ERROR));
    }
    for raw in [&mut silent, &mut idle, &mut half] {
        while soon(raw.next()).await.is_some() {}
    }
    round_trip(&mut other, "goes on").await;
}
