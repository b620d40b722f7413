//! One server: its share, its load, and whether it can be reached.
//!
//! An endpoint that refuses or does not answer a connection attempt gets no more new sessions, and is
//! tried again each second until it accepts. A new endpoint, and one whose sessions break, is tried
//! once. What else tells whether it is well is said in `health`.

mod check;
mod fault;
mod losses;
mod reach;

use std::{
    net::SocketAddr,
    sync::{
        Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant, SystemTime},
};

pub(crate) use self::{
    check::{check, suspect},
    fault::Fault,
    reach::{ConnectFault, Unreached, connect, heard, reach},
};
use self::{
    fault::{SOUND, UNTRIED},
    losses::Losses,
};
use crate::{
    config::{self, Phase, Upstream},
    endpoint_stats::EndpointStats,
    health::Condition,
    live::Shared,
    observe::EndpointProblem,
    proxy_protocol,
    tls::ClientTls,
};

const READY: u8 = 0;
const NOT_READY: u8 = 1;
const TERMINATING: u8 = 2;
const REMOVED: u8 = 3;

/// A server of a pool, shared by all workers and by successive configurations.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    weight: AtomicU16,
    phase: AtomicU8,
    fault: AtomicU8,
    checking: AtomicBool,
    /// Sessions of it were lost since the last look at it began.
    suspected: AtomicBool,
    /// It is in this host's zone.
    is_near: AtomicBool,
    pub(crate) condition: Condition,
    /// Since when it takes new sessions, as far as is known.
    since: Mutex<Option<Instant>>,
    losses: Mutex<Losses>,
    /// How it is spoken to.
    access: Mutex<Access>,
    /// When the last of its sessions is told to go, while they are.
    drained: Mutex<Option<SystemTime>>,
    /// Live sessions and handshakes on their way.
    pub(crate) load: AtomicUsize,
    /// Live sessions.
    pub(crate) sessions: AtomicUsize,
    /// Those of them that were told to end.
    pub(crate) leaving: AtomicUsize,
    pub(crate) stats: EndpointStats,
    /// Place in the turn (`balance`).
    pub(crate) credit: AtomicI64,
}

/// How an endpoint is spoken to.
#[derive(Clone, Debug, Default)]
struct Access {
    tls: Option<ClientTls>,
    /// The header of the PROXY protocol that it wants first.
    header: Option<proxy_protocol::Version>,
}

impl Endpoint {
    /// An endpoint that is not listed yet.
    pub(crate) fn new(address: SocketAddr, workers: usize) -> Self {
        Self {
            address,
            weight: AtomicU16::new(1),
            phase: AtomicU8::new(REMOVED),
            fault: AtomicU8::new(UNTRIED),
            checking: AtomicBool::new(false),
            suspected: AtomicBool::new(false),
            is_near: AtomicBool::new(false),
            condition: Condition::default(),
            since: Mutex::default(),
            losses: Mutex::default(),
            access: Mutex::default(),
            drained: Mutex::default(),
            load: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            leaving: AtomicUsize::new(0),
            stats: EndpointStats::new(workers),
            credit: AtomicI64::new(0),
        }
    }

    /// Takes in what the configuration says of it; whether it is to be checked now.
    pub(crate) fn update(&self, listed: Option<config::Endpoint>) -> bool {
        let Some(listed) = listed else {
            self.phase.store(REMOVED, Release);
            return false;
        };
        self.weight.store(listed.weight, Relaxed);
        self.is_near.store(listed.is_near, Relaxed);
        let phase = match listed.phase {
            Phase::Ready => READY,
            Phase::NotReady => NOT_READY,
            Phase::Terminating => TERMINATING,
        };
        let before = self.phase.swap(phase, AcqRel);
        if before == REMOVED {
            // Since it was listed last nobody looked.
            self.fault.store(UNTRIED, Release);
            self.condition.forget();
        }
        if before != READY && phase == READY {
            self.started(Some(Instant::now()));
        }
        if self.keeps_sessions() {
            *self.drained.lock().unwrap_or_else(PoisonError::into_inner) = None;
        }
        self.fault.load(Acquire) != SOUND
    }

    /// Takes in how its upstream is spoken to, from the next connection on.
    pub(crate) fn secure(&self, upstream: &Upstream) {
        let access = Access {
            tls: upstream.tls.clone(),
            header: upstream.proxy_protocol,
        };
        *self.access.lock().unwrap_or_else(PoisonError::into_inner) = access;
    }

    /// TLS with it, if it is to be.
    pub(crate) fn tls(&self) -> Option<ClientTls> {
        self.access().tls
    }

    fn access(&self) -> Access {
        let access = self.access.lock().unwrap_or_else(PoisonError::into_inner);
        access.clone()
    }

    /// It takes new sessions since then.
    pub(crate) fn started(&self, at: Option<Instant>) {
        *self.since.lock().unwrap_or_else(PoisonError::into_inner) = at;
    }

    /// For how long it has taken new sessions.
    pub(crate) fn accepts_for(&self, now: Instant) -> Duration {
        let since = self.since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }

    pub(crate) fn weight(&self) -> u16 {
        self.weight.load(Relaxed)
    }

    /// Whether it is listed and takes new sessions, as far as the configuration says.
    pub(crate) fn is_ready(&self) -> bool {
        self.phase.load(Acquire) == READY
    }

    /// Whether it keeps the sessions it has.
    pub(crate) fn keeps_sessions(&self) -> bool {
        matches!(self.phase.load(Acquire), READY | NOT_READY)
    }

    /// Whether it is in this host's zone.
    pub(crate) fn is_near(&self) -> bool {
        self.is_near.load(Relaxed)
    }

    /// Live sessions that were not told to end.
    pub(crate) fn staying(&self) -> usize {
        let leaving = self.leaving.load(Relaxed);
        self.sessions.load(Relaxed).saturating_sub(leaving)
    }

    /// Sessions of it are told to go until then.
    pub(crate) fn drains_until(&self, at: SystemTime) {
        let mut drained = self.drained.lock().unwrap_or_else(PoisonError::into_inner);
        *drained = (*drained).max(Some(at));
    }

    /// When the last of its sessions is told to go, where they are.
    pub(crate) fn drained(&self) -> Option<SystemTime> {
        if self.keeps_sessions() {
            return None;
        }
        *self.drained.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether new sessions should be sent to it.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_reachable() && self.condition.problem().is_none()
    }

    /// Whether it takes connections, as far as is known.
    pub(crate) fn is_reachable(&self) -> bool {
        self.is_ready() && !self.is_failing()
    }

    /// Whether it is known to be within this host's reach. One that is reached and answers wrongly is:
    /// no other host would do better.
    pub(crate) fn is_sound(&self) -> bool {
        self.is_ready() && self.fault.load(Acquire) == SOUND && !self.condition.is_out_of_reach()
    }

    pub(crate) fn is_untried(&self) -> bool {
        self.is_ready() && self.fault.load(Acquire) == UNTRIED
    }

    fn is_failing(&self) -> bool {
        !matches!(self.fault.load(Acquire), SOUND | UNTRIED)
    }

    /// A session broke since its connection to this endpoint did: how long its client waits before
    /// it is told.
    pub(crate) fn loss_slot(&self, now: Instant) -> Duration {
        let mut losses = self.losses.lock().unwrap_or_else(PoisonError::into_inner);
        losses.slot(now)
    }

    pub(crate) fn problem(&self) -> Option<EndpointProblem> {
        match self.phase.load(Acquire) {
            READY => {}
            NOT_READY => return Some(EndpointProblem::NotReady),
            REMOVED => return Some(EndpointProblem::Removed),
            _ => return Some(EndpointProblem::Terminating),
        }
        fault::problem_of(self.fault.load(Acquire)).or_else(|| self.condition.problem())
    }

    /// Whether that is news of it.
    fn set_fault(&self, fault: u8, shared: &Shared) -> bool {
        let before = self.fault.swap(fault, AcqRel);
        if before != fault {
            if let Some(problem) = self.problem() {
                let endpoint = self.address;
                tracing::warn!(%endpoint, %problem, "endpoint gets no new sessions");
            } else {
                if fault == SOUND {
                    self.started(Some(Instant::now()));
                }
                tracing::info!(endpoint = %self.address, "endpoint accepts");
            }
            shared.publish_usable();
        }
        (before == SOUND || before == UNTRIED) != (fault == SOUND)
    }
}

#[cfg(test)]
mod tests {
    use super::{fault::REFUSED, *};

    #[test]
    fn one_that_is_listed_again_starts_without_its_old_fault() {
        let endpoint = Endpoint::new(SocketAddr::from(([127, 0, 0, 1], 1)), 1);
        let ready = Some(config::Endpoint {
            address: endpoint.address,
            weight: 1,
            phase: Phase::Ready,
            is_near: false,
        });
        assert!(endpoint.update(ready), "nobody has tried it");
        assert!(endpoint.is_usable() && !endpoint.is_sound());
        endpoint.fault.store(SOUND, Relaxed);
        assert!(!endpoint.update(ready));
        endpoint.fault.store(REFUSED, Relaxed);
        assert!(endpoint.update(ready));
        assert!(!endpoint.is_usable(), "an edit is no reason to try it");
        assert!(!endpoint.update(None));
        assert!(endpoint.update(ready));
        assert!(endpoint.is_usable() && endpoint.is_untried());
    }
}
