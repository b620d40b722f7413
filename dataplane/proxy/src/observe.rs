//! What the proxy tells of itself: events as they happen, and a snapshot on request.

use std::{fmt, net::SocketAddr, time::SystemTime};

use crate::{
    endpoint_stats::EndpointCounters,
    health::{CheckFailure, HealthCounts},
    limits::Limit,
    stats::Counters,
    times::{PoolTimes, UpstreamTimes},
};

/// Something the caller should know at once. Sent on the channel given at the start.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Event {
    /// How many endpoints of an upstream can take sessions has changed (also sent for a new one).
    UsableEndpoints {
        /// The pool.
        pool: String,
        /// Its upstream.
        upstream: String,
        /// Endpoints that are ready and have been reached, well or not. While none of those listed now has been
        /// tried, what was told before stands.
        count: usize,
    },
    /// Whether checks and clients' handshakes find an endpoint well has changed.
    EndpointHealth {
        /// The endpoint.
        address: SocketAddr,
    },
    /// Whether an address accepts clients has changed.
    ListenerState {
        /// The address.
        address: SocketAddr,
        /// Whether it accepts.
        accepting: bool,
        /// What is wrong, with the remedy.
        problem: Option<ListenerProblem>,
    },
}

/// Why a listener does not accept, or not well.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListenerProblem {
    /// No listening socket was given for it.
    NoSocket,
    /// The socket that was given for it cannot be used.
    BadSocket,
    /// It was left in order (a planned stop) and no new socket was given since.
    Left,
    /// The process has no file descriptors left: new clients are answered 503, and those of TLS are closed.
    OutOfDescriptors,
}

impl fmt::Display for ListenerProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoSocket => "no listening socket was given for it",
            Self::BadSocket => "the listening socket given for it cannot be used: the log says why",
            Self::Left => "it was left in order and not opened again",
            Self::OutOfDescriptors => {
                "no file descriptors are left, new clients are turned away: raise the limit of open files"
            }
        })
    }
}

/// Why an endpoint gets no new sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EndpointProblem {
    /// The configuration says that it takes no new sessions for now.
    NotReady,
    /// It is being taken away.
    Terminating,
    /// It was taken away; sessions of it are left.
    Removed,
    /// It refuses connections.
    Refused,
    /// It did not answer a connection attempt in time.
    ConnectTimeout,
    /// There is no way to it.
    Unreachable,
    /// Its certificate is for another name.
    WrongHostname,
    /// The time of its certificate is over, or has not come.
    ExpiredCertificate,
    /// No CA that was given vouches for its certificate.
    UntrustedCertificate,
    /// It refuses TLS.
    TlsRefused,
    /// It does not speak TLS.
    TlsFailed,
    /// Its check fails.
    CheckFails(CheckFailure),
    /// Clients' handshakes came to nothing: it is left out for a while.
    Ejected,
}

impl fmt::Display for EndpointProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotReady => "it is not ready",
            Self::Terminating => "it is terminating",
            Self::Removed => "it is not listed any more",
            Self::Refused => "it refuses connections",
            Self::ConnectTimeout => "it does not answer connection attempts in time",
            Self::Unreachable => "there is no route to it",
            Self::WrongHostname => {
                "its certificate is for another name: give tls.hostname a name that it is for"
            }
            Self::ExpiredCertificate => "its certificate is not valid at this time: renew it",
            Self::UntrustedCertificate => {
                "its certificate is not vouched for by the CA: give the right one in tls.caCertificateRef"
            }
            Self::TlsRefused => {
                "it refuses TLS: it may want a client certificate, or another one, in tls.clientCertificateRef"
            }
            Self::TlsFailed => "TLS with it fails: it may speak none, or nothing that both know",
            Self::CheckFails(failure) => return write!(f, "its health check fails: {failure}"),
            Self::Ejected => "it failed several clients in a row and is left out for a while",
        })
    }
}

/// The proxy at one moment.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Snapshot {
    /// Addresses on which clients are accepted, in the order of the configuration.
    pub listeners: Vec<ListenerSnapshot>,
    /// Servers, pool by pool, in the order of the configuration; behind them those that are not listed
    /// any more and still have sessions.
    pub endpoints: Vec<EndpointSnapshot>,
    /// Pools, by name.
    pub pools: Vec<PoolSnapshot>,
    /// Limits that somebody ran into, pool by pool.
    pub limits: Vec<LimitSnapshot>,
    /// Groups of servers, in the order of the configuration.
    pub upstreams: Vec<UpstreamSnapshot>,
    /// Counters since the start by listener, over all workers. Those of listeners that were removed
    /// stay.
    pub traffic: Vec<ListenerCounters>,
    /// The sums of these.
    pub counters: Counters,
    /// Access records that were lost, as whoever takes them is too slow.
    pub unrecorded: u64,
    /// Workers whose sessions without TLS are read by a ring.
    pub rings: usize,
}

/// What was counted of one listener.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerCounters {
    /// Pool it belongs to.
    pub pool: String,
    /// Name of the listener in the pool.
    pub listener: String,
    /// Since it was first served.
    pub counters: Counters,
}

/// One pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PoolSnapshot {
    /// Its name.
    pub name: String,
    /// What took time since it is served, over all workers.
    pub times: PoolTimes,
}

/// One group of servers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamSnapshot {
    /// Pool it belongs to.
    pub pool: String,
    /// Its name in the pool.
    pub name: String,
    /// Whether any request goes there.
    pub routed: bool,
    /// Usable endpoints, as told with [`Event::UsableEndpoints`].
    pub usable: usize,
    /// What took time since it is served, over all workers.
    pub times: UpstreamTimes,
    /// What became of its endpoints.
    pub health: HealthCounts,
}

/// One limit of a pool.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct LimitSnapshot {
    /// The pool.
    pub pool: String,
    /// The limit.
    pub limit: Limit,
    /// How often somebody ran into it, since the pool was first served.
    pub hits: u64,
}

/// One address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct ListenerSnapshot {
    /// Pool it belongs to.
    pub pool: String,
    /// Name of the listener in the pool.
    pub name: String,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether it accepts.
    pub accepting: bool,
    /// What is wrong.
    pub problem: Option<ListenerProblem>,
    /// Live sessions.
    pub sessions: u64,
}

/// One server.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct EndpointSnapshot {
    /// Pool it belongs to.
    pub pool: String,
    /// Its upstream.
    pub upstream: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether it takes new sessions.
    pub usable: bool,
    /// Why not.
    pub problem: Option<EndpointProblem>,
    /// Live sessions.
    pub sessions: u64,
    /// While its sessions are told to go: when the last one is.
    pub drained: Option<SystemTime>,
    /// Since it is known, over all workers.
    pub counters: EndpointCounters,
}
