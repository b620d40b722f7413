//! Memory of sessions goes with them.

use std::{
    fs,
    net::SocketAddr,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use tokio::time::{sleep, timeout};

use crate::{
    standalone::start,
    support::{Process, SOON, connect, round_trip},
};

/// At once; more than a worker thinks too few to give their memory back.
const SESSIONS: usize = 2000;

/// What is its own, bytes: of the program itself it has more when others that run it end.
fn memory(process: &Process) -> u64 {
    let path = format!("/proc/{}/smaps_rollup", process.pid());
    let text = fs::read_to_string(path).unwrap();
    let line = text.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    kilobytes.unwrap().parse::<u64>().unwrap() * 1024
}

async fn wave(process: &Process, address: SocketAddr, sessions: usize) -> u64 {
    let mut clients = Vec::new();
    for _ in 0..sessions {
        let mut ws = connect(address).await;
        round_trip(&mut ws, "hello").await;
        clients.push(ws);
    }
    let peak = memory(process);
    for ws in &mut clients {
        ws.close(None).await.unwrap();
    }
    for ws in &mut clients {
        while let Some(Ok(_)) = timeout(SOON, ws.next()).await.unwrap() {}
    }
    peak
}

#[tokio::test]
async fn it_is_given_back_after_a_burst() {
    let (process, address) = start();
    // A first few pay for what is there once.
    wave(&process, address, 100).await;
    let before = memory(&process);
    let peak = wave(&process, address, SESSIONS).await;
    let grown = peak.saturating_sub(before);
    assert!(
        grown > 2 << 20,
        "{SESSIONS} sessions took {grown} bytes only"
    );
    let begun = Instant::now();
    loop {
        let left = memory(&process).saturating_sub(before);
        if left < grown / 4 {
            println!("of {grown} bytes {left} were left");
            return;
        }
        assert!(begun.elapsed() < SOON, "of {grown} bytes {left} are left");
        sleep(Duration::from_millis(50)).await;
    }
}
