//! Frames and messages that are too big or too many.

use std::sync::Arc;

use futures_util::SinkExt;
use proxy::{Ended, Limit, MessageRate};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Mutex, mpsc},
};
use tokio_tungstenite::tungstenite::Message;

use super::hits;
use crate::support::{
    Rig, echo, raw_backend, raw_client, read_close, read_frame, round_trip, soon,
};

/// A session of which the test has both ends.
async fn both_ends(edit: impl FnOnce(&mut proxy::Pool)) -> (Rig, TcpStream, TcpStream) {
    let (give, mut take) = mpsc::unbounded_channel();
    let backend = raw_backend(move |stream| {
        let give = give.clone();
        async move { give.send(stream).unwrap() }
    })
    .await;
    let rig = Rig::with(&[backend], edit);
    let client = raw_client(rig.address).await;
    let backend = soon(take.recv()).await.unwrap();
    (rig, client, backend)
}

/// The code and reason of the Close frame that is to come next.
async fn told(stream: &mut TcpStream) -> (u16, String) {
    let (first, payload) = read_frame(stream).await;
    assert_eq!(first, 0x88, "no Close: {payload:?}");
    let (code, reason) = payload.split_at(2);
    let code = u16::from_be_bytes(code.try_into().unwrap());
    (code, String::from_utf8(reason.to_vec()).unwrap())
}

#[tokio::test]
async fn a_frame_that_is_too_big_is_refused_by_its_head_and_nothing_of_it_passes() {
    let (rig, mut client, mut backend) = both_ends(|pool| {
        pool.limits.frame_size = Some(125);
    })
    .await;
    client.write_all(b"\x82\x85abcd12345").await.unwrap();
    assert_eq!(read_frame(&mut backend).await.1.len(), 5);
    // 2 GiB are announced, and not a byte of them is sent.
    client
        .write_all(b"\x82\xff\0\0\0\0\x80\0\0\0abcd")
        .await
        .unwrap();
    let reason = "frame too big".to_owned();
    assert_eq!(told(&mut client).await, (1009, reason));
    let reason = "client sent more than it may".to_owned();
    assert_eq!(told(&mut backend).await, (1001, reason));
    backend.write_all(b"\x88\x00").await.unwrap();
    // The client sends on, as one does that does not look; nothing reaches the backend.
    drop(client.write_all(&vec![7; 100_000]).await);
    let mut rest = Vec::new();
    backend.shutdown().await.unwrap();
    drop(soon(backend.read_to_end(&mut rest)).await);
    assert_eq!(rest, b"");
    let snapshot = rig
        .until("its end", |s| s.counters.ended_by(Ended::Limit) == 1)
        .await;
    assert_eq!(hits(&snapshot, Limit::FrameSize), 1);
}

#[tokio::test]
async fn a_message_that_is_too_big_is_refused_at_the_fragment_that_makes_it_so() {
    let (rig, mut client, mut backend) = both_ends(|pool| {
        pool.limits.message_size = Some(10);
    })
    .await;
    backend
        .write_all(b"\x01\x05hello\x89\x00\x80\x05world\x01\x08overlong\x80\x03one")
        .await
        .unwrap();
    for passed in ["hello", "", "world", "overlong"] {
        let (_, payload) = read_frame(&mut client).await;
        assert_eq!(payload, passed.as_bytes());
    }
    // What it was sent is not passed on.
    let reason = "backend sent more than it may".to_owned();
    assert_eq!(told(&mut client).await, (1014, reason));
    let reason = "message too big".to_owned();
    assert_eq!(told(&mut backend).await, (1009, reason));
    for (stream, answer) in [
        (&mut client, &b"\x88\x80abcd"[..]),
        (&mut backend, b"\x88\x00"),
    ] {
        stream.write_all(answer).await.unwrap();
        stream.shutdown().await.unwrap();
    }
    // Both have closed in order, so that nobody is waited for.
    let snapshot = rig
        .until("its end", |s| s.counters.ended_by(Ended::Limit) == 1)
        .await;
    assert_eq!(hits(&snapshot, Limit::MessageSize), 1);
    assert_eq!(snapshot.counters.resets, 0);
}

#[tokio::test]
async fn limits_are_each_sides_own_and_an_edit_counts_from_the_next_frame() {
    let mut rig = Rig::new(&[echo().await]);
    let mut session = rig.connect().await;
    round_trip(&mut session, &"x".repeat(5000)).await;
    rig.edit(|pool| pool.limits.message_size = Some(1000));
    round_trip(&mut session, &"x".repeat(1000)).await;
    soon(session.send(Message::text("x".repeat(1001))))
        .await
        .unwrap();
    let reason = "message too big".to_owned();
    assert_eq!(read_close(&mut session).await, Some((1009, reason)));
}

/// What a client sends that sends too much.
async fn flood(frame: &'static [u8]) {
    const BURST: u32 = 20;
    let passed = Arc::new(Mutex::new(Vec::new()));
    let sink = Arc::clone(&passed);
    let backend = raw_backend(move |mut stream| {
        let sink = Arc::clone(&sink);
        async move {
            let mut received = Vec::new();
            drop(stream.read_to_end(&mut received).await);
            *sink.lock().await = received;
        }
    })
    .await;
    let rig = Rig::with(&[backend, echo().await], |pool| {
        pool.limits.messages = Some(MessageRate {
            per_second: 1,
            burst: BURST,
        });
    });
    let mut flooder = raw_client(rig.address).await;
    let mut other = rig.connect().await;
    // All of it in one piece.
    drop(flooder.write_all(&frame.repeat(5000)).await);
    let reason = "too many messages".to_owned();
    assert_eq!(told(&mut flooder).await, (1008, reason));
    round_trip(&mut other, "not disturbed").await;
    drop(flooder);
    let snapshot = rig
        .until("its end", |s| s.counters.ended_by(Ended::Limit) == 1)
        .await;
    assert_eq!(hits(&snapshot, Limit::MessagesPerSecond), 1);
    rig.until("the backend's end", |s| s.counters.live_sessions == 1)
        .await;
    let received = soon(async {
        loop {
            let received = passed.lock().await.clone();
            if !received.is_empty() {
                break received;
            }
            tokio::task::yield_now().await;
        }
    })
    .await;
    let (good, close) = received.split_at(frame.len() * usize::try_from(BURST).unwrap());
    assert_eq!(good, frame.repeat(usize::try_from(BURST).unwrap()));
    assert_eq!(
        &close[..2],
        [0x88, 0x80 | 0x1e],
        "then a Close for the backend"
    );
}

#[tokio::test]
async fn a_flood_of_messages_ends_with_1008() {
    flood(b"\x81\x81abcdx").await;
}

#[tokio::test]
async fn a_flood_of_pings_ends_with_1008() {
    flood(b"\x89\x80abcd").await;
}

#[tokio::test]
async fn a_flood_of_empty_frames_that_end_nothing_ends_with_1008() {
    flood(b"\x00\x80abcd").await;
}

#[tokio::test]
async fn a_client_within_its_rate_goes_on_and_its_backend_is_not_counted() {
    let rig = Rig::with(&[echo().await], |pool| {
        pool.limits.messages = Some(MessageRate {
            per_second: 200,
            burst: 5,
        });
    });
    let mut session = rig.connect().await;
    for n in 0..50 {
        tokio::time::sleep(std::time::Duration::from_millis(6)).await;
        round_trip(&mut session, &n.to_string()).await;
    }
    assert!(rig.proxy.snapshot().limits.is_empty());
}
