//! How long to wait before a stream is opened again.

use std::{
    hash::{BuildHasher, RandomState},
    time::Duration,
};

const SHORTEST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(10);
/// A stream that lasted so long did not fail at its start.
const SETTLED: Duration = Duration::from_secs(10);

/// Waits grow by doubling, and each is drawn between nothing and that ("full jitter"), so that the
/// nodes do not come back as a herd.
#[derive(Debug, Default)]
pub(super) struct Backoff {
    failures: u32,
}

impl Backoff {
    /// An attempt is over, after it `lasted` as a stream. `random` is any number.
    pub(super) fn wait(&mut self, lasted: Duration, random: u64) -> Duration {
        let micros = u64::try_from(self.ceiling(lasted).as_micros()).unwrap_or(u64::MAX - 1);
        Duration::from_micros(random % (micros + 1))
    }

    fn ceiling(&mut self, lasted: Duration) -> Duration {
        if lasted >= SETTLED {
            self.failures = 0;
        }
        let ceiling = SHORTEST.saturating_mul(1 << self.failures).min(LONGEST);
        self.failures = (self.failures + 1).min(16);
        ceiling
    }
}

/// A number that others do not draw at the same time.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_a_limit_and_shrink_after_a_good_stream() {
        let mut backoff = Backoff::default();
        let seen: Vec<_> = (0..20).map(|_| backoff.ceiling(Duration::ZERO)).collect();
        let expected = [100, 200, 400, 800, 1600, 3200, 6400, 10_000, 10_000];
        assert_eq!(seen[..9], expected.map(Duration::from_millis));
        let soon = backoff.ceiling(Duration::from_secs(1));
        assert_eq!(soon, LONGEST, "it failed at its start");
        assert_eq!(backoff.ceiling(SETTLED), SHORTEST);
    }

    #[test]
    fn each_wait_is_drawn_below_its_ceiling() {
        let wait = |random| Backoff::default().wait(Duration::ZERO, random);
        assert_eq!(wait(0), Duration::ZERO);
        assert_eq!(wait(100_000), SHORTEST);
        assert_eq!(wait(100_001), Duration::ZERO);
        assert!(wait(u64::MAX) <= SHORTEST);
        assert_ne!(random(), random());
    }
}
