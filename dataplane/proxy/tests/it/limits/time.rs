//! Sessions that last too long, and sides that take nothing.

use std::time::{Duration, Instant};

use futures_util::future::join_all;
use proxy::{Ended, Limit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::hits;
use crate::support::{Rig, echo, raw_backend, raw_client, read_close, round_trip, soon};

#[tokio::test]
async fn old_sessions_are_told_each_at_a_moment_of_its_own() {
    const AGE: Duration = Duration::from_secs(2);
    let rig = Rig::with(&[echo().await], |pool| pool.limits.session_age = Some(AGE));
    let begun = Instant::now();
    let sessions = join_all((0..20).map(|_| rig.connect())).await;
    let ends = sessions.into_iter().map(|mut session| async move {
        let close = read_close(&mut session).await;
        assert_eq!(close, Some((1001, "session too old".to_owned())));
        begun.elapsed()
    });
    let mut ends = join_all(ends).await;
    ends.sort_unstable();
    assert!(ends[0] >= AGE * 9 / 10, "{ends:?}");
    // That two of twenty moments lie so near to each other in 200 ms is likely; that all do is not.
    let spread = ends[19].saturating_sub(ends[0]);
    assert!(spread > Duration::from_millis(20), "{ends:?}");
    let snapshot = rig
        .until("their ends", |s| s.counters.ended_by(Ended::Limit) == 20)
        .await;
    assert_eq!(hits(&snapshot, Limit::SessionAge), 20);
}

#[tokio::test]
async fn an_edit_of_the_age_ends_those_beyond_it_and_none_within() {
    let mut rig = Rig::with(&[echo().await], |pool| {
        pool.limits.session_age = Some(Duration::from_hours(1));
    });
    let mut old = rig.connect().await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    let mut young = rig.connect().await;
    round_trip(&mut young, "begun").await;
    rig.edit(|pool| pool.limits.session_age = Some(Duration::from_secs(1)));
    let reason = "session too old".to_owned();
    assert_eq!(read_close(&mut old).await, Some((1001, reason)));
    rig.edit(|pool| pool.limits.session_age = None);
    round_trip(&mut young, "within").await;
    tokio::time::sleep(Duration::from_millis(1200)).await;
    round_trip(&mut young, "without limit").await;
}

/// A frame of 64 KiB, unmasked.
fn big_frame() -> Vec<u8> {
    let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
    frame.resize(10 + 65_536, 7);
    frame
}

#[tokio::test]
async fn a_client_that_takes_nothing_is_given_up_and_its_backend_told() {
    let (told, mut tell) = tokio::sync::mpsc::unbounded_channel();
    let backend = raw_backend(move |stream| {
        let told = told.clone();
        async move {
            let (mut read, mut write) = stream.into_split();
            let writer =
                tokio::spawn(async move { while write.write_all(&big_frame()).await.is_ok() {} });
            let mut close = [0; 2 + 4 + 2];
            read.read_exact(&mut close).await.unwrap();
            told.send(close).unwrap();
            writer.abort();
        }
    })
    .await;
    let mut rig = Rig::new(&[backend, echo().await]);
    let slow = raw_client(rig.address).await;
    let mut other = rig.connect().await;
    // Once nothing more is passed on the limit is set: it is for sessions that are there, too.
    rig.until_still(|now| now.counters.from_backends.bytes)
        .await;
    round_trip(&mut other, "others are not held up").await;
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 2);
    rig.edit(|pool| pool.limits.slow_reader = Some(Duration::from_millis(300)));
    let close = soon(tell.recv()).await.unwrap();
    let code = [close[6] ^ close[2], close[7] ^ close[3]];
    assert_eq!((close[0], u16::from_be_bytes(code)), (0x88, 1001));
    let snapshot = rig
        .until("its end", |s| s.counters.ended_by(Ended::Limit) == 1)
        .await;
    assert_eq!(hits(&snapshot, Limit::SlowReader), 1);
    round_trip(&mut other, "one that reads is not meant").await;
    drop(slow);
}

#[tokio::test]
async fn a_backend_that_takes_nothing_is_given_up_and_its_client_asked_to_come_again() {
    let backend = raw_backend(|stream| async move {
        let _never_read = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        pool.limits.slow_reader = Some(Duration::from_millis(300));
    });
    let (mut read, mut write) = raw_client(rig.address).await.into_split();
    let writer = tokio::spawn(async move {
        let mut frame = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        frame.resize(14 + 65_536, 7);
        while write.write_all(&frame).await.is_ok() {}
    });
    let mut head = [0; 4];
    soon(read.read_exact(&mut head)).await.unwrap();
    assert_eq!(
        (head[0], u16::from_be_bytes([head[2], head[3]])),
        (0x88, 1013)
    );
    let snapshot = rig.proxy.snapshot();
    assert_eq!(hits(&snapshot, Limit::SlowReader), 1);
    writer.abort();
}

#[tokio::test]
async fn a_client_that_takes_a_little_now_and_then_is_not_given_up() {
    let backend =
        raw_backend(
            |mut stream| async move { while stream.write_all(&big_frame()).await.is_ok() {} },
        )
        .await;
    let rig = Rig::with(&[backend], |pool| {
        pool.limits.slow_reader = Some(Duration::from_millis(800));
    });
    let mut slow = raw_client(rig.address).await;
    assert_eq!(read_frame_head(&mut slow).await, 0x82);
    let mut some = vec![0; 256 * 1024];
    for _ in 0..15 {
        tokio::time::sleep(Duration::from_millis(200)).await;
        soon(slow.read_exact(&mut some)).await.unwrap();
    }
    assert_eq!(hits(&rig.proxy.snapshot(), Limit::SlowReader), 0);
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
}

/// What a client that has been behind for long sees next: frames of 64 KiB, and behind them a Close.
async fn read_to_close(stream: &mut TcpStream, mut head: [u8; 10]) -> (u16, String) {
    loop {
        if head[0] == 0x88 {
            let mut rest = vec![0; usize::from(head[1]) - 8];
            soon(stream.read_exact(&mut rest)).await.unwrap();
            let reason = [&head[4..], &rest].concat();
            let code = u16::from_be_bytes([head[2], head[3]]);
            return (code, String::from_utf8(reason).unwrap());
        }
        assert_eq!(head, big_frame()[..10]);
        soon(stream.read_exact(&mut vec![0; 65_536])).await.unwrap();
        soon(stream.read_exact(&mut head)).await.unwrap();
    }
}

#[tokio::test]
async fn a_client_that_stays_far_behind_is_told_so_though_it_reads() {
    const PATIENCE: Duration = Duration::from_millis(800);
    let backend =
        raw_backend(
            |mut stream| async move { while stream.write_all(&big_frame()).await.is_ok() {} },
        )
        .await;
    let rig = Rig::with(&[backend, echo().await], |pool| {
        pool.limits.slow_reader = Some(PATIENCE);
        pool.limits.buffered_bytes = Some(65_536);
    });
    let begun = Instant::now();
    let mut slow = raw_client(rig.address).await;
    let mut other = rig.connect().await;
    let mut head = [0; 10];
    soon(slow.read_exact(&mut head)).await.unwrap();
    while hits(&rig.proxy.snapshot(), Limit::BufferedBytes) == 0 {
        assert_eq!(head, big_frame()[..10]);
        soon(slow.read_exact(&mut vec![0; 65_536])).await.unwrap();
        soon(slow.read_exact(&mut head)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(50)).await;
        round_trip(&mut other, "one that reads is not meant").await;
    }
    assert!(begun.elapsed() >= PATIENCE, "{:?}", begun.elapsed());
    let reason = "client reads too slowly".to_owned();
    assert_eq!(read_to_close(&mut slow, head).await, (1013, reason));
    drop(slow);
    let snapshot = rig
        .until("its end", |s| s.counters.ended_by(Ended::Limit) == 1)
        .await;
    assert_eq!(hits(&snapshot, Limit::BufferedBytes), 1);
    assert_eq!(hits(&snapshot, Limit::SlowReader), 0);
    round_trip(&mut other, "not disturbed").await;
}

#[tokio::test]
async fn a_client_whose_backend_stays_far_behind_is_asked_to_come_again() {
    let backend = raw_backend(|mut stream| async move {
        let mut some = vec![0; 65_536];
        while stream.read_exact(&mut some).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        pool.limits.slow_reader = Some(Duration::from_millis(800));
        pool.limits.buffered_bytes = Some(65_536);
    });
    let (mut read, mut write) = raw_client(rig.address).await.into_split();
    let writer = tokio::spawn(async move {
        let mut frame = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        frame.resize(14 + 65_536, 7);
        while write.write_all(&frame).await.is_ok() {}
    });
    let mut close = [0; 4];
    soon(read.read_exact(&mut close)).await.unwrap();
    let code = u16::from_be_bytes([close[2], close[3]]);
    assert_eq!((close[0], code), (0x88, 1013));
    let snapshot = rig.proxy.snapshot();
    assert_eq!(hits(&snapshot, Limit::BufferedBytes), 1);
    assert_eq!(hits(&snapshot, Limit::SlowReader), 0);
    writer.abort();
}

#[tokio::test]
async fn a_client_that_is_slow_for_a_moment_or_within_the_limit_is_not_meant() {
    const BURST: usize = 128;
    // Each message is answered by more than may wait.
    let backend = raw_backend(|mut stream| async move {
        while stream.read_exact(&mut [0; 7]).await.is_ok() {
            for _ in 0..BURST {
                if stream.write_all(&big_frame()).await.is_err() {
                    return;
                }
            }
        }
    })
    .await;
    let mut rig = Rig::with(&[backend], |pool| {
        pool.limits.slow_reader = Some(Duration::from_millis(800));
        pool.limits.buffered_bytes = Some(65_536);
    });
    let mut slow = raw_client(rig.address).await;
    let mut burst = vec![0; BURST * big_frame().len()];
    // Its pace is what is tried: behind for less than the limit each time, and for longer in all.
    for _ in 0..4 {
        slow.write_all(b"\x82\x81abcdx").await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
        soon(slow.read_exact(&mut burst)).await.unwrap();
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
    // All the time, and by no more than is allowed now.
    rig.edit(|pool| pool.limits.buffered_bytes = Some(1 << 30));
    slow.write_all(b"\x82\x81abcdx").await.unwrap();
    for part in burst.chunks_mut(BURST * big_frame().len() / 16 + 1) {
        tokio::time::sleep(Duration::from_millis(100)).await;
        soon(slow.read_exact(part)).await.unwrap();
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(hits(&snapshot, Limit::BufferedBytes), 0);
    assert_eq!(snapshot.counters.live_sessions, 1);
}

async fn read_frame_head(stream: &mut TcpStream) -> u8 {
    let mut head = [0; 10];
    soon(stream.read_exact(&mut head)).await.unwrap();
    head[0]
}
