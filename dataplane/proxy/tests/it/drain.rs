//! The sessions of an endpoint that goes: how fast they end, and what is seen of it.

use std::time::{Duration, Instant, SystemTime};

use proxy::{Ended, EndpointProblem, EndpointSnapshot, Phase, Snapshot};

use crate::support::{POOL, Rig, Ws, echo, endpoint, read_close};

const HOUR: Duration = Duration::from_hours(1);

async fn open(rig: &Rig, count: usize) -> Vec<Ws> {
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(rig.connect().await);
    }
    clients
}

#[tokio::test]
async fn a_rate_ends_sessions_long_before_the_deadline() {
    const SESSIONS: u32 = 20;
    const RATE: u32 = 40;
    let mut rig = Rig::with(&[echo().await], |pool| {
        pool.drain.timeout = HOUR;
        pool.drain.sessions_per_second = Some(RATE);
    });
    let clients = open(&rig, 20).await;
    let begun = Instant::now();
    rig.edit(|pool| pool.upstreams[0].endpoints[0].phase = Phase::Terminating);
    let mut ends = Vec::new();
    for mut ws in clients {
        let told = tokio::spawn(async move { (read_close(&mut ws).await, begun.elapsed()) });
        ends.push(told);
    }
    let mut last = Duration::ZERO;
    for end in ends {
        let (close, at) = end.await.unwrap();
        assert_eq!(close, Some((1001, "backend is going away".to_owned())));
        last = last.max(at);
    }
    // Workers that do not have the same number of sessions are not at it for the same time.
    assert!(
        last >= Duration::from_secs(1) * (SESSIONS - 2) / RATE / 2,
        "{last:?}"
    );
    rig.until("counted", |s| {
        s.counters.ended_by(Ended::EndpointGone) == SESSIONS.into()
    })
    .await;
}

/// The snapshot of the endpoint that is not the first.
fn going(snapshot: &Snapshot) -> Option<&EndpointSnapshot> {
    assert_eq!(snapshot.endpoints[0].drained, None);
    snapshot.endpoints.get(1)
}

#[tokio::test]
async fn an_endpoint_that_goes_is_seen_until_its_last_session_has_ended() {
    let mut rig = Rig::with(&[echo().await, echo().await], |pool| {
        pool.drain.timeout = HOUR;
    });
    let clients = open(&rig, 12).await;
    let old = rig.config.pools[POOL].upstreams[0].endpoints[1];
    let begun = SystemTime::now();
    rig.edit(|pool| pool.upstreams[0].endpoints.truncate(1));
    // The first session of each worker, or of one, is told soon, and the others within the hour.
    let is_told = |s: &Snapshot| going(s).is_some_and(|one| one.drained.is_some());
    let snapshot = rig.until("told", is_told).await;
    let seen = going(&snapshot).unwrap();
    assert_eq!((seen.address, seen.usable), (old.address, false));
    assert_eq!(seen.problem, Some(EndpointProblem::Removed));
    assert!(seen.sessions >= 4, "{seen:?}");
    let within = seen.drained.unwrap().duration_since(begun).unwrap();
    assert!((HOUR / 2..=HOUR).contains(&within), "{within:?}");
    // It is seen for as long as it has sessions, whatever else is edited meanwhile.
    rig.edit(|pool| pool.drain.close_code = 4000);
    assert!(is_told(&rig.proxy.snapshot()));
    // One that is listed again does not go any more.
    rig.edit(|pool| pool.upstreams[0].endpoints.push(endpoint(old.address)));
    let snapshot = rig.proxy.snapshot();
    let seen = going(&snapshot).unwrap();
    assert_eq!((seen.drained, seen.problem), (None, None));
    assert!(seen.sessions >= 4, "{seen:?}");
    rig.edit(|pool| pool.upstreams[0].endpoints.truncate(1));
    rig.until("told again", is_told).await;
    drop(clients);
    rig.until("gone", |s| going(s).is_none()).await;
}
