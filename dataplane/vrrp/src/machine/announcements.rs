//! When to tell the segment where the addresses are.

use std::time::Duration;

use crate::Instant;

/// After the first announcement: quickly, for those that missed it, then rarely.
const OFFSETS: [Duration; 5] = [
    Duration::from_millis(10),
    Duration::from_millis(50),
    Duration::from_millis(200),
    Duration::from_secs(1),
    Duration::from_secs(5),
];
/// Slow refresh, for switches and neighbours that lost what they knew.
const REFRESH: Duration = Duration::from_mins(1);

/// Progress through the schedule. The caller announces at once when it creates one.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Announcements {
    began: Instant,
    step: usize,
    due: Instant,
}

impl Announcements {
    pub(super) fn begin(now: Instant) -> Self {
        Self {
            began: now,
            step: 0,
            due: now + OFFSETS.first().copied().unwrap_or(REFRESH),
        }
    }

    /// Whether one is due, in which case the next one is set.
    pub(super) fn take_due(&mut self, now: Instant) -> bool {
        if now < self.due {
            return false;
        }
        // Those that are overdue together are made up for by one.
        while self.due <= now {
            self.step += 1;
            self.due = match OFFSETS.get(self.step) {
                Some(&offset) => self.began + offset,
                None => now + REFRESH,
            };
        }
        true
    }

    /// When to wake up for it; the refresh waits for the next advertisement instead.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        (self.step < OFFSETS.len()).then_some(self.due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn schedule() {
        let begin = Instant::from_millis(1000);
        let mut schedule = Announcements::begin(begin);
        for millis in [10, 50, 200, 1000, 5000] {
            let due = begin + Duration::from_millis(millis);
            assert_eq!(schedule.wake_at(), Some(due));
            assert!(!schedule.take_due(due - Duration::from_nanos(1)));
            assert!(schedule.take_due(due));
        }
        assert_eq!(schedule.wake_at(), None);
        let refresh = begin + Duration::from_secs(65);
        assert!(!schedule.take_due(refresh - Duration::from_nanos(1)));
        assert!(schedule.take_due(refresh));
        assert!(!schedule.take_due(refresh + Duration::from_secs(59)));
    }

    #[test]
    fn missed_ones_are_made_up_for_once() {
        let mut schedule = Announcements::begin(Instant::ZERO);
        assert!(schedule.take_due(Instant::from_millis(300)));
        assert!(!schedule.take_due(Instant::from_millis(300)));
        assert_eq!(schedule.wake_at(), Some(Instant::from_millis(1000)));
    }
}
