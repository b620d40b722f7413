//! One server: its share, its load, and whether it can be reached.
//!
//! An endpoint that refuses or does not answer a connection attempt gets no more new sessions, and is
//! tried again each second until it accepts. A new endpoint, and one whose sessions break, is tried
//! once. What else tells whether it is well is said in `health`.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::{Duration, Instant, SystemTime},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{sleep, timeout},
};

use crate::{
    config::{self, Phase, Upstream},
    dial::dial,
    endpoint_stats::EndpointStats,
    health::Condition,
    live::Shared,
    observe::EndpointProblem,
    proxy_protocol,
    stream::Stream,
    tls::{self, ClientTls},
};

/// Pause between two attempts to reach an endpoint that failed.
const RECHECK: Duration = Duration::from_secs(1);

/// Limit for such an attempt.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

/// How long an endpoint that has done its part of TLS may take to refuse ours.
const LAST_WORD: Duration = Duration::from_millis(500);

/// Sessions that break together are told one after the other, so that their clients do not all come
/// back at once: each so long after the one before, in rounds of `LOSS_ROUND`.
const LOSS_STEP: Duration = Duration::from_millis(1);
const LOSS_ROUND: Duration = Duration::from_secs(1);

const READY: u8 = 0;
const NOT_READY: u8 = 1;
const TERMINATING: u8 = 2;
const REMOVED: u8 = 3;

/// It was not tried since it was listed.
const UNTRIED: u8 = 0;
const SOUND: u8 = 1;
const REFUSED: u8 = 2;
const TIMED_OUT: u8 = 3;
const UNREACHABLE: u8 = 4;
const WRONG_HOSTNAME: u8 = 5;
const EXPIRED: u8 = 6;
const UNTRUSTED: u8 = 7;
const TLS_REFUSED: u8 = 8;
const TLS_FAILED: u8 = 9;

/// Why there is no connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(crate) enum Fault {
    Refused = REFUSED,
    TimedOut = TIMED_OUT,
    Unreachable = UNREACHABLE,
    WrongHostname = WRONG_HOSTNAME,
    Expired = EXPIRED,
    Untrusted = UNTRUSTED,
    TlsRefused = TLS_REFUSED,
    TlsFailed = TLS_FAILED,
}

/// A server of a pool, shared by all workers and by successive configurations.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    weight: AtomicU16,
    phase: AtomicU8,
    fault: AtomicU8,
    checking: AtomicBool,
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

/// Sessions that broke one after the other.
#[derive(Debug, Default)]
struct Losses {
    last: Option<Instant>,
    count: u32,
}

impl Losses {
    /// How long the session that broke now waits before its client is told.
    fn slot(&mut self, now: Instant) -> Duration {
        let begins_anew = self.last.is_none_or(|last| now >= last + LOSS_ROUND);
        self.count = if begins_anew {
            0
        } else {
            self.count.wrapping_add(1)
        };
        self.last = Some(now);
        let steps = LOSS_ROUND.as_millis() / LOSS_STEP.as_millis();
        LOSS_STEP * (self.count % u32::try_from(steps).unwrap_or(u32::MAX))
    }
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
        problem_of(self.fault.load(Acquire)).or_else(|| self.condition.problem())
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

fn problem_of(fault: u8) -> Option<EndpointProblem> {
    match fault {
        REFUSED => Some(EndpointProblem::Refused),
        TIMED_OUT => Some(EndpointProblem::ConnectTimeout),
        UNREACHABLE => Some(EndpointProblem::Unreachable),
        WRONG_HOSTNAME => Some(EndpointProblem::WrongHostname),
        EXPIRED => Some(EndpointProblem::ExpiredCertificate),
        UNTRUSTED => Some(EndpointProblem::UntrustedCertificate),
        TLS_REFUSED => Some(EndpointProblem::TlsRefused),
        TLS_FAILED => Some(EndpointProblem::TlsFailed),
        _ => None,
    }
}

/// Why a connection to an endpoint did not come about.
#[derive(Debug)]
pub(crate) enum ConnectFault {
    /// The endpoint's: the next one may do better.
    Endpoint {
        fault: Fault,
        /// It was not known to have one.
        is_news: bool,
    },
    /// Ours: no descriptor, no port; the others would fail alike.
    Local(io::Error),
}

/// Connects to `endpoint` in `limit`, if there is so much time `left`, and records what that tells of it.
/// It gets `header` first.
pub(crate) async fn connect(
    endpoint: &Arc<Endpoint>,
    header: &[u8],
    limit: Duration,
    left: Duration,
    shared: &Arc<Shared>,
) -> Result<Stream, ConnectFault> {
    let reached = reach(endpoint.address, endpoint.access().tls, header);
    let fault = match timeout(limit.min(left), reached).await {
        Ok(Ok(stream)) => {
            endpoint.set_fault(SOUND, shared);
            return Ok(stream);
        }
        Ok(Err(Unreached::Fault(fault))) => fault,
        Ok(Err(Unreached::Local(error))) => return Err(ConnectFault::Local(error)),
        Err(_elapsed) if left < limit.min(CHECK_TIMEOUT) => {
            // The client had used up the time, or others had. That proves nothing: it is looked at.
            check(endpoint, shared);
            return Err(ConnectFault::Endpoint {
                fault: Fault::TimedOut,
                is_news: false,
            });
        }
        Err(_elapsed) => Fault::TimedOut,
    };
    let is_news = endpoint.set_fault(fault as u8, shared);
    check(endpoint, shared);
    Err(ConnectFault::Endpoint { fault, is_news })
}

/// What it said instead of an answer may be that it refuses TLS: an endpoint that speaks TLS 1.3 has not
/// seen our certificate yet when the handshake is over for us (RFC 8446 section 4.4).
pub(crate) fn heard(endpoint: &Arc<Endpoint>, error: &io::Error, shared: &Arc<Shared>) {
    if tls::error(error).is_some() {
        endpoint.set_fault(fault_of_tls(error) as u8, shared);
        check(endpoint, shared);
    }
}

/// Why an endpoint was not reached.
pub(crate) enum Unreached {
    Fault(Fault),
    /// This host's fault.
    Local(io::Error),
}

/// A connection to `address` on which `header` has gone out, secured by `tls` if it is to be.
pub(crate) async fn reach(
    address: SocketAddr,
    tls: Option<ClientTls>,
    header: &[u8],
) -> Result<Stream, Unreached> {
    let mut stream = match dial(address).await {
        Ok(stream) => Stream::from(stream),
        Err(error) => {
            return Err(match classify(&error) {
                Some(fault) => Unreached::Fault(fault),
                None => Unreached::Local(error),
            });
        }
    };
    let Some(tls) = tls else {
        // It may have closed already and still have said why: what is read decides.
        drop(stream.write_all(header).await);
        return Ok(stream);
    };
    let secured = async {
        stream.write_all(header).await?;
        stream
            .secure(tls.connect().map_err(io::Error::other)?)
            .await
    };
    let secured = secured.await;
    secured.map_err(|error| Unreached::Fault(fault_of_tls(&error)))?;
    Ok(stream)
}

fn fault_of_tls(error: &io::Error) -> Fault {
    match tls::error(error).map(tls::Fault::from) {
        Some(tls::Fault::Hostname) => Fault::WrongHostname,
        Some(tls::Fault::Validity) => Fault::Expired,
        Some(tls::Fault::Untrusted) => Fault::Untrusted,
        Some(tls::Fault::Refused) => Fault::TlsRefused,
        // Who ends the connection does not speak TLS, or will not.
        Some(tls::Fault::Failed) | None => Fault::TlsFailed,
    }
}

/// Reaches an endpoint and leaves it again. With TLS its word on our certificate is waited for, which it may
/// say last.
async fn visit(endpoint: &Endpoint) -> Result<(), Unreached> {
    let Access { tls, header } = endpoint.access();
    let header = header.map(proxy_protocol::own).unwrap_or_default();
    let mut stream = reach(endpoint.address, tls, header).await?;
    if stream.is_secure() {
        let last = async {
            stream.shutdown().await?;
            while stream.read(&mut [0; 512]).await? > 0 {}
            Ok(())
        };
        if let Ok(Err(error)) = timeout(LAST_WORD, last).await
            && tls::error(&error).is_some()
        {
            return Err(Unreached::Fault(fault_of_tls(&error)));
        }
    }
    Ok(())
}

/// Whose fault an error is: the endpoint's, or (`None`) this host's.
pub(crate) fn classify(error: &io::Error) -> Option<Fault> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Some(Fault::Refused),
        Some(libc::ETIMEDOUT) => Some(Fault::TimedOut),
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EADDRINUSE
            | libc::EAGAIN,
        ) => None,
        _ => Some(Fault::Unreachable),
    }
}

/// Tries, in the background, to reach an endpoint, until it accepts or is no longer listed.
/// One such task runs per endpoint, whoever asks.
pub(crate) fn check(endpoint: &Arc<Endpoint>, shared: &Arc<Shared>) {
    if endpoint.checking.swap(true, AcqRel) {
        return;
    }
    let endpoint = Arc::clone(endpoint);
    let shared = Arc::clone(shared);
    tokio::task::spawn_local(async move {
        loop {
            // One that just failed is given its second; one of which nothing is known, or that is
            // only suspected, is tried at once.
            if endpoint.is_failing() {
                sleep(RECHECK).await;
            }
            while endpoint.phase.load(Acquire) != REMOVED {
                let fault = match timeout(CHECK_TIMEOUT, visit(&endpoint)).await {
                    Ok(Ok(())) => SOUND,
                    Ok(Err(Unreached::Fault(fault))) => fault as u8,
                    // What this host lacks says nothing of the endpoint.
                    Ok(Err(Unreached::Local(_))) => endpoint.fault.load(Acquire),
                    Err(_elapsed) => TIMED_OUT,
                };
                endpoint.set_fault(fault, &shared);
                if fault == SOUND {
                    break;
                }
                sleep(RECHECK).await;
            }
            endpoint.checking.store(false, Release);
            // It may have been listed anew just before, when this still seemed to be at work.
            let is_done = endpoint.phase.load(Acquire) == REMOVED
                || endpoint.fault.load(Acquire) == SOUND
                || endpoint.checking.swap(true, AcqRel);
            if is_done {
                return;
            }
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_follow_each_other_and_a_lone_one_does_not_wait() {
        let mut losses = Losses::default();
        let now = Instant::now();
        let slots: Vec<_> = (0..1500).map(|_| losses.slot(now).as_millis()).collect();
        assert_eq!((slots[0], slots[1], slots[999]), (0, 1, 999));
        assert_eq!((slots[1000], slots[1499]), (0, 499), "the next round");
        assert_eq!(losses.slot(now + LOSS_ROUND), Duration::ZERO);
    }

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
