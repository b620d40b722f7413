//! The pool's spec as the soak edits it.

use std::net::Ipv4Addr;

use super::certificates::SECRET;
use super::deed::Deed;
use super::random::Random;
use super::servers;
use crate::lab::{Host, Lab, PORT};
use crate::testing::{Endpoint, Manifest};

/// What can be edited.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) enum Edit {
    EndpointAdded,
    EndpointRemoved,
    Weight,
    Balancing,
    Rebalance,
    Heartbeat,
    Drain,
    Limits,
    TimeOuts,
    ListenerAdded,
    ListenerRemoved,
    Certificate,
}

impl Edit {
    pub(super) const ALL: [Self; 12] = [
        Self::EndpointAdded,
        Self::EndpointRemoved,
        Self::Weight,
        Self::Balancing,
        Self::Rebalance,
        Self::Heartbeat,
        Self::Drain,
        Self::Limits,
        Self::TimeOuts,
        Self::ListenerAdded,
        Self::ListenerRemoved,
        Self::Certificate,
    ];

    pub(super) fn name(self) -> &'static str {
        match self {
            Self::EndpointAdded => "endpoint added",
            Self::EndpointRemoved => "endpoint removed",
            Self::Weight => "weight",
            Self::Balancing => "balancing",
            Self::Rebalance => "rebalance",
            Self::Heartbeat => "heartbeat",
            Self::Drain => "drain",
            Self::Limits => "limits",
            Self::TimeOuts => "time-outs",
            Self::ListenerAdded => "listener added",
            Self::ListenerRemoved => "listener removed",
            Self::Certificate => "certificate",
        }
    }
}

/// Close codes that `drain.closeCode` gets.
pub(super) const DRAIN_CODES: [u16; 2] = [1001, 1012];

/// A side that is not there must be found within what a client that is gone waits, and a client that is only slow
/// must not be.
const HEARTBEATS: [&str; 3] = [
    "interval: 4s, timeout: 5s",
    "interval: 5s, timeout: 5s",
    "interval: 6s, timeout: 4s",
];

const LIMITS: [Option<&str>; 7] = [
    None,
    Some("maxSessionAge: 20s"),
    Some("maxMessageSize: 524288"),
    Some("slowReaderTimeout: 1s"),
    Some("maxBufferedBytes: 65536, slowReaderTimeout: 1s"),
    Some("handshakesPerSecond: 200"),
    Some("maxFrameSize: 131072, messagesPerSecond: 50, messageBurst: 100"),
];

const BALANCING: [&str; 3] = ["{ type: RoundRobin }", "{ type: LeastConnections }", HASH];

const HASH: &str = "{ type: ConsistentHash, consistentHash: { key: { type: SourceAddress } } }";

/// As fast as it may be, so that a short soak has some of it, too.
const REBALANCE: &str = "{ mode: Enabled, percentPerMinute: 100, tolerancePercent: 10 }";

const DRAINS: [&str; 4] = [
    "timeout: 0s",
    "timeout: 1s",
    "timeout: 5s",
    "timeout: 5s, sessionsPerSecond: 100",
];

const TIME_OUTS: [(&str, &str); 2] = [("2s", "5s"), ("1s", "3s")];

/// A listener of the pool.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Listener {
    name: &'static str,
    pub(super) port: u16,
    /// Whether clients speak TLS, and HTTP/2 if they like.
    pub(super) tls: bool,
}

impl Listener {
    const fn new(name: &'static str, port: u16, tls: bool) -> Self {
        Self { name, port, tls }
    }
}

/// Where TLS is spoken from begin to end.
pub(super) const SECURE_PORT: u16 = 8443;

/// Those that stay.
const FIRST_LISTENERS: [Listener; 2] = [
    Listener::new("ws", PORT, false),
    Listener::new("wss", SECURE_PORT, true),
];

/// Those that come and go.
const MORE_LISTENERS: [Listener; 2] = [
    Listener::new("second", 8021, false),
    Listener::new("third", 8444, true),
];

/// Endpoints that there are at least.
const LEAST: usize = 2;

/// The spec.
#[derive(Clone, Debug)]
pub(super) struct Spec {
    all: Vec<Ipv4Addr>,
    endpoints: Vec<Endpoint>,
    listeners: Vec<Listener>,
    balancing: &'static str,
    wants_rebalance: bool,
    heartbeat: &'static str,
    drain: (&'static str, u16),
    limits: Option<&'static str>,
    time_outs: (&'static str, &'static str),
}

impl Spec {
    /// What it begins with: all servers but the last.
    pub(super) fn new(lab: &Lab) -> Self {
        let all: Vec<_> = lab.backends().iter().map(Host::address).collect();
        let first = all.iter().take(all.len() - 1);
        Self {
            endpoints: first.map(|address| servers::endpoint(*address)).collect(),
            all,
            listeners: FIRST_LISTENERS.into(),
            balancing: BALANCING[0],
            wants_rebalance: false,
            heartbeat: HEARTBEATS[0],
            drain: ("timeout: 2s", DRAIN_CODES[0]),
            limits: None,
            time_outs: TIME_OUTS[0],
        }
    }

    pub(super) fn manifest(&self) -> Manifest {
        let mut manifest = Manifest::article();
        let pool = manifest.pool();
        pool.endpoints.clone_from(&self.endpoints);
        let (secure, plain): (Vec<Listener>, Vec<Listener>) =
            self.listeners.iter().partition(|listener| listener.tls);
        let plain = plain.iter().map(|listener| (listener.name, listener.port));
        pool.listeners = plain.collect();
        let secure = secure.iter();
        pool.secure = secure
            .map(|listener| (listener.name, listener.port, SECRET))
            .collect();
        let (connect, handshake) = self.time_outs;
        pool.upstream = vec![
            format!("loadBalancing: {}", self.balancing),
            format!("connectTimeout: {connect}"),
            format!("handshakeTimeout: {handshake}"),
        ];
        let rebalance = self.rebalances().then(|| format!("rebalance: {REBALANCE}"));
        pool.upstream.extend(rebalance);
        let (drain, code) = self.drain;
        pool.spec = vec![
            "accessLog: { mode: Enabled, samplePercent: 100 }".to_owned(),
            format!("heartbeat: {{ {} }}", self.heartbeat),
            format!("drain: {{ {drain}, closeCode: {code} }}"),
        ];
        let limits = self.limits.map(|limits| format!("limits: {{ {limits} }}"));
        pool.spec.extend(limits);
        manifest
    }

    pub(super) fn listeners(&self) -> Vec<Listener> {
        self.listeners.clone()
    }

    /// By a hash each session would come back to where it was.
    fn rebalances(&self) -> bool {
        self.wants_rebalance && self.balancing != HASH
    }

    /// Changes it; which sessions that may end. `None`: there is nothing of that kind to change.
    pub(super) fn edit(&mut self, edit: Edit, random: &mut Random) -> Option<Vec<Deed>> {
        let mut deeds = Vec::new();
        match edit {
            Edit::EndpointAdded => {
                let used =
                    |address: &&Ipv4Addr| self.endpoints.iter().all(|it| it.address != **address);
                let address = self.all.iter().find(used)?;
                self.endpoints.push(servers::endpoint(*address));
            }
            Edit::EndpointRemoved => {
                if self.endpoints.len() <= LEAST {
                    return None;
                }
                let gone = self.endpoints.remove(random.index(self.endpoints.len()));
                deeds.push(Deed::EndpointRemoved(gone.address));
            }
            Edit::Weight => {
                let index = random.index(self.endpoints.len());
                self.endpoints[index].weight = u16::try_from(random.between(1, 5)).ok()?;
            }
            Edit::Balancing | Edit::Rebalance => {
                if edit == Edit::Balancing {
                    self.balancing = random.one_of(&BALANCING);
                } else {
                    self.wants_rebalance = !self.wants_rebalance;
                }
                if self.rebalances() {
                    deeds.push(Deed::Rebalanced);
                }
            }
            Edit::Heartbeat => self.heartbeat = random.one_of(&HEARTBEATS),
            Edit::Drain => {
                self.drain = (random.one_of(&DRAINS), random.one_of(&DRAIN_CODES));
            }
            Edit::Limits => {
                self.limits = random.one_of(&LIMITS);
                if self.limits.is_some() {
                    deeds.push(Deed::Limited);
                }
            }
            // It is in no file of the pool.
            Edit::Certificate => {}
            Edit::TimeOuts => self.time_outs = random.one_of(&TIME_OUTS),
            Edit::ListenerAdded => {
                let absent = |more: &&Listener| !self.listeners.contains(more);
                self.listeners.push(*MORE_LISTENERS.iter().find(absent)?);
            }
            Edit::ListenerRemoved => {
                if self.listeners.len() <= FIRST_LISTENERS.len() {
                    return None;
                }
                let gone = self.listeners.pop()?;
                deeds.push(Deed::ListenerRemoved(gone.port));
            }
        }
        Some(deeds)
    }
}
