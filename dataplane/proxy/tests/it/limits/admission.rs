//! Sessions and handshakes.

use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use proxy::{AttemptResult, HandshakeResult, Limit};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpSocket, TcpStream},
    sync::{mpsc, oneshot},
};

use super::hits;
use crate::{
    http::retry_after,
    support::{REQUEST, Rig, echo, listen, raw_backend, raw_client, read_head, round_trip, soon},
};

/// Sends `request` from an address; the connection, and the head of the answer.
async fn ask(rig: &Rig, from: IpAddr, request: &[u8]) -> (TcpStream, String) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut stream = socket.connect(rig.address).await.unwrap();
    stream.write_all(request).await.unwrap();
    let head = soon(read_head(&mut stream)).await.expect("no answer");
    (stream, head)
}

async fn ask_here(rig: &Rig) -> (TcpStream, String) {
    ask(rig, Ipv4Addr::LOCALHOST.into(), REQUEST).await
}

fn is_full(head: &str) -> bool {
    let full = head.starts_with("HTTP/1.1 503 Service Unavailable\r\n");
    assert!(full || head.starts_with("HTTP/1.1 101 "), "{head}");
    assert!(!full || (1..=10).contains(&retry_after(head)), "{head}");
    full
}

#[tokio::test]
async fn a_full_pool_answers_503_until_a_session_ends_and_an_edit_ends_none() {
    let mut rig = Rig::new(&[echo().await]);
    let mut first = rig.connect().await;
    let (second, _) = ask_here(&rig).await;
    rig.edit(|pool| pool.limits.sessions = Some(1));
    assert!(is_full(&ask_here(&rig).await.1), "two count already");
    round_trip(&mut first, "there are more than may come, and they stay").await;
    rig.edit(|pool| pool.limits.sessions = Some(2));
    assert!(is_full(&ask_here(&rig).await.1));
    drop(second);
    rig.until("its end", |s| s.counters.live_sessions == 1)
        .await;
    let (third, head) = ask_here(&rig).await;
    assert!(!is_full(&head));
    assert!(is_full(&ask_here(&rig).await.1));
    rig.edit(|pool| pool.limits.sessions = None);
    assert!(!is_full(&ask_here(&rig).await.1));
    let counted = |s: &proxy::Snapshot| s.counters.handshakes(HandshakeResult::Limited);
    let snapshot = rig.until("counted", |s| counted(s) == 3).await;
    assert_eq!(hits(&snapshot, Limit::Sessions), 3);
    round_trip(&mut first, "still there").await;
    drop(third);
}

#[tokio::test]
async fn a_handshake_that_fails_gives_its_place_back() {
    let rig = Rig::with(&[crate::support::nowhere()], |pool| {
        pool.limits.sessions = Some(1);
    });
    for _ in 0..3 {
        let (_, head) = ask_here(&rig).await;
        assert!(head.starts_with("HTTP/1.1 502 "), "{head}");
    }
}

#[tokio::test]
async fn a_source_with_all_its_sessions_is_answered_429_and_others_are_served() {
    let rig = Rig::with(&[echo().await], |pool| {
        pool.limits.sessions_per_source = Some(2);
    });
    let mut kept = Vec::new();
    for host in 1..=3 {
        let from = Ipv4Addr::new(127, 0, 0, host).into();
        for n in 1..=3 {
            let (stream, head) = ask(&rig, from, REQUEST).await;
            if n <= 2 {
                assert!(head.starts_with("HTTP/1.1 101 "), "{head}");
                kept.push(stream);
            } else {
                let told = head.starts_with("HTTP/1.1 429 Too Many Requests\r\n");
                assert!(told && (1..=10).contains(&retry_after(&head)), "{head}");
            }
        }
    }
    let snapshot = rig.proxy.snapshot();
    assert_eq!(hits(&snapshot, Limit::SessionsPerSource), 3);
}

#[tokio::test]
async fn pages_of_one_origin_do_not_take_the_place_of_others() {
    let rig = Rig::with(&[echo().await], |pool| {
        pool.limits.sessions_per_origin = Some(1);
    });
    let from = |origin: &str| {
        let request = str::from_utf8(REQUEST).unwrap();
        request
            .replacen("Host:", &format!("{origin}Host:"), 1)
            .into_bytes()
    };
    let localhost = Ipv4Addr::LOCALHOST.into();
    let mut kept = Vec::new();
    for (origin, full) in [
        ("Origin: https://a.example\r\n", false),
        ("Origin: https://A.example\r\n", true),
        ("Origin: https://b.example\r\n", false),
        ("", false),
        ("", false),
    ] {
        let (stream, head) = ask(&rig, localhost, &from(origin)).await;
        assert_eq!(is_full(&head), full, "{origin:?}");
        kept.push(stream);
    }
    assert_eq!(hits(&rig.proxy.snapshot(), Limit::SessionsPerOrigin), 1);
}

/// How a client of the storm fared.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fared {
    Served,
    Refused,
}

#[tokio::test]
async fn in_a_storm_sessions_go_on_those_in_the_queue_are_served_and_the_others_told_at_once() {
    const CLIENTS: usize = 400;
    // Half of the time-out's 4 s at 50/s, and 5 at once.
    const QUEUE: usize = 105;
    let rig = Rig::with(&[echo().await], |pool| {
        pool.limits.handshakes_per_second = Some(50);
        pool.upstreams[0].handshake_timeout = Duration::from_secs(4);
    });
    let mut established = rig.connect().await;
    let (tell, mut told) = mpsc::unbounded_channel();
    for _ in 0..CLIENTS {
        let tell = tell.clone();
        let address = rig.address;
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(REQUEST).await.unwrap();
            let head = soon(read_head(&mut stream)).await.unwrap();
            let fared = if is_full(&head) {
                Fared::Refused
            } else {
                Fared::Served
            };
            tell.send(fared).unwrap();
            // Whoever is served stays.
            let _ended = stream.read_u8().await;
        });
    }
    drop(tell);
    let (over, mut is_over) = oneshot::channel::<()>();
    let echoing = tokio::spawn(async move {
        let mut echoes = 0;
        while is_over.try_recv().is_err() {
            round_trip(&mut established, "during the storm").await;
            echoes += 1;
        }
        echoes
    });
    let mut all = Vec::new();
    while all.len() < CLIENTS {
        all.push(soon(told.recv()).await.unwrap());
    }
    over.send(()).unwrap();
    let echoes = echoing.await.unwrap();
    let served = all.iter().filter(|one| **one == Fared::Served).count();
    assert!(served >= QUEUE - 5, "only {served} were served");
    let last = |which| all.iter().rposition(|one| *one == which).unwrap();
    let behind = all[last(Fared::Refused)..].iter();
    let behind = behind.filter(|one| **one == Fared::Served).count();
    assert!(
        behind > QUEUE / 2,
        "those with no place in the queue waited: {behind} were served behind them"
    );
    // While the queue was served, one after another, an echo had time between any two.
    assert!(
        echoes > behind,
        "{echoes} echoes while {behind} were served"
    );
    let snapshot = rig.proxy.snapshot();
    let refused = (CLIENTS - served) as u64;
    assert_eq!(hits(&snapshot, Limit::HandshakesPerSecond), refused);
}

#[tokio::test]
async fn a_client_that_goes_while_it_waits_costs_its_server_nothing() {
    let (told, mut tell) = mpsc::unbounded_channel();
    let backend = raw_backend(move |mut stream| {
        let told = told.clone();
        async move {
            let mut early = [0; 6];
            // Whoever is gone sends nothing.
            let _ended = stream.read_exact(&mut early).await;
            told.send(early).unwrap();
        }
    })
    .await;
    let rig = Rig::with(&[backend], |pool| {
        pool.limits.handshakes_per_second = Some(1);
        pool.upstreams[0].handshake_timeout = Duration::from_secs(8);
    });
    let mut first = raw_client(rig.address).await;
    let send = |bytes: Vec<u8>| async move {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(&bytes).await.unwrap();
        stream
    };
    let gone = send(REQUEST.to_vec()).await;
    rig.until("it to wait", |s| s.counters.accepted == 2).await;
    let frame = *b"\x81\x80abcd";
    let mut stays = send([REQUEST, &frame].concat()).await;
    rig.until("the other", |s| s.counters.accepted == 3).await;
    drop(gone);
    let left = |s: &proxy::Snapshot| s.counters.handshakes(HandshakeResult::ClientGone) == 1;
    let then = rig.until("its end", left).await;
    assert_eq!(then.counters.handshakes(HandshakeResult::Upgraded), 1);
    // What one that stays has sent already is read once it is its turn.
    assert!(soon(read_head(&mut stays)).await.is_some());
    assert_eq!(soon(tell.recv()).await.unwrap(), frame);
    first.write_all(&frame).await.unwrap();
    assert_eq!(soon(tell.recv()).await.unwrap(), frame);
    let counters = &rig.proxy.snapshot().endpoints[0].counters;
    assert_eq!(counters.handshakes(AttemptResult::Upgraded), 2);
}

#[tokio::test]
async fn places_of_those_that_leave_the_queue_are_given_to_those_behind() {
    // As many seconds as they would have had to wait, of which no step of a test may take so many.
    const LEAVING: u64 = 30;
    let rig = Rig::with(&[echo().await], |pool| {
        pool.limits.handshakes_per_second = Some(1);
        pool.upstreams[0].handshake_timeout = Duration::from_secs(4 * LEAVING);
    });
    let _first = raw_client(rig.address).await;
    let send = async || {
        let mut stream = TcpStream::connect(rig.address).await.unwrap();
        stream.write_all(REQUEST).await.unwrap();
        stream
    };
    let mut leaving = Vec::new();
    for _ in 0..LEAVING {
        leaving.push(send().await);
    }
    let came = |count| move |s: &proxy::Snapshot| s.counters.accepted == count;
    rig.until("those that will leave", came(1 + LEAVING)).await;
    let mut behind = send().await;
    rig.until("one behind them", came(2 + LEAVING)).await;
    drop(leaving);
    assert!(soon(read_head(&mut behind)).await.is_some());
    let are_over = |s: &proxy::Snapshot| {
        let [gone, upgraded] = [HandshakeResult::ClientGone, HandshakeResult::Upgraded]
            .map(|result| s.counters.handshakes(result));
        gone + upgraded == 2 + LEAVING
    };
    let snapshot = rig.until("that they left", are_over).await;
    assert_eq!(hits(&snapshot, Limit::HandshakesPerSecond), 0);
}

#[tokio::test]
async fn a_client_that_goes_before_its_server_answers_is_noticed() {
    let (listener, address) = listen().await;
    let rig = Rig::new(&[address]);
    let mut client = TcpStream::connect(rig.address).await.unwrap();
    client.write_all(REQUEST).await.unwrap();
    let asked = async {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            // The look whether it accepts says nothing.
            if read_head(&mut stream).await.is_some() {
                return stream;
            }
        }
    };
    let mut asked = soon(asked).await;
    drop(client);
    assert_eq!(
        soon(asked.read(&mut [0; 1])).await.unwrap_or(0),
        0,
        "let go"
    );
    rig.until("counted", |s| {
        s.counters.handshakes(HandshakeResult::ClientGone) == 1
    })
    .await;
}

#[tokio::test]
async fn an_edit_lets_handshakes_go_on_as_fast_as_they_come() {
    let mut rig = Rig::with(&[echo().await], |pool| {
        pool.limits.handshakes_per_second = Some(1);
        pool.upstreams[0].handshake_timeout = Duration::from_millis(500);
    });
    let _first = raw_client(rig.address).await;
    assert!(is_full(&ask_here(&rig).await.1));
    rig.edit(|pool| pool.limits.handshakes_per_second = None);
    for _ in 0..20 {
        raw_client(rig.address).await;
    }
}
