//! Questions of our own.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use proxy::{
    CheckFailure, EndpointProblem, Event, HealthCheck, Probe, Snapshot, proxy_protocol::Version,
};
use tokio::{
    io::AsyncReadExt,
    net::TcpListener,
    sync::{Semaphore, mpsc},
};

use super::{Mode, Server, greeting, next, problem, usable};
use crate::support::{Rig, listen, nowhere, read_head, round_trip, soon};

fn http() -> Probe {
    Probe::Http {
        path: "/healthy?full=1".to_owned(),
        host: Some("chat.example".to_owned()),
        expected_statuses: Vec::new(),
    }
}

fn web_socket() -> Probe {
    Probe::WebSocket {
        path: "/".to_owned(),
        host: None,
    }
}

/// Asked often; two answers in a row count.
fn check(probe: Probe) -> HealthCheck {
    HealthCheck {
        probe,
        port: None,
        interval: Duration::from_millis(40),
        timeout: Duration::from_secs(5),
        failure_threshold: 2,
        success_threshold: 2,
    }
}

fn checked(servers: &[&Server], probe: Probe) -> Rig {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    Rig::with(&addresses, |pool| {
        pool.upstreams[0].health.check = Some(check(probe));
    })
}

#[tokio::test]
async fn one_that_fails_gets_no_new_sessions_and_keeps_those_it_has() {
    for probe in [http(), web_socket()] {
        let (a, b) = (Server::new("a").await, Server::new("b").await);
        let rig = checked(&[&a, &b], probe);
        rig.until("asked", |s| s.upstreams[0].health.checks_passed >= 4)
            .await;
        let mut open = rig.connect().await;
        assert_eq!(greeting(&mut open).await, "a");
        a.be_to_checks(Mode::Status(503));
        let fails = EndpointProblem::CheckFails(CheckFailure::Status(503));
        let seen = rig
            .until("left out", |s| problem(s, 0) == Some(fails))
            .await;
        assert!(!seen.endpoints[0].usable && seen.endpoints[1].usable);
        assert!(seen.upstreams[0].health.checks_failed >= 2);
        for _ in 0..4 {
            assert_eq!(next(&rig).await, "b");
        }
        round_trip(&mut open, "still here").await;
        // It answers, however wrongly: this host has not lost its way to it.
        assert_eq!(usable(&rig.proxy.snapshot()), 2);
        a.be_to_checks(Mode::Well);
        rig.until("back", |s| s.endpoints[0].usable).await;
        let names = [next(&rig).await, next(&rig).await];
        assert!(names.contains(&"a".to_owned()), "{names:?}");
    }
}

#[tokio::test]
async fn what_a_check_has_found_outlives_another_name_of_the_upstream() {
    let (a, b) = (Server::new("a").await, Server::new("b").await);
    a.be_to_checks(Mode::Status(503));
    let mut rig = checked(&[&a, &b], http());
    let fails = EndpointProblem::CheckFails(CheckFailure::Status(503));
    rig.until("left out", |s| problem(s, 0) == Some(fails))
        .await;
    // From now on it says neither that it is well nor that it is not.
    a.be_to_checks(Mode::Hang);
    rig.edit(|pool| pool.upstreams[0].name = "other".to_owned());
    assert_eq!(problem(&rig.proxy.snapshot(), 0), Some(fails));
    // With the question goes what it has found.
    rig.edit(|pool| pool.upstreams[0].health.check = None);
    assert_eq!(problem(&rig.proxy.snapshot(), 0), None);
}

#[tokio::test]
async fn each_way_to_fail_has_its_words() {
    for (probe, mode, failure) in [
        (http(), Mode::Reset, CheckFailure::Closed),
        (http(), Mode::Nonsense, CheckFailure::Malformed),
        (http(), Mode::Status(404), CheckFailure::Status(404)),
        (http(), Mode::Hang, CheckFailure::Timeout),
        (web_socket(), Mode::Reset, CheckFailure::Closed),
        (web_socket(), Mode::Nonsense, CheckFailure::Malformed),
        (web_socket(), Mode::Status(404), CheckFailure::Status(404)),
        // It accepts the session and never answers the Ping.
        (web_socket(), Mode::Mute, CheckFailure::Timeout),
    ] {
        let server = Server::bad("a", mode).await;
        let rig = Rig::with(&[server.address], |pool| {
            let mut check = check(probe.clone());
            check.timeout = Duration::from_millis(200);
            pool.upstreams[0].health.check = Some(check);
        });
        let fails = EndpointProblem::CheckFails(failure);
        let what = format!("{probe:?} of {mode:?}");
        rig.until(&what, |s| problem(s, 0) == Some(fails)).await;
    }
}

#[tokio::test]
async fn only_statuses_that_are_expected_pass() {
    let server = Server::new("a").await;
    server.be_to_checks(Mode::Status(204));
    let mut rig = Rig::with(&[server.address], |pool| {
        pool.upstreams[0].health.check = Some(check(http()));
    });
    rig.until("passed", |s| s.upstreams[0].health.checks_passed > 0)
        .await;
    rig.edit(|pool| {
        let Some(HealthCheck {
            probe: Probe::Http {
                expected_statuses, ..
            },
            ..
        }) = &mut pool.upstreams[0].health.check
        else {
            panic!("not as it was made");
        };
        expected_statuses.push(200);
    });
    // The first answer to a new question decides alone.
    let fails = EndpointProblem::CheckFails(CheckFailure::Status(204));
    rig.until("failed", |s| problem(s, 0) == Some(fails)).await;
    // What is no longer asked speaks against nobody.
    rig.edit(|pool| pool.upstreams[0].health.check = None);
    rig.until("forgotten", |s| s.endpoints[0].usable).await;
    let counted = rig.proxy.snapshot().upstreams[0].health;
    assert!(counted.checks_failed > 0 && counted.checks_passed > 0);
}

#[tokio::test]
async fn a_port_of_its_own_is_asked_and_one_out_of_reach_counts_as_that() {
    let server = Server::new("a").await;
    let rig = Rig::with(&[server.address], |pool| {
        let mut check = check(Probe::Tcp);
        check.port = Some(nowhere().port());
        pool.upstreams[0].health.check = Some(check);
    });
    let fails = EndpointProblem::CheckFails(CheckFailure::Refused);
    rig.until("refused", |s| problem(s, 0) == Some(fails)).await;
    rig.until("told", |s| usable(s) == 0).await;
}

#[tokio::test]
async fn with_all_failing_all_are_used_and_no_host_ranks_lower() {
    let (a, b) = (Server::new("a").await, Server::new("b").await);
    let rig = Rig::with(&[a.address, b.address], |pool| {
        let mut check = check(http());
        check.timeout = Duration::from_millis(200);
        pool.upstreams[0].health.check = Some(check);
    });
    rig.until("both reached", |s| usable(s) == 2).await;
    a.be_to_checks(Mode::Status(500));
    b.be_to_checks(Mode::Hang);
    let none = |s: &Snapshot| s.endpoints.iter().all(|one| !one.usable);
    rig.until("both fail", none).await;
    let mut names = [next(&rig).await, next(&rig).await];
    names.sort();
    assert_eq!(names, ["a", "b"], "what checks say may be wrong");
    assert_eq!(usable(&rig.proxy.snapshot()), 2);
    let told = rig.events.try_iter().filter_map(|event| match event {
        Event::UsableEndpoints { count, .. } => Some(count),
        _ => None,
    });
    let told: Vec<_> = told.skip_while(|count| *count < 2).collect();
    assert_eq!(told, [2], "and so it stayed");
}

#[tokio::test]
async fn servers_that_expect_a_header_get_one_that_passes_nobody_on() {
    for (version, header) in [
        (Version::V1, &b"PROXY UNKNOWN\r\n"[..]),
        (Version::V2, b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"),
    ] {
        let (listener, address) = listen().await;
        let mut rig = Rig::with(&[address], |pool| {
            pool.upstreams[0].proxy_protocol = Some(version);
        });
        // What comes behind the header, which begins each connection.
        let behind = async || {
            let (mut stream, _) = soon(listener.accept()).await.unwrap();
            let mut first = vec![0; header.len()];
            soon(stream.read_exact(&mut first)).await.unwrap();
            assert_eq!(first, header);
            soon(read_head(&mut stream)).await
        };
        assert_eq!(behind().await, None, "the look whether it accepts");
        rig.edit(|pool| pool.upstreams[0].health.check = Some(check(Probe::Tcp)));
        assert_eq!(behind().await, None, "whether it does is all that is asked");
        rig.edit(|pool| pool.upstreams[0].health.check = Some(check(http())));
        let head = loop {
            if let Some(head) = behind().await {
                break head;
            }
        };
        assert!(head.starts_with("GET /healthy?full=1 HTTP/1.1\r\nHost: chat.example\r\n"));
    }
}

/// More endpoints than are asked at once, all of which hang.
#[tokio::test]
async fn so_many_are_asked_at_once_and_no_more() {
    const MOST: usize = 64;
    const ENDPOINTS: u8 = 80;
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let addresses: Vec<_> = (1..=ENDPOINTS)
        .map(|last| SocketAddr::from(([127, 0, 7, last], port)))
        .collect();
    let (asked, mut asking) = mpsc::unbounded_channel();
    let (open, let_go) = (Arc::new(AtomicUsize::new(0)), Arc::new(Semaphore::new(0)));
    let (now, gate) = (Arc::clone(&open), Arc::clone(&let_go));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let (asked, now, gate) = (asked.clone(), Arc::clone(&now), Arc::clone(&gate));
            tokio::spawn(async move {
                if read_head(&mut stream).await.is_some() {
                    let _over = asked.send(now.fetch_add(1, Relaxed) + 1);
                    if let Ok(permit) = gate.acquire().await {
                        permit.forget();
                    }
                    now.fetch_sub(1, Relaxed);
                }
            });
        }
    });
    let _rig = Rig::with(&addresses, |pool| {
        let mut check = check(http());
        check.timeout = Duration::from_mins(1);
        pool.upstreams[0].health.check = Some(check);
    });
    for count in 1..=MOST {
        assert_eq!(soon(asking.recv()).await, Some(count));
    }
    // Each that is answered makes room for one more.
    for _ in 0..10 {
        let_go.add_permits(1);
        let count = soon(asking.recv()).await.unwrap();
        assert!(count <= MOST, "{count}");
    }
    let_go.close();
}
