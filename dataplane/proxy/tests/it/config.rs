//! Changes apply to new connections at once and close no session that they do not concern.

use std::{
    hash::{BuildHasher, RandomState},
    net::{SocketAddr, TcpListener, UdpSocket},
    os::fd::OwnedFd,
    sync::{Arc, mpsc},
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use proptest::{
    prelude::*,
    strategy::ValueTree,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use proxy::{
    Balancing, CodeClass, ConfigError, Ended, Error, Event, Heartbeat, Listener, ListenerProblem,
    Phase, PlainRequests, Pool,
};
use tokio::net::TcpStream;

use crate::support::{
    POOL, Rig, Ws, connect, echo, endpoint, named, nowhere, pool, read_close, round_trip, sockets,
    soon,
};

async fn open(rig: &Rig, n: usize) -> Vec<Ws> {
    let mut open = Vec::new();
    for _ in 0..n {
        open.push(rig.connect().await);
    }
    open
}

#[tokio::test]
async fn an_endpoint_added_is_used_at_once_and_nothing_is_closed() {
    let mut rig = Rig::new(&[named("a").await]);
    let mut old = open(&rig, 3).await;
    let added = named("new").await;
    rig.edit(|pool| pool.upstreams[0].endpoints.push(endpoint(added)));
    let mut names = Vec::new();
    for _ in 0..2 {
        let message = soon(rig.connect().await.next()).await.unwrap().unwrap();
        names.push(message.to_text().unwrap().to_owned());
    }
    names.sort();
    assert_eq!(names, ["a", "new"]);
    for ws in &mut old {
        // Its first message is the greeting.
        assert!(soon(ws.next()).await.unwrap().is_ok());
        round_trip(ws, "still here").await;
    }
}

#[tokio::test]
async fn equal_configuration_is_no_change() {
    let rig = Rig::new(&[echo().await]);
    let mut ws = rig.connect().await;
    let before = rig.events.try_iter().count();
    assert!(before > 0);
    for _ in 0..10 {
        rig.apply();
    }
    assert_eq!(rig.events.try_iter().count(), 0);
    round_trip(&mut ws, "same").await;
}

async fn drained(edit: impl FnOnce(&mut Pool)) {
    const SESSIONS: usize = 20;
    let over = Duration::from_secs(1);
    let mut rig = Rig::with(&[echo().await, echo().await], |pool| {
        pool.drain.timeout = over;
        pool.drain.close_code = 1012;
    });
    let clients = open(&rig, 2 * SESSIONS).await;
    assert_eq!(rig.proxy.snapshot().endpoints[0].sessions, SESSIONS as u64);
    let begun = Instant::now();
    rig.edit(edit);
    let wait = |mut ws: Ws| async move {
        // Those of the other endpoint stay: they are told by nothing.
        let close = tokio::time::timeout(2 * over, ws.next()).await;
        close.ok().map(|message| (message, begun.elapsed(), ws))
    };
    let tasks: Vec<_> = clients
        .into_iter()
        .map(|ws| tokio::spawn(wait(ws)))
        .collect();
    let mut ends = Vec::new();
    for task in tasks {
        if let Some((message, at, ws)) = soon(task).await.unwrap() {
            let message = message.unwrap().unwrap();
            let tokio_tungstenite::tungstenite::Message::Close(Some(close)) = message else {
                panic!("{message:?}");
            };
            assert_eq!(
                (u16::from(close.code), close.reason.as_str()),
                (1012, "backend is going away")
            );
            ends.push(at);
            drop(ws);
        }
    }
    assert_eq!(ends.len(), SESSIONS);
    ends.sort_unstable();
    // Evenly: each half, and each quarter, has its share; the bounds leave room for a busy machine.
    assert!(ends[0] < over / 4, "{ends:?}");
    assert!(
        ends[SESSIONS / 2] > over / 4 && ends[SESSIONS - 1] > over / 2,
        "{ends:?}"
    );
    assert!(ends[SESSIONS - 1] < over * 3 / 2, "{ends:?}");
    let snapshot = rig
        .until("ended", |s| {
            s.counters.ended_by(Ended::EndpointGone) == SESSIONS as u64
        })
        .await;
    assert_eq!(
        snapshot
            .counters
            .ended(Ended::EndpointGone, CodeClass::ServiceRestart),
        SESSIONS as u64
    );
}

#[tokio::test]
async fn sessions_of_a_removed_endpoint_are_closed_over_the_drain_time() {
    drained(|pool| pool.upstreams[0].endpoints.truncate(1)).await;
}

#[tokio::test]
async fn sessions_of_a_terminating_endpoint_are_closed_over_the_drain_time() {
    drained(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating).await;
}

#[tokio::test]
async fn an_endpoint_that_comes_back_keeps_its_sessions() {
    let mut rig = Rig::with(&[echo().await], |pool| {
        pool.drain.timeout = Duration::from_hours(1);
    });
    let mut clients = open(&rig, 8).await;
    let endpoint = rig.config.pools[POOL].upstreams[0].endpoints[0];
    rig.edit(|pool| pool.upstreams[0].endpoints.clear());
    // The first of each worker goes at once, the others had an hour.
    rig.edit(|pool| {
        pool.upstreams[0].endpoints.push(endpoint);
        pool.drain.timeout = Duration::ZERO;
    });
    let mut kept = 0;
    for ws in &mut clients {
        let sent = futures_util::SinkExt::send(ws, "here?".into()).await;
        if sent.is_ok() && matches!(soon(ws.next()).await, Some(Ok(m)) if m.is_text()) {
            kept += 1;
        }
    }
    assert!(kept >= 6, "{kept}");
    drop(clients);
    rig.until("over", |s| s.counters.live_sessions == 0).await;
    let counters = rig.proxy.snapshot().counters;
    assert_eq!(counters.ended_by(Ended::EndpointGone), 8 - kept);
}

#[tokio::test]
async fn a_removed_listener_closes_its_sessions_and_its_socket() {
    let backend = echo().await;
    let mut rig = Rig::new(&[backend]);
    let other = sockets("127.0.0.1:0".parse().unwrap());
    let other_address = other.0;
    drop(other);
    rig.edit(|pool| {
        pool.listeners.push(Listener {
            name: "other".to_owned(),
            addresses: vec![other_address],
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: false,
            tls: None,
            routes: Vec::new(),
            plain_requests: None,
        });
    });
    let mut gone = open(&rig, 3).await;
    let mut kept = connect(other_address).await;
    rig.edit(|pool| pool.listeners.retain(|listener| listener.name == "other"));
    assert!(
        TcpStream::connect(rig.address).await.is_err(),
        "the socket is still open"
    );
    for ws in &mut gone {
        assert_eq!(
            read_close(ws).await,
            Some((1001, "listener was removed".to_owned()))
        );
    }
    drop(gone);
    round_trip(&mut kept, "kept").await;
    // And back again.
    let first = rig.address;
    rig.edit(|pool| pool.listeners[0].addresses.push(first));
    round_trip(&mut rig.connect().await, "back").await;
    rig.config.pools.clear();
    rig.apply();
    assert_eq!(
        read_close(&mut kept).await,
        Some((1001, "listener was removed".to_owned()))
    );
    drop(kept);
    rig.until("all over", |s| s.counters.live_sessions == 0)
        .await;
    assert!(TcpStream::connect(other_address).await.is_err());
}

#[tokio::test]
async fn a_listener_without_a_socket_says_so() {
    let rig = Rig::new(&[echo().await]);
    let mut config = rig.config.clone();
    let bare = nowhere();
    config.pools.get_mut(POOL).unwrap().listeners[0]
        .addresses
        .push(bare);
    assert_eq!(rig.proxy.missing_sockets(&config), [bare]);
    rig.proxy.apply(config.clone(), Vec::new()).unwrap();
    assert_eq!(rig.proxy.missing_sockets(&config), [bare]);
    let told: Vec<_> = rig.events.try_iter().collect();
    assert!(told.contains(&Event::ListenerState {
        address: rig.address,
        accepting: true,
        problem: None
    }));
    let snapshot = rig.proxy.snapshot();
    assert!(!snapshot.listeners[1].accepting);
    assert_eq!(
        snapshot.listeners[1].problem,
        Some(ListenerProblem::NoSocket)
    );
    // With its sockets it is well.
    rig.proxy.apply(config, vec![sockets(bare)]).unwrap();
    round_trip(&mut connect(bare).await, "now").await;
    assert_eq!(rig.proxy.snapshot().listeners[1].problem, None);
}

#[tokio::test]
async fn what_cannot_be_is_refused_whole() {
    let backend = echo().await;
    let rig = Rig::new(&[backend]);
    let refused = |edit: &dyn Fn(&mut Pool)| {
        let mut config = rig.config.clone();
        edit(config.pools.get_mut(POOL).unwrap());
        match rig.proxy.apply(config, Vec::new()) {
            Err(Error::Config(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let error = refused(&|pool| pool.upstreams[0].endpoints.push(endpoint(backend)));
    assert!(matches!(error, ConfigError::DuplicateEndpoint { .. }));
    let error = refused(&|pool| pool.upstreams[0].endpoints[0].weight = 0);
    assert!(matches!(error, ConfigError::ZeroWeight { .. }));
    let error = refused(&|pool| pool.drain.close_code = 1006);
    assert!(matches!(error, ConfigError::CloseCode { code: 1006, .. }));
    let error = refused(&|pool| pool.upstreams[0].connect_timeout = Duration::ZERO);
    assert!(matches!(error, ConfigError::ZeroTimeout { .. }));
    let error = refused(&|pool| {
        pool.listeners[0].plain_requests = Some(PlainRequests {
            timeout: Duration::ZERO,
        });
    });
    assert!(matches!(error, ConfigError::ZeroPlainTimeout { .. }));
    let mut config = rig.config.clone();
    let twin = pool(&[rig.address], &[backend]);
    config.pools.insert("default/twin".to_owned(), twin);
    let error = rig.proxy.apply(config, Vec::new()).unwrap_err();
    assert!(matches!(
        error,
        Error::Config(ConfigError::AddressTaken { .. })
    ));
    round_trip(&mut rig.connect().await, "as before").await;
}

/// An edit that does not concern sessions of the first endpoint on the first address.
#[derive(Clone, Debug)]
enum Edit {
    AddEndpoint(u16),
    DropEndpoint(usize),
    Terminate(usize),
    Reweigh(u16),
    Balance(bool),
    Timeouts(u64),
    Beat(u64),
    Drain(u64, u16),
    RenameListener(u8),
    AddListener,
    DropListener,
    Shuffle,
    AddPool,
    DropPool,
}

fn edits() -> impl Strategy<Value = Edit> {
    prop_oneof![
        (1..u16::MAX).prop_map(Edit::AddEndpoint),
        any::<usize>().prop_map(Edit::DropEndpoint),
        any::<usize>().prop_map(Edit::Terminate),
        (1..100_u16).prop_map(Edit::Reweigh),
        any::<bool>().prop_map(Edit::Balance),
        (500..5000_u64).prop_map(Edit::Timeouts),
        (0..3_u64).prop_map(|n| Edit::Beat(n * 10_000)),
        (0..5000_u64, 3000..5000_u16).prop_map(|(ms, code)| Edit::Drain(ms, code)),
        any::<u8>().prop_map(Edit::RenameListener),
        Just(Edit::AddListener),
        Just(Edit::DropListener),
        Just(Edit::Shuffle),
        Just(Edit::AddPool),
        Just(Edit::DropPool),
    ]
}

fn make(rig: &mut Rig, edit: &Edit, spare: SocketAddr) {
    let twin = "default/twin".to_owned();
    let mine = rig.config.pools[POOL].upstreams[0].endpoints.iter();
    let first = mine
        .min_by_key(|endpoint| endpoint.address)
        .copied()
        .unwrap();
    let twin_there = rig.config.pools.contains_key(&twin);
    let pool = rig.config.pools.get_mut(POOL).unwrap();
    let endpoints = &mut pool.upstreams[0].endpoints;
    let spare_taken = pool.listeners.len() > 1;
    match *edit {
        // Above the first, so that the first stays the one with the sessions.
        Edit::AddEndpoint(port) => {
            let address = SocketAddr::from(([127, 0, 0, 9], port));
            if endpoints.iter().all(|endpoint| endpoint.address != address) {
                endpoints.push(endpoint(address));
            }
        }
        Edit::DropEndpoint(i) => {
            let i = i % endpoints.len();
            if endpoints[i].address != first.address {
                endpoints.remove(i);
            }
        }
        Edit::Terminate(i) => {
            let i = i % endpoints.len();
            if endpoints[i].address != first.address {
                endpoints[i].phase = Phase::Terminating;
            }
        }
        Edit::Reweigh(weight) => endpoints.iter_mut().for_each(|e| e.weight = weight),
        Edit::Balance(least) => {
            pool.upstreams[0].balancing = if least {
                Balancing::LeastConnections
            } else {
                Balancing::RoundRobin
            };
        }
        Edit::Timeouts(ms) => {
            pool.upstreams[0].connect_timeout = Duration::from_millis(ms);
            pool.upstreams[0].handshake_timeout = Duration::from_millis(ms + 1);
        }
        Edit::Beat(ms) => {
            pool.heartbeat = Heartbeat {
                interval: Duration::from_millis(ms),
                timeout: Duration::from_millis(ms),
            };
        }
        Edit::Drain(ms, code) => {
            pool.drain.timeout = Duration::from_millis(ms);
            pool.drain.close_code = code;
        }
        Edit::RenameListener(n) => pool.listeners[0].name = format!("ws-{n}"),
        Edit::AddListener if !spare_taken && !twin_there => {
            pool.listeners.push(Listener {
                name: "spare".to_owned(),
                addresses: vec![spare],
                allowed_origins: Vec::new(),
                trusted_proxies: Vec::new(),
                proxy_protocol: false,
                tls: None,
                routes: Vec::new(),
                plain_requests: None,
            });
        }
        Edit::DropListener => pool.listeners.truncate(1),
        Edit::Shuffle => endpoints.reverse(),
        Edit::AddPool if !spare_taken => {
            let copy = self::pool(&[spare], &[first.address]);
            rig.config.pools.insert(twin, copy);
        }
        Edit::DropPool => drop(rig.config.pools.remove(&twin)),
        Edit::AddListener | Edit::AddPool => {}
    }
}

#[tokio::test]
async fn random_edits_that_do_not_concern_a_session_never_close_it() {
    let mut rig = Rig::new(&[echo().await]);
    let mut clients = open(&rig, 10).await;
    let spare = nowhere();
    let seed = std::env::var("PROXY_EDITS_SEED").map_or_else(
        |_| RandomState::new().hash_one(()),
        |seed| seed.parse().expect("PROXY_EDITS_SEED: a number"),
    );
    println!("PROXY_EDITS_SEED={seed}");
    let seed = [seed.to_le_bytes(); 4].concat();
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &seed);
    let mut runner = TestRunner::new_with_rng(ProptestConfig::default(), rng);
    for round in 0..60 {
        let edit = edits().new_tree(&mut runner).unwrap().current();
        make(&mut rig, &edit, spare);
        rig.apply();
        let i = round % clients.len();
        round_trip(&mut clients[i], &format!("after {edit:?}")).await;
    }
    for ws in &mut clients {
        round_trip(ws, "after all").await;
    }
    let counters = rig.proxy.snapshot().counters;
    let closed: u64 = Ended::ALL.iter().map(|by| counters.ended_by(*by)).sum();
    assert_eq!((counters.live_sessions, closed), (10, 0));
}

#[tokio::test]
async fn every_worker_shows_that_it_turns() {
    let (sender, mut beats) = tokio::sync::mpsc::unbounded_channel();
    let proxy = proxy::Proxy::start(proxy::Options {
        workers: 3,
        beat: Arc::new(move |worker| {
            // The test may have seen enough.
            sender.send(worker).ok();
        }),
        events: None,
        records: None,
        patience: proxy::Patience::default(),
        limits: proxy::GatewayLimits::default(),
        rings: Vec::new(),
    })
    .unwrap();
    let mut count = [0; 3];
    while count.iter().any(|count| *count < 3) {
        count[soon(beats.recv()).await.unwrap()] += 1;
    }
    drop(proxy);
    while soon(beats.recv()).await.is_some() {}
}

#[tokio::test]
async fn a_socket_that_cannot_be_used_is_told_and_missed() {
    let rig = Rig::new(&[echo().await]);
    let mut config = rig.config.clone();
    let bare = nowhere();
    config.pools.get_mut(POOL).unwrap().listeners[0]
        .addresses
        .push(bare);
    let udp = || TcpListener::from(OwnedFd::from(UdpSocket::bind("127.0.0.1:0").unwrap()));
    let bad = vec![(bare, vec![udp(), udp()])];
    rig.proxy.apply(config.clone(), bad).unwrap();
    let listener = rig.proxy.snapshot().listeners[1].clone();
    assert!(!listener.accepting);
    assert_eq!(listener.problem, Some(ListenerProblem::BadSocket));
    assert_eq!(rig.proxy.missing_sockets(&config), [bare]);
    // One worker that can is enough.
    let (_, mut good) = sockets(bare);
    good.truncate(1);
    good.push(udp());
    rig.proxy.apply(config, vec![(bare, good)]).unwrap();
    round_trip(&mut connect(bare).await, "by one worker").await;
    let listener = rig.proxy.snapshot().listeners[1].clone();
    assert_eq!((listener.accepting, listener.problem), (true, None));
}

#[tokio::test]
async fn what_a_worker_did_not_obey_is_not_in_force() {
    // The loop of one worker hangs until it is let go.
    let (hang, wait) = mpsc::channel::<()>();
    let wait = std::sync::Mutex::new(wait);
    let proxy = proxy::Proxy::start(proxy::Options {
        workers: 1,
        beat: Arc::new(move |_| {
            let _end = wait.lock().unwrap().recv();
        }),
        events: None,
        records: None,
        patience: proxy::Patience::default(),
        limits: proxy::GatewayLimits::default(),
        rings: Vec::new(),
    })
    .unwrap();
    let sockets = sockets("127.0.0.1:0".parse().unwrap());
    let address = sockets.0;
    let config = proxy::Config {
        pools: [(POOL.to_owned(), pool(&[address], &[echo().await]))].into(),
    };
    let silent = |result| matches!(result, Err(Error::WorkerSilent { worker: 0 }));
    assert!(silent(proxy.apply(config.clone(), vec![sockets])));
    assert!(!proxy.snapshot().listeners[0].accepting);
    assert!(
        silent(proxy.apply(config.clone(), Vec::new())),
        "it still hangs"
    );
    drop(hang);
    proxy.apply(config.clone(), Vec::new()).unwrap();
    assert_eq!(proxy.missing_sockets(&config), [address]);
    proxy.apply(config, vec![self::sockets(address)]).unwrap();
    assert!(proxy.snapshot().listeners[0].accepting);
    round_trip(&mut connect(address).await, "obeyed").await;
}
