//! `wsha-dataplane proxy --run-dir DIR`, with this test as the agent and as vrrp.

use std::{
    net::{SocketAddr, TcpStream},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use dataplane::{
    ipc::{FromProxy, ProxyReport, ProxyToVrrp, ToProxy, VrrpToProxy},
    metrics::{Metric, Sample},
    sys::life::End,
};
use nix::sys::signal::Signal;
use node_api::{Pool, PoolRef};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::{
    agent::{FIRST, Rig, SECOND, accepting, address, expect, ip, next, pool, pool_ref, usable},
    support::{Process, SOON, close_code, connect, round_trip},
};

#[tokio::test]
async fn vrrp_is_told_what_is_served_and_leads_it_out_address_by_address() {
    let mut rig = Rig::new("led");
    let (vrrp, _page) = rig.pair();
    assert_eq!(next(&vrrp), accepting(Vec::new()));
    let addresses = rig.configure();
    expect(&vrrp, &accepting(addresses.clone()));
    expect(&vrrp, &usable(1));

    let mut first = connect(addresses[0]).await;
    let mut second = connect(addresses[1]).await;
    round_trip(&mut first, "first").await;
    round_trip(&mut second, "second").await;

    let leave = |addresses| vrrp.send(&VrrpToProxy::Leave { addresses }, &[]).unwrap();
    leave(ip(FIRST));
    expect(
        &vrrp,
        &ProxyToVrrp::Left {
            addresses: ip(FIRST),
        },
    );
    assert_eq!(close_code(&mut first).await, 1012);
    expect(&vrrp, &accepting(vec![addresses[1]]));
    let refused = TcpStream::connect(addresses[0]).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    round_trip(&mut second, "still here").await;

    // systemd and Ctrl-C signal all processes; the proxy stops on the agent's word.
    rig.signal(Signal::SIGTERM);
    rig.signal(Signal::SIGINT);
    round_trip(&mut second, "and now").await;

    rig.agent = None;
    leave(ip(SECOND));
    expect(
        &vrrp,
        &ProxyToVrrp::Left {
            addresses: ip(SECOND),
        },
    );
    assert_eq!(close_code(&mut second).await, 1012);
    assert_eq!(rig.ended().code(), Some(75), "another agent may come");
}

#[tokio::test]
async fn sessions_of_an_address_that_vrrp_says_is_lost_are_ended() {
    let mut rig = Rig::new("lost");
    let (vrrp, _page) = rig.pair();
    let addresses = rig.configure_with(|pool| pool.heartbeat.timeout = Duration::from_millis(200));
    let mut gone = connect(addresses[0]).await;
    let mut kept = connect(addresses[1]).await;
    round_trip(&mut gone, "first").await;
    round_trip(&mut kept, "second").await;
    for (address, held) in [(FIRST, true), (SECOND, true), (FIRST, false)] {
        let addresses = ip(address);
        let message = VrrpToProxy::Held { addresses, held };
        vrrp.send(&message, &[]).unwrap();
    }
    rig.report(|report| {
        let listeners = report.pools.first().map(|pool| &pool.listeners);
        let sessions = listeners.map(|all| all.iter().map(|l| l.sessions).collect::<Vec<_>>());
        sessions == Some(vec![0, 1])
    });
    round_trip(&mut kept, "still here").await;
}

#[tokio::test]
async fn without_agent_and_without_lead_it_leaves_by_itself() {
    let mut rig = Rig::new("orphan");
    let (_silent, _page) = rig.pair();
    let addresses = rig.configure();
    let mut ws = connect(addresses[0]).await;
    round_trip(&mut ws, "hello").await;
    rig.agent = None;
    assert_eq!(close_code(&mut ws).await, 1012);
    assert_eq!(rig.ended().code(), Some(75), "another agent may come");
}

#[tokio::test]
async fn it_leaves_on_the_agent_s_word() {
    let mut rig = Rig::new("word");
    let addresses = rig.configure();
    let mut ws = connect(addresses[1]).await;
    round_trip(&mut ws, "hello").await;
    rig.send(&ToProxy::Leave, &[]);
    assert_eq!(rig.answer(), FromProxy::Left);
    assert_eq!(close_code(&mut ws).await, 1012);
    assert!(rig.ended().success());
}

#[tokio::test]
async fn a_report_warns_when_few_descriptors_are_left_and_no_longer_once_they_are_back() {
    const MOST: u32 = 300;
    let mut rig = Rig::start("ceiling", |arguments| {
        Process::with_descriptors(MOST, arguments)
    });
    let addresses = rig.configure();
    let value = |report: &ProxyReport, metric| {
        let mut samples = report.samples.iter();
        samples
            .find(|sample| sample.metric == metric)
            .map(|sample| sample.value)
    };
    let mut sessions = Vec::new();
    for _ in 0..110 {
        sessions.push(connect(addresses[0]).await);
    }
    let quiet = rig.report(|report| value(report, Metric::ProxyOpenFiles) >= Some(220.0));
    assert_eq!(
        value(&quiet, Metric::ProxyOpenFilesLimit),
        Some(f64::from(MOST))
    );
    assert!(quiet.warnings.is_empty(), "{:?}", quiet.warnings);
    for _ in 0..10 {
        sessions.push(connect(addresses[0]).await);
    }
    let near = rig.report(|report| !report.warnings.is_empty());
    assert!(
        near.warnings[0].contains("of the 300 file descriptors"),
        "{near:?}"
    );
    sessions.truncate(10);
    rig.report(|report| report.warnings.is_empty());
}

#[tokio::test]
async fn a_report_counts_sessions_and_a_refused_configuration_changes_nothing() {
    let mut rig = Rig::new("report");
    let addresses = rig.configure();
    let mut ws = connect(addresses[0]).await;
    round_trip(&mut ws, "hello").await;
    let report = rig.report(|report| {
        let pool = report.pools.first();
        let samples = report.samples.iter();
        let messages = samples.filter(|sample| sample.metric == Metric::ProxyEndpointMessages);
        // It counts what it has passed on.
        pool.is_some_and(|pool| pool.endpoints[0].sessions == 1) && messages.count() == 2
    });
    let pool = &report.pools[0];
    assert_eq!(pool.pool, pool_ref("chat"));
    let sessions: Vec<_> = pool
        .listeners
        .iter()
        .map(|l| (l.address, l.sessions))
        .collect();
    assert_eq!(sessions, [(addresses[0], 1), (addresses[1], 0)]);
    assert!(pool.listeners.iter().all(|listener| listener.accepting));
    let value = |metric, labels: &[(&str, &str)]| {
        let mut samples = report.samples.iter();
        let is_it = |sample: &&Sample| {
            let labels = labels
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
            sample.metric == metric && labels.eq(sample.labels.iter().cloned())
        };
        samples.find(is_it).expect("such a sample").value
    };
    let is_one = |value: f64| (value - 1.0).abs() < f64::EPSILON;
    let address = pool.endpoints[0].address;
    let (pool, upgraded) = (("pool", "default/chat"), ("result", "upgraded"));
    let by_listener = [pool, ("listener", "ws"), upgraded];
    assert!(is_one(value(Metric::ProxyHandshakes, &by_listener)));
    let endpoint = address.to_string();
    let endpoint = [pool, ("upstream", "echo"), ("endpoint", &endpoint)];
    let with = |label| [endpoint[0], endpoint[1], endpoint[2], label];
    assert!(is_one(value(Metric::ProxyEndpointSessions, &endpoint)));
    for (metric, label) in [
        (Metric::ProxyEndpointHandshakes, upgraded),
        (Metric::ProxyEndpointMessages, ("from", "client")),
        (Metric::ProxyEndpointMessages, ("from", "backend")),
    ] {
        assert!(is_one(value(metric, &with(label))), "{metric:?}");
    }

    let both = ["chat", "other"].map(|name| pool_of(name, rig.port));
    let clash = ToProxy::Configure {
        sequence: 2,
        pools: both.to_vec(),
        sockets: Vec::new(),
        keys: node_api::Keys::default(),
        refused: Vec::new(),
    };
    rig.send(&clash, &[]);
    let report = rig.report(|report| !report.warnings.is_empty());
    assert!(report.warnings[0].contains("both listen on"), "{report:?}");
    assert_eq!(report.pools.len(), 1);
    round_trip(&mut ws, "untouched").await;
    round_trip(&mut connect(addresses[1]).await, "still accepting").await;
}

#[tokio::test]
async fn access_records_are_lines_of_json_also_of_sessions_that_end_with_the_process() {
    let mut rig = Rig::new("records");
    let (_vrrp, _page) = rig.pair();
    let log = node_api::AccessLog {
        sample_percent: 100,
    };
    let address = rig.configure_with(|pool| pool.access_log = Some(log))[0];
    let mut bad = tokio::net::TcpStream::connect(address).await.unwrap();
    bad.write_all(b"GET /nowhere HTTP/1.0\r\nHost: a\r\n\r\n")
        .await
        .unwrap();
    let record = rig.process.as_ref().unwrap().record();
    assert_eq!(record["handshake"], "refused", "{record}");
    assert_eq!(record["status"], 426);
    assert_eq!(record["client"], bad.local_addr().unwrap().to_string());
    assert!(record.get("endedBy").is_none() && record.get("fromClient").is_none());
    let time = record["time"].as_str().unwrap();
    assert!(time.starts_with("20") && time.ends_with('Z'), "{time}");

    let mut ws = connect(address).await;
    round_trip(&mut ws, "hello").await;
    rig.send(&ToProxy::Leave, &[]);
    assert_eq!(close_code(&mut ws).await, 1012);
    let process = rig.process.take().unwrap();
    let record = process.record();
    assert_eq!(record["pool"], "default/chat", "{record}");
    assert_eq!(record["listener"], "ws");
    assert_eq!(record["path"], "/");
    assert_eq!(record["status"], 101);
    assert_eq!(record["endedBy"], "left");
    assert_eq!(record["closeCode"], 1012);
    assert_eq!(record["fromClient"]["messages"], 1);
    assert_eq!(record["fromEndpoint"]["messages"], 1);
    assert!(process.ended().success());
}

/// Who comes, with which names and from where, and goes with which code, adds nothing to what is kept.
#[tokio::test]
async fn a_thousand_clients_make_no_more_series_than_one() {
    let mut rig = Rig::new("series");
    let address = rig.configure()[0];
    let visit = async |number: u16| {
        let [high, low] = number.to_be_bytes();
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        let source = SocketAddr::from(([127, 1, high, low], 0));
        socket.bind(source).unwrap();
        let mut stream = socket.connect(address).await.unwrap();
        let request = format!(
            "GET /rooms/{number}?user={number} HTTP/1.1\r\nHost: host-{number}.example\r\n\
             Origin: https://page-{number}.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(b"\r\n\r\n") {
            answer.push(stream.read_u8().await.unwrap());
        }
        assert!(answer.starts_with(b"HTTP/1.1 101 "));
        // A text of one byte, and a Close with a code of the client's own.
        let text = [0x81, 0x81, 0, 0, 0, 0, b'x'];
        let [high, low] = (3000 + number).to_be_bytes();
        let close = [0x88, 0x82, 0, 0, 0, 0, high, low];
        stream
            .write_all(&[&text[..], &close].concat())
            .await
            .unwrap();
        stream.read_to_end(&mut Vec::new()).await.unwrap();
    };
    let series = |rig: &Rig, sessions: f64| {
        let report = rig.report(|report| {
            let samples = report.samples.iter();
            let ended = samples.filter(|sample| sample.metric == Metric::ProxySessionsEnded);
            ended.map(|sample| sample.value).sum::<f64>() >= sessions
        });
        let samples = report.samples.into_iter();
        samples
            .map(|sample| (sample.metric, sample.labels, sample.buckets.len()))
            .collect::<Vec<_>>()
    };
    visit(0).await;
    let of_one = series(&rig, 1.0);
    for number in 1..=1000 {
        visit(number).await;
    }
    assert_eq!(series(&rig, 1001.0), of_one);
    assert!(of_one.iter().any(|(metric, _, buckets)| {
        *metric == Metric::ProxyHandshakeTime && *buckets == proxy::BUCKETS
    }));
    let ended = |(metric, labels, _): &(Metric, Vec<(String, String)>, usize)| {
        let code = ("code".to_owned(), "application".to_owned());
        *metric == Metric::ProxySessionsEnded && labels.contains(&code)
    };
    assert_eq!(of_one.iter().filter(|one| ended(one)).count(), 1);
}

fn pool_of(name: &str, port: u16) -> (PoolRef, Pool) {
    pool(name, port, address(FIRST, 1))
}

#[test]
fn a_listener_that_the_agent_could_not_open_says_why() {
    let rig = Rig::new("refused");
    let taken = address(FIRST, 8020);
    let reason = "port 8020 is in use: stop what listens there".to_owned();
    let message = ToProxy::Configure {
        sequence: 7,
        pools: vec![pool_of("chat", 8020)],
        sockets: Vec::new(),
        keys: node_api::Keys::default(),
        refused: vec![(taken, reason.clone())],
    };
    rig.send(&message, &[]);
    assert_eq!(rig.answer(), FromProxy::Applied { sequence: 7 });
    let report = rig.report(|report| !report.pools.is_empty());
    let listener = &report.pools[0].listeners[0];
    assert!(!listener.accepting);
    assert_eq!(listener.problem, Some(reason));
}

/// The socket of a killed process is closed long after the mark on its mutex where it had much memory.
#[test]
fn the_death_of_vrrp_is_seen_without_an_end_of_file() {
    let rig = Rig::new("vrrp-death");
    let (vrrp, page) = rig.pair();
    let page = page.leak();
    let held = VrrpToProxy::Held {
        addresses: Vec::new(),
        held: false,
    };
    thread::scope(|scope| {
        let owner = scope.spawn(|| {
            page.vrrp_life.hold().unwrap();
            vrrp.send(&held, &[]).unwrap();
        });
        owner.join().unwrap();
    });
    // The proxy gives up its end; this one is still open.
    while vrrp.receive::<ProxyToVrrp>().unwrap().is_some() {}
    assert!(rig.report(|_| true).pools.is_empty());
}

#[test]
fn its_death_is_seen_on_the_newest_page_and_its_beats_move_there() {
    let rig = Rig::new("death");
    let (_first, old) = rig.pair();
    let (_second, page) = rig.pair();
    let begun = page.oldest_beat();
    let until = Instant::now() + SOON;
    while page.oldest_beat() <= begun {
        assert!(Instant::now() < until, "the workers do not beat");
        thread::sleep(Duration::from_millis(1));
    }
    rig.signal(Signal::SIGKILL);
    let (sender, end) = mpsc::channel();
    thread::spawn(move || {
        for page in [page, old] {
            sender
                .send(page.proxy_life.wait_for_end().unwrap())
                .unwrap();
        }
    });
    assert_eq!(end.recv_timeout(SOON), Ok(End::Died));
    assert_eq!(end.recv_timeout(SOON), Ok(End::Died));
}
