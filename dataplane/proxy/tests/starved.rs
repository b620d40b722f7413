//! No file descriptor left. A process of its own: the limit concerns all of it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

#[allow(dead_code, reason = "these tests need few of the helpers")]
#[path = "it/http2/support.rs"]
mod http2_support;
#[allow(dead_code, reason = "these tests need few of the helpers")]
#[path = "it/support.rs"]
mod support;
#[allow(dead_code, reason = "these tests need few of the helpers")]
#[path = "it/tls/support.rs"]
mod tls_support;

/// Where the others look for it.
mod tls {
    pub(crate) use super::tls_support as support;
}

use std::{
    fs::File,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use futures_util::future::select_all;
use http2_support::Client;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use proxy::{ListenerProblem, PlainRequests, Snapshot};
use socket2::{Domain, Socket, Type};
use support::{REQUEST, Rig, SOON, echo, round_trip, soon};
use tokio::sync::Mutex;

/// One test at a time has the process.
static ALONE: Mutex<()> = Mutex::const_new(());

/// Takes all descriptors below a limit that is lower than the one there was, until it is dropped.
struct Starved {
    files: Vec<File>,
    limits: (u64, u64),
}

impl Starved {
    fn begin() -> Self {
        let limits = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        setrlimit(Resource::RLIMIT_NOFILE, 200, limits.1).unwrap();
        let files = std::iter::from_fn(|| File::open("/dev/null").ok()).collect();
        Self { files, limits }
    }
}

impl Drop for Starved {
    fn drop(&mut self) {
        self.files.clear();
        setrlimit(Resource::RLIMIT_NOFILE, self.limits.0, self.limits.1).unwrap();
    }
}

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
    let _alone = ALONE.lock().await;
    let rig = Rig::new(&[echo_apart()]);
    let mut ws = rig.connect().await;
    round_trip(&mut ws, "before").await;
    rig.until("checked", |s| s.upstreams[0].usable == 1).await;

    let stream = || Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    let clients: Vec<_> = (0..3).map(|_| stream()).collect();
    let taken = Starved::begin();
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

    drop((taken, told));
    round_trip(&mut rig.connect().await, "after").await;
    rig.until("well again", |s| s.listeners[0].problem.is_none())
        .await;
}

/// A server of plain requests with a thread of its own.
fn server_apart() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            // One that says nothing is the proxy's check.
            if let Ok(mut stream) = stream
                && matches!(stream.read(&mut [0; 1024]), Ok(1..))
            {
                stream
                    .write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                    .unwrap();
            }
        }
    });
    address
}

/// What a client gets for a plain request; it keeps its connection.
fn ask(client: &mut TcpStream) -> String {
    client.set_read_timeout(Some(SOON)).unwrap();
    client
        .write_all(b"GET / HTTP/1.1\r\nHost: a.example\r\n\r\n")
        .unwrap();
    let mut answer = Vec::new();
    let mut byte = [0];
    while !answer.ends_with(b"\r\n\r\nok") && matches!(client.read(&mut byte), Ok(1)) {
        answer.extend(byte);
    }
    String::from_utf8(answer).unwrap()
}

#[tokio::test]
async fn connections_that_wait_for_a_request_give_way_to_a_client() {
    let _alone = ALONE.lock().await;
    let rig = Rig::with(&[server_apart()], |pool| {
        pool.listeners[0].plain_requests = Some(PlainRequests { timeout: SOON });
    });
    rig.until("checked", |s| s.upstreams[0].usable == 1).await;
    // Each worker has some.
    let connect = |_| {
        let mut client = TcpStream::connect(rig.address).unwrap();
        assert!(ask(&mut client).starts_with("HTTP/1.1 200 OK\r\n"));
        client
    };
    let mut waiting: Vec<_> = (0..24).map(connect).collect();
    let newcomer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();

    let taken = Starved::begin();
    newcomer.connect(&rig.address.into()).unwrap();
    let answer = ask(&mut newcomer.into());
    assert!(answer.starts_with("HTTP/1.1 200 OK\r\n"), "{answer}");
    let gave_way = waiting.iter_mut().any(|client| {
        client.set_nonblocking(true).unwrap();
        matches!(client.read(&mut [0]), Ok(0))
    });
    assert!(gave_way, "nobody gave way");
    assert_eq!(rig.proxy.snapshot().counters.shed, 0);

    drop(taken);
    connect(0);
}

#[tokio::test]
async fn connections_of_http_2_without_streams_give_way_to_a_client() {
    let _alone = ALONE.lock().await;
    let (rig, authority) = tls_support::rig(&[echo_apart()]);
    let mut waiting = Vec::new();
    // Each worker has some.
    for _ in 0..24 {
        let client = Client::connect(&rig, &authority).await;
        round_trip(&mut client.session().await, "once").await;
        waiting.push(client);
    }
    rig.until("no stream", |s| s.counters.live_streams == 0)
        .await;
    let newcomer = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();

    let taken = Starved::begin();
    newcomer.connect(&rig.address.into()).unwrap();
    // The first one that gives way.
    let connections = waiting.iter_mut().map(|client| &mut client.connection);
    let _ended = soon(select_all(connections)).await;
    assert_eq!(rig.proxy.snapshot().counters.shed, 0);

    drop(taken);
    newcomer.set_nonblocking(true).unwrap();
    let newcomer = tokio::net::TcpStream::from_std(newcomer.into()).unwrap();
    let newcomer = Client::on(newcomer, &authority).await;
    round_trip(&mut newcomer.session().await, "served").await;
}
