//! How sessions in streams end, and the connection with its listener.

use std::{
    future::poll_fn,
    net::{IpAddr, Ipv4Addr},
    task::Poll,
};

use futures_util::{SinkExt, StreamExt};
use h2::Reason;
use http::StatusCode;
use proxy::{CodeClass, Ended, HandshakeResult};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use super::{
    raw::{self, Raw},
    support::{Client, backend_by_hand, switch, websocket},
};
use crate::{
    support::{
        SOON, backend, close_frame, echo, endpoint, read_close, read_frame, round_trip, soon,
    },
    tls::support::rig,
};

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn a_stream_that_the_client_resets_is_a_client_that_was_lost() {
    let (told, mut codes) = mpsc::unbounded_channel();
    let at = backend(move |mut ws| {
        let told = told.clone();
        async move { drop(told.send(read_close(&mut ws).await)) }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let mut one = client.raw_session().await;
    let other = client.session().await;
    one.output.send_reset(Reason::CANCEL);
    let close = soon(codes.recv()).await.unwrap();
    assert_eq!(close, Some((1001, "client connection lost".to_owned())));
    let over = |now: &proxy::Snapshot| now.counters.ended_by(Ended::Client) == 1;
    let now = rig.until("over", over).await;
    assert_eq!(now.counters.live_sessions, 1);
    // The end of the connection is that of all that it carries.
    client.connection.abort();
    drop(other);
    rig.until("all over", |now| now.counters.live_sessions == 0)
        .await;
    assert!(soon(codes.recv()).await.unwrap().is_some());
}

/// A library that sees too many resets of its own ends the connection, and all sessions with it.
#[tokio::test]
async fn a_stream_that_its_backend_ended_is_not_reset_before_its_client_ends_it() {
    let (rig, authority) = rig(&[echo().await]);
    let client = Client::connect(&rig, &authority).await;
    let mut one = client.raw_session().await;
    one.write_all(b"\x88\x82\0\0\0\0\x03\xe8").await.unwrap();
    let mut close = Vec::new();
    soon(one.read_to_end(&mut close)).await.unwrap();
    assert_eq!(close, b"\x88\x02\x03\xe8");
    // A reset would have come before anything of another stream.
    let mut other = client.session().await;
    round_trip(&mut other, "still here").await;
    let reset = poll_fn(|cx| Poll::Ready(one.output.poll_reset(cx))).await;
    assert!(reset.is_pending(), "{reset:?}");
    one.shutdown().await.unwrap();
    rig.until("one over", |now| now.counters.live_sessions == 1)
        .await;
    round_trip(&mut other, "and now").await;
}

#[tokio::test]
async fn a_frame_that_was_cut_resets_its_stream_alone() {
    let (cut, wait) = tokio::sync::watch::channel(false);
    let at = backend_by_hand(move |head, mut stream| {
        let mut wait = wait.clone();
        async move {
            switch(&head, &mut stream).await;
            let mut frame = [0; 7];
            stream.read_exact(&mut frame).await.unwrap();
            if frame[6] == b'c' {
                stream.write_all(b"\x82\x06abc").await.unwrap();
                drop(wait.wait_for(|cut| *cut).await);
                return;
            }
            stream.write_all(b"\x81\x02ok").await.unwrap();
            let _ended = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let mut one = client.raw_session().await;
    let mut other = client.raw_session().await;
    one.write_all(b"\x81\x81\0\0\0\0c").await.unwrap();
    let mut begun = [0; 5];
    soon(one.read_exact(&mut begun)).await.unwrap();
    assert_eq!(&begun, b"\x82\x06abc");
    cut.send(true).unwrap();
    assert_eq!(one.reset().await, Some(Reason::CANCEL));
    other.write_all(b"\x81\x81\0\0\0\0o").await.unwrap();
    assert_eq!(read_frame(&mut other).await, (0x81, b"ok".to_vec()));
    assert_eq!(rig.proxy.snapshot().counters.resets, 1);
}

#[tokio::test]
async fn half_a_stream_is_passed_on_as_half_a_connection() {
    let (told, mut what) = mpsc::unbounded_channel();
    let at = backend_by_hand(move |head, mut stream| {
        let told = told.clone();
        async move {
            switch(&head, &mut stream).await;
            let mut got = Vec::new();
            stream.read_to_end(&mut got).await.unwrap();
            drop(stream.write_all(b"\x81\x02ok").await);
            told.send(got).unwrap();
        }
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let mut stream = client.raw_session().await;
    stream.shutdown().await.unwrap();
    assert_eq!(soon(what.recv()).await.unwrap(), b"");
    assert_eq!(read_frame(&mut stream).await, (0x81, b"ok".to_vec()));
}

#[tokio::test]
async fn the_backend_s_close_comes_with_its_code_and_the_stream_ends() {
    let at = backend(|mut ws| async move {
        let close = Message::Close(Some(close_frame(4002, "enough")));
        ws.send(close).await.unwrap();
        while let Some(Ok(_)) = ws.next().await {}
    })
    .await;
    let (rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let mut ws = client.session().await;
    let close = read_close(&mut ws).await;
    assert_eq!(close, Some((4002, "enough".to_owned())));
    assert!(soon(ws.next()).await.is_none());
    let over = |now: &proxy::Snapshot| now.counters.live_sessions == 0;
    let counters = rig.until("over", over).await.counters;
    assert_eq!(counters.ended(Ended::Backend, CodeClass::Application), 1);
}

#[tokio::test]
async fn of_sessions_that_begin_while_their_address_is_left_none_is_forgotten() {
    let (rig, authority) = rig(&[echo().await]);
    let mut clients = Vec::new();
    for _ in 0..40 {
        let mut client = Raw::connect(rig.address, &authority, &[]).await;
        client.until(|frame| frame.kind == raw::SETTINGS).await;
        clients.push(client);
    }
    for client in &mut clients {
        let asking = raw::asking(1, &raw::WEBSOCKET);
        client.send(&asking).await.unwrap();
    }
    rig.proxy.leave(&[HOME], SOON).unwrap();
    // Each has come to a session or to nothing.
    let settled = |now: &proxy::Snapshot| {
        let own = HandshakeResult::ALL
            .iter()
            .filter(|it| **it != HandshakeResult::Http2);
        let all: u64 = own.map(|it| now.counters.handshakes(*it)).sum();
        now.counters.streams == all
    };
    for client in &mut clients {
        // In order behind what was sent: a stream that was not refused was taken by then. One whose
        // connection is over already has none.
        let ping = raw::frame(raw::PING, 0, 0, &[7; 8]);
        drop(client.send(&ping).await);
        let answered = |frame: &raw::Frame| frame.kind == raw::PING && frame.flags == raw::ACK;
        while client.next().await.is_some_and(|frame| !answered(&frame)) {}
    }
    rig.until("all to be settled", settled).await;
    drop(clients);
    let over = |now: &proxy::Snapshot| now.counters.live_sessions == 0;
    let counters = rig.until("over", over).await.counters;
    let upgraded = counters.handshakes(HandshakeResult::Upgraded);
    assert_eq!(counters.ended_by(Ended::Left), upgraded, "one was not told");
}

#[tokio::test]
async fn a_server_that_goes_takes_its_sessions_and_not_the_connection() {
    let at = echo().await;
    let (mut rig, authority) = rig(&[at]);
    let client = Client::connect(&rig, &authority).await;
    let mut ws = client.session().await;
    round_trip(&mut ws, "before").await;
    rig.edit(|pool| pool.upstreams[0].endpoints.clear());
    let close = read_close(&mut ws).await;
    assert_eq!(close, Some((1001, "backend is going away".to_owned())));
    let (response, _) = client.ask(websocket(&[])).await;
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
    assert!(response.headers().contains_key("retry-after"));
    rig.edit(|pool| pool.upstreams[0].endpoints = vec![endpoint(at)]);
    round_trip(&mut client.session().await, "after").await;
    assert_eq!(rig.proxy.snapshot().counters.accepted, 1);
}

#[tokio::test]
async fn a_planned_stop_tells_each_session_and_waits_for_the_client() {
    // On a busy machine the client may not answer within the 5 ms that are waited without progress, so
    // one of several attempts must do.
    let mut reports = Vec::new();
    for _ in 0..20 {
        let (rig, authority) = rig(&[echo().await]);
        let client = Client::connect(&rig, &authority).await;
        let mut sessions = Vec::new();
        for _ in 0..5 {
            sessions.push(client.session().await);
        }
        // Beside it the client reads, as all do that are alive.
        let leaving = tokio::task::spawn_blocking(move || {
            let report = rig.proxy.leave(&[HOME], SOON);
            (rig, report.unwrap())
        });
        for ws in &mut sessions {
            let close = read_close(ws).await;
            assert_eq!(close, Some((1001, "gateway is going away".to_owned())));
            assert!(soon(ws.next()).await.is_none());
        }
        let (rig, report) = soon(leaving).await.unwrap();
        assert_eq!(report.sessions, 5);
        // RFC 9113 section 6.8: there are no more streams, and the connection ends with the last one.
        soon(client.try_ask(websocket(&[]))).await.unwrap_err();
        client.over().await;
        let over = |now: &proxy::Snapshot| now.counters.live_sessions == 0;
        let counters = rig.until("over", over).await.counters;
        assert_eq!(counters.ended_by(Ended::Left), 5);
        assert_eq!(counters.resets, 0);
        if report.acknowledged == 5 && report.elapsed < SOON / 10 {
            return;
        }
        reports.push(report);
    }
    panic!("{reports:?}");
}

#[tokio::test]
async fn a_request_that_is_taken_back_frees_its_backend() {
    let (told, mut ended) = mpsc::unbounded_channel();
    let at = backend_by_hand(move |_, mut stream| {
        let told = told.clone();
        async move {
            told.send("asked").unwrap();
            let _end = stream.read(&mut [0; 16]).await;
            told.send("gone").unwrap();
        }
    })
    .await;
    let (mut rig, authority) = rig(&[at]);
    // Not its time-out ends it.
    rig.edit(|pool| pool.upstreams[0].handshake_timeout = 10 * SOON);
    let client = Client::connect(&rig, &authority).await;
    let mut requests = client.requests.clone().ready().await.unwrap();
    let (response, mut output) = requests.send_request(websocket(&[]), false).unwrap();
    assert_eq!(soon(ended.recv()).await, Some("asked"));
    output.send_reset(Reason::CANCEL);
    assert_eq!(soon(ended.recv()).await, Some("gone"));
    drop(response);
    rig.until("counted", |now| {
        now.counters.handshakes(HandshakeResult::ClientGone) == 1
    })
    .await;
}
