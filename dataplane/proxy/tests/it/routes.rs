//! Several upstreams, and which requests go to which.

use std::{
    net::SocketAddr,
    sync::mpsc::RecvTimeoutError,
    time::{Duration, Instant},
};

use proxy::{Ended, HandshakeResult, Pool, Record, Route};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use crate::support::{
    POOL, REQUEST, Rig, SOON, endpoint, named, nowhere, raw_backend, read_frame, read_head, soon,
    upstream,
};

fn route(hostnames: &[&str], path_prefix: &str, upstream: &str) -> Route {
    Route {
        hostnames: hostnames.iter().map(|&name| name.to_owned()).collect(),
        path_prefix: path_prefix.to_owned(),
        upstream: upstream.to_owned(),
    }
}

/// `chat` below `/chat` and `rooms` for `*.rooms.example`, each with servers that say their names.
fn two(pool: &mut Pool, chat: SocketAddr, rooms: SocketAddr) {
    pool.upstreams = vec![upstream("chat", &[chat]), upstream("rooms", &[rooms])];
    pool.listeners[0].routes = vec![
        route(&["*.rooms.example"], "/", "rooms"),
        route(&[], "/chat", "chat"),
    ];
}

async fn rig_of_two() -> Rig {
    let (chat, rooms) = (named("chat").await, named("rooms").await);
    Rig::with(&[], |pool| {
        two(pool, chat, rooms);
        pool.access_log = Some(100);
    })
}

/// The head of the answer to a request for `target` at `host`.
async fn ask(address: SocketAddr, host: &str, target: &str) -> (String, TcpStream) {
    let request = str::from_utf8(REQUEST).unwrap();
    let request = request.replacen("/chat", target, 1);
    let request = request.replacen("Host: example.org", &format!("Host: {host}"), 1);
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(request.as_bytes()).await.unwrap();
    let head = soon(read_head(&mut stream)).await.expect("no answer");
    (head, stream)
}

/// The server that greets a client, or the status without a session.
async fn reaches(address: SocketAddr, host: &str, target: &str) -> String {
    let (head, mut stream) = ask(address, host, target).await;
    let status = head.split(' ').nth(1).unwrap();
    if status != "101" {
        return status.to_owned();
    }
    let (_, name) = read_frame(&mut stream).await;
    String::from_utf8(name).unwrap()
}

async fn record(rig: &Rig) -> Record {
    let begun = Instant::now();
    loop {
        match rig.records.recv_timeout(Duration::ZERO) {
            Ok(record) => return *record,
            Err(RecvTimeoutError::Disconnected) => panic!("the proxy ended"),
            Err(RecvTimeoutError::Timeout) => {}
        }
        assert!(begun.elapsed() < SOON, "no record");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

#[tokio::test]
async fn host_and_path_choose_the_upstream() {
    let rig = rig_of_two().await;
    for (host, target, reached) in [
        ("example.org", "/chat", "chat"),
        ("example.org:8020", "/chat/x?y", "chat"),
        ("a.rooms.example", "/chat", "rooms"),
        ("A.B.Rooms.Example:1", "/other", "rooms"),
        // RFC 9112 section 3.2.2: an absolute target says which host is meant.
        ("example.org", "http://a.rooms.example/chat", "rooms"),
        ("a.rooms.example", "ws://example.org:80/chat", "chat"),
        ("a.rooms.example", "http://example.org/other", "404"),
        ("example.org", "/chatter", "404"),
        ("rooms.example", "/", "404"),
        ("example.org", "/chat/../other", "400"),
        ("example.org", "//chat", "400"),
        ("%61.rooms.example", "/chat", "400"),
    ] {
        let found = reaches(rig.address, host, target).await;
        assert_eq!(found, reached, "{host}{target}");
    }
    // A refusal is counted when its connection has ended, after the client has read it.
    rig.until("refusals counted", |now| {
        now.counters.handshakes(HandshakeResult::NoRoute) == 3
            && now.counters.handshakes(HandshakeResult::Refused) == 3
    })
    .await;
}

#[tokio::test]
async fn records_name_the_route_and_the_upstream() {
    let rig = rig_of_two().await;
    for (host, target, route, upstream, status) in [
        (
            "a.rooms.example",
            "/x",
            Some("*.rooms.example/"),
            Some("rooms"),
            101,
        ),
        ("example.org", "/chat/x", Some("/chat"), Some("chat"), 101),
        ("example.org", "/x", None, None, 404),
    ] {
        drop(ask(rig.address, host, target).await);
        let record = record(&rig).await;
        assert_eq!(record.route.as_deref(), route);
        assert_eq!(record.upstream.as_deref(), upstream);
        assert_eq!(record.status, Some(status));
        assert_eq!(record.path.as_deref(), Some(target));
        assert_eq!(record.ended.is_some(), status == 101);
    }
}

#[tokio::test]
async fn edits_of_routes_are_for_new_sessions() {
    let mut rig = rig_of_two().await;
    let (_, mut session) = ask(rig.address, "example.org", "/chat").await;
    assert_eq!(read_frame(&mut session).await.1, b"chat");
    rig.edit(|pool| pool.listeners[0].routes = vec![route(&[], "/", "rooms")]);
    assert_eq!(reaches(rig.address, "example.org", "/chat").await, "rooms");
    rig.edit(|pool| pool.listeners[0].routes = vec![route(&[], "/new", "rooms")]);
    assert_eq!(reaches(rig.address, "example.org", "/chat").await, "404");
    // Another name for the upstream of the session, and no route that leads there.
    rig.edit(|pool| pool.upstreams[0].name = "other".to_owned());
    assert_eq!(reaches(rig.address, "example.org", "/new").await, "rooms");
    session.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    assert_eq!(read_frame(&mut session).await, (0x81, b"hi".to_vec()));
    let snapshot = rig.proxy.snapshot();
    assert_eq!(snapshot.endpoints[0].upstream, "other");
    assert_eq!(snapshot.endpoints[0].sessions, 1);
    assert_eq!(snapshot.counters.ended_by(Ended::EndpointGone), 0);
}

#[tokio::test]
async fn the_sessions_of_a_removed_upstream_are_drained_and_no_others() {
    let mut rig = rig_of_two().await;
    let (_, mut chat) = ask(rig.address, "example.org", "/chat").await;
    let (_, mut rooms) = ask(rig.address, "a.rooms.example", "/").await;
    assert_eq!(read_frame(&mut chat).await.1, b"chat");
    assert_eq!(read_frame(&mut rooms).await.1, b"rooms");
    rig.edit(|pool| {
        pool.upstreams.remove(0);
        pool.listeners[0].routes = vec![route(&[], "/", "rooms")];
    });
    // The drain time-out is zero.
    let (first, payload) = read_frame(&mut chat).await;
    assert_eq!((first, &payload[..2]), (0x88, &1001_u16.to_be_bytes()[..]));
    rooms.write_all(b"\x81\x82\0\0\0\0hi").await.unwrap();
    assert_eq!(read_frame(&mut rooms).await, (0x81, b"hi".to_vec()));
}

#[tokio::test]
async fn one_server_of_two_upstreams_is_known_to_each_by_itself() {
    let server = named("both").await;
    let mut rig = Rig::with(&[], |pool| {
        two(pool, server, server);
        pool.upstreams[0].endpoints[0].phase = proxy::Phase::NotReady;
    });
    assert_eq!(reaches(rig.address, "example.org", "/chat").await, "503");
    assert_eq!(reaches(rig.address, "a.rooms.example", "/").await, "both");
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = proxy::Phase::Ready);
    assert_eq!(reaches(rig.address, "example.org", "/chat").await, "both");
}

#[tokio::test]
async fn usable_endpoints_are_counted_by_upstream_and_time_outs_are_its_own() {
    let mute = raw_mute().await;
    let mut rig = Rig::with(&[], |pool| {
        two(pool, mute, nowhere());
        pool.upstreams[0].handshake_timeout = Duration::from_millis(100);
        pool.upstreams[1].handshake_timeout = Duration::from_hours(1);
    });
    let snapshot = rig
        .until("tried", |s| {
            s.upstreams[0].usable == 1 && !s.endpoints[1].usable
        })
        .await;
    assert_eq!(snapshot.upstreams[1].usable, 0);
    assert!(snapshot.upstreams.iter().all(|upstream| upstream.routed));
    assert_eq!(reaches(rig.address, "example.org", "/chat").await, "504");
    assert_eq!(reaches(rig.address, "a.rooms.example", "/").await, "502");
    let server = named("rooms").await;
    rig.edit(|pool| {
        pool.listeners[0].routes.pop();
        pool.upstreams[1].endpoints = vec![endpoint(server)];
    });
    let snapshot = rig.until("reached", |s| s.upstreams[1].usable == 1).await;
    assert!(!snapshot.upstreams[0].routed && snapshot.upstreams[1].routed);
}

/// A server that reads what it gets and says nothing.
async fn raw_mute() -> SocketAddr {
    let (listener, address) = crate::support::listen().await;
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move { while stream.read_u8().await.is_ok() {} });
        }
    });
    address
}

/// While a client waits for a server, the upstream is renamed: it is served all the same.
#[tokio::test]
async fn a_handshake_under_way_follows_an_edit() {
    let (listener, first) = crate::support::listen().await;
    let second = raw_backend(|mut stream| async move {
        stream.write_all(b"\x81\x06second").await.unwrap();
        let _rest = stream.read_u8().await;
    })
    .await;
    let mut rig = Rig::with(&[], |pool| two(pool, first, nowhere()));
    let client = tokio::spawn(reaches(rig.address, "example.org", "/chat"));
    // Takes the handshake, and dies only when everything has another name.
    let held = loop {
        let (mut stream, _) = soon(listener.accept()).await.unwrap();
        if read_head(&mut stream).await.is_some() {
            break stream;
        }
    };
    rig.edit(|pool| {
        pool.upstreams[0] = upstream("renamed", &[second]);
        pool.listeners[0].routes = vec![route(&["example.org"], "/chat", "renamed")];
    });
    drop((held, listener));
    assert_eq!(soon(client).await.unwrap(), "second");
}

#[tokio::test]
async fn routes_that_lead_nowhere_are_refused() {
    let rig = rig_of_two().await;
    for (edit, words) in [
        (
            (|pool: &mut Pool| pool.listeners[0].routes.clear()) as fn(&mut Pool),
            "no routes",
        ),
        (
            |pool| pool.listeners[0].routes[0].upstream = "other".to_owned(),
            "other",
        ),
        (|pool| pool.upstreams[1].name = "chat".to_owned(), "chat"),
    ] {
        let mut config = rig.config.clone();
        edit(config.pools.get_mut(POOL).unwrap());
        let error = rig.proxy.apply(config, Vec::new()).unwrap_err();
        let error = std::error::Error::source(&error).unwrap().to_string();
        assert!(error.contains(words), "{error}");
    }
}
