//! What is sent arrives, byte for byte.

use std::net::Ipv6Addr;

use futures_util::{SinkExt, StreamExt};
use proxy::{CodeClass, Ended, HandshakeResult};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::tungstenite::{
    Message,
    protocol::frame::{
        Frame,
        coding::{Data, OpCode},
    },
};

use crate::support::{Rig, echo, echoes, pattern, raw_backend, raw_client, round_trip, soon};

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let rig = Rig::new(&[echo().await]);
    let mut ws = rig.connect().await;
    for len in [
        0,
        1,
        125,
        126,
        127,
        65_535,
        65_536,
        65_537,
        262_144,
        1 << 24,
    ] {
        echoes(&mut ws, len).await;
    }
    ws.close(None).await.unwrap();
    let snapshot = rig
        .until("session over", |s| s.counters.live_sessions == 0)
        .await;
    let times = snapshot.upstreams[0].times.clone();
    for measured in [times.handshakes, times.connects] {
        assert_eq!(measured.buckets.iter().sum::<u64>(), 1);
        assert!(!measured.sum.is_zero());
    }
    assert!(times.connects.sum < times.handshakes.sum);
    let counters = snapshot.counters;
    assert_eq!(counters.handshakes(HandshakeResult::Upgraded), 1);
    assert_eq!(counters.ended(Ended::Client, CodeClass::Empty), 1);
    assert_eq!(counters.from_clients.messages, 10);
    assert_eq!(counters.from_clients.violations, 0);
    assert_eq!(counters.from_backends.violations, 0);
    assert_eq!(counters.resets, 0);
}

#[tokio::test]
async fn fragments_and_control_frames_between_them_pass() {
    let rig = Rig::new(&[echo().await]);
    let mut ws = rig.connect().await;
    let part = |bytes: &[u8], code, last| {
        let frame = Frame::message(bytes.to_vec(), OpCode::Data(code), last);
        Message::Frame(frame)
    };
    let sent = pattern(200_000);
    soon(async {
        ws.send(part(&sent[..10], Data::Binary, false))
            .await
            .unwrap();
        ws.send(Message::Ping(b"in between".to_vec().into()))
            .await
            .unwrap();
        ws.send(part(&sent[10..100_000], Data::Continue, false))
            .await
            .unwrap();
        ws.send(part(&[], Data::Continue, false)).await.unwrap();
        ws.send(part(&sent[100_000..], Data::Continue, true))
            .await
            .unwrap();
        let pong = ws.next().await.unwrap().unwrap();
        assert_eq!(pong, Message::Pong(b"in between".to_vec().into()));
        assert!(ws.next().await.unwrap().unwrap().into_data() == sent);
    })
    .await;
}

#[tokio::test]
async fn many_frames_of_64_kib_in_flight_keep_their_order() {
    let rig = Rig::new(&[echo().await]);
    let (mut sink, mut stream) = rig.connect().await.split();
    let frame = |i: usize| pattern(65_536 + i);
    let send = async {
        for i in 0..64 {
            sink.send(Message::binary(frame(i))).await.unwrap();
        }
    };
    let receive = async {
        for i in 0..64 {
            assert!(stream.next().await.unwrap().unwrap().into_data() == frame(i));
        }
    };
    soon(async { tokio::join!(send, receive) }).await;
}

#[tokio::test]
async fn ipv6_on_both_sides() {
    let listener = tokio::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0))
        .await
        .unwrap();
    let backend = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let Ok(mut ws) = tokio_tungstenite::accept_async(stream).await else {
                    return;
                };
                while let Some(Ok(message)) = ws.next().await {
                    if message.is_text() {
                        ws.send(message).await.unwrap();
                    }
                }
            });
        }
    });
    let rig = Rig::on(Ipv6Addr::LOCALHOST.into(), &[backend], |_| {});
    round_trip(&mut rig.connect().await, "six").await;
}

#[tokio::test]
async fn whatever_extensions_make_of_a_frame_passes_untouched() {
    let backend = raw_backend(|mut stream| async move {
        let mut buf = [0; 64];
        while let Ok(n @ 1..) = stream.read(&mut buf).await {
            stream.write_all(&buf[..n]).await.unwrap();
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    // RSV1 set (as permessage-deflate does), a reserved opcode, an unmasked frame, a length in a
    // longer form than needed: not ours to judge.
    let frames = b"\xc1\x83\x01\x02\x03\x04abc\x83\x01x\x82\x7e\x00\x02hi";
    client.write_all(frames).await.unwrap();
    let mut back = vec![0; frames.len()];
    soon(client.read_exact(&mut back)).await.unwrap();
    assert_eq!(back, frames);
}

/// Sessions at once, and messages in each.
const SESSIONS: usize = 2000;
const MESSAGES: usize = 3;

#[tokio::test]
async fn thousands_of_sessions_open_echo_and_close() {
    let rig = Rig::new(&[echo().await, echo().await]);
    let address = rig.address;
    let session = |i: usize| async move {
        let mut ws = crate::support::connect(address).await;
        for m in 0..MESSAGES {
            round_trip(&mut ws, &format!("session {i}, message {m}")).await;
        }
        ws
    };
    let mut open = Vec::with_capacity(SESSIONS);
    for batch in 0..SESSIONS / 100 {
        let tasks: Vec<_> = (0..100)
            .map(|i| tokio::spawn(session(batch * 100 + i)))
            .collect();
        for task in tasks {
            open.push(task.await.unwrap());
        }
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(snapshot.counters.live_sessions, SESSIONS as u64);
    assert_eq!(snapshot.listeners[0].sessions, SESSIONS as u64);
    for endpoint in &snapshot.endpoints {
        assert_eq!(endpoint.sessions, SESSIONS as u64 / 2, "{snapshot:?}");
    }
    for (i, ws) in open.iter_mut().enumerate() {
        round_trip(ws, &format!("session {i}, last")).await;
        soon(ws.close(None)).await.unwrap();
    }
    let snapshot = rig
        .until("all sessions over", |s| s.counters.live_sessions == 0)
        .await;
    let count = SESSIONS as u64;
    assert_eq!(snapshot.counters.ended_by(Ended::Client), count);
    assert_eq!(
        snapshot.counters.from_clients.messages,
        count * (MESSAGES as u64 + 1)
    );
    assert_eq!(
        snapshot.endpoints[0].sessions + snapshot.endpoints[1].sessions,
        0
    );
}
