//! Counters by listener. Each worker writes its own, so that none waits for another's cache line;
//! readers sum.

mod labels;
mod ledger;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

pub use self::labels::{CodeClass, Ended, HandshakeResult, RequestResult};
pub(crate) use self::{labels::closed, ledger::Ledger};
use crate::{
    frame::{Kind, Scan, Whole},
    relay::Side,
};

const HANDSHAKES: usize = HandshakeResult::ALL.len();
const REQUESTS: usize = RequestResult::ALL.len();
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
    /// Connections, or streams of HTTP/2, that are open now and have asked for no session.
    pub plain_connections: u64,
    /// Of these the ones that went on to ask for a session.
    pub plain_upgrades: u64,
    /// Requests of theirs that are with an endpoint now.
    pub live_requests: u64,
    /// Sessions that are live now.
    pub live_sessions: u64,
    handshakes: [u64; HANDSHAKES],
    requests: [u64; REQUESTS],
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

    /// Requests that ended so and had asked for no session.
    pub fn requests(&self, result: RequestResult) -> u64 {
        self.requests[result as usize]
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
    /// So many frames have begun.
    pub(crate) fn frames(&self, kind: Kind, n: u32) {
        self.frames[kind as usize].add(n.into());
    }

    /// All there is to count of messages of one frame each.
    #[inline]
    pub(crate) fn whole(&self, whole: &Whole) {
        self.bytes.add(whole.len as u64);
        self.frames(Kind::Text, whole.texts);
        self.frames(Kind::Binary, whole.binaries);
        self.messages.add(whole.messages().into());
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
    pub(crate) plain_ended: Count,
    pub(crate) plain_upgrades: Count,
    pub(crate) requests_begun: Count,
    pub(crate) requests_ended: Count,
    pub(crate) opened: Count,
    pub(crate) closed: Count,
    handshakes: [Count; HANDSHAKES],
    requests: [Count; REQUESTS],
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

    pub(crate) fn request(&self, result: RequestResult) {
        self.requests[result as usize].add(1);
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
        let plain = self.handshakes[HandshakeResult::Plain as usize].get();
        sum.plain_connections += open(plain, &self.plain_ended);
        sum.plain_upgrades += self.plain_upgrades.get();
        sum.live_requests += open(self.requests_begun.get(), &self.requests_ended);
        sum.live_sessions += open(self.opened.get(), &self.closed);
        for (sum, count) in sum.handshakes.iter_mut().zip(&self.handshakes) {
            *sum += count.get();
        }
        for (sum, count) in sum.requests.iter_mut().zip(&self.requests) {
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
    fn new(workers: usize) -> Self {
        Self((0..workers).map(|_| WorkerStats::default()).collect())
    }

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
