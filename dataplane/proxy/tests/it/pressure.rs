//! Readers slower than writers.

use std::time::Duration;

use proxy::Heartbeat;

use crate::support::{Rig, echo, raw_backend, raw_client, round_trip, soon};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::mpsc,
};

const FRAMES: u64 = 512;
const TOTAL: u64 = FRAMES * (65_536 + 14);

/// A frame of 64 KiB as a backend sends it.
fn frame(n: u8) -> Vec<u8> {
    let mut frame = vec![0x82, 127, 0, 0, 0, 0, 0, 1, 0, 0];
    frame.resize(10 + 65_536, n);
    frame
}

#[tokio::test]
async fn a_client_that_does_not_read_holds_up_its_backend_and_nobody_else() {
    let (sent, mut progress) = mpsc::unbounded_channel();
    let backend = raw_backend(move |mut stream| {
        let sent = sent.clone();
        async move {
            for n in 0..=255 {
                for _ in 0..4 {
                    if stream.write_all(&frame(n)).await.is_err() {
                        return;
                    }
                    sent.send(()).unwrap();
                }
            }
            stream.write_all(b"\x88\x00").await.unwrap();
            let _ended = stream.read_u8().await;
        }
    })
    .await;
    let rig = Rig::new(&[backend, echo().await]);
    let mut slow = raw_client(rig.address).await;
    // The backend writes until all buffers on the way are full, which is long before the end.
    let mut written = 0;
    while tokio::time::timeout(Duration::from_millis(300), progress.recv())
        .await
        .is_ok()
    {
        written += 1;
    }
    assert!(written < 1024, "nothing held the backend up");
    // What the proxy took and could not pass on is bounded by one read.
    let mut other = rig.connect().await;
    round_trip(&mut other, "not held up").await;
    // Once it reads, all arrives, in order and unharmed.
    for n in 0..=255 {
        let expected = frame(n);
        for _ in 0..4 {
            let mut got = vec![0; expected.len()];
            soon(slow.read_exact(&mut got)).await.unwrap();
            assert!(got == expected, "frame {n}");
        }
    }
    let mut end = Vec::new();
    soon(slow.read_exact(&mut [0; 2])).await.unwrap();
    slow.write_all(b"\x88\x80abcd").await.unwrap();
    soon(slow.read_to_end(&mut end)).await.unwrap();
    assert!(end.is_empty());
}

#[tokio::test]
async fn a_backend_that_does_not_read_holds_up_its_client() {
    let (go, wait) = mpsc::channel::<()>(1);
    let wait = std::sync::Arc::new(tokio::sync::Mutex::new(wait));
    let backend = raw_backend(move |mut stream| {
        let wait = wait.clone();
        async move {
            wait.lock().await.recv().await;
            let mut buf = vec![0; 1 << 20];
            let mut sum = 0_u64;
            while let Ok(n @ 1..) = stream.read(&mut buf).await {
                sum += n as u64;
                if sum == TOTAL {
                    stream.write_all(b"\x81\x03all").await.unwrap();
                }
            }
        }
    })
    .await;
    let rig = Rig::new(&[backend]);
    let (mut read, mut write) = raw_client(rig.address).await.into_split();
    let sender = tokio::spawn(async move {
        let mut frame = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        frame.resize(14 + 65_536, 7);
        for _ in 0..FRAMES {
            write.write_all(&frame).await.unwrap();
        }
        write
    });
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert!(!sender.is_finished(), "nothing held the client up");
    go.send(()).await.unwrap();
    let _write = soon(sender).await.unwrap();
    let mut all = [0; 5];
    soon(read.read_exact(&mut all)).await.unwrap();
    assert_eq!(&all, b"\x81\x03all");
}

#[tokio::test]
async fn a_backend_that_sends_and_does_not_read_is_not_dead_nor_is_its_client() {
    const BEFORE: usize = 100;
    let backend = raw_backend(|mut stream| async move {
        while stream.write_all(b"\x81\x02hi").await.is_ok() {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        pool.heartbeat = Heartbeat {
            interval: Duration::from_millis(200),
            timeout: Duration::from_millis(200),
        };
    });
    let (mut read, mut write) = raw_client(rig.address).await.into_split();
    let writer = tokio::spawn(async move {
        let mut frame = vec![0x82, 0x80 | 127, 0, 0, 0, 0, 0, 1, 0, 0, 1, 2, 3, 4];
        frame.resize(14 + 65_536, 7);
        while write.write_all(&frame).await.is_ok() {}
    });
    // Until nothing more of the client's goes through, and then for the time of several pings.
    let mut passed = 0;
    let mut since = 0;
    while since < BEFORE {
        let mut message = [0; 4];
        let got = soon(read.read_exact(&mut message)).await;
        got.expect("one of both was taken for dead");
        // Pings for the client, which it does not answer, have a payload to be read, too.
        if message[0] == 0x89 {
            soon(read.read_exact(&mut [0; 6])).await.unwrap();
        }
        let now = rig.proxy.snapshot().counters.from_clients.bytes;
        since = if now == passed { since + 1 } else { 0 };
        passed = now;
    }
    assert_eq!(rig.proxy.snapshot().counters.live_sessions, 1);
    writer.abort();
}
