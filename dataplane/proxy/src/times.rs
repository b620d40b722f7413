//! How long things take: histograms by pool or upstream, with buckets that are the same for all.
//!
//! As with the counters each worker writes its own, without a lock and not for each message: a
//! session takes time when it begins, and when it answers a Ping.

use std::time::Duration;

use crate::stats::Count;

/// Upper bounds of the buckets; one without a bound follows.
pub const BOUNDS: [Duration; 13] = [
    Duration::from_micros(500),
    Duration::from_millis(1),
    Duration::from_micros(2500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2500),
    Duration::from_secs(5),
];

/// Number of buckets.
pub const BUCKETS: usize = BOUNDS.len() + 1;

/// What a histogram holds.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Distribution {
    /// How often the time lay in each bucket, above the bound before and not above its own.
    pub buckets: [u64; BUCKETS],
    /// All times together.
    pub sum: Duration,
}

/// What takes time when sessions are opened to an upstream.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UpstreamTimes {
    /// From a client's first byte to the 101, of handshakes that succeed.
    pub handshakes: Distribution,
    /// Connections to endpoints, of attempts that succeed.
    pub connects: Distribution,
}

/// What takes time in the sessions of a pool.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct PoolTimes {
    /// From our Ping to a client's Pong. Pings after which something else came first are not counted.
    pub client_pings: Distribution,
    /// The same with endpoints.
    pub backend_pings: Distribution,
}

/// A histogram with one writer.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    buckets: [Count; BUCKETS],
    nanos: Count,
}

impl Histogram {
    pub(crate) fn observe(&self, time: Duration) {
        let bucket = BOUNDS.partition_point(|bound| *bound < time);
        self.buckets[bucket].add(1);
        self.nanos.add(u64::try_from(time.as_nanos()).unwrap_or(0));
    }

    fn add_to(&self, sum: &mut Distribution) {
        for (sum, count) in sum.buckets.iter_mut().zip(&self.buckets) {
            *sum += count.get();
        }
        sum.sum += Duration::from_nanos(self.nanos.get());
    }
}

/// What one worker measured when it opened sessions to an upstream.
#[derive(Debug, Default)]
pub(crate) struct OpeningTimes {
    pub(crate) handshakes: Histogram,
    pub(crate) connects: Histogram,
}

impl OpeningTimes {
    pub(crate) fn add_to(&self, sum: &mut UpstreamTimes) {
        self.handshakes.add_to(&mut sum.handshakes);
        self.connects.add_to(&mut sum.connects);
    }
}

/// What one worker measured in the sessions of a pool.
#[derive(Debug, Default)]
pub(crate) struct WorkerTimes {
    pub(crate) client_pings: Histogram,
    pub(crate) backend_pings: Histogram,
}

impl WorkerTimes {
    pub(crate) fn add_to(&self, sum: &mut PoolTimes) {
        self.client_pings.add_to(&mut sum.client_pings);
        self.backend_pings.add_to(&mut sum.backend_pings);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_in_the_first_bucket_that_it_does_not_exceed() {
        let histogram = Histogram::default();
        let times = [0, 500_000, 500_001, 5_000_000_000, 5_000_000_001];
        for nanos in times {
            histogram.observe(Duration::from_nanos(nanos));
        }
        let mut sum = Distribution::default();
        histogram.add_to(&mut sum);
        assert_eq!(sum.buckets, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!(sum.sum, Duration::from_nanos(times.iter().sum()));
        assert!(BOUNDS.is_sorted());
    }
}
