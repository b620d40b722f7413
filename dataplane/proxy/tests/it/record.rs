//! Access records: what they say, how many there are, and that nobody waits for them.

use std::{
    net::SocketAddr,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, SystemTime},
};

use futures_util::SinkExt;
use proxy::{Ended, HandshakeResult, Record, Volume};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    RECORDS, REQUEST, Rig, SOON, close_frame, echo, listen, nowhere, raw_backend, read_close,
    read_head, round_trip, soon,
};

fn recorded(backends: &[SocketAddr], percent: u8) -> Rig {
    Rig::with(backends, |pool| pool.access_log = Some(percent))
}

impl Rig {
    pub(crate) async fn record(&self) -> Record {
        // The workers are on threads of their own; the backend is on this one.
        let begun = std::time::Instant::now();
        loop {
            match self.records.recv_timeout(Duration::ZERO) {
                Ok(record) => return *record,
                Err(RecvTimeoutError::Disconnected) => panic!("the proxy ended"),
                Err(RecvTimeoutError::Timeout) => {}
            }
            assert!(begun.elapsed() < SOON, "no record");
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }

    async fn answers(&self, request: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        stream.write_all(request).await.unwrap();
        assert!(soon(read_head(&mut stream)).await.is_some());
        stream
    }
}

#[tokio::test]
async fn a_session_is_recorded_at_its_end() {
    let backend = echo().await;
    let rig = recorded(&[backend], 100);
    let begun = SystemTime::now();
    let mut ws = rig.connect().await;
    let own = ws.get_ref().local_addr().unwrap();
    round_trip(&mut ws, "hello").await;
    round_trip(&mut ws, "again").await;
    soon(ws.send(Message::Close(Some(close_frame(4001, "bye")))))
        .await
        .unwrap();
    assert_eq!(read_close(&mut ws).await.map(|(code, _)| code), Some(4001));
    drop(ws);
    let record = rig.record().await;
    assert_eq!(record.pool, "default/chat");
    assert_eq!(record.listener, "ws");
    assert_eq!(record.address, rig.address);
    assert_eq!((record.peer, record.client), (own, own));
    assert_eq!(record.host, Some(rig.address.to_string()));
    assert_eq!(record.path.as_deref(), Some("/"));
    assert_eq!(record.endpoint, Some(backend));
    assert_eq!(record.handshake, HandshakeResult::Upgraded);
    assert_eq!(record.status, Some(101));
    assert_eq!(record.ended, Some(Ended::Client));
    assert_eq!(record.close_code, Some(4001));
    // Two messages of five bytes and a Close, with their heads, masked and not.
    let volume = |bytes| Volume { bytes, messages: 2 };
    assert_eq!(record.from_client, volume(2 * 11 + 11));
    assert_eq!(record.from_endpoint, volume(2 * 7 + 7));
    assert!(record.at >= begun && record.at <= SystemTime::now());
    assert!(!record.duration.is_zero() && record.duration < SOON);
}

#[tokio::test]
async fn what_a_client_asked_for_is_recorded_without_its_query_and_not_at_any_length() {
    let backend = raw_backend(|mut stream| async move {
        let _rest = stream.read_u8().await;
    })
    .await;
    let mut rig = recorded(&[backend], 100);
    rig.edit(|pool| {
        pool.listeners[0].trusted_proxies = vec!["127.0.0.0/8".parse().unwrap()];
    });
    let path = format!("/{}", "x".repeat(2000));
    let request = str::from_utf8(REQUEST).unwrap();
    let request = request.replacen("/chat", &format!("{path}?token=secret"), 1);
    let fields = "Origin: https://a.example\r\nX-Forwarded-For: 192.0.2.7\r\nHost:";
    let client = rig
        .answers(request.replacen("Host:", fields, 1).as_bytes())
        .await;
    let own = client.local_addr().unwrap();
    drop(client);
    let record = rig.record().await;
    assert_eq!(record.path.as_deref(), Some(&path[..512]));
    assert_eq!(record.origin.as_deref(), Some("https://a.example"));
    assert_eq!(record.client.to_string(), "192.0.2.7:0");
    assert_eq!(record.peer, own);
}

#[tokio::test]
async fn handshakes_that_fail_are_recorded_with_their_status() {
    let rig = recorded(&[nowhere()], 100);
    drop(rig.answers(REQUEST).await);
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::BadGateway);
    assert_eq!(record.status, Some(502));
    assert_eq!(record.path.as_deref(), Some("/chat"));
    assert!(record.endpoint.is_some() && record.ended.is_none());
    drop(rig.answers(b"nonsense\r\n\r\n").await);
    let record = rig.record().await;
    assert_eq!((record.status, record.path), (Some(400), None));
    // One that goes before it has said what it wants.
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(b"GET /").await.unwrap();
    drop(stream);
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::ClientGone);
    assert_eq!(record.status, None);

    let (listener, address) = listen().await;
    let rig = recorded(&[address], 100);
    let backend = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            if read_head(&mut stream).await.is_some() {
                let answer = b"HTTP/1.1 401 Who\r\nContent-Length: 0\r\n\r\n";
                stream.write_all(answer).await.unwrap();
            }
        }
    });
    drop(rig.answers(REQUEST).await);
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::Answered);
    assert_eq!(record.status, Some(401));
    backend.abort();
    // Cut off by the end of its listener.
    let mut stream = TcpStream::connect(rig.address).await.unwrap();
    stream.write_all(&REQUEST[..20]).await.unwrap();
    rig.until("accepted", |now| now.counters.accepted == 2)
        .await;
    rig.proxy
        .leave(&[rig.address.ip()], Duration::from_millis(10))
        .unwrap();
    let record = rig.record().await;
    assert_eq!(record.handshake, HandshakeResult::ListenerGone);
}

#[tokio::test]
async fn nobody_waits_for_a_reader_of_records_and_what_is_lost_is_counted() {
    let rig = recorded(&[echo().await], 100);
    let lost = 5;
    let sessions = RECORDS as u64 + lost;
    for _ in 0..sessions {
        round_trip(&mut rig.connect().await, "hello").await;
    }
    rig.until("counted", |now| now.unrecorded == lost).await;
    assert_eq!(rig.records.try_iter().count(), RECORDS);
}

#[tokio::test]
async fn a_share_of_the_connections_is_recorded_and_none_by_default() {
    let mut rig = recorded(&[nowhere()], 50);
    for _ in 0..100 {
        drop(rig.answers(b"nonsense\r\n\r\n").await);
    }
    rig.until("refused", |now| {
        now.counters.handshakes(HandshakeResult::Refused) == 100
    })
    .await;
    // Further off than one in a billion runs would be.
    let share = rig.records.try_iter().count();
    let lost = rig.proxy.snapshot().unrecorded;
    assert!((20..=80).contains(&(share as u64 + lost)), "{share}");
    rig.edit(|pool| pool.access_log = None);
    drop(rig.answers(b"nonsense\r\n\r\n").await);
    rig.until("refused", |now| {
        now.counters.handshakes(HandshakeResult::Refused) == 101
    })
    .await;
    assert_eq!(rig.records.try_iter().count(), 0);
}
