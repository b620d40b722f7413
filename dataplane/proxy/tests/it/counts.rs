//! What is counted, and of whom.

use proxy::{CodeClass, Counters, Ended, HandshakeResult, Listener, Snapshot, frame::Kind};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::support::{Rig, connect, echo, nowhere, raw_client, read_close, soon};

/// An empty masked frame, or one with a byte of payload.
fn frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let len = u8::try_from(payload.len()).unwrap();
    [&[first, 0x80 | len, 0, 0, 0, 0], payload].concat()
}

fn of<'a>(snapshot: &'a Snapshot, listener: &str) -> &'a Counters {
    let mut all = snapshot.traffic.iter();
    let found = all.find(|one| one.listener == listener);
    &found.expect("it was served").counters
}

/// A rig whose pool has a second listener.
async fn two_listeners() -> (Rig, std::net::SocketAddr) {
    let mut rig = Rig::new(&[echo().await]);
    let other = nowhere();
    rig.edit(|pool| {
        pool.listeners.push(Listener {
            name: "other".to_owned(),
            addresses: vec![other],
            ..pool.listeners[0].clone()
        });
    });
    (rig, other)
}

#[tokio::test]
async fn frames_are_counted_by_listener_side_and_opcode() {
    let (rig, other) = two_listeners().await;
    let mut client = raw_client(rig.address).await;
    for sent in [
        frame(0x01, b"a"),
        frame(0x00, b""),
        frame(0x89, b""),
        frame(0x80, b"b"),
        frame(0x82, b"c"),
        frame(0x82, b"d"),
        frame(0x8a, b""),
        frame(0x88, b""),
    ] {
        client.write_all(&sent).await.unwrap();
    }
    soon(client.read_to_end(&mut Vec::new())).await.unwrap();
    // The same listener counts what its clients do, and the other one what its own do.
    drop(connect(other).await);
    let snapshot = rig
        .until("over", |s| {
            s.counters.ended_by(Ended::Client) == 2 && s.counters.live_sessions == 0
        })
        .await;
    let counters = of(&snapshot, "ws");
    let frames = |of: &proxy::Traffic| Kind::ALL.map(|kind| of.frames(kind));
    assert_eq!(frames(&counters.from_clients), [2, 1, 2, 1, 1, 1, 0]);
    assert_eq!(counters.from_clients.messages, 3);
    // The echo: a text, two binaries, a Pong and a Close.
    assert_eq!(frames(&counters.from_backends), [0, 1, 2, 1, 0, 1, 0]);
    assert_eq!(counters.ended(Ended::Client, CodeClass::Empty), 1);
    assert_eq!(counters.handshakes(HandshakeResult::Upgraded), 1);
    let counters = of(&snapshot, "other");
    assert_eq!(frames(&counters.from_clients), [0; 7]);
    assert_eq!(counters.ended_by(Ended::Client), 1);
    assert_eq!(counters.accepted, 1);
    assert_eq!(snapshot.counters.accepted, 2, "the sum");
}

#[tokio::test]
async fn a_listener_that_was_removed_still_counts_how_its_sessions_ended() {
    let (mut rig, other) = two_listeners().await;
    let mut ws = connect(other).await;
    rig.edit(|pool| pool.listeners.truncate(1));
    assert_eq!(read_close(&mut ws).await.map(|(code, _)| code), Some(1001));
    let snapshot = rig
        .until("counted", |s| s.counters.ended_by(Ended::ListenerGone) == 1)
        .await;
    let ended = of(&snapshot, "other").ended(Ended::ListenerGone, CodeClass::GoingAway);
    assert_eq!(ended, 1);
    assert_eq!(of(&snapshot, "ws").ended_by(Ended::ListenerGone), 0);
}
