//! How long a host whose proxy died leaves living routers alone (DESIGN section 4, Tracking).

use std::time::Duration;

use ::vrrp::Instant;

const FIRST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_mins(1);
/// A proxy that lives this long is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_mins(5);

/// Deaths of the proxy in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Deaths {
    count: u32,
    last: Option<Instant>,
}

impl Deaths {
    /// The proxy died, or hung.
    pub(super) fn add(&mut self, now: Instant) {
        if self.is_forgiven(now) {
            self.count = 0;
        }
        self.count += 1;
        self.last = Some(now);
    }

    /// How long a proxy that accepts from `now` on must do so before this host preempts.
    pub(super) fn hold(&self, now: Instant) -> Duration {
        if self.count == 0 || self.is_forgiven(now) {
            return Duration::ZERO;
        }
        let doubled = 2_u32.saturating_pow(self.count - 1);
        FIRST.saturating_mul(doubled).min(LONGEST)
    }

    fn is_forgiven(&self, now: Instant) -> bool {
        self.last
            .is_some_and(|last| now.since(last) > FORGIVEN_AFTER)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn doubled_with_each_death_and_forgiven() {
        let mut deaths = Deaths::default();
        let mut now = Instant::from_millis(1000);
        assert_eq!(deaths.hold(now), Duration::ZERO);
        for seconds in [3, 6, 12, 24, 48, 60, 60] {
            now = now + Duration::from_secs(10);
            deaths.add(now);
            assert_eq!(deaths.hold(now), Duration::from_secs(seconds));
        }
        now = now + FORGIVEN_AFTER + Duration::from_secs(1);
        assert_eq!(deaths.hold(now), Duration::ZERO);
        deaths.add(now);
        assert_eq!(deaths.hold(now), FIRST);
    }
}
