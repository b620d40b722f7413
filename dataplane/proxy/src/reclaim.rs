//! When memory of sessions that have ended is given back to the kernel.
//!
//! An allocator keeps what is free in the middle of what it was given, so that after a storm of clients a gateway
//! would hold memory for all of them until it ends. Giving it back takes milliseconds for tens of megabytes, in which
//! the sessions of the worker wait: it is done once most of them are gone, and not for a few.

use std::time::{Duration, Instant};

/// Sessions and handshakes whose memory is not worth it.
const FEW: usize = 256;

/// How long most of them must be gone: those who leave together often come again together.
const SETTLED: Duration = Duration::from_secs(1);

/// What one worker has seen since it gave memory back last; pure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reclaim {
    /// The most that there were at once.
    most: usize,
    /// Since when most of them are gone.
    gone_since: Option<Instant>,
}

impl Reclaim {
    /// Whether to give memory back now that there are so many sessions and handshakes.
    pub(crate) fn is_due(&mut self, now: Instant, live: usize) -> bool {
        self.most = self.most.max(live);
        if self.most < FEW || live > self.most / 2 {
            self.gone_since = None;
            return false;
        }
        let since = *self.gone_since.get_or_insert(now);
        if now.saturating_duration_since(since) < SETTLED {
            return false;
        }
        *self = Self {
            most: live,
            gone_since: None,
        };
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn once_most_are_gone_for_a_while() {
        let mut reclaim = Reclaim::default();
        let begun = Instant::now();
        let at = |millis: u64| begun + Duration::from_millis(millis);
        assert!(!reclaim.is_due(at(0), 1000));
        assert!(!reclaim.is_due(at(1000), 501));
        assert!(!reclaim.is_due(at(2000), 500));
        assert!(!reclaim.is_due(at(2999), 400));
        assert!(reclaim.is_due(at(3000), 400));
        assert!(!reclaim.is_due(at(9000), 400), "once");
        assert!(!reclaim.is_due(at(10_000), 0));
        assert!(reclaim.is_due(at(11_000), 0), "the rest of them");
    }

    #[test]
    fn neither_for_few_nor_while_they_come_again() {
        let mut reclaim = Reclaim::default();
        let begun = Instant::now();
        for second in 0..100 {
            let live = if second % 2 == 0 { 2 * FEW } else { 0 };
            assert!(!reclaim.is_due(begun + Duration::from_secs(second), live));
        }
        let mut reclaim = Reclaim::default();
        assert!(!reclaim.is_due(begun, FEW - 1));
        for second in 0..10 {
            assert!(!reclaim.is_due(begun + Duration::from_secs(second), 0));
        }
    }
}
