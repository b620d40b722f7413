//! One server: its share, its load, and whether it can be reached.
//!
//! Health is passive: an endpoint that refuses or does not answer a connection attempt gets no more
//! new sessions, and is tried again each second until it accepts. A new endpoint, and one whose
//! sessions break, is tried once.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{
            AtomicBool, AtomicI64, AtomicU8, AtomicU16, AtomicUsize,
            Ordering::{AcqRel, Acquire, Relaxed, Release},
        },
    },
    time::Duration,
};

use tokio::{
    net::{TcpSocket, TcpStream},
    time::{sleep, timeout},
};

use crate::{config::Phase, live::Shared, observe::EndpointProblem};

/// Pause between two attempts to reach an endpoint that failed.
const RECHECK: Duration = Duration::from_secs(1);

/// Limit for such an attempt.
const CHECK_TIMEOUT: Duration = Duration::from_secs(2);

const READY: u8 = 0;
const NOT_READY: u8 = 1;
const TERMINATING: u8 = 2;
const REMOVED: u8 = 3;

const SOUND: u8 = 0;
const REFUSED: u8 = 1;
const TIMED_OUT: u8 = 2;
const UNREACHABLE: u8 = 3;

/// A server of a pool, shared by all workers and by successive configurations.
#[derive(Debug)]
pub(crate) struct Endpoint {
    pub(crate) address: SocketAddr,
    weight: AtomicU16,
    phase: AtomicU8,
    fault: AtomicU8,
    checking: AtomicBool,
    /// Live sessions and handshakes on their way.
    pub(crate) load: AtomicUsize,
    /// Live sessions.
    pub(crate) sessions: AtomicUsize,
    /// Place in the turn (`balance`).
    pub(crate) credit: AtomicI64,
}

impl Endpoint {
    pub(crate) fn new(address: SocketAddr) -> Self {
        Self {
            address,
            weight: AtomicU16::new(1),
            phase: AtomicU8::new(READY),
            fault: AtomicU8::new(SOUND),
            checking: AtomicBool::new(false),
            load: AtomicUsize::new(0),
            sessions: AtomicUsize::new(0),
            credit: AtomicI64::new(0),
        }
    }

    pub(crate) fn set(&self, weight: u16, phase: Phase) {
        self.weight.store(weight, Relaxed);
        let phase = match phase {
            Phase::Ready => READY,
            Phase::NotReady => NOT_READY,
            Phase::Terminating => TERMINATING,
        };
        self.phase.store(phase, Release);
    }

    pub(crate) fn remove(&self) {
        self.phase.store(REMOVED, Release);
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

    /// Whether new sessions should be sent to it.
    pub(crate) fn is_usable(&self) -> bool {
        self.is_ready() && self.fault.load(Acquire) == SOUND
    }

    pub(crate) fn problem(&self) -> Option<EndpointProblem> {
        match self.phase.load(Acquire) {
            READY => {}
            NOT_READY => return Some(EndpointProblem::NotReady),
            _ => return Some(EndpointProblem::Terminating),
        }
        match self.fault.load(Acquire) {
            REFUSED => Some(EndpointProblem::Refused),
            TIMED_OUT => Some(EndpointProblem::ConnectTimeout),
            UNREACHABLE => Some(EndpointProblem::Unreachable),
            _ => None,
        }
    }

    fn set_fault(&self, fault: u8, shared: &Shared) {
        if self.fault.swap(fault, AcqRel) != fault {
            if let Some(problem) = self.problem() {
                let endpoint = self.address;
                tracing::warn!(%endpoint, %problem, "endpoint gets no new sessions");
            } else {
                tracing::info!(endpoint = %self.address, "endpoint accepts");
            }
            shared.publish_usable();
        }
    }
}

/// Why a connection to an endpoint did not come about.
#[derive(Debug)]
pub(crate) enum ConnectFault {
    /// The endpoint's: the next one may do better.
    Endpoint(EndpointProblem),
    /// Ours: no descriptor, no port; the others would fail alike.
    Local(io::Error),
}

/// Connects to `endpoint` and records what that tells of it.
pub(crate) async fn connect(
    endpoint: &Arc<Endpoint>,
    limit: Duration,
    shared: &Arc<Shared>,
) -> Result<TcpStream, ConnectFault> {
    let fault = match timeout(limit, dial(endpoint.address)).await {
        Ok(Ok(stream)) => {
            endpoint.set_fault(SOUND, shared);
            return Ok(stream);
        }
        Ok(Err(error)) => match classify(&error) {
            Some(fault) => fault,
            None => return Err(ConnectFault::Local(error)),
        },
        Err(_elapsed) => TIMED_OUT,
    };
    endpoint.set_fault(fault, shared);
    check(endpoint, shared);
    Err(ConnectFault::Endpoint(match fault {
        REFUSED => EndpointProblem::Refused,
        TIMED_OUT => EndpointProblem::ConnectTimeout,
        _ => EndpointProblem::Unreachable,
    }))
}

async fn dial(address: SocketAddr) -> io::Result<TcpStream> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // Messages are passed on as they come: waiting for more would only delay them.
    socket.set_nodelay(true)?;
    socket.connect(address).await
}

/// Whose fault an error is: the endpoint's, or (`None`) this host's.
fn classify(error: &io::Error) -> Option<u8> {
    match error.raw_os_error() {
        Some(libc::ECONNREFUSED | libc::ECONNRESET) => Some(REFUSED),
        Some(libc::ETIMEDOUT) => Some(TIMED_OUT),
        Some(
            libc::EMFILE
            | libc::ENFILE
            | libc::ENOBUFS
            | libc::ENOMEM
            | libc::EADDRNOTAVAIL
            | libc::EAGAIN,
        ) => None,
        _ => Some(UNREACHABLE),
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
        // One that just failed is given its second; one that is only suspected is tried at once.
        if !endpoint.is_usable() {
            sleep(RECHECK).await;
        }
        while endpoint.phase.load(Acquire) != REMOVED {
            let fault = match timeout(CHECK_TIMEOUT, dial(endpoint.address)).await {
                Ok(Ok(_)) => SOUND,
                // What this host lacks says nothing of the endpoint.
                Ok(Err(error)) => classify(&error).unwrap_or_else(|| endpoint.fault.load(Acquire)),
                Err(_elapsed) => TIMED_OUT,
            };
            endpoint.set_fault(fault, &shared);
            if fault == SOUND {
                break;
            }
            sleep(RECHECK).await;
        }
        endpoint.checking.store(false, Release);
    });
}
