//! A planned stop of an address, and the loss of one without plan.

use std::{
    io::{Read, Write},
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use futures_util::StreamExt;
use proxy::{CodeClass, Ended, Event, Heartbeat, ListenerProblem};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Rig, SOON, backend, connect, echo, raw_backend, raw_client, read_close, round_trip, sockets,
    soon,
};

const LIMIT: Duration = Duration::from_millis(200);

const HOME: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

#[tokio::test]
async fn leaving_tells_everyone() {
    let (sender, mut told) = mpsc::channel(300);
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                if let Message::Close(Some(close)) = message {
                    sender.send(u16::from(close.code)).await.unwrap();
                }
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], |pool| pool.drain.close_code = 4001);
    let mut clients = Vec::new();
    for _ in 0..100 {
        clients.push(rig.connect().await);
    }
    assert!(rig.events.try_iter().count() > 0);
    let report = rig.proxy.leave(&[HOME], LIMIT).unwrap();
    assert_eq!(report.sessions, 100);
    assert!(report.elapsed < LIMIT, "{report:?}");
    assert!(
        TcpStream::connect(rig.address).await.is_err(),
        "listener still open"
    );
    let told_listener = rig.events.try_iter().any(|event| {
        event
            == Event::ListenerState {
                address: rig.address,
                accepting: false,
                problem: Some(ListenerProblem::Left),
            }
    });
    assert!(told_listener);
    for ws in &mut clients {
        assert_eq!(
            read_close(ws).await,
            Some((4001, "gateway is going away".to_owned()))
        );
        assert!(soon(ws.next()).await.is_none_or(|message| message.is_err()));
        assert_eq!(soon(told.recv()).await, Some(4001));
    }
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(
        snapshot.counters.ended(Ended::Left, CodeClass::Application),
        100
    );
    assert_eq!(snapshot.counters.resets, 0);
}

#[tokio::test]
async fn leaving_returns_as_soon_as_all_is_acknowledged() {
    // Clients that answer at once, as all do that are alive: otherwise their kernels may delay the
    // acknowledgement by 40 ms. On a busy machine a client may not get its turn within the 5 ms that
    // are waited without progress, so one of several attempts must do.
    let limit = SOON;
    let mut reports = Vec::new();
    for _ in 0..20 {
        let rig = Rig::new(&[echo().await]);
        let mut clients = Vec::new();
        for _ in 0..5 {
            let mut client = raw_client(rig.address).await.into_std().unwrap();
            client.set_nonblocking(false).unwrap();
            clients.push(std::thread::spawn(move || {
                let mut close = [0; 25];
                client.read_exact(&mut close).unwrap();
                assert_eq!(&close, b"\x88\x17\x03\xe9gateway is going away");
                client.write_all(b"\x88\x82\0\0\0\0\x03\xe9").unwrap();
                assert_eq!(client.read(&mut close).unwrap(), 0);
            }));
        }
        rig.until("all live", |s| s.counters.live_sessions == 5)
            .await;
        let report = rig.proxy.leave(&[HOME], limit).unwrap();
        for client in clients {
            client.join().unwrap();
        }
        assert_eq!(report.sessions, 5);
        if report.acknowledged == 5 && report.elapsed < limit / 10 {
            return;
        }
        reports.push(report);
    }
    panic!("{reports:?}");
}

#[tokio::test]
async fn an_address_without_sessions_is_left_at_once_and_can_be_reopened() {
    let rig = Rig::new(&[echo().await]);
    let report = rig.proxy.leave(&[HOME], LIMIT).unwrap();
    assert_eq!(report.sessions, 0);
    // The same configuration does not open it again by itself; sockets do.
    assert_eq!(rig.proxy.missing_sockets(&rig.config), [rig.address]);
    rig.proxy.apply(rig.config.clone(), Vec::new()).unwrap();
    assert!(TcpStream::connect(rig.address).await.is_err());
    assert_eq!(
        rig.proxy.snapshot().listeners[0].problem,
        Some(ListenerProblem::Left)
    );
    rig.proxy
        .apply(rig.config.clone(), vec![sockets(rig.address)])
        .unwrap();
    assert!(rig.proxy.missing_sockets(&rig.config).is_empty());
    round_trip(&mut rig.connect().await, "open again").await;
    assert!(rig.proxy.snapshot().listeners[0].accepting);
}

#[tokio::test]
async fn other_addresses_do_not_notice() {
    let rig = Rig::new(&[echo().await]);
    let other = sockets("127.0.0.2:0".parse().unwrap());
    let address = other.0;
    let mut config = rig.config.clone();
    let pool = config.pools.values_mut().next().unwrap();
    pool.listeners[0].addresses.push(address);
    rig.proxy.apply(config, vec![other]).unwrap();
    let mut left = rig.connect().await;
    let mut kept = connect(address).await;
    assert_eq!(rig.proxy.leave(&[HOME], LIMIT).unwrap().sessions, 1);
    assert!(read_close(&mut left).await.is_some());
    round_trip(&mut kept, "kept").await;
    round_trip(&mut connect(address).await, "accepts").await;
}

#[tokio::test]
async fn a_frame_under_way_is_finished_before_the_close() {
    let (go, wait) = mpsc::channel::<()>(1);
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(wait));
    let backend = raw_backend(move |mut stream| {
        let wait = wait.clone();
        async move {
            stream.write_all(b"\x82\x06abc").await.unwrap();
            wait.lock().await.recv().await;
            stream.write_all(b"def\x82\x01g").await.unwrap();
            let mut rest = Vec::new();
            let _ended = stream.read_to_end(&mut rest).await;
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    let mut begun = [0; 5];
    soon(client.read_exact(&mut begun)).await.unwrap();
    // It cannot be told yet, so the stop goes on without it.
    let report = rig.proxy.leave(&[HOME], LIMIT).unwrap();
    assert_eq!((report.sessions, report.acknowledged), (1, 0));
    assert!(report.elapsed < LIMIT, "{report:?}");
    go.send(()).await.unwrap();
    let mut rest = Vec::new();
    soon(client.read_to_end(&mut rest)).await.unwrap();
    assert_eq!(rest, b"def\x88\x17\x03\xe9gateway is going away");
}

#[tokio::test]
async fn a_handshake_under_way_ends_with_its_listener() {
    let rig = Rig::new(&[echo().await]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n").await.unwrap();
    rig.until("accepted", |s| s.counters.accepted == 1).await;
    rig.proxy.leave(&[HOME], LIMIT).unwrap();
    let mut rest = Vec::new();
    // Unread bytes may make a reset of the end.
    let _ended = soon(client.read_to_end(&mut rest)).await;
    assert_eq!(rest, b"");
}

fn heartbeat(timeout: u64) -> impl FnOnce(&mut proxy::Pool) {
    move |pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_hours(1),
            timeout: Duration::from_millis(timeout),
        };
    }
}

#[tokio::test]
async fn sessions_of_a_lost_address_are_kept_for_a_heartbeat_time_out() {
    let (sender, mut told) = mpsc::channel(4);
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            while let Some(Ok(message)) = ws.next().await {
                if let Message::Close(Some(close)) = message {
                    sender.send(u16::from(close.code)).await.unwrap();
                } else if message.is_text() {
                    futures_util::SinkExt::send(&mut ws, message).await.unwrap();
                }
            }
        }
    })
    .await;
    let rig = Rig::with(&[address], heartbeat(300));
    let mut ws = rig.connect().await;
    rig.proxy.address_held(HOME, false).unwrap();
    rig.proxy.address_held(HOME, true).unwrap();
    tokio::time::sleep(Duration::from_millis(500)).await;
    round_trip(&mut ws, "the address came back").await;
    rig.proxy.address_held(HOME, false).unwrap();
    // Others are served as ever.
    let mut new = rig.connect().await;
    round_trip(&mut new, "new").await;
    assert_eq!(soon(told.recv()).await, Some(1001));
    let snapshot = rig
        .until("over", |s| s.counters.ended_by(Ended::AddressLost) == 1)
        .await;
    assert_eq!(snapshot.counters.live_sessions, 1);
    round_trip(&mut new, "still new").await;
}
