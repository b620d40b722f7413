//! Handshakes that are tried on another endpoint, and how many.

use std::time::{Duration, Instant};

use proxy::{HandshakeResult, Retry, Snapshot};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use super::{Mode, Server, next};
use crate::support::{REQUEST, Rig, nowhere, soon};

/// The whole answer to a handshake that is not upgraded.
async fn answer(rig: &Rig) -> String {
    whole(rig.address).await
}

async fn whole(address: std::net::SocketAddr) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(REQUEST).await.unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    answer
}

#[tokio::test]
async fn an_answer_is_bettered_where_it_can_be_and_passed_on_where_not() {
    for status in [502, 503, 504] {
        let (a, b) = (
            Server::bad("a", Mode::Status(status)).await,
            Server::new("b").await,
        );
        let rig = Rig::new(&[a.address, b.address]);
        for _ in 0..2 {
            assert_eq!(next(&rig).await, "b");
        }
        assert_eq!(rig.proxy.snapshot().counters.retries, 1);
        b.be(Mode::Status(status));
        let answer = answer(&rig).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} So\r\n")),
            "{answer}"
        );
        assert!(answer.ends_with("\r\n\r\nfull"), "{answer}");
        let answered = |s: &Snapshot| s.counters.handshakes(HandshakeResult::Answered) == 1;
        let snapshot = rig.until("counted", answered).await;
        assert_eq!(snapshot.counters.retries, 2, "both were tried");
    }
}

#[tokio::test]
async fn other_answers_are_the_client_s() {
    for status in [200, 401, 404, 429, 500] {
        let (a, b) = (
            Server::bad("a", Mode::Status(status)).await,
            Server::new("b").await,
        );
        let rig = Rig::new(&[a.address, b.address]);
        let answer = answer(&rig).await;
        assert!(
            answer.starts_with(&format!("HTTP/1.1 {status} ")),
            "{answer}"
        );
        assert_eq!(b.handshakes(), 0);
    }
}

#[tokio::test]
async fn without_a_budget_only_what_took_no_connection_is_passed_over() {
    let (bad, good) = (
        Server::bad("bad", Mode::Status(503)).await,
        Server::new("good").await,
    );
    let rig = Rig::with(&[nowhere(), good.address, bad.address], |pool| {
        pool.upstreams[0].health.retry = Retry {
            budget_percent: 0,
            min_per_second: 0,
        };
    });
    rig.until("known", |s| !s.endpoints[0].usable).await;
    assert_eq!(next(&rig).await, "good");
    assert!(answer(&rig).await.starts_with("HTTP/1.1 503 So\r\n"));
    assert_eq!(rig.proxy.snapshot().upstreams[0].health.retries_refused, 1);
}

/// Clients that all come back at once to servers that are all down make no more of themselves.
#[tokio::test]
async fn a_storm_on_servers_that_are_down_is_not_multiplied() {
    const CLIENTS: usize = 500;
    let mut servers = Vec::new();
    for name in ["a", "b", "c", "d"] {
        servers.push(Server::bad(name, Mode::Status(503)).await);
    }
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    let rig = Rig::with(&addresses, |pool| {
        // As long as all of them are asked.
        pool.upstreams[0].health.ejection.max_percent = 0;
    });
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for client in 0..CLIENTS {
        clients.spawn(whole(rig.address));
        // Not more at once than there are descriptors.
        if client >= 64 {
            let answer = soon(clients.join_next()).await.unwrap().unwrap();
            assert!(answer.starts_with("HTTP/1.1 503 So\r\n"), "{answer}");
        }
    }
    while let Some(answer) = soon(clients.join_next()).await {
        assert!(answer.unwrap().starts_with("HTTP/1.1 503 So\r\n"));
    }
    // A fifth of the handshakes, and ten for each second that was begun.
    let seconds = usize::try_from((begun.elapsed() + Duration::from_secs(1)).as_secs()).unwrap();
    let most = CLIENTS + CLIENTS / 5 + 10 * (seconds + 1);
    let attempts: usize = servers.iter().map(Server::handshakes).sum();
    assert!(
        (CLIENTS + 10..=most).contains(&attempts),
        "{attempts} of {most}"
    );
    let seen = rig.proxy.snapshot();
    assert_eq!(seen.counters.retries, (attempts - CLIENTS) as u64);
    assert!(seen.upstreams[0].health.retries_refused > 0);
}
