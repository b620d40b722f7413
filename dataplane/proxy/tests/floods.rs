//! Clients and backends that mean harm, or hang: what they cost is bounded, and others go on. A
//! process of its own, one case after the other: memory and descriptors are those of all of it.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests fail like tests"
)]

#[allow(dead_code, reason = "these tests need few of the helpers")]
#[path = "it/http2/raw.rs"]
mod raw;
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

use std::{fs, sync::Arc, time::Duration};

use proxy::{HandshakeResult, Snapshot};
use support::{REQUEST, Rig, SWITCH, Ws, echo, listen, raw_backend, raw_client, round_trip, soon};
use tls_support::{Authority, VERSIONS};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::Mutex,
    task::JoinHandle,
};

static ONE_AT_A_TIME: Mutex<()> = Mutex::const_new(());

/// What all attackers together may make the process grow by: far less than they send.
const MEMORY: u64 = 48 << 20;

/// Resident memory of the process.
fn resident() -> u64 {
    let statm = fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = statm.split(' ').nth(1).unwrap().parse().unwrap();
    pages * 4096
}

/// Sockets of the process. Not all that it has open: a test that waits for this one to end has an event loop already.
fn descriptors() -> usize {
    let open = fs::read_dir("/proc/self/fd").unwrap().flatten();
    let is_socket = |open: &fs::DirEntry| {
        let what = fs::read_link(open.path());
        what.is_ok_and(|what| what.to_string_lossy().starts_with("socket:"))
    };
    open.filter(is_socket).count()
}

/// Those that there are with one session, once each worker has begun: what came later would count as left over.
async fn descriptors_once_begun(rig: &Rig) -> usize {
    // A worker's listener and its spare one, the backend's listener, and both ends of both legs.
    let least = 2 * support::WORKERS + 5;
    rig.until("the workers to begin", |_| descriptors() >= least)
        .await;
    descriptors()
}

/// A session that is there before, and what was in use then.
struct Others {
    rig: Rig,
    session: Ws,
    memory: u64,
    descriptors: usize,
}

impl Others {
    async fn before(rig: Rig, mut session: Ws) -> Self {
        round_trip(&mut session, "before").await;
        Self {
            memory: resident(),
            descriptors: descriptors_once_begun(&rig).await,
            rig,
            session,
        }
    }

    /// Clients are served as ever while `attackers`, all of them, are at work.
    async fn go_on(&mut self, attackers: &[JoinHandle<()>]) {
        for _ in 0..50 {
            round_trip(&mut self.session, "during").await;
        }
        for _ in 0..5 {
            let mut client = self.rig.connect().await;
            round_trip(&mut client, "new").await;
        }
        let at_work = attackers.iter().filter(|one| !one.is_finished()).count();
        assert_eq!(
            at_work,
            attackers.len(),
            "served, but not before they ended"
        );
        let growth = resident().saturating_sub(self.memory);
        assert!(growth < MEMORY, "{} MiB more", growth >> 20);
    }

    /// All is given back once they are gone.
    async fn after(&mut self, attackers: Vec<JoinHandle<()>>) {
        for attacker in &attackers {
            attacker.abort();
        }
        let most = self.descriptors;
        self.rig
            .until("descriptors to be given back", |_| descriptors() <= most)
            .await;
        round_trip(&mut self.session, "after").await;
    }
}

/// Waits until nothing more of what clients send is passed on.
async fn stalled(rig: &Rig) {
    let passed = || rig.proxy.snapshot().counters.from_clients.bytes;
    let mut before = None;
    while before.replace(passed()) != Some(passed()) {
        tokio::time::sleep(Duration::from_millis(300)).await;
    }
}

#[tokio::test]
async fn connections_that_say_nothing_and_headers_that_never_end() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::with(&[echo().await], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(3);
    });
    let session = rig.connect().await;
    let mut others = Others::before(rig, session).await;
    let address = others.rig.address;
    let connect = move || async move { TcpStream::connect(address).await.unwrap() };
    let attackers = (0..300).map(|n| {
        tokio::spawn(async move {
            let mut stream = connect().await;
            if n % 2 == 0 {
                // Not a byte; it is closed without an answer.
                drop(stream.read_to_end(&mut Vec::new()).await);
                return;
            }
            // As slowly as may be, and told that this is too slow.
            let start = b"GET / HTTP/1.1\r\nHost: h\r\nX: ";
            for byte in start.iter().chain(std::iter::repeat(&b'x')) {
                tokio::time::sleep(Duration::from_millis(20)).await;
                if stream.write_all(&[*byte]).await.is_err() {
                    return;
                }
            }
        })
    });
    let attackers: Vec<_> = attackers.collect();
    others
        .rig
        .until("all to be there", |s| s.counters.accepted >= 301)
        .await;
    others.go_on(&attackers).await;
    // Their time is over at last, without them going.
    let given_up = |s: &Snapshot| s.counters.handshakes(HandshakeResult::ClientTimeout);
    others
        .rig
        .until("all to be given up", |s| given_up(s) == 300)
        .await;
    others.after(attackers).await;
}

#[tokio::test]
async fn headers_as_fast_as_they_can_be_sent() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let rig = Rig::new(&[echo().await]);
    let session = rig.connect().await;
    let mut others = Others::before(rig, session).await;
    let address = others.rig.address;
    let attackers: Vec<_> = (0..20)
        .map(|_| {
            tokio::spawn(async move {
                loop {
                    let mut stream = TcpStream::connect(address).await.unwrap();
                    let start = b"GET / HTTP/1.1\r\nHost: h\r\n";
                    let mut sent = stream.write_all(start).await;
                    while sent.is_ok() {
                        sent = stream.write_all(&b"X-Field: value\r\n".repeat(1000)).await;
                    }
                }
            })
        })
        .collect();
    let refused = |s: &Snapshot| s.counters.handshakes(HandshakeResult::Refused);
    others.rig.until("some refusals", |s| refused(s) > 50).await;
    others.go_on(&attackers).await;
    others.after(attackers).await;
}

/// Sends `head`, then `flood` again and again: 64 MiB of it, which is more than all attackers together
/// may cost, and then stays.
fn flood(
    address: std::net::SocketAddr,
    head: &'static [u8],
    flood: &'static [u8],
) -> JoinHandle<()> {
    const EACH: usize = 64 << 20;
    tokio::spawn(async move {
        let mut stream = raw_client(address).await;
        stream.write_all(head).await.unwrap();
        let chunk = flood.repeat(65_536 / flood.len());
        for _ in 0..EACH / chunk.len() {
            stream.write_all(&chunk).await.unwrap();
        }
        std::future::pending::<()>().await;
    })
}

/// Floods a backend that takes nothing: the first session, to one that echoes, is not of them.
async fn flooded(head: &'static [u8], frames: &'static [u8]) {
    let _alone = ONE_AT_A_TIME.lock().await;
    let deaf = raw_backend(|stream| async move {
        let _never_read = stream;
        std::future::pending::<()>().await;
    })
    .await;
    let mut rig = Rig::new(&[deaf]);
    let mut attackers = Vec::new();
    let memory = resident();
    for _ in 0..8 {
        attackers.push(flood(rig.address, head, frames));
    }
    rig.until("all to be there", |s| s.counters.live_sessions == 8)
        .await;
    stalled(&rig).await;
    // Then one that answers, for those who come now.
    let answers = support::endpoint(echo().await);
    rig.edit(|pool| {
        pool.upstreams[0].endpoints[0].phase = proxy::Phase::NotReady;
        pool.upstreams[0].endpoints.push(answers);
    });
    let session = rig.connect().await;
    let mut others = Others::before(rig, session).await;
    others.memory = memory;
    others.go_on(&attackers).await;
    others.after(attackers).await;
}

#[tokio::test]
async fn a_frame_without_end_to_a_backend_that_takes_nothing() {
    flooded(b"\x82\xff\x3f\0\0\0\0\0\0\0abcd", &[0; 64]).await;
}

#[tokio::test]
async fn empty_frames_to_a_backend_that_takes_nothing() {
    flooded(b"\x01\x80abcd", b"\x00\x80abcd").await;
}

#[tokio::test]
async fn pings_to_a_backend_that_takes_nothing() {
    flooded(b"", b"\x89\x80abcd").await;
}

/// Kinds of frames (RFC 9113 section 6) that only floods are made of.
const DATA: u8 = 0;
const PRIORITY: u8 = 2;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;

/// Frames of HTTP/2 that cost their sender little: what a connection begins with, and what is then sent
/// without end, each time for another stream where it is for one.
fn frames(kind: u8, stream: u32) -> Vec<u8> {
    match kind {
        DATA => raw::frame(DATA, 0, 1, b""),
        raw::HEADERS => raw::asking(
            stream,
            &[(":method", "GET"), (":scheme", "https"), (":path", "/")],
        ),
        PRIORITY => raw::frame(PRIORITY, 0, stream, &[0, 0, 0, 0, 1]),
        raw::RST_STREAM => {
            let back = raw::frame(raw::RST_STREAM, 0, stream, &[0, 0, 0, 8]);
            [raw::asking(stream, &raw::WEBSOCKET), back].concat()
        }
        raw::SETTINGS => raw::frame(raw::SETTINGS, 0, 0, &[0, 4, 0, 1, 0, 0]),
        raw::PING => raw::frame(raw::PING, 0, 0, &[7; 8]),
        WINDOW_UPDATE => raw::frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1]),
        CONTINUATION => raw::frame(CONTINUATION, 0, 1, &raw::block(&[("x", "y")])),
        kind => panic!("no flood of {kind}"),
    }
}

/// Sends such frames for as long as it is left, by one connection after the other, and reads what is
/// answered.
async fn flood_http2(address: std::net::SocketAddr, authority: Arc<Authority>, kind: u8) {
    loop {
        let mut attacker = raw::Raw::connect(address, &authority, &[]).await;
        let begins = match kind {
            DATA => raw::asking(1, &raw::WEBSOCKET),
            CONTINUATION => {
                let begun = raw::block(&raw::WEBSOCKET);
                raw::frame(raw::HEADERS, 0, 1, &begun)
            }
            _ => Vec::new(),
        };
        if attacker.send(&begins).await.is_err() {
            continue;
        }
        let (mut answers, mut to) = tokio::io::split(attacker.0);
        let flooding = async {
            let mut streams = (1..1 << 31).step_by(2);
            loop {
                let many = streams.by_ref().take(500);
                let many: Vec<u8> = many.flat_map(|stream| frames(kind, stream)).collect();
                if to.write_all(&many).await.is_err() {
                    return;
                }
                // Others in this process have to write, too.
                tokio::task::yield_now().await;
            }
        };
        let mut nowhere = tokio::io::sink();
        let reading = tokio::io::copy(&mut answers, &mut nowhere);
        tokio::select! {
            () = flooding => {}
            _ = reading => {}
        }
    }
}

#[tokio::test]
async fn floods_of_http_2() {
    let _alone = ONE_AT_A_TIME.lock().await;
    let (rig, authority) = tls_support::rig(&[echo().await]);
    let authority = Arc::new(authority);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut session = tls_support::connect(rig.address, &client).await;
    round_trip(&mut session, "before").await;
    let (memory, open) = (resident(), descriptors_once_begun(&rig).await);
    for kind in [
        DATA,
        raw::HEADERS,
        PRIORITY,
        raw::RST_STREAM,
        raw::SETTINGS,
        raw::PING,
        WINDOW_UPDATE,
        CONTINUATION,
    ] {
        let before = rig.proxy.snapshot().counters.accepted;
        let attack = || tokio::spawn(flood_http2(rig.address, Arc::clone(&authority), kind));
        let attackers: Vec<_> = (0..4).map(|_| attack()).collect();
        rig.until("all to be there", |s| s.counters.accepted >= before + 4)
            .await;
        for _ in 0..20 {
            round_trip(&mut session, "during").await;
        }
        for _ in 0..5 {
            let mut new = tls_support::connect(rig.address, &client).await;
            round_trip(&mut new, "new").await;
        }
        assert!(!attackers.iter().any(JoinHandle::is_finished));
        for attacker in &attackers {
            attacker.abort();
        }
        rig.until("descriptors to be given back", |_| descriptors() <= open)
            .await;
        let growth = resident().saturating_sub(memory);
        assert!(growth < MEMORY, "{} MiB more by {kind}", growth >> 20);
    }
    round_trip(&mut session, "after").await;
}

#[tokio::test]
async fn handshakes_of_tls_in_records_of_a_byte() {
    const CLIENTS: u64 = 50;
    let _alone = ONE_AT_A_TIME.lock().await;
    let (rig, authority) = tls_support::rig(&[echo().await]);
    let client = Arc::new(authority.client(&VERSIONS));
    let mut session = tls_support::connect(rig.address, &client).await;
    round_trip(&mut session, "before").await;
    let memory = resident();
    // A ClientHello (RFC 8446 section 4.1.2) that is as long as one may be, of which each byte takes six.
    let hello = [&[1, 0, 0xff, 0xff][..], &vec![0; 0xffff]].concat();
    let records: Vec<u8> = hello
        .iter()
        .flat_map(|byte| [22, 3, 1, 0, 1, *byte])
        .collect();
    let records = Arc::new(records);
    let address = rig.address;
    let attack = |_| {
        let records = Arc::clone(&records);
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await.unwrap();
            // All but the last, without which it stands there for as long as it may.
            let all = &records[..records.len() - 6];
            drop(stream.write_all(all).await);
            drop(stream.read_to_end(&mut Vec::new()).await);
        })
    };
    let attackers: Vec<_> = (0..CLIENTS).map(attack).collect();
    for _ in 0..20 {
        round_trip(&mut session, "during").await;
    }
    rig.until("all to be refused", |s| {
        s.counters.handshakes(HandshakeResult::Tls) == CLIENTS
    })
    .await;
    let growth = resident().saturating_sub(memory);
    assert!(growth < MEMORY, "{} MiB more", growth >> 20);
    for attacker in attackers {
        soon(attacker).await.unwrap();
    }
}

/// Where a backend stops.
async fn hanging(says: &'static [u8], again: &'static [u8]) -> std::net::SocketAddr {
    let (listener, address) = listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut sent = stream.write_all(says).await;
                while sent.is_ok() && !again.is_empty() {
                    tokio::time::sleep(Duration::from_millis(1)).await;
                    sent = stream.write_all(again).await;
                }
                // Until the proxy goes.
                drop(stream.read_to_end(&mut Vec::new()).await);
            });
        }
    });
    address
}

#[tokio::test]
async fn backends_that_hang_at_each_stage() {
    const CLIENTS: usize = 20;
    let _alone = ONE_AT_A_TIME.lock().await;
    let ok = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let cases: [(&str, &'static [u8], &'static [u8], &str); 6] = [
        ("says nothing", b"", b"", "504"),
        ("stops within its head", &SWITCH[..40], b"", "504"),
        (
            "has no end of its head",
            b"HTTP/1.1 101 S\r\n",
            b"X: y\r\n",
            "502",
        ),
        (
            "promises again and again",
            b"",
            b"HTTP/1.1 100 Continue\r\n\r\n",
            "502",
        ),
        ("has no end of its answer", ok, b"1\r\nx\r\n", "200"),
        ("is silent behind its 101", SWITCH, b"", "101"),
    ];
    let rig = Rig::with(&[echo().await], |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(1);
    });
    let answers = rig.config.pools[support::POOL].upstreams[0].endpoints[0];
    let session = rig.connect().await;
    let mut others = Others::before(rig, session).await;
    for (what, says, again, status) in cases {
        let hangs = support::endpoint(hanging(says, again).await);
        others.rig.edit(|pool| {
            pool.upstreams[0].endpoints = vec![hangs, answers];
            pool.upstreams[0].endpoints[1].phase = proxy::Phase::NotReady;
        });
        let address = others.rig.address;
        let ask = |_| {
            tokio::spawn(async move {
                let mut stream = TcpStream::connect(address).await.unwrap();
                stream.write_all(REQUEST).await.unwrap();
                let mut first = [0; 12];
                stream.read_exact(&mut first).await.unwrap();
                // What comes behind it is the end, or nothing.
                if first.ends_with(b"200") {
                    drop(stream.read_to_end(&mut Vec::new()).await);
                }
                String::from_utf8(first[9..].to_vec()).unwrap()
            })
        };
        let clients: Vec<_> = (0..CLIENTS).map(ask).collect();
        for _ in 0..20 {
            round_trip(&mut others.session, what).await;
        }
        for client in clients {
            assert_eq!(soon(client).await.unwrap(), status, "{what}");
        }
    }
    let growth = resident().saturating_sub(others.memory);
    assert!(growth < MEMORY, "{} MiB more", growth >> 20);
    // Those of the backends themselves stay.
    others.descriptors += cases.len();
    others.after(Vec::new()).await;
}
