//! Whether advertisements leave in time: that is all a Backup knows of this host.

use std::time::Duration;

use ::vrrp::Instant;

/// Of one virtual router, while it is Active.
#[derive(Debug, Default)]
pub(super) struct Punctuality {
    /// When the next one is late, by the interval that the newest one stated.
    late_after: Option<Instant>,
    late: u64,
}

impl Punctuality {
    /// One left at `at`, which the next follows in `interval`. Half an interval more is late: a Backup
    /// waits for three intervals (RFC 9568 section 6.1), so that two such are what it bears.
    pub(super) fn left(&mut self, at: Instant, interval: Duration) {
        if self.late_after.is_some_and(|late| at > late) {
            self.late += 1;
        }
        self.late_after = Some(at + interval + interval / 2);
    }

    /// No more are due.
    pub(super) const fn ceased(&mut self) {
        self.late_after = None;
    }

    /// How many were late.
    pub(super) const fn late(&self) -> u64 {
        self.late
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_millis(100);

    #[test]
    fn late_is_more_than_half_an_interval_after_it_was_due() {
        let mut punctuality = Punctuality::default();
        let mut now = Instant::from_millis(1000);
        let mut late = Vec::new();
        for wait in [0, 100, 150, 1, 151, 100, 290] {
            now = now + Duration::from_millis(wait);
            punctuality.left(now, INTERVAL);
            late.push(punctuality.late());
        }
        assert_eq!(late, [0, 0, 0, 0, 1, 1, 2]);
    }

    /// What counts is what peers were told, not what the interval is now.
    #[test]
    fn a_shorter_interval_and_another_term_begin_anew() {
        let mut punctuality = Punctuality::default();
        let mut now = Instant::from_millis(1000);
        punctuality.left(now, INTERVAL);
        now = now + INTERVAL;
        punctuality.left(now, INTERVAL / 10);
        assert_eq!(punctuality.late(), 0);
        punctuality.ceased();
        now = now + INTERVAL;
        punctuality.left(now, INTERVAL / 10);
        assert_eq!(punctuality.late(), 0);
        now = now + INTERVAL;
        punctuality.left(now, INTERVAL / 10);
        assert_eq!(punctuality.late(), 1);
    }
}
