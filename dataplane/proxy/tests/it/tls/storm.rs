//! Many clients that begin TLS together: what that costs is only spent on those that may come in, and never at
//! the cost of those that are in.

use std::{
    io::ErrorKind,
    net::SocketAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use proxy::{HandshakeResult, Limit, Snapshot};
use rustls::{ClientConnection, pki_types::ServerName};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::support::{HOST, VERSIONS, connect, rig, trusting_client, try_secure};
use crate::{
    http::retry_after,
    limits::hits,
    support::{REQUEST, SOON, read_head, round_trip, soon},
};

/// What a client says first. It may be said again and again: the other side has all its work each time.
fn hello() -> Vec<u8> {
    let name = ServerName::try_from(HOST).unwrap();
    let mut client = ClientConnection::new(Arc::new(trusting_client()), name).unwrap();
    let mut hello = Vec::new();
    client.write_tls(&mut hello).unwrap();
    hello
}

/// A client that has said it and no more.
async fn greeted(address: SocketAddr, hello: &[u8]) -> TcpStream {
    let mut stream = soon(TcpStream::connect(address)).await.unwrap();
    stream.write_all(hello).await.unwrap();
    stream
}

/// Whether TLS has begun with it.
async fn has_begun(stream: &mut TcpStream) -> bool {
    match soon(stream.read_u8()).await {
        Ok(kind) => kind == 22,
        Err(_) => false,
    }
}

fn handshakes(snapshot: &Snapshot, result: HandshakeResult) -> u64 {
    snapshot.counters.handshakes(result)
}

#[tokio::test]
async fn who_finds_a_full_pool_is_told_behind_tls_and_of_too_many_the_rest_is_reset_before_it() {
    let (mut rig, authority) = rig(&[crate::support::echo().await]);
    rig.edit(|pool| pool.limits.sessions = Some(1));
    let client = Arc::new(authority.client(&VERSIONS));
    let mut established = connect(rig.address, &client).await;

    let mut told = try_secure(rig.address, HOST, &client).await.unwrap();
    told.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut told)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert!((1..=10).contains(&retry_after(&head)), "{head}");
    assert_eq!(hits(&rig.proxy.snapshot(), Limit::Sessions), 1);

    let hello = hello();
    let address = rig.address;
    let begun = Instant::now();
    let mut all = JoinSet::new();
    let dropped = |snapshot: &Snapshot| handshakes(snapshot, HandshakeResult::Dropped);
    while dropped(&rig.proxy.snapshot()) < 10 {
        assert!(begun.elapsed() < SOON, "none is reset of {}", all.len());
        for _ in 0..50 {
            let hello = hello.clone();
            all.spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                // The answer may be there before this is said.
                drop(stream.write_all(&hello).await);
                match soon(stream.read_u8()).await {
                    Ok(kind) => kind == 22,
                    Err(error) => {
                        assert_eq!(error.kind(), ErrorKind::ConnectionReset);
                        false
                    }
                }
            });
        }
        tokio::task::yield_now().await;
        round_trip(&mut established, "during the flood").await;
    }
    let fared = all.join_all().await;
    let reset = fared.iter().filter(|has_begun| !**has_begun).count() as u64;
    let snapshot = rig.until("all counted", |s| dropped(s) == reset).await;
    assert_eq!(hits(&snapshot, Limit::Sessions), 1 + reset);

    established.close(None).await.unwrap();
    rig.until("its end", |s| s.counters.live_sessions == 0)
        .await;
    round_trip(&mut connect(rig.address, &client).await, "room again").await;
}

#[tokio::test]
async fn connections_of_a_source_that_have_yet_to_ask_count_as_its_sessions() {
    let (mut rig, authority) = rig(&[crate::support::echo().await]);
    rig.edit(|pool| pool.limits.sessions_per_source = Some(2));
    let client = Arc::new(authority.client(&VERSIONS));
    let mut first = connect(rig.address, &client).await;
    // One that dawdles behind its first words counts as the source's second.
    let mut dawdler = greeted(rig.address, &hello()).await;
    assert!(has_begun(&mut dawdler).await);
    let mut third = try_secure(rig.address, HOST, &client).await.unwrap();
    third.write_all(REQUEST).await.unwrap();
    let head = soon(read_head(&mut third)).await.unwrap();
    assert!(head.starts_with("HTTP/1.1 429 "), "{head}");
    round_trip(&mut first, "still there").await;
}

#[tokio::test]
async fn who_waits_for_its_turn_has_not_begun_tls_and_one_that_leaves_is_forgotten() {
    const QUEUE: u32 = 10;
    const PER_SECOND: u32 = 10;
    let (mut rig, _) = rig(&[crate::support::echo().await]);
    rig.edit(|pool| {
        pool.limits.handshakes_per_second = Some(PER_SECOND);
        pool.upstreams[0].handshake_timeout = Duration::from_secs(30);
    });
    let hello = hello();
    let begun = Instant::now();
    let mut waiting = JoinSet::new();
    for _ in 0..QUEUE {
        let mut stream = greeted(rig.address, &hello).await;
        waiting.spawn(async move {
            assert!(has_begun(&mut stream).await);
            stream
        });
    }
    let mut count = 0;
    let mut kept = Vec::new();
    while let Some(stream) = waiting.join_next().await {
        // The first has its turn at once, and each other a tenth of a second after the one before.
        let early = begun.elapsed() < Duration::from_secs(1) / PER_SECOND * count;
        assert!(!early, "{count} had begun after {:?}", begun.elapsed());
        count += 1;
        kept.push(stream.unwrap());
    }
    assert_eq!(count, QUEUE);

    rig.edit(|pool| pool.limits.handshakes_per_second = Some(1));
    let mut queued = Vec::new();
    for _ in 0..3 {
        queued.push(greeted(rig.address, &hello).await);
    }
    drop(queued);
    let gone = |s: &Snapshot| handshakes(s, HandshakeResult::ClientGone);
    // The first of them may have had its turn.
    rig.until("it is noticed", |s| gone(s) >= 2).await;
}

#[tokio::test]
async fn sessions_go_on_between_any_two_clients_that_begin() {
    const CLIENTS: usize = 400;
    let (mut rig, authority) = rig(&[crate::support::echo().await]);
    // However slow the machine is.
    rig.edit(|pool| pool.upstreams[0].handshake_timeout = Duration::from_mins(1));
    let client = Arc::new(authority.client(&VERSIONS));
    let mut established = connect(rig.address, &client).await;
    let mut clients = Vec::new();
    for _ in 0..CLIENTS {
        clients.push(soon(TcpStream::connect(rig.address)).await.unwrap());
    }
    let accepted = 1 + CLIENTS as u64;
    rig.until("all are there", |s| s.counters.accepted == accepted)
        .await;
    let hello = hello();
    for client in &mut clients {
        client.write_all(&hello).await.unwrap();
    }
    let mut waiting = JoinSet::new();
    for mut client in clients {
        waiting.spawn(async move { has_begun(&mut client).await.then_some(client) });
    }
    let storm = async {
        let all = waiting.join_all().await;
        assert!(all.iter().all(Option::is_some), "not all were served");
    };
    let mut times = Vec::new();
    let echo = async {
        loop {
            let begun = Instant::now();
            round_trip(&mut established, "between").await;
            times.push(begun.elapsed());
        }
    };
    let begun = Instant::now();
    tokio::select! {
        () = storm => {}
        () = echo => {}
    }
    let storm = begun.elapsed();
    times.sort_unstable();
    let median = times.get(times.len() / 2);
    let worst = times.last();
    println!(
        "{CLIENTS} handshakes of TLS at once, in {storm:?}: meanwhile {} echoes, of {median:?}, {worst:?} at most",
        times.len()
    );
    // Were sessions to wait for all that came before, it would be two or three.
    assert!(times.len() >= 10, "{} echoes in {storm:?}", times.len());
}
