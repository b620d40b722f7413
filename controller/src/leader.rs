//! The lease: of several replicas one writes.
//!
//! A small machine over `coordination.k8s.io`, and its driver. The machine judges by its own clock
//! when a lease was last seen to change, never by the times that others wrote.

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::wait::put;

/// How long a holder that says nothing is still the holder.
pub const DURATION: Duration = Duration::from_secs(10);
/// How often it says so.
const RENEW: Duration = Duration::from_secs(2);
/// A holder that could not renew for so long stops writing, well before others may begin.
const GIVE_UP: Duration = Duration::from_secs(7);
/// Limit for one call.
const CALL: Duration = Duration::from_secs(3);

/// What to do about the lease.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Step {
    /// Write it with our name.
    Take,
    /// It is another's.
    Wait,
}

/// What is known of the lease.
#[derive(Debug)]
pub struct Machine {
    name: String,
    seen: Option<(Option<String>, Option<Timestamp>)>,
    seen_at: Option<Instant>,
    renewed_at: Option<Instant>,
}

impl Machine {
    /// For the replica `name`.
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            seen: None,
            seen_at: None,
            renewed_at: None,
        }
    }

    /// The lease as it stands.
    pub fn observe(&mut self, spec: Option<&LeaseSpec>, now: Instant) -> Step {
        let holder = spec.and_then(|spec| spec.holder_identity.clone());
        let holder = holder.filter(|holder| !holder.is_empty());
        let renewed = spec.and_then(|spec| spec.renew_time.as_ref().map(|time| time.0));
        let state = (holder.clone(), renewed);
        if self.seen.as_ref() != Some(&state) {
            self.seen = Some(state);
            self.seen_at = Some(now);
        }
        let silent = self
            .seen_at
            .is_some_and(|at| now.duration_since(at) >= DURATION);
        match holder {
            Some(holder) if holder != self.name && !silent => Step::Wait,
            _ => Step::Take,
        }
    }

    /// It was written with our name at `now`, the moment before the call.
    pub fn taken(&mut self, now: Instant) {
        self.renewed_at = Some(now);
    }

    /// Another has it.
    pub fn lost(&mut self) {
        self.renewed_at = None;
    }

    /// Whether this replica may write.
    pub fn leads(&self, now: Instant) -> bool {
        self.renewed_at
            .is_some_and(|at| now.duration_since(at) < GIVE_UP)
    }
}

/// Keeps at the lease `name` for ever; `leads` tells whether this replica may write, and `live` whether
/// the API server has answered it lately.
pub async fn run(
    client: Client,
    namespace: String,
    name: &'static str,
    replica: String,
    leads: watch::Sender<bool>,
    live: watch::Sender<bool>,
) {
    let api: Api<Lease> = Api::namespaced(client, &namespace);
    let mut machine = Machine::new(&replica);
    let mut answered: Option<Instant> = None;
    loop {
        let now = Instant::now();
        match timeout(CALL, turn(&api, name, &replica, &mut machine, now)).await {
            Ok(Ok(())) => answered = Some(now),
            Ok(Err(error)) => tracing::warn!(%error, "cannot renew the lease; it is tried again"),
            Err(_) => tracing::warn!("the API server does not answer; the lease is not renewed"),
        }
        let is_live = answered.is_some_and(|at| at.elapsed() < GIVE_UP);
        put(&live, is_live);
        let is = machine.leads(Instant::now());
        if put(&leads, is) {
            let what = if is { "leads now" } else { "leads no more" };
            tracing::info!(replica, "{what}");
        }
        sleep(RENEW).await;
    }
}

async fn turn(
    api: &Api<Lease>,
    name: &str,
    replica: &str,
    machine: &mut Machine,
    now: Instant,
) -> Result<(), kube::Error> {
    let stands = api.get_opt(name).await?;
    let spec = stands.as_ref().and_then(|lease| lease.spec.as_ref());
    if machine.observe(spec, now) == Step::Wait {
        machine.lost();
        return Ok(());
    }
    let ours = spec.is_some_and(|spec| spec.holder_identity.as_deref() == Some(replica));
    let time = MicroTime(Timestamp::now());
    let written = LeaseSpec {
        holder_identity: Some(replica.to_owned()),
        lease_duration_seconds: i32::try_from(DURATION.as_secs()).ok(),
        renew_time: Some(time.clone()),
        acquire_time: spec
            .filter(|_| ours)
            .and_then(|spec| spec.acquire_time.clone())
            .or(Some(time)),
        lease_transitions: spec
            .and_then(|spec| spec.lease_transitions)
            .map_or(Some(0), |count| Some(count + i32::from(!ours))),
        ..LeaseSpec::default()
    };
    // With the resource version that was read: of two that take it at once one is refused.
    let params = PostParams::default();
    let result = if let Some(mut lease) = stands {
        lease.spec = Some(written);
        api.replace(name, &params, &lease).await
    } else {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(name.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(written),
        };
        api.create(&params, &lease).await
    };
    match result {
        Ok(_) => machine.taken(now),
        Err(kube::Error::Api(status)) if status.code == 409 => machine.lost(),
        Err(error) => return Err(error),
    }
    Ok(())
}

/// Gives the lease up, so that another takes it at once.
pub async fn release(client: Client, namespace: &str, name: &str, replica: &str) {
    let api: Api<Lease> = Api::namespaced(client, namespace);
    let release = async {
        let mut lease = api.get(name).await?;
        let Some(spec) = lease
            .spec
            .as_mut()
            .filter(|spec| spec.holder_identity.as_deref() == Some(replica))
        else {
            return Ok(());
        };
        spec.holder_identity = None;
        spec.renew_time = None;
        api.replace(name, &PostParams::default(), &lease)
            .await
            .map(drop)
    };
    match timeout(CALL, release).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::debug!(%error, "the lease is not given up; it runs out"),
        Err(_) => tracing::debug!("the lease is not given up; it runs out"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lease(holder: &str, second: i64) -> LeaseSpec {
        LeaseSpec {
            holder_identity: Some(holder.to_owned()),
            renew_time: Timestamp::from_second(second).ok().map(MicroTime),
            ..LeaseSpec::default()
        }
    }

    #[test]
    fn a_free_lease_is_taken() {
        let now = Instant::now();
        let mut machine = Machine::new("a");
        assert_eq!(machine.observe(None, now), Step::Take);
        assert!(!machine.leads(now), "not before it is written");
        machine.taken(now);
        assert!(machine.leads(now));
    }

    #[test]
    fn another_s_lease_is_waited_for_as_long_as_it_is_renewed() {
        let begun = Instant::now();
        let mut machine = Machine::new("a");
        for second in 0..30 {
            let now = begun + Duration::from_secs(second);
            let lease = lease("b", i64::try_from(second).unwrap());
            assert_eq!(machine.observe(Some(&lease), now), Step::Wait);
        }
        let last = lease("b", 29);
        let silent = begun + Duration::from_secs(29) + DURATION;
        assert_eq!(machine.observe(Some(&last), silent), Step::Take);
    }

    #[test]
    fn times_that_others_write_are_not_believed() {
        let now = Instant::now();
        let mut machine = Machine::new("a");
        assert_eq!(machine.observe(Some(&lease("b", 0)), now), Step::Wait);
    }

    #[test]
    fn a_holder_that_cannot_renew_stops_before_another_begins() {
        let now = Instant::now();
        let mut machine = Machine::new("a");
        machine.taken(now);
        assert!(!machine.leads(now + GIVE_UP));
        assert!(GIVE_UP + CALL <= DURATION);
    }

    #[test]
    fn one_that_was_given_up_is_free_at_once() {
        let now = Instant::now();
        let mut machine = Machine::new("a");
        machine.observe(Some(&lease("b", 0)), now);
        assert_eq!(machine.observe(Some(&lease("", 0)), now), Step::Take);
    }
}
