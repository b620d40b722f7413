//! No file descriptor left. A process of its own: the limit concerns all of it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

#[allow(dead_code, reason = "this test needs few of the helpers")]
#[path = "it/support.rs"]
mod support;

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::{ListenerProblem, Snapshot};
use socket2::{Domain, Socket, Type};
use support::{REQUEST, Rig, SOON, echo, round_trip};

/// A backend with a thread of its own, since the test's own thread waits for answers.
fn echo_apart() -> SocketAddr {
    let (sender, address) = mpsc::channel();
    thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread();
        let runtime = { runtime }.enable_all().build().unwrap();
        runtime.block_on(async move {
            sender.send(echo().await).unwrap();
            std::future::pending::<()>().await;
        });
    });
    address.recv().unwrap()
}

#[tokio::test]
async fn without_descriptors_clients_are_told_and_sessions_live_on() {
    let rig = Rig::new(&[echo_apart()]);
    let mut ws = rig.connect().await;
    round_trip(&mut ws, "before").await;
    rig.until("checked", |s| s.upstreams[0].usable == 1).await;

    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let clients: Vec<_> = (0..3).map(|_| stream()).collect();
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, 200, hard).unwrap();
    let mut files = Vec::new();
    while let Ok(file) = File::open("/dev/null") {
        files.push(file);
    }
    let mut told = Vec::new();
    for client in clients {
        client.connect(&rig.address.into()).unwrap();
        let mut client = TcpStream::from(client);
        // One that gets the descriptor which another worker just gave back has none for its backend.
        client.write_all(REQUEST).unwrap();
        client.set_read_timeout(Some(SOON)).unwrap();
        let mut answer = String::new();
        // It may end with a reset: there is no descriptor to wait for the client's request with.
        let _ended = client.read_to_string(&mut answer);
        assert!(
            answer.starts_with("HTTP/1.1 503 Service Unavailable\r\n"),
            "{answer}"
        );
        // Its descriptor would be the proxy's next.
        told.push(client);
    }
    let starves = |snapshot: &Snapshot| {
        let listener = &snapshot.listeners[0];
        assert!(listener.accepting);
        listener.problem == Some(ListenerProblem::OutOfDescriptors)
    };
    let snapshot = rig.until("counted", |s| s.counters.shed >= 1).await;
    assert!(starves(&snapshot));
    round_trip(&mut ws, "during").await;
    // That no client comes does not bring descriptors back.
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        assert!(starves(&rig.proxy.snapshot()), "{:?}", begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }

    drop((files, told));
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    round_trip(&mut rig.connect().await, "after").await;
    rig.until("well again", |s| s.listeners[0].problem.is_none())
        .await;
}
