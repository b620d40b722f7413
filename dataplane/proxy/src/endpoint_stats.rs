//! Counters of one endpoint. As in `stats`, each worker writes its own.

use crate::{
    record::Volume,
    relay::Side,
    stats::{Count, Ended, closed},
};

/// What an endpoint made of a handshake that was brought to it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum AttemptResult {
    /// 101: a session began.
    Upgraded,
    /// It answered something else.
    Answered,
    /// It took no connection, or TLS with it did not come about.
    Unreached,
    /// It took the connection, and gave no whole answer in time.
    TimedOut,
    /// It closed before it had answered, or its answer was of no use.
    Failed,
}

closed!(AttemptResult:
    Upgraded = "upgraded",
    Answered = "answered",
    Unreached = "unreached",
    TimedOut = "timed_out",
    Failed = "failed",
);

const ATTEMPTS: usize = AttemptResult::ALL.len();
const ENDED: usize = Ended::ALL.len();

/// What was counted of one endpoint, for as long as it is listed or has sessions.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct EndpointCounters {
    handshakes: [u64; ATTEMPTS],
    ended: [u64; ENDED],
    /// Received from the clients of its sessions.
    pub from_clients: Volume,
    /// Received from it.
    pub from_backend: Volume,
}

impl EndpointCounters {
    /// Handshakes of which it made that.
    pub fn handshakes(&self, result: AttemptResult) -> u64 {
        self.handshakes[result as usize]
    }

    /// Sessions of it that were ended by `by`.
    pub fn ended_by(&self, by: Ended) -> u64 {
        self.ended[by as usize]
    }
}

#[derive(Debug, Default)]
struct VolumeCount {
    bytes: Count,
    messages: Count,
}

impl VolumeCount {
    fn add_to(&self, sum: &mut Volume) {
        sum.bytes += self.bytes.get();
        sum.messages += self.messages.get();
    }
}

/// What one worker counts of an endpoint. Aligned, so that no line of a cache holds counters of two
/// workers.
#[derive(Debug, Default)]
#[repr(align(64))]
pub(crate) struct WorkerEndpointStats {
    from_clients: VolumeCount,
    from_backend: VolumeCount,
    handshakes: [Count; ATTEMPTS],
    ended: [Count; ENDED],
}

impl WorkerEndpointStats {
    /// Once for each read.
    pub(crate) fn received(&self, side: Side, volume: Volume) {
        let sum = match side {
            Side::Client => &self.from_clients,
            Side::Backend => &self.from_backend,
        };
        sum.bytes.add(volume.bytes);
        sum.messages.add(volume.messages);
    }

    pub(crate) fn handshake(&self, result: AttemptResult) {
        self.handshakes[result as usize].add(1);
    }

    pub(crate) fn ended(&self, by: Ended) {
        self.ended[by as usize].add(1);
    }
}

/// Counters of one endpoint, of each worker by its number.
#[derive(Debug)]
pub(crate) struct EndpointStats(Box<[WorkerEndpointStats]>);

impl EndpointStats {
    pub(crate) fn new(workers: usize) -> Self {
        let all = (0..workers).map(|_| WorkerEndpointStats::default());
        Self(all.collect())
    }

    /// Those of a worker.
    pub(crate) fn of(&self, worker: usize) -> &WorkerEndpointStats {
        &self.0[worker]
    }

    pub(crate) fn sum(&self) -> EndpointCounters {
        let mut sum = EndpointCounters::default();
        for worker in &self.0 {
            worker.from_clients.add_to(&mut sum.from_clients);
            worker.from_backend.add_to(&mut sum.from_backend);
            for (sum, count) in sum.handshakes.iter_mut().zip(&worker.handshakes) {
                *sum += count.get();
            }
            for (sum, count) in sum.ended.iter_mut().zip(&worker.ended) {
                *sum += count.get();
            }
        }
        sum
    }
}
