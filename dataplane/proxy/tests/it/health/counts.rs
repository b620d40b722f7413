//! What is counted of one endpoint.

use std::time::Duration;

use futures_util::SinkExt;
use proxy::{AttemptResult, Ended, EndpointCounters, Snapshot, Volume};
use tokio_tungstenite::tungstenite::Message;

use super::{Mode, Server, greeting, next};
use crate::support::{Rig, nowhere, try_connect};

fn of(snapshot: &Snapshot, index: usize) -> &EndpointCounters {
    &snapshot.endpoints[index].counters
}

#[tokio::test]
async fn what_each_one_made_of_a_handshake_is_counted() {
    let modes = [Mode::Hang, Mode::Reset, Mode::Nonsense, Mode::Status(503)];
    let mut servers = Vec::new();
    for mode in modes {
        servers.push(Server::bad("bad", mode).await);
    }
    let mut addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    addresses.push(nowhere());
    let rig = Rig::with(&addresses, |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(2);
    });
    // One after the other is tried, and in the end the one that takes no connection.
    try_connect(rig.address).await.unwrap_err();
    let snapshot = rig.proxy.snapshot();
    let made = [
        AttemptResult::TimedOut,
        AttemptResult::Failed,
        AttemptResult::Failed,
        AttemptResult::Answered,
        AttemptResult::Unreached,
    ];
    for (index, made) in made.into_iter().enumerate() {
        let counters = of(&snapshot, index);
        for result in AttemptResult::ALL {
            let count = u64::from(*result == made);
            assert_eq!(counters.handshakes(*result), count, "{index} {result:?}");
        }
    }
}

#[tokio::test]
async fn what_goes_through_each_one_is_counted_and_who_ended_its_sessions() {
    let (one, other) = (Server::new("one").await, Server::new("other").await);
    let rig = Rig::new(&[one.address, other.address]);
    let mut ws = rig.connect().await;
    assert_eq!(greeting(&mut ws).await, "one");
    ws.send(Message::text("what comes back")).await.unwrap();
    assert_eq!(greeting(&mut ws).await, "what comes back");
    assert_eq!(next(&rig).await, "other");
    ws.close(None).await.unwrap();
    drop(ws);
    let over = |s: &Snapshot| s.counters.live_sessions == 0;
    let snapshot = rig.until("over", over).await;
    let volume = |bytes, messages| Volume { bytes, messages };
    let counters = of(&snapshot, 0);
    // A masked text and an empty Close; the name, the echo, and the Close that answers.
    assert_eq!(counters.from_clients, volume(6 + 15 + 6, 1));
    assert_eq!(counters.from_backend, volume(2 + 3 + 2 + 15 + 2, 2));
    assert_eq!(counters.ended_by(Ended::Client), 1);
    assert_eq!(counters.handshakes(AttemptResult::Upgraded), 1);
    let counters = of(&snapshot, 1);
    assert_eq!(counters.from_clients, volume(0, 0));
    assert_eq!(counters.from_backend, volume(2 + 5, 1));
    assert_eq!(counters.ended_by(Ended::Client), 1);
}
