//! Endpoints that fail clients.

use std::time::Duration;

use proxy::{EndpointProblem, Retry};

use super::{Mode, Server, next, problem};
use crate::support::{Rig, try_connect};

const EJECTED: Option<EndpointProblem> = Some(EndpointProblem::Ejected);

/// As many retries as it takes.
const FREE: Retry = Retry {
    budget_percent: 100,
    min_per_second: 1000,
};

/// Two failures in a row leave one out for `base`.
fn strict(servers: &[&Server], base: Duration) -> Rig {
    let addresses: Vec<_> = servers.iter().map(|server| server.address).collect();
    Rig::with(&addresses, |pool| {
        pool.upstreams[0].handshake_timeout = Duration::from_secs(1);
        pool.upstreams[0].health.retry = FREE;
        let ejection = &mut pool.upstreams[0].health.ejection;
        ejection.consecutive_failures = 2;
        ejection.base = base;
        ejection.most = base * 8;
    })
}

#[tokio::test]
async fn one_that_fails_clients_is_left_out_whatever_way_it_fails() {
    for mode in [
        Mode::Reset,
        Mode::Nonsense,
        Mode::Hang,
        Mode::Status(502),
        Mode::Status(503),
        Mode::Status(504),
    ] {
        let (bad, good) = (Server::bad("bad", mode).await, Server::new("good").await);
        let rig = strict(&[&bad, &good], Duration::from_hours(1));
        for _ in 0..8 {
            assert_eq!(next(&rig).await, "good", "{mode:?} costs clients nothing");
        }
        let seen = rig.proxy.snapshot();
        assert_eq!(problem(&seen, 0), EJECTED, "{mode:?}");
        assert!(!seen.endpoints[0].usable && seen.endpoints[1].usable);
        assert_eq!(bad.handshakes(), 2, "{mode:?}");
        assert_eq!(seen.upstreams[0].health.ejections, 1);
        assert_eq!(seen.counters.retries, 2);
    }
}

#[tokio::test]
async fn what_a_server_says_of_itself_is_no_failure() {
    let (a, b) = (
        Server::bad("a", Mode::Status(404)).await,
        Server::new("b").await,
    );
    let rig = strict(&[&a, &b], Duration::from_hours(1));
    for _ in 0..10 {
        drop(try_connect(rig.address).await);
    }
    assert_eq!((a.handshakes(), b.handshakes()), (5, 5));
    assert_eq!(problem(&rig.proxy.snapshot(), 0), None);
}

#[tokio::test]
async fn it_comes_back_on_trial_and_for_good_once_it_is_well() {
    let (bad, good) = (
        Server::bad("bad", Mode::Status(503)).await,
        Server::new("good").await,
    );
    let rig = strict(&[&bad, &good], Duration::from_millis(150));
    for _ in 0..4 {
        assert_eq!(next(&rig).await, "good");
    }
    assert_eq!(rig.proxy.snapshot().upstreams[0].health.ejections, 1);
    rig.until("on trial", |s| s.endpoints[0].usable).await;
    for _ in 0..2 {
        assert_eq!(next(&rig).await, "good");
    }
    let seen = rig.proxy.snapshot();
    assert_eq!(
        (bad.handshakes(), seen.upstreams[0].health.ejections),
        (3, 2)
    );
    bad.be(Mode::Well);
    rig.until("back", |s| s.endpoints[0].usable).await;
    let mut names: Vec<_> = [next(&rig).await, next(&rig).await].into();
    names.sort();
    assert_eq!(names, ["bad", "good"]);
    assert_eq!(rig.proxy.snapshot().upstreams[0].health.ejections, 2);
}

#[tokio::test]
async fn no_more_are_left_out_than_may_be() {
    let mut servers = vec![Server::new("good").await];
    for name in ["b", "c", "d"] {
        servers.push(Server::bad(name, Mode::Reset).await);
    }
    let servers: Vec<_> = servers.iter().collect();
    let mut rig = strict(&servers, Duration::from_hours(1));
    for _ in 0..30 {
        assert_eq!(next(&rig).await, "good");
    }
    let out = |rig: &Rig| {
        let seen = rig.proxy.snapshot();
        let out = (0..4).filter(|index| problem(&seen, *index) == EJECTED);
        (out.count(), seen.upstreams[0].health.ejections)
    };
    assert_eq!(out(&rig), (2, 2), "half of four");
    rig.edit(|pool| pool.upstreams[0].health.ejection.max_percent = 75);
    for _ in 0..10 {
        assert_eq!(next(&rig).await, "good");
    }
    assert_eq!(out(&rig), (3, 3));
}
