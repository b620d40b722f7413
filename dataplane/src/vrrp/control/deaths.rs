//! How long a host whose proxy died leaves living routers alone (DESIGN section 4, Tracking).

use std::time::Duration;

use ::vrrp::Instant;

use crate::sys::pages::DeathRecord;

const FIRST: Duration = Duration::from_secs(3);
const LONGEST: Duration = Duration::from_mins(1);
/// A proxy that lives this long is forgiven.
const FORGIVEN_AFTER: Duration = Duration::from_mins(5);

/// Deaths of the proxy in a row, kept where the next vrrp finds them.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deaths {
    record: &'static DeathRecord,
    /// This process was paired before: it saw for itself how that proxy ended.
    is_paired: bool,
}

impl Deaths {
    pub(super) const fn new(record: &'static DeathRecord) -> Self {
        Self {
            record,
            is_paired: false,
        }
    }

    /// Paired with this proxy. Another one than that of the former vrrp means that it died while
    /// nobody looked.
    pub(super) fn paired(&mut self, proxy: u64, now: Instant) {
        let before = self.record.paired(proxy);
        let is_first = !std::mem::replace(&mut self.is_paired, true);
        if is_first && before.is_some_and(|before| before != proxy) {
            self.add(now);
        }
    }

    /// The proxy died, or hung.
    pub(super) fn add(&self, now: Instant) {
        let count = self.count(now).saturating_add(1);
        self.record.set(count, now.as_nanos());
    }

    /// How long a proxy that accepts from `now` on must do so before this host preempts.
    pub(super) fn hold(&self, now: Instant) -> Duration {
        let Some(earlier) = self.count(now).checked_sub(1) else {
            return Duration::ZERO;
        };
        FIRST
            .saturating_mul(2_u32.saturating_pow(earlier))
            .min(LONGEST)
    }

    /// Deaths that are not forgiven.
    fn count(&self, now: Instant) -> u32 {
        let is_remembered =
            |(_, last): &(u32, u64)| now.since(Instant::from_nanos(*last)) <= FORGIVEN_AFTER;
        let record = self.record.get().filter(is_remembered);
        record.map_or(0, |(count, _)| count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pages::RouterTable;

    fn record() -> &'static DeathRecord {
        &RouterTable::create().unwrap().leak().deaths
    }

    #[test]
    fn doubled_with_each_death_and_forgiven() {
        let deaths = Deaths::new(record());
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

    #[test]
    fn remembered_by_the_next_process() {
        let (record, now) = (record(), Instant::from_millis(1000));
        let mut deaths = Deaths::new(record);
        deaths.paired(1, now);
        assert_eq!(deaths.hold(now), Duration::ZERO, "the first one");
        deaths.add(now);
        deaths.paired(2, now);
        assert_eq!(deaths.hold(now), FIRST, "its death was seen, counted once");
        // vrrp alone was restarted.
        let mut deaths = Deaths::new(record);
        deaths.paired(2, now);
        assert_eq!(deaths.hold(now), FIRST);
        // Both were.
        let mut deaths = Deaths::new(record);
        deaths.paired(3, now);
        assert_eq!(deaths.hold(now), FIRST * 2);
    }
}
