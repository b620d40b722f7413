//! When memory of sessions that have ended is given back to the kernel.
//!
//! An allocator keeps what is free in the middle of what it was given, so that after a storm of clients a gateway
//! would hold memory for all of them until it ends. Giving it back takes milliseconds for tens of megabytes, in which
//! the sessions of the worker wait: it is done once most of them are gone, and for a few only when no worker has any
//! left, so that none waits.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Sessions, handshakes and connections whose memory is not worth it.
const FEW: usize = 256;

/// How long most of them must be gone: those who leave together often come again together.
const SETTLED: Duration = Duration::from_secs(1);

/// Sessions, handshakes and connections of all workers of this process, as each said last: they share one
/// allocator.
static OF_ALL: AtomicUsize = AtomicUsize::new(0);

/// The part of one worker in those of all.
#[derive(Debug, Default)]
pub(crate) struct Share(usize);

impl Share {
    /// This worker has `live` now; returns how many the others have.
    pub(crate) fn tell(&mut self, live: usize) -> usize {
        let before = std::mem::replace(&mut self.0, live);
        let all = OF_ALL.fetch_add(live.wrapping_sub(before), Ordering::Relaxed);
        all.wrapping_sub(before)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.tell(0);
    }
}

/// What one worker has seen since it gave memory back last; pure.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Reclaim {
    /// The most that there were at once.
    most: usize,
    /// Since when most of them are gone.
    gone_since: Option<Instant>,
}

impl Reclaim {
    /// Whether to give memory back now that there are `live` sessions, handshakes and connections, and `others` of
    /// other workers.
    pub(crate) fn is_due(&mut self, now: Instant, live: usize, others: usize) -> bool {
        self.most = self.most.max(live);
        let gone = if self.most < FEW {
            self.most > 0 && live == 0 && others == 0
        } else {
            live <= self.most / 2
        };
        if !gone {
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
        assert!(!reclaim.is_due(at(0), 1000, 0));
        assert!(!reclaim.is_due(at(1000), 501, 0));
        assert!(!reclaim.is_due(at(2000), 500, 0));
        assert!(!reclaim.is_due(at(2999), 400, 0));
        assert!(reclaim.is_due(at(3000), 400, 0));
        assert!(!reclaim.is_due(at(9000), 400, 0), "once");
        assert!(!reclaim.is_due(at(10_000), 0, 7));
        assert!(reclaim.is_due(at(11_000), 0, 7), "the rest of them");
    }

    #[test]
    fn neither_for_few_nor_while_they_come_again() {
        let mut reclaim = Reclaim::default();
        let begun = Instant::now();
        for second in 0..100 {
            let live = if second % 2 == 0 { 2 * FEW } else { 0 };
            assert!(!reclaim.is_due(begun + Duration::from_secs(second), live, 0));
        }
    }

    #[test]
    fn for_a_few_when_nobody_has_any() {
        let mut reclaim = Reclaim::default();
        let begun = Instant::now();
        let at = |seconds| begun + Duration::from_secs(seconds);
        for second in 0..10 {
            assert!(!reclaim.is_due(at(second), 0, 0), "never had any");
        }
        assert!(!reclaim.is_due(at(10), FEW - 1, 0));
        assert!(!reclaim.is_due(at(11), 1, 0));
        assert!(!reclaim.is_due(at(13), 1, 0), "most are gone, not all");
        assert!(!reclaim.is_due(at(14), 0, 1));
        assert!(!reclaim.is_due(at(16), 0, 1), "another worker's waits");
        assert!(!reclaim.is_due(at(17), 0, 0));
        assert!(reclaim.is_due(at(18), 0, 0));
        assert!(!reclaim.is_due(at(20), 0, 0), "once");
    }

    #[test]
    fn each_worker_hears_of_the_others() {
        let (mut one, mut other) = (Share::default(), Share::default());
        // Other tests of this process have workers, too: only what these two add is known.
        one.tell(1 << 40);
        assert!(other.tell(3) >= 1 << 40);
        assert!(one.tell(0) < 1 << 40);
        drop(one);
        assert!(other.tell(0) < 1 << 40);
    }
}
