//! How sessions end when one side ends them.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::{SinkExt, StreamExt};
use proxy::{CodeClass, Ended, Patience};
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::{Notify, mpsc},
};
use tokio_tungstenite::tungstenite::Message;

use crate::support::{
    Rig, backend, close_frame, echo, raw_backend, raw_client, read_close, round_trip, soon,
};

/// A backend that tells with what its sessions were closed.
async fn telling() -> (std::net::SocketAddr, mpsc::Receiver<Option<(u16, String)>>) {
    let (sender, receiver) = mpsc::channel(16);
    let address = backend(move |mut ws| {
        let sender = sender.clone();
        async move {
            let mut told = None;
            while let Some(Ok(message)) = ws.next().await {
                match message {
                    Message::Close(close) => {
                        told = close.map(|c| (c.code.into(), c.reason.to_string()));
                    }
                    Message::Text(_) => ws.send(message).await.unwrap(),
                    _ => {}
                }
            }
            sender.send(told).await.unwrap();
        }
    })
    .await;
    (address, receiver)
}

#[tokio::test]
async fn codes_and_reasons_of_clients_reach_the_backend() {
    let (backend, mut told) = telling().await;
    let rig = Rig::new(&[backend]);
    for (code, reason) in [
        (1000, ""),
        (1001, "tab closed"),
        (1011, "oops"),
        (4123, "\u{fc}ber"),
    ] {
        let mut ws = rig.connect().await;
        round_trip(&mut ws, "hello").await;
        soon(ws.close(Some(close_frame(code, reason))))
            .await
            .unwrap();
        assert_eq!(
            soon(told.recv()).await.unwrap(),
            Some((code, reason.to_owned()))
        );
        // The backend's answer comes back, then the end.
        assert_eq!(read_close(&mut ws).await, Some((code, reason.to_owned())));
        assert!(soon(ws.next()).await.is_none_or(|message| message.is_err()));
    }
    let mut ws = rig.connect().await;
    soon(ws.close(None)).await.unwrap();
    assert_eq!(soon(told.recv()).await.unwrap(), None);
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    let counters = snapshot.counters;
    let ended = |class| counters.ended(Ended::Client, class);
    assert_eq!(ended(CodeClass::Normal), 1);
    assert_eq!(ended(CodeClass::GoingAway), 1);
    assert_eq!(ended(CodeClass::InternalError), 1);
    assert_eq!(ended(CodeClass::Application), 1);
    assert_eq!(ended(CodeClass::Empty), 1);
    assert_eq!(counters.resets, 0);
}

#[tokio::test]
async fn codes_and_reasons_of_backends_reach_the_client() {
    for (code, reason) in [(1000, "done"), (1008, "no"), (1012, ""), (4999, "last")] {
        let address = backend(move |mut ws| async move {
            ws.close(Some(close_frame(code, reason))).await.unwrap();
            while let Some(Ok(_)) = ws.next().await {}
        })
        .await;
        let rig = Rig::new(&[address]);
        let mut ws = rig.connect().await;
        assert_eq!(read_close(&mut ws).await, Some((code, reason.to_owned())));
        assert!(soon(ws.next()).await.is_none_or(|message| message.is_err()));
        let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
        assert_eq!(snapshot.counters.ended_by(Ended::Backend), 1);
    }
}

/// Everything until the end, and whether that was a reset.
async fn read_all(stream: &mut TcpStream) -> (Vec<u8>, bool) {
    let mut all = Vec::new();
    match soon(stream.read_to_end(&mut all)).await {
        Ok(_) => (all, false),
        Err(error) => {
            assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
            (all, true)
        }
    }
}

#[tokio::test]
async fn a_backend_lost_between_frames_is_told_with_a_close() {
    // Both by FIN and by RST, and with a header begun, which was not passed on.
    for (frames, reset) in [
        (&b"\x81\x02hi"[..], false),
        (b"\x81\x02hi", true),
        (b"\x81\x02hi\x82\x7e\x01", false),
    ] {
        let backend = raw_backend(move |mut stream| async move {
            stream.write_all(frames).await.unwrap();
            // Only when the client has it: a reset overtakes what is under way.
            let mut got = [0; 7];
            stream.read_exact(&mut got).await.unwrap();
            if reset {
                SockRef::from(&stream)
                    .set_linger(Some(Duration::ZERO))
                    .unwrap();
            }
        })
        .await;
        let rig = Rig::new(&[backend]);
        let mut client = raw_client(rig.address).await;
        let mut hi = [0; 4];
        soon(client.read_exact(&mut hi)).await.unwrap();
        client.write_all(b"\x81\x81abcd\x00").await.unwrap();
        let (rest, was_reset) = read_all(&mut client).await;
        assert_eq!(rest, b"\x88\x19\x03\xf4backend connection lost");
        assert!(!was_reset);
        drop(client);
        let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
        assert_eq!(
            snapshot
                .counters
                .ended(Ended::BackendLost, CodeClass::ServiceRestart),
            1
        );
        assert_eq!(snapshot.counters.resets, 0);
    }
}

#[tokio::test]
async fn a_backend_lost_within_a_frame_resets_the_client() {
    let backend = raw_backend(|mut stream| async move {
        stream.write_all(b"\x82\x05half").await.unwrap();
        let _asked = stream.read_u8().await;
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    let mut half = [0; 6];
    soon(client.read_exact(&mut half)).await.unwrap();
    client.write_all(b"\x81\x81abcd\x00").await.unwrap();
    let (rest, was_reset) = read_all(&mut client).await;
    assert_eq!(rest, b"");
    assert!(was_reset, "a FIN would say that all is well");
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(
        snapshot.counters.ended(Ended::BackendLost, CodeClass::None),
        1
    );
    assert_eq!(snapshot.counters.resets, 1);
}

#[tokio::test]
async fn a_client_lost_within_a_frame_resets_the_backend() {
    let (sender, mut told) = mpsc::channel(1);
    let backend = raw_backend(move |mut stream| {
        let sender = sender.clone();
        async move { sender.send(read_all(&mut stream).await).await.unwrap() }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    client.write_all(b"\x82\x85abcdha").await.unwrap();
    rig.until("passed on", |s| s.counters.from_clients.bytes == 8)
        .await;
    drop(client);
    let (_, was_reset) = soon(told.recv()).await.unwrap();
    assert!(was_reset);
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.resets, 1);
}

#[tokio::test]
async fn a_client_that_is_reset_is_told_to_the_backend_with_a_close() {
    let (backend, mut told) = telling().await;
    let rig = Rig::new(&[backend]);
    let client = raw_client(rig.address).await;
    SockRef::from(&client)
        .set_linger(Some(Duration::ZERO))
        .unwrap();
    drop(client);
    let told = soon(told.recv()).await.unwrap();
    assert_eq!(told, Some((1001, "client connection lost".to_owned())));
    rig.until("over", |s| s.counters.live_sessions == 0).await;
}

#[tokio::test]
async fn half_a_connection_goes_on() {
    let backend = raw_backend(|mut stream| async move {
        let mut all = Vec::new();
        stream.read_to_end(&mut all).await.unwrap();
        stream
            .write_all(b"\x82\x04last\x88\x02\x03\xe8")
            .await
            .unwrap();
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    client.write_all(b"\x81\x81abcd\x00").await.unwrap();
    client.shutdown().await.unwrap();
    let (rest, was_reset) = read_all(&mut client).await;
    assert_eq!(rest, b"\x82\x04last\x88\x02\x03\xe8");
    assert!(!was_reset);
    rig.until("over", |s| s.counters.live_sessions == 0).await;
}

#[tokio::test]
async fn many_clients_of_a_lost_backend_are_all_told_one_after_the_other() {
    let (stop, _) = tokio::sync::broadcast::channel::<()>(1);
    let stopper = stop.clone();
    let backend = raw_backend(move |stream| {
        let mut end = stopper.subscribe();
        async move {
            let _ended = end.recv().await;
            drop(stream);
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut clients = Vec::new();
    for _ in 0..200 {
        clients.push(raw_client(rig.address).await);
    }
    rig.until("all live", |_| stop.receiver_count() == 200)
        .await;
    stop.send(()).unwrap();
    let told = clients.into_iter().map(|mut client| {
        tokio::spawn(async move {
            let (rest, was_reset) = read_all(&mut client).await;
            assert_eq!(rest, b"\x88\x19\x03\xf4backend connection lost");
            assert!(!was_reset);
            Instant::now()
        })
    });
    let mut times = Vec::new();
    for told in told.collect::<Vec<_>>() {
        times.push(soon(told).await.unwrap());
    }
    times.sort_unstable();
    // One each millisecond, so that they do not come back as a herd.
    let spread = times[199] - times[0];
    assert!(spread > Duration::from_millis(100), "{spread:?}");
}

#[tokio::test]
async fn a_client_that_does_not_answer_a_close_is_not_waited_for_long() {
    let rig = Rig::impatient(&[echo().await], [100, 60_000], |_| {});
    let client = raw_client(rig.address).await;
    rig.proxy
        .leave(&[rig.address.ip()], Duration::from_millis(200))
        .unwrap();
    rig.until("over", |s| s.counters.live_sessions == 0).await;
    drop(client);
}

#[tokio::test]
async fn half_a_connection_is_not_kept_for_ever() {
    let backend = raw_backend(|mut stream| async move {
        let _ended = stream.read_to_end(&mut Vec::new()).await;
        // And then nothing.
        std::future::pending::<()>().await;
        drop(stream);
    })
    .await;
    let rig = Rig::impatient(&[backend], [60_000, 200], |_| {});
    let mut client = raw_client(rig.address).await;
    client.shutdown().await.unwrap();
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.ended_by(Ended::Client), 1);
}

#[test]
fn ends_are_bounded_by_what_people_wait() {
    let Patience { close, half, idle } = Patience::default();
    assert!(close <= Duration::from_secs(10) && half.max(idle) <= Duration::from_mins(1));
}

/// RFC 6455 section 7.1.1: it is the server that ends the connection, and to the client that is us.
#[tokio::test]
async fn when_both_have_closed_the_client_is_not_held_up_by_its_backend() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let backend = raw_backend(move |mut stream| {
        let wait = Arc::clone(&wait);
        async move {
            let mut close = [0; 8];
            stream.read_exact(&mut close).await.unwrap();
            assert_eq!(&close, b"\x88\x82\0\0\0\0\x03\xe8");
            stream.write_all(b"\x88\x02\x03\xe8").await.unwrap();
            wait.notified().await;
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    let close = b"\x88\x82\0\0\0\0\x03\xe8";
    client.write_all(close).await.unwrap();
    let (told, was_reset) = read_all(&mut client).await;
    assert_eq!((&told[..], was_reset), (&b"\x88\x02\x03\xe8"[..], false));
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
    go.notify_one();
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.ended(Ended::Client, CodeClass::Normal), 1);
}

#[tokio::test]
async fn a_close_of_the_peer_is_not_followed_by_ours() {
    let go = Arc::new(Notify::new());
    let wait = Arc::clone(&go);
    let backend = raw_backend(move |mut stream| {
        let wait = Arc::clone(&wait);
        async move {
            stream.write_all(b"\x88\x05\x03\xe8a").await.unwrap();
            wait.notified().await;
            stream.write_all(b"bc").await.unwrap();
            let _ended = stream.read_to_end(&mut Vec::new()).await;
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let mut client = raw_client(rig.address).await;
    let mut begun = [0; 5];
    soon(client.read_exact(&mut begun)).await.unwrap();
    let report = rig
        .proxy
        .leave(&[rig.address.ip()], Duration::from_millis(200));
    assert_eq!(report.unwrap().acknowledged, 0);
    go.notify_one();
    let (rest, was_reset) = read_all(&mut client).await;
    assert_eq!((&rest[..], was_reset), (&b"bc"[..], false));
}

/// A backend that sends a frame of `payload` bytes, `sent` of them slowly.
async fn slow_frame(payload: u8, sent: u8) -> std::net::SocketAddr {
    raw_backend(move |mut stream| async move {
        stream.write_all(&[0x82, payload]).await.unwrap();
        for n in 0..sent {
            if stream.write_all(&[n]).await.is_err() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let _ended = stream.read_to_end(&mut Vec::new()).await;
    })
    .await
}

#[tokio::test]
async fn a_frame_under_way_is_finished_while_there_is_time_to_drain() {
    let backend = slow_frame(100, 100).await;
    let mut rig = Rig::impatient(&[backend], [500, 60_000], |pool| {
        pool.drain.timeout = Duration::from_mins(1);
    });
    let mut client = raw_client(rig.address).await;
    let mut begun = [0; 2];
    soon(client.read_exact(&mut begun)).await.unwrap();
    rig.config.pools.clear();
    rig.apply();
    let mut rest = vec![0; 100];
    // It takes four times as long as a Close that is not answered.
    soon(client.read_exact(&mut rest)).await.unwrap();
    assert!(rest.iter().copied().eq(0..100));
    let mut close = [0; 4];
    soon(client.read_exact(&mut close)).await.unwrap();
    assert_eq!(&close, b"\x88\x16\x03\xe9");
    // It does not answer, and from here on has no longer than others.
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.resets, 0);
}

#[tokio::test]
async fn a_frame_that_stands_still_is_cut() {
    let backend = slow_frame(100, 5).await;
    let rig = Rig::impatient(&[backend], [200, 60_000], |pool| {
        pool.drain.timeout = Duration::from_mins(1);
    });
    let mut client = raw_client(rig.address).await;
    let mut begun = [0; 2];
    soon(client.read_exact(&mut begun)).await.unwrap();
    let limit = Duration::from_millis(200);
    rig.proxy.leave(&[rig.address.ip()], limit).unwrap();
    let (rest, was_reset) = read_all(&mut client).await;
    assert_eq!((&rest[..], was_reset), (&[0, 1, 2, 3, 4][..], true));
    let snapshot = rig.until("over", |s| s.counters.live_sessions == 0).await;
    assert_eq!(snapshot.counters.resets, 1);
}
