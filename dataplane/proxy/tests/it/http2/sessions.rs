//! What passes in the streams of a connection, and what one of them is to the others.

use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use proxy::{Ended, HandshakeResult, Heartbeat};
use tokio::{io::AsyncWriteExt, task::JoinSet};
use tokio_tungstenite::tungstenite::Message;

use super::support::Client;
use crate::{
    support::{self, close_frame, echo, echoes, read_close, read_frame, round_trip, soon},
    tls::support::{HOST, rig},
};

/// A backend that does what the first message says, and sends all others back.
async fn obedient() -> std::net::SocketAddr {
    support::backend(|mut ws| async move {
        while let Some(Ok(message)) = ws.next().await {
            match message.to_text().unwrap_or_default() {
                "flood" => {
                    let much = Message::binary(vec![7; 16_384]);
                    while ws.send(much.clone()).await.is_ok() {}
                }
                "sleep" => std::future::pending::<()>().await,
                _ if message.is_close() => {}
                _ => drop(ws.send(message).await),
            }
        }
    })
    .await
}

#[tokio::test]
async fn messages_of_every_size_come_back() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut ws = client.session().await;
    let sizes = [
        0, 1, 125, 16_383, 16_384, 65_535, 65_536, 300_000, 1_048_576,
    ];
    for len in sizes {
        echoes(&mut ws, len).await;
    }
    ws.close(Some(close_frame(4001, "bye"))).await.unwrap();
    let close = read_close(&mut ws).await;
    assert_eq!(close, Some((4001, "bye".to_owned())));
    assert!(soon(ws.next()).await.is_none());
    let counters = rig
        .until("over", |now| now.counters.live_sessions == 0)
        .await
        .counters;
    assert_eq!((counters.accepted, counters.streams), (1, 1));
    assert_eq!(counters.handshakes(HandshakeResult::Http2), 1);
    assert_eq!(counters.handshakes(HandshakeResult::Upgraded), 1);
    assert_eq!(counters.from_clients.messages, 9);
    assert_eq!(counters.from_clients.violations, 0);
    assert_eq!(counters.from_backends.violations, 0);
    assert_eq!(counters.ended_by(Ended::Client), 1);
    assert_eq!(counters.resets, 0);
    // The connection has no record, the session has one.
    let record = rig.record().await;
    assert_eq!(record.tls_version, Some("1.3"));
    assert_eq!(record.server_name.as_deref(), Some(HOST));
    assert_eq!(record.http_version, Some("2"));
    assert_eq!(record.status, Some(200));
    assert_eq!(record.from_client.messages, 9);
}

#[tokio::test]
async fn sessions_of_one_connection_run_side_by_side() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut all = JoinSet::new();
    for i in 0..20 {
        let mut ws = client.session().await;
        all.spawn(async move {
            for j in 0..10 {
                echoes(&mut ws, i * 7919 + j * 4099).await;
            }
        });
    }
    while let Some(one) = soon(all.join_next()).await {
        one.unwrap();
    }
    let counters = rig.proxy.snapshot().counters;
    assert_eq!((counters.accepted, counters.streams), (1, 20));
}

#[tokio::test]
async fn a_client_that_does_not_read_one_session_has_the_others() {
    let (mut rig, authority) = rig(&[obedient().await]);
    rig.edit(|pool| pool.limits.slow_reader = Some(Duration::from_millis(300)));
    let client = Client::connect(&rig, &authority).await;
    let mut stalled = client.raw_session().await;
    let mut other = client.session().await;
    stalled.write_all(b"\x81\x85\0\0\0\0flood").await.unwrap();
    echoes(&mut other, 300_000).await;
    let given_up = |now: &proxy::Snapshot| now.counters.ended_by(Ended::Limit) == 1;
    rig.until("the one to be given up", given_up).await;
    assert_eq!(stalled.reset().await, Some(h2::Reason::CANCEL));
    echoes(&mut other, 300_000).await;
    round_trip(&mut client.session().await, "a new one").await;
}

#[tokio::test]
async fn a_client_that_reads_slowly_is_not_given_up() {
    let (mut rig, authority) = rig(&[obedient().await]);
    rig.edit(|pool| pool.limits.slow_reader = Some(Duration::from_millis(800)));
    let client = Client::connect(&rig, &authority).await;
    let mut slow = client.session().await;
    slow.send(Message::text("flood")).await.unwrap();
    // Its pace is what is tried: never as long as the limit, and for longer in all.
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        for _ in 0..4 {
            assert_eq!(soon(slow.next()).await.unwrap().unwrap().len(), 16_384);
        }
    }
    let counters = rig.proxy.snapshot().counters;
    assert_eq!(counters.ended_by(Ended::Limit), 0);
    assert_eq!(counters.live_sessions, 1);
}

#[tokio::test]
async fn a_backend_that_does_not_read_holds_its_own_stream_up() {
    const MUCH: u64 = 64;
    let (rig, authority) = rig(&[obedient().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut stalled = client.session().await;
    let mut other = client.session().await;
    stalled.send(Message::text("sleep")).await.unwrap();
    let writer = tokio::spawn(async move {
        for _ in 0..MUCH {
            let message = Message::binary(vec![7; 1 << 20]);
            if stalled.send(message).await.is_err() {
                return;
            }
        }
    });
    // What sockets on the way hold, and the windows.
    let taken = rig.until_still(|now| now.counters.from_clients.bytes).await;
    assert!(
        (1 << 16..MUCH << 20).contains(&taken),
        "{taken} bytes were taken"
    );
    assert!(!writer.is_finished());
    echoes(&mut other, 1 << 20).await;
    writer.abort();
}

#[tokio::test]
async fn each_session_has_its_heartbeat() {
    let (mut rig, authority) = rig(&[echo().await]);
    rig.edit(|pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(100),
            timeout: Duration::from_secs(1),
        };
    });
    let client = Client::connect(&rig, &authority).await;
    let mut silent = client.raw_session().await;
    let mut lively = client.session().await;
    let reading = tokio::spawn(async move {
        // Pings are answered while it is read.
        while let Some(Ok(message)) = lively.next().await {
            if message.is_text() {
                break;
            }
        }
        lively
    });
    let (ping, _) = read_frame(&mut silent).await;
    assert_eq!(ping, 0x89);
    assert_eq!(silent.reset().await, Some(h2::Reason::CANCEL));
    rig.until("one to be silent", |now| {
        now.counters.ended_by(Ended::ClientSilent) == 1
    })
    .await;
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
    assert!(!reading.is_finished());
    reading.abort();
}
