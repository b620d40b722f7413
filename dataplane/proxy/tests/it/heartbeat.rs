//! Pings to quiet sides.

use std::{fs, net::SocketAddr, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use proxy::{CodeClass, Ended, Heartbeat, Pool};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpSocket,
    sync::{Notify, mpsc},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    REQUEST, Rig, backend, echo, pong, raw_backend, raw_client, read_frame, read_head, round_trip,
    soon,
};

fn every(interval: u64, timeout: u64) -> impl FnOnce(&mut Pool) {
    move |pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(interval),
            timeout: Duration::from_millis(timeout),
        };
    }
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
    rig.until("the time of each", |now| {
        let times = &now.pools[0].times;
        let of = |side: &proxy::Distribution| side.buckets.iter().sum::<u64>();
        let sides = [of(&times.client_pings), of(&times.backend_pings)];
        sides.iter().all(|side| *side > 0) && sides.iter().sum::<u64>() == now.counters.pongs
    })
    .await;
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
async fn keys_tell_nothing_of_the_next_ones() {
    let (sender, mut seen) = mpsc::unbounded_channel();
    let address = raw_backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            for _ in 0..4 {
                let mut ping = [0; 14];
                stream.read_exact(&mut ping).await.unwrap();
                sender.send(ping).unwrap();
                let payload: Vec<u8> = (6..14)
                    .map(|at| ping[at] ^ ping[2 + (at - 6) % 4])
                    .collect();
                let answer = [&[0x8a, 8], &payload[..]].concat();
                stream.write_all(&answer).await.unwrap();
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], every(20, 5000));
    let _client = raw_client(rig.address).await;
    let mut keys = Vec::new();
    for _ in 0..4 {
        let ping = soon(seen.recv()).await.unwrap();
        assert_eq!(ping[..2], [0x89, 0x88]);
        keys.push(u32::from_le_bytes(ping[2..6].try_into().unwrap()));
    }
    // Not even how one differs from the next, as by a count of what was sent.
    let differences: Vec<_> = keys.windows(2).map(|pair| pair[0] ^ pair[1]).collect();
    assert!(differences.iter().all(|it| *it > 0xff), "{keys:x?}");
    assert_ne!(differences[0], differences[1], "{keys:x?}");
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
    // The other side is to answer in time, on a busy machine, too.
    let rig = Rig::with(&[address], every(50, 1000));
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
    // The other side is to answer in time, on a busy machine, too.
    let rig = Rig::with(&[backend], every(50, 1000));
    let mut ws = raw_client(rig.address).await;
    let mut close = None;
    while close.is_none() {
        let (first, payload) = read_frame(&mut ws).await;
        match first {
            0x89 => {
                ws.write_all(&pong(&payload)).await.unwrap();
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
            .ended(Ended::BackendSilent, CodeClass::ServiceRestart),
        1
    );
}

#[tokio::test]
async fn a_ping_waits_for_the_end_of_the_frame_under_way() {
    let go = Arc::new(Notify::new());
    let (done, mut finished) = mpsc::channel::<()>(1);
    let wait = Arc::clone(&go);
    let backend = raw_backend(move |mut stream| {
        let wait = Arc::clone(&wait);
        let done = done.clone();
        async move {
            // A frame of 6 bytes of which half stays out.
            stream.write_all(b"\x82\x06abc").await.unwrap();
            wait.notified().await;
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
    go.notify_one();
    soon(finished.recv()).await.unwrap();
    assert_eq!(read_frame(&mut client).await, (0x82, b"abcdef".to_vec()));
    let next = [read_frame(&mut client).await, read_frame(&mut client).await];
    assert_eq!(next[0].0, 0x89);
    assert_eq!(next[0].1.len(), 8);
    assert_eq!(next[1], (0x82, b"g".to_vec()));
}

#[tokio::test]
async fn a_busy_side_is_not_pinged() {
    // Long enough for a machine that is busy, too.
    let rig = Rig::with(&[echo().await], every(1500, 5000));
    let mut ws = rig.connect().await;
    let begun = std::time::Instant::now();
    while begun.elapsed() < Duration::from_millis(3500) {
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
    let pings = rig.proxy.snapshot().counters.pings;
    // Time for ten of them.
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(rig.proxy.snapshot().counters.pings, pings);
}

#[tokio::test]
async fn pongs_beyond_our_pings_are_the_client_s() {
    let (sender, mut seen) = mpsc::channel(64);
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                sender.send(message).await.unwrap();
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], every(300, 5000));
    let mut client = raw_client(rig.address).await;
    let (first, payload) = read_frame(&mut client).await;
    assert_eq!(first, 0x89);
    let all = [&pong(&payload).repeat(5)[..], b"\x81\x81\0\0\0\0x"].concat();
    client.write_all(&all).await.unwrap();
    let mut pongs = 0;
    loop {
        match soon(seen.recv()).await.unwrap() {
            Message::Pong(_) => pongs += 1,
            Message::Text(_) => break,
            _ => {}
        }
    }
    assert_eq!(pongs, 4);
}

/// Reads what the proxy sends to a backend in the middle of a client's frame, then the rest.
#[tokio::test]
async fn nothing_is_put_into_a_frame_of_the_client() {
    let (sender, mut seen) = mpsc::channel(1);
    let backend = raw_backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            let mut all = Vec::new();
            let _ended = stream.read_to_end(&mut all).await;
            sender.send(all).await.unwrap();
        }
    })
    .await;
    let mut rig = Rig::with(&[backend], every(50, 10_000));
    let mut client = raw_client(rig.address).await;
    client.write_all(b"\x82\x86\0\0\0\0abc").await.unwrap();
    rig.until("half a frame", |s| s.counters.from_clients.bytes == 9)
        .await;
    // The client is quiet as well and gets its ping: time has passed for the backend's.
    while read_frame(&mut client).await.0 != 0x89 {}
    rig.edit(|pool| pool.upstreams[0].endpoints.clear());
    assert_eq!(read_frame(&mut client).await.0, 0x88);
    client.write_all(b"def").await.unwrap();
    // Its answer to the Close comes after ours to the backend, which is closed already.
    client.write_all(b"\x88\x80\0\0\0\0").await.unwrap();
    drop(client);
    let all = soon(seen.recv()).await.unwrap();
    let frame = b"\x82\x86\0\0\0\0abcdef";
    // A ping may have been sent before the frame.
    let at = all.windows(frame.len()).position(|part| part == frame);
    let at = at.unwrap_or_else(|| panic!("cut: {all:x?}"));
    assert!(
        all[..at].chunks(14).all(|ping| ping[..2] == [0x89, 0x88]),
        "{all:x?}"
    );
    let rest = &all[at + frame.len()..];
    assert_eq!(rest[0], 0x88, "the Close and nothing else: {rest:x?}");
    assert_eq!(rest.len(), 2 + 4 + usize::from(rest[1] & 0x7f), "{rest:x?}");
}

#[tokio::test]
async fn a_slow_reader_is_not_dead() {
    const PAYLOAD: usize = 65_536;
    let backend = raw_backend(|mut stream| async move {
        let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        frame.resize(10 + PAYLOAD, 7);
        while stream.write_all(&frame).await.is_ok() {}
    })
    .await;
    let rig = Rig::with(&[backend], every(100, 600));
    // What has arrived with it and is not read counts as taken, so that shall be little.
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(32 * 1024).unwrap();
    let mut client = socket.connect(rig.address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    assert!(soon(read_head(&mut client)).await.is_some());
    // Each ping waits behind what the client has not taken, for longer than the time-out.
    let mut buf = vec![0; PAYLOAD];
    let mut answered = 0;
    while answered < 2 {
        let first = soon(client.read_u8()).await.expect("taken for dead");
        let len = usize::from(client.read_u8().await.unwrap());
        if first == 0x89 {
            soon(client.read_exact(&mut buf[..len])).await.unwrap();
            client.write_all(&pong(&buf[..len])).await.unwrap();
            answered += 1;
        } else {
            soon(client.read_exact(&mut [0; 8])).await.unwrap();
            soon(client.read_exact(&mut buf)).await.unwrap();
            tokio::time::sleep(Duration::from_millis(30)).await;
        }
    }
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
}

/// Whether the kernel keeps alive the proxy's connection from or to this address (proc(5),
/// /proc/net/tcp: a timer of kind 2).
fn is_kept_alive(local: SocketAddr, remote: SocketAddr) -> bool {
    let hex = |address: SocketAddr| {
        let SocketAddr::V4(address) = address else {
            panic!("{address}")
        };
        let ip = u32::from_ne_bytes(address.ip().octets());
        format!("{ip:08X}:{:04X}", address.port())
    };
    let table = fs::read_to_string("/proc/net/tcp").unwrap();
    let is_it = |fields: &Vec<&str>| fields[1] == hex(local) && fields[2] == hex(remote);
    let mut lines = table.lines().map(|line| line.split_whitespace().collect());
    let line = lines.find(is_it).expect("no such connection");
    line[5].starts_with("02:")
}

#[tokio::test]
async fn without_heartbeats_the_kernel_looks_after_both_sides() {
    let (sender, mut peers) = mpsc::channel(1);
    let backend = raw_backend(move |mut stream| {
        let sender = sender.clone();
        async move {
            sender.send(stream.peer_addr().unwrap()).await.unwrap();
            let _ended = stream.read_u8().await;
        }
    })
    .await;
    let mut rig = Rig::new(&[backend]);
    let client = raw_client(rig.address).await;
    let to_client = (rig.address, client.local_addr().unwrap());
    let to_backend = (soon(peers.recv()).await.unwrap(), backend);
    let until = async |wanted: bool| {
        let looks =
            async || [to_client, to_backend].map(|(local, remote)| is_kept_alive(local, remote));
        soon(async {
            while looks().await != [wanted; 2] {
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
        })
        .await;
    };
    until(true).await;
    rig.edit(every(60_000, 0));
    until(false).await;
    rig.edit(every(0, 0));
    until(true).await;
}
