//! Pings to quiet sides.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use proxy::{CodeClass, Ended, Heartbeat, Pool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{Rig, backend, echo, raw_backend, raw_client, round_trip, soon};

fn every(interval: u64, timeout: u64) -> impl FnOnce(&mut Pool) {
    move |pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
        };
    }
}

/// A frame with a payload of at most 125 bytes, unmasked.
async fn read_frame(stream: &mut tokio::net::TcpStream) -> (u8, Vec<u8>) {
    let first = soon(stream.read_u8()).await.unwrap();
    let second = stream.read_u8().await.unwrap();
    let mut key = [0; 4];
    if second & 0x80 != 0 {
        stream.read_exact(&mut key).await.unwrap();
    }
    let mut payload = vec![0; usize::from(second & 0x7f)];
    stream.read_exact(&mut payload).await.unwrap();
    for (byte, key) in payload.iter_mut().zip(key.iter().cycle()) {
        *byte ^= key;
    }
    (first, payload)
}

#[tokio::test]
async fn quiet_sides_are_pinged_and_only_our_own_pongs_are_swallowed() {
    let (sender, mut seen) = mpsc::channel(64);
    // Answers pings (as tungstenite does by itself) and tells what else it sees.
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                sender.send(message.clone()).await.unwrap();
                if message.is_text() {
                    ws.send(message).await.unwrap();
                }
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], every(50, 5000));
    let mut ws = rig.connect().await;
    // A pong that nobody asked for is the client's to send (RFC 6455 section 5.5.3).
    soon(ws.send(Message::Pong(b"unasked!".to_vec().into())))
        .await
        .unwrap();
    let pings = 3;
    for _ in 0..pings {
        let message = soon(ws.next()).await.unwrap().unwrap();
        assert!(
            matches!(&message, Message::Ping(payload) if payload.len() == 8),
            "{message:?}"
        );
        soon(ws.flush()).await.unwrap();
    }
    let snapshot = rig
        .until("pongs of both sides", |s| s.counters.pongs >= 2 * pings)
        .await;
    assert!(snapshot.counters.pings >= 2 * pings);
    assert_eq!(snapshot.counters.live_sessions, 1);
    // The backend saw our pings and the client's pong, but never the pongs that answered us.
    let mut payloads = Vec::new();
    while let Ok(message) = seen.try_recv() {
        match message {
            Message::Ping(payload) => assert_eq!(payload.len(), 8),
            Message::Pong(payload) => payloads.push(payload.to_vec()),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(payloads, [b"unasked!".to_vec()]);
    round_trip(&mut ws, "still here").await;
}

#[tokio::test]
async fn pings_between_client_and_backend_are_theirs() {
    let rig = Rig::with(&[echo().await], every(10_000, 10_000));
    let mut ws = rig.connect().await;
    soon(ws.send(Message::Ping(b"12345678".to_vec().into())))
        .await
        .unwrap();
    let pong = soon(ws.next()).await.unwrap().unwrap();
    assert_eq!(pong, Message::Pong(b"12345678".to_vec().into()));
    assert_eq!(rig.proxy.snapshot().counters.pings, 0);
}

#[tokio::test]
async fn a_client_that_does_not_answer_is_ended_and_the_backend_told() {
    let (sender, mut told) = mpsc::channel(1);
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                if let Message::Close(Some(close)) = message {
                    sender
                        .send((u16::from(close.code), close.reason.to_string()))
                        .await
                        .unwrap();
                }
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], every(50, 100));
    // It keeps its connection, but nobody is at home.
    let client = raw_client(rig.address).await;
    let told = soon(told.recv()).await.unwrap();
    assert_eq!(told, (1001, "client does not answer pings".to_owned()));
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(
        snapshot
            .counters
            .ended(Ended::ClientSilent, CodeClass::GoingAway),
        1
    );
    drop(client);
}

#[tokio::test]
async fn a_backend_that_does_not_answer_is_ended_and_the_client_told() {
    let backend = raw_backend(|stream| async move {
        let _kept = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::with(&[backend], every(50, 150));
    let mut ws = raw_client(rig.address).await;
    let mut close = None;
    while close.is_none() {
        let (first, payload) = read_frame(&mut ws).await;
        match first {
            0x89 => {
                let mut pong = vec![
                    0x8a,
                    0x80 | u8::try_from(payload.len()).unwrap(),
                    0,
                    0,
                    0,
                    0,
                ];
                pong.extend(&payload);
                ws.write_all(&pong).await.unwrap();
            }
            0x88 => close = Some(payload),
            other => panic!("opcode {other:x}"),
        }
    }
    assert_eq!(close.unwrap(), b"\x03\xf4backend does not answer pings");
    drop(ws);
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(
        snapshot
            .counters
            .ended(Ended::BackendSilent, CodeClass::Server),
        1
    );
}

#[tokio::test]
async fn a_ping_waits_for_the_end_of_the_frame_under_way() {
    let (go, mut wait) = mpsc::channel::<()>(1);
    let (done, mut finished) = mpsc::channel::<()>(1);
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new({
        let (tx, rx) = mpsc::channel::<()>(1);
        tokio::spawn(async move {
            wait.recv().await;
            tx.send(()).await.unwrap();
        });
        rx
    }));
    let backend = raw_backend(move |mut stream| {
        let wait = wait.clone();
        let done = done.clone();
        async move {
            // A frame of 6 bytes of which half stays out.
            stream.write_all(b"\x82\x06abc").await.unwrap();
            wait.lock().await.recv().await;
            stream.write_all(b"def\x82\x01g").await.unwrap();
            done.send(()).await.unwrap();
            let mut rest = Vec::new();
            let _ended = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
    let rig = Rig::with(&[backend], every(50, 10_000));
    let mut client = raw_client(rig.address).await;
    // The backend is quiet as well and at once gets its ping: time has passed for the client's.
    rig.until("a ping", |s| s.counters.pings >= 1).await;
    go.send(()).await.unwrap();
    soon(finished.recv()).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (0x82, b"abcdef".to_vec()));
    let next = [read_frame(&mut client).await, read_frame(&mut client).await];
    assert_eq!(next[0].0, 0x89);
    assert_eq!(next[0].1.len(), 8);
    assert_eq!(next[1], (0x82, b"g".to_vec()));
}

#[tokio::test]
async fn a_busy_side_is_not_pinged() {
    let rig = Rig::with(&[echo().await], every(300, 5000));
    let mut ws = rig.connect().await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(700) {
        round_trip(&mut ws, "busy").await;
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(rig.proxy.snapshot().counters.pings, 0);
}

#[tokio::test]
async fn a_changed_heartbeat_holds_for_live_sessions() {
    let mut rig = Rig::new(&[echo().await]);
    let mut ws = rig.connect().await;
    round_trip(&mut ws, "off").await;
    rig.edit(every(30, 5000));
    let message = soon(ws.next()).await.unwrap().unwrap();
    assert!(message.is_ping());
    rig.edit(every(0, 0));
    round_trip(&mut ws, "off again").await;
}
