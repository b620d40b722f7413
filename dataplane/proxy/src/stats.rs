//! Counters by listener. Each worker writes its own, so that none waits for another's cache line;
//! readers sum.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use crate::{
    frame::{Kind, Scan},
    relay::Side,
};

/// How a connection from a client ended before or with the upgrade.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum HandshakeResult {
    /// 101: a session began.
    Upgraded,
    /// The backend answered something other than 101, which was passed on.
    Answered,
    /// The request was refused with a status of 4xx or 505 of our own.
    Refused,
    /// The web page that asked may not connect (403).
    Forbidden,
    /// No route of the listener matched the request (404).
    NoRoute,
    /// What a connection had to begin with, a header of the PROXY protocol from a trusted proxy, was
    /// not there (closed without an answer).
    ProxyHeader,
    /// TLS did not come about (told by an alert).
    Tls,
    /// A limit of the pool left no room for it (429, 503).
    Limited,
    /// There was no room for it, or no time for TLS with it, and too many others were to be told so:
    /// reset before TLS began.
    Dropped,
    /// The client was too slow (408, or nothing when it sent nothing, or not what TLS needs).
    ClientTimeout,
    /// The client went away.
    ClientGone,
    /// No endpoint gave a usable answer (502).
    BadGateway,
    /// There was no endpoint to try, or this host lacks ports or descriptors (503).
    Unavailable,
    /// No endpoint answered in time (504).
    GatewayTimeout,
    /// The listener was closed meanwhile.
    ListenerGone,
    /// HTTP/2 was agreed on: the handshakes of its streams are counted by themselves.
    Http2,
}

/// Who ended a session, and why.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ended {
    /// The client closed, or its connection was lost.
    Client,
    /// The backend closed.
    Backend,
    /// The backend's connection was lost without a Close frame.
    BackendLost,
    /// The client did not answer our heartbeat.
    ClientSilent,
    /// The backend did not answer our heartbeat.
    BackendSilent,
    /// It ran into a limit of its pool.
    Limit,
    /// Its endpoint was removed or is terminating.
    EndpointGone,
    /// Its endpoint had more than its share of sessions.
    Rebalanced,
    /// Its listener, address or pool was removed.
    ListenerGone,
    /// A planned stop of its address.
    Left,
    /// The host lost its address without plan.
    AddressLost,
    /// The proxy stopped.
    Stopped,
}

/// Close codes, as seen in the first Close frame of a session: those of RFC 6455 section 7.4.1 and of
/// the IANA registry by themselves, so that clients which make up others add nothing to what is kept.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CodeClass {
    /// 1000.
    Normal,
    /// 1001.
    GoingAway,
    /// 1002.
    ProtocolError,
    /// 1003.
    Unsupported,
    /// 1007.
    InvalidData,
    /// 1008.
    Policy,
    /// 1009.
    TooBig,
    /// 1010.
    MissingExtension,
    /// 1011.
    InternalError,
    /// 1012.
    ServiceRestart,
    /// 1013.
    TryAgainLater,
    /// 1014.
    BadGateway,
    /// 3000-4999.
    Application,
    /// A Close frame without a code (1005 in APIs).
    Empty,
    /// Any other number.
    Other,
    /// No Close frame at all (1006 in APIs).
    None,
}

impl CodeClass {
    pub(crate) fn of(code: Option<u16>) -> Self {
        match code {
            None => Self::Empty,
            Some(1000) => Self::Normal,
            Some(1001) => Self::GoingAway,
            Some(1002) => Self::ProtocolError,
            Some(1003) => Self::Unsupported,
            Some(1007) => Self::InvalidData,
            Some(1008) => Self::Policy,
            Some(1009) => Self::TooBig,
            Some(1010) => Self::MissingExtension,
            Some(1011) => Self::InternalError,
            Some(1012) => Self::ServiceRestart,
            Some(1013) => Self::TryAgainLater,
            Some(1014) => Self::BadGateway,
            Some(3000..=4999) => Self::Application,
            Some(_) => Self::Other,
        }
    }
}

macro_rules! closed {
    ($name:ident: $($variant:ident = $label:literal),+ $(,)?) => {
        impl $name {
            /// Every value, in the order of its declaration.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The value as a metric label.
            pub const fn label(self) -> &'static str {
                match self { $(Self::$variant => $label),+ }
            }
        }
    };
}

pub(crate) use closed;

closed!(HandshakeResult:
    Upgraded = "upgraded",
    Answered = "answered",
    Refused = "refused",
    Forbidden = "forbidden",
    NoRoute = "no_route",
    ProxyHeader = "proxy_header",
    Tls = "tls",
    Limited = "limited",
    Dropped = "dropped",
    ClientTimeout = "client_timeout",
    ClientGone = "client_gone",
    BadGateway = "bad_gateway",
    Unavailable = "unavailable",
    GatewayTimeout = "gateway_timeout",
    ListenerGone = "listener_gone",
    Http2 = "http2",
);
closed!(Ended:
    Client = "client",
    Backend = "backend",
    BackendLost = "backend_lost",
    ClientSilent = "client_silent",
    BackendSilent = "backend_silent",
    Limit = "limit",
    EndpointGone = "endpoint_gone",
    Rebalanced = "rebalanced",
    ListenerGone = "listener_gone",
    Left = "left",
    AddressLost = "address_lost",
    Stopped = "stopped",
);
closed!(CodeClass:
    Normal = "1000",
    GoingAway = "1001",
    ProtocolError = "1002",
    Unsupported = "1003",
    InvalidData = "1007",
    Policy = "1008",
    TooBig = "1009",
    MissingExtension = "1010",
    InternalError = "1011",
    ServiceRestart = "1012",
    TryAgainLater = "1013",
    BadGateway = "1014",
    Application = "application",
    Empty = "empty",
    Other = "other",
    None = "none",
);

const HANDSHAKES: usize = HandshakeResult::ALL.len();
const ENDED: usize = Ended::ALL.len();
const CLASSES: usize = CodeClass::ALL.len();
const KINDS: usize = Kind::ALL.len();

/// What was received from one side.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Traffic {
    /// Bytes of frames, headers included.
    pub bytes: u64,
    frames: [u64; KINDS],
    /// Data frames that end a message.
    pub messages: u64,
    /// Frames against RFC 6455 section 5; they are passed on, since the receiver is who must judge.
    pub violations: u64,
}

impl Traffic {
    /// Frames of a kind.
    pub fn frames(&self, kind: Kind) -> u64 {
        self.frames[kind as usize]
    }
}

/// Counters since the start, of one listener or of all together.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Counters {
    /// Connections accepted.
    pub accepted: u64,
    /// Streams of HTTP/2 accepted, each of which is to be a session.
    pub streams: u64,
    /// Those that are open now, be it only for the handshake.
    pub live_streams: u64,
    /// Connections of HTTP/2 that are open now, with streams or without.
    pub http2_connections: u64,
    /// Sessions that are live now.
    pub live_sessions: u64,
    handshakes: [u64; HANDSHAKES],
    ended: [[u64; CLASSES]; ENDED],
    /// Received from clients.
    pub from_clients: Traffic,
    /// Received from backends.
    pub from_backends: Traffic,
    /// Connections reset because a frame had been cut.
    pub resets: u64,
    /// Further endpoints tried after one failed.
    pub retries: u64,
    /// Pings of our own sent.
    pub pings: u64,
    /// Pongs that answered them.
    pub pongs: u64,
    /// Clients turned away because no descriptor was left: with 503, of TLS without an answer.
    pub shed: u64,
}

impl Counters {
    /// Handshakes that ended so.
    pub fn handshakes(&self, result: HandshakeResult) -> u64 {
        self.handshakes[result as usize]
    }

    /// Sessions ended so.
    pub fn ended(&self, by: Ended, class: CodeClass) -> u64 {
        self.ended[by as usize][class as usize]
    }

    /// Sessions ended by `by`, whatever the code.
    pub fn ended_by(&self, by: Ended) -> u64 {
        self.ended[by as usize].iter().sum()
    }
}

/// A counter with one writer.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    /// No read-modify-write: the worker that owns the counter is its only writer.
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.0.load(Relaxed).wrapping_add(n), Relaxed);
    }

    pub(crate) fn get(&self) -> u64 {
        self.0.load(Relaxed)
    }
}

/// Received from one side.
#[derive(Debug, Default)]
pub(crate) struct TrafficCount {
    bytes: Count,
    frames: [Count; KINDS],
    messages: Count,
    violations: Count,
}

impl TrafficCount {
    /// A frame has begun.
    pub(crate) fn frame(&self, kind: Kind) {
        self.frames[kind as usize].add(1);
    }

    /// The rest, once for each read, however many frames came with it. Few break a rule.
    pub(crate) fn add(&self, scan: &Scan) {
        self.bytes.add(scan.ready as u64);
        self.messages.add(scan.messages.into());
        if scan.violations > 0 {
            self.violations.add(scan.violations.into());
        }
    }

    fn add_to(&self, sum: &mut Traffic) {
        sum.bytes += self.bytes.get();
        for (sum, count) in sum.frames.iter_mut().zip(&self.frames) {
            *sum += count.get();
        }
        sum.messages += self.messages.get();
        sum.violations += self.violations.get();
    }
}

/// Counters of one worker. Aligned, so that no line of a cache holds those of two.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct WorkerStats {
    pub(crate) accepted: Count,
    pub(crate) streams: Count,
    pub(crate) streams_ended: Count,
    pub(crate) http2_connections_ended: Count,
    pub(crate) opened: Count,
    pub(crate) closed: Count,
    handshakes: [Count; HANDSHAKES],
    ended: [[Count; CLASSES]; ENDED],
    from_clients: TrafficCount,
    from_backends: TrafficCount,
    pub(crate) resets: Count,
    pub(crate) retries: Count,
    pub(crate) pings: Count,
    pub(crate) pongs: Count,
    pub(crate) shed: Count,
}

impl WorkerStats {
    pub(crate) fn handshake(&self, result: HandshakeResult) {
        self.handshakes[result as usize].add(1);
    }

    pub(crate) fn received(&self, side: Side) -> &TrafficCount {
        match side {
            Side::Client => &self.from_clients,
            Side::Backend => &self.from_backends,
        }
    }

    pub(crate) fn ended(&self, by: Ended, class: CodeClass) {
        self.ended[by as usize][class as usize].add(1);
    }

    fn add_to(&self, sum: &mut Counters) {
        sum.accepted += self.accepted.get();
        let open = |begun: u64, ended: &Count| begun.saturating_sub(ended.get());
        sum.streams += self.streams.get();
        sum.live_streams += open(self.streams.get(), &self.streams_ended);
        let agreed = self.handshakes[HandshakeResult::Http2 as usize].get();
        sum.http2_connections += open(agreed, &self.http2_connections_ended);
        sum.live_sessions += open(self.opened.get(), &self.closed);
        for (sum, count) in sum.handshakes.iter_mut().zip(&self.handshakes) {
            *sum += count.get();
        }
        let counts = self.ended.iter().flatten();
        for (sum, count) in sum.ended.iter_mut().flatten().zip(counts) {
            *sum += count.get();
        }
        self.from_clients.add_to(&mut sum.from_clients);
        self.from_backends.add_to(&mut sum.from_backends);
        sum.resets += self.resets.get();
        sum.retries += self.retries.get();
        sum.pings += self.pings.get();
        sum.pongs += self.pongs.get();
        sum.shed += self.shed.get();
    }
}

/// Counters of one listener of a pool, of each worker by its number.
#[derive(Debug)]
pub(crate) struct ListenerStats(Box<[WorkerStats]>);

impl ListenerStats {
    /// Those of a worker.
    pub(crate) fn of(&self, worker: usize) -> &WorkerStats {
        &self.0[worker]
    }

    pub(crate) fn add_to(&self, sum: &mut Counters) {
        for worker in &self.0 {
            worker.add_to(sum);
        }
    }
}

/// Something that is open until this is dropped: then `ended` of its worker's counters goes up.
#[derive(Debug)]
pub(crate) struct Open {
    pub(crate) stats: Arc<ListenerStats>,
    pub(crate) worker: usize,
    pub(crate) ended: fn(&WorkerStats) -> &Count,
}

impl Drop for Open {
    fn drop(&mut self) {
        (self.ended)(self.stats.of(self.worker)).add(1);
    }
}

/// Name of a pool and of its listener.
type ListenerName = (String, String);

/// Listeners that are not served and have no session, of which the counters are kept by themselves.
const RETIRED_MAX: usize = 64;

/// The counters of all listeners that were ever served. Those of a listener that was removed go on:
/// that its sessions ended is counted there, and whoever reads them now and then is to see it. Of many
/// that are over, as where pools come and go, only the sum is kept.
#[derive(Debug)]
pub(crate) struct Ledger {
    workers: usize,
    books: Mutex<Books>,
}

#[derive(Debug, Default)]
pub(crate) struct Books {
    listeners: BTreeMap<ListenerName, Book>,
    /// Of those that are no longer among them.
    closed: Counters,
    /// How often a listener was asked for.
    turn: u64,
}

#[derive(Debug)]
struct Book {
    stats: Arc<ListenerStats>,
    /// When it was asked for last.
    turn: u64,
}

impl Books {
    /// Those of each listener.
    pub(crate) fn each(&self) -> impl Iterator<Item = (&ListenerName, &ListenerStats)> {
        self.listeners
            .iter()
            .map(|(name, book)| (name, &*book.stats))
    }

    /// The sum of those that are not kept by themselves.
    pub(crate) fn closed(&self) -> &Counters {
        &self.closed
    }

    /// Adds those that were served longest ago to the sum.
    fn close(&mut self) {
        // Whoever serves a listener, or a session of it, has its counters.
        let retired = self
            .listeners
            .iter()
            .filter(|(_, book)| Arc::strong_count(&book.stats) == 1);
        let mut retired: Vec<_> = retired
            .map(|(name, book)| (book.turn, name.clone()))
            .collect();
        let Some(many) = retired.len().checked_sub(RETIRED_MAX) else {
            return;
        };
        retired.sort_unstable();
        for (_, name) in retired.into_iter().take(many) {
            // Others may have seen the last of them only now: what they wrote is seen here.
            let book = self.listeners.remove(&name);
            if let Some(stats) = book.and_then(|book| Arc::into_inner(book.stats)) {
                stats.add_to(&mut self.closed);
            }
        }
    }
}

impl Ledger {
    pub(crate) fn new(workers: usize) -> Self {
        Self {
            workers,
            books: Mutex::default(),
        }
    }

    /// The counters of a listener, from zero if there are none.
    pub(crate) fn of(&self, pool: &str, listener: &str) -> Arc<ListenerStats> {
        let name = (pool.to_owned(), listener.to_owned());
        let mut books = self.books();
        books.turn += 1;
        let turn = books.turn;
        if let Some(book) = books.listeners.get_mut(&name) {
            book.turn = turn;
            return Arc::clone(&book.stats);
        }
        books.close();
        let workers = (0..self.workers).map(|_| WorkerStats::default());
        let stats = Arc::new(ListenerStats(workers.collect()));
        let book = Book {
            stats: Arc::clone(&stats),
            turn,
        };
        books.listeners.insert(name, book);
        stats
    }

    pub(crate) fn books(&self) -> MutexGuard<'_, Books> {
        self.books.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_that_come_and_go_leave_their_sum() {
        let ledger = Ledger::new(2);
        let served = ledger.of("pool", "served");
        let with_session = ledger.of("pool", "with a session");
        for number in 0..3 * RETIRED_MAX {
            let stats = ledger.of(&format!("pool {number}"), "ws");
            stats.of(number % 2).accepted.add(1);
        }
        served.of(0).accepted.add(1);
        with_session.of(1).accepted.add(1);
        let books = ledger.books();
        let names: Vec<_> = books.each().map(|((pool, _), _)| pool.clone()).collect();
        assert!(names.len() <= 2 + 1 + RETIRED_MAX, "{}", names.len());
        assert_eq!(names.iter().filter(|pool| *pool == "pool").count(), 2);
        let last = format!("pool {}", 3 * RETIRED_MAX - 1);
        assert!(names.contains(&last) && !names.contains(&"pool 0".to_owned()));
        let mut sum = books.closed().clone();
        for (_, stats) in books.each() {
            stats.add_to(&mut sum);
        }
        assert_eq!(sum.accepted, 3 * RETIRED_MAX as u64 + 2);
    }

    #[test]
    fn a_listener_that_comes_back_soon_goes_on() {
        let ledger = Ledger::new(1);
        ledger.of("pool", "ws").of(0).accepted.add(5);
        ledger.of("other", "ws").of(0).accepted.add(1);
        let mut counters = Counters::default();
        ledger.of("pool", "ws").add_to(&mut counters);
        assert_eq!(counters.accepted, 5);
    }
}
