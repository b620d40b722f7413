//! So many events in a second, by the generic cell rate algorithm (ITU-T I.371, annex A): all that is
//! remembered is when the next event would be due if they came evenly.

use std::time::{Duration, Instant};

/// A rate and the burst that it allows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Rate {
    interval: Duration,
    burst: u32,
}

impl Rate {
    pub(crate) fn new(per_second: u32, burst: u32) -> Self {
        Self {
            interval: Duration::from_secs(1) / per_second.max(1),
            burst: burst.max(1),
        }
    }

    /// Of handshakes: few at once, since it is there for endpoints that cannot take them at once.
    pub(crate) fn of_handshakes(per_second: u32) -> Self {
        Self::new(per_second, per_second / 10)
    }

    /// Events that may happen now; `due` is when the next one would be.
    pub(crate) fn room(self, due: Option<Instant>, now: Instant) -> u32 {
        let ahead = ahead(due, now).as_nanos();
        let taken = ahead.div_ceil(self.interval.as_nanos().max(1));
        self.burst
            .saturating_sub(u32::try_from(taken).unwrap_or(u32::MAX))
    }

    /// How long the next event has to wait.
    pub(crate) fn wait(self, due: Option<Instant>, now: Instant) -> Duration {
        ahead(due, now).saturating_sub(self.interval * (self.burst - 1))
    }

    /// When the next one would be due after `count` more.
    pub(crate) fn after(self, due: Option<Instant>, count: u32, now: Instant) -> Instant {
        now + ahead(due, now) + self.interval * count
    }

    /// The same for one that has waited: those behind it do not wait for longer since it was looked a little
    /// late.
    pub(crate) fn after_wait(self, due: Option<Instant>, now: Instant) -> Instant {
        let late = due.map_or(Duration::ZERO, |due| now.saturating_duration_since(due));
        let was_due = now.checked_sub(late).filter(|_| late < self.interval);
        self.after(due, 1, was_due.unwrap_or(now))
    }

    /// When it would be due had one event less happened.
    pub(crate) fn before(self, due: Option<Instant>) -> Option<Instant> {
        due?.checked_sub(self.interval)
    }
}

fn ahead(due: Option<Instant>, now: Instant) -> Duration {
    due.map_or(Duration::ZERO, |due| due.saturating_duration_since(now))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_passes_then_events_come_evenly() {
        let rate = Rate::new(10, 3);
        let now = Instant::now();
        let at = |millis| now + Duration::from_millis(millis);
        let mut due = None;
        for room in [3, 2, 1] {
            assert_eq!(
                (rate.room(due, now), rate.wait(due, now)),
                (room, Duration::ZERO)
            );
            due = Some(rate.after(due, 1, now));
        }
        assert_eq!(rate.room(due, now), 0);
        assert_eq!(rate.wait(due, now), Duration::from_millis(100));
        assert_eq!((rate.room(due, at(99)), rate.room(due, at(100))), (0, 1));
        assert_eq!(rate.room(due, at(250)), 2);
        assert_eq!(
            rate.room(due, at(5000)),
            3,
            "no more than a burst is saved up"
        );
        let all = Some(rate.after(due, 3, at(5000)));
        assert_eq!(rate.room(all, at(5000)), 0);
    }

    #[test]
    fn those_that_wait_have_each_their_turn() {
        let rate = Rate::new(100, 1);
        let now = Instant::now();
        let mut due = None;
        for turn in 0..50 {
            assert_eq!(rate.wait(due, now), Duration::from_millis(10) * turn);
            due = Some(rate.after(due, 1, now));
        }
    }
}
