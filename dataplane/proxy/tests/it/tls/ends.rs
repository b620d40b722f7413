//! How sessions end, and are held up, where TLS is spoken.

use std::{io::ErrorKind, sync::Arc, time::Duration};

use futures_util::{SinkExt, StreamExt};
use proxy::{Ended, Heartbeat};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use super::support::{Authority, HOST, Tls, VERSIONS, backend, connect, listener, rig, try_secure};
use crate::support::{
    REQUEST, Rig, SWITCH, close_frame, echo, raw_backend, read_close, read_frame, read_head,
    round_trip, soon,
};

/// A client that has done the handshake by hand.
async fn raw_client(rig: &Rig, authority: &Authority) -> Tls {
    let client = Arc::new(authority.client(&VERSIONS));
    let mut stream = try_secure(rig.address, HOST, &client).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut stream)).await.expect("no answer");
    assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
    stream
}

#[tokio::test]
async fn the_end_is_announced_to_the_client_and_to_the_endpoint() {
    let authority = Authority::new();
    let identity = authority.identity(&[HOST]);
    let (ended, mut end) = mpsc::unbounded_channel();
    let at = backend(Authority::server(&identity), move |mut stream| {
        let ended = ended.clone();
        async move {
            if read_head(&mut stream).await.is_none() {
                return;
            }
            stream.write_all(SWITCH).await.unwrap();
            let close = read_frame(&mut stream).await;
            stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
            // Nothing after close_notify; without it this is an error.
            let end = stream.read(&mut [0; 16]).await;
            stream.shutdown().await.unwrap();
            ended
                .send((close, end.map_err(|error| error.kind())))
                .unwrap();
        }
    })
    .await;
    let rig = Rig::with(&[at], |pool| {
        pool.listeners[0].tls = Some(listener(&[identity]));
        pool.upstreams[0].tls = Some(authority.to_endpoints());
    });
    let mut client = raw_client(&rig, &authority).await;
    client.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
    assert_eq!(soon(read_frame(&mut client)).await, (0x88, vec![3, 232]));
    client.shutdown().await.unwrap();
    assert_eq!(soon(client.read(&mut [0; 16])).await.unwrap(), 0);
    let (close, end) = soon(end.recv()).await.unwrap();
    assert_eq!(close, (0x88, vec![3, 232]));
    assert_eq!(end, Ok(0));
    let counters = rig
        .until("over", |now| now.counters.live_sessions == 0)
        .await
        .counters;
    assert_eq!(counters.ended_by(Ended::Client), 1);
    assert_eq!(counters.resets, 0);
}

#[tokio::test]
async fn a_half_close_is_passed_on_and_a_connection_that_was_cut_is_not_taken_for_one() {
    let (told, mut what) = mpsc::unbounded_channel();
    let at = raw_backend(move |mut stream| {
        let told = told.clone();
        async move {
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            drop(stream.write_all(b"\x81\x02ok").await);
            told.send(got).unwrap();
        }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    // close_notify: no more will be sent, and it still reads.
    let mut client = raw_client(&rig, &authority).await;
    client.shutdown().await.unwrap();
    assert_eq!(soon(what.recv()).await.unwrap(), b"");
    assert_eq!(soon(read_frame(&mut client)).await, (0x81, b"ok".to_vec()));
    // A FIN alone can come from anybody on the way.
    let mut client = raw_client(&rig, &authority).await;
    let (tcp, _) = client.get_mut();
    tcp.shutdown().await.unwrap();
    let got = soon(what.recv()).await.unwrap();
    // A masked Close that says so.
    assert_eq!((got[0], got[1] & 0x80), (0x88, 0x80), "{got:?}");
}

#[tokio::test]
async fn records_that_were_changed_on_the_way_end_the_session() {
    let (rig, authority) = rig(&[echo().await]);
    let mut client = raw_client(&rig, &authority).await;
    let (tcp, _) = client.get_mut();
    // A record of data that no key of theirs has sealed.
    let forged = [&[23, 3, 3, 0, 32][..], &[7; 32]].concat();
    tcp.write_all(&forged).await.unwrap();
    let error = soon(client.read(&mut [0; 16])).await.unwrap_err();
    assert!(error.to_string().contains("BadRecordMac"), "{error}");
    rig.until("over", |now| now.counters.live_sessions == 0)
        .await;
}

#[tokio::test]
async fn the_close_of_a_planned_stop_arrives() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut sessions = Vec::new();
    for _ in 0..20 {
        let mut ws = connect(rig.address, &client).await;
        round_trip(&mut ws, "hello").await;
        sessions.push(ws);
    }
    // Beside it the clients read, as all do that are alive.
    let leaving = tokio::task::spawn_blocking(move || {
        let address = rig.address.ip();
        let report = rig.proxy.leave(&[address], Duration::from_secs(1));
        (rig, report.unwrap())
    });
    for ws in &mut sessions {
        let (code, _) = read_close(ws).await.unwrap();
        assert_eq!(code, 1001);
        // It is told the end of TLS, too.
        assert!(soon(ws.next()).await.is_none());
    }
    let (_rig, report) = soon(leaving).await.unwrap();
    assert_eq!(report.sessions, 20);
    // On a busy machine not all of them within the 5 ms that are waited without progress.
    assert!(report.acknowledged > 0, "{report:?}");
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_backend_and_is_not_dead() {
    const FRAMES: u8 = 255;
    fn frame(n: u8) -> Vec<u8> {
        let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
        frame.resize(10 + 65_536, n);
        frame
    }
    let (sent, mut progress) = mpsc::unbounded_channel();
    let at = raw_backend(move |mut stream| {
        let sent = sent.clone();
        async move {
            for n in 0..FRAMES {
                if stream.write_all(&frame(n)).await.is_err() {
                    return;
                }
                sent.send(()).unwrap();
            }
            let _ended = stream.read_u8().await;
        }
    })
    .await;
    let (mut rig, authority) = rig(&[at]);
    rig.edit(|pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(200),
            timeout: Duration::from_millis(200),
        };
    });
    let mut slow = raw_client(&rig, &authority).await;
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(300), progress.recv())
        .await
        .is_ok()
    {
        written += 1;
    }
    assert!(written < FRAMES, "nothing held the backend up");
    // Its kernel answers for it: it is slow, and several heartbeats have passed.
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
    let mut n = 0;
    while n < FRAMES {
        let mut head = [0; 2];
        soon(slow.read_exact(&mut head)).await.unwrap();
        if head[0] == 0x89 {
            let mut payload = vec![0; usize::from(head[1])];
            soon(slow.read_exact(&mut payload)).await.unwrap();
            slow.write_all(&crate::support::pong(&payload))
                .await
                .unwrap();
            continue;
        }
        let mut rest = vec![0; frame(n).len() - 2];
        soon(slow.read_exact(&mut rest)).await.unwrap();
        assert!([&head[..], &rest].concat() == frame(n), "frame {n}");
        n += 1;
    }
}

#[tokio::test]
async fn a_client_that_reads_nothing_for_too_long_is_given_up() {
    let at = raw_backend(|mut stream| async move {
        let frame = [&[0x82, 126, 0xff, 0xff][..], &vec![0; 65_535]].concat();
        while stream.write_all(&frame).await.is_ok() {}
    })
    .await;
    let (mut rig, authority) = rig(&[at]);
    rig.edit(|pool| pool.limits.slow_reader = Some(Duration::from_millis(500)));
    let _slow = raw_client(&rig, &authority).await;
    let counters = rig
        .until("given up", |now| now.counters.ended_by(Ended::Limit) == 1)
        .await
        .counters;
    assert_eq!(counters.live_sessions, 0);
}

#[tokio::test]
async fn a_peer_that_does_not_answer_pings_is_dead_and_one_that_does_is_not() {
    let (mut rig, authority) = rig(&[echo().await]);
    rig.edit(|pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(100),
            timeout: Duration::from_millis(200),
        };
    });
    let client = Arc::new(authority.client(&VERSIONS));
    let mut alive = connect(rig.address, &client).await;
    let mut silent = raw_client(&rig, &authority).await;
    let answering = tokio::spawn(async move {
        // It answers for as long as it is read.
        while let Some(Ok(message)) = alive.next().await {
            if message.is_text() {
                return message;
            }
        }
        panic!("taken for dead");
    });
    let error = loop {
        match soon(silent.read(&mut [0; 64])).await {
            Ok(0) => break None,
            Ok(_) => {}
            Err(error) => break Some(error.kind()),
        }
    };
    assert_eq!(error, Some(ErrorKind::ConnectionReset));
    let snapshot = rig
        .until("one is silent", |now| {
            now.counters.ended_by(Ended::ClientSilent) == 1
        })
        .await;
    assert_eq!(snapshot.counters.live_sessions, 1);
    answering.abort();
}

#[tokio::test]
async fn a_close_code_passes_both_ways() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut ws = connect(rig.address, &client).await;
    ws.send(Message::Close(Some(close_frame(4001, "bye"))))
        .await
        .unwrap();
    assert_eq!(read_close(&mut ws).await.unwrap().0, 4001);
}
