//! When to look for what earlier sessions left of addresses that another Active claimed meanwhile.
//!
//! An Active router that hears one which has to yield never let its addresses go, but clients were at the other one for
//! a while, as if it had (RFC 9568 section 6.4.3). Whoever sends such advertisements at a high rate must not have the
//! kernel's table read as often.

use std::{
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use ::vrrp::Instant;

use crate::vrrp::asking::Heard;

/// From the beginning of one look to that of the next, of all virtual routers together.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Whether the role of one virtual router was contested since the last look.
#[derive(Debug)]
pub(super) struct Contest {
    /// By whom the machine thread heard; it waits for nobody.
    heard: Arc<Heard>,
    /// The last that was followed by a look.
    seen: Instant,
}

impl Contest {
    pub(super) fn new(heard: Arc<Heard>) -> Self {
        Self {
            seen: heard.last(),
            heard,
        }
    }

    /// Tells it of each contest once, or of several as one: a look is to follow.
    pub(super) fn take(&mut self) -> bool {
        let last = self.heard.last();
        std::mem::replace(&mut self.seen, last) != last
    }
}

/// Looks that contests led to.
#[derive(Debug, Default)]
pub(super) struct Looks {
    began: Option<Instant>,
    /// There for as long as whoever looks has it, so that no second one waits behind it.
    under_way: Weak<Vec<IpAddr>>,
}

impl Looks {
    pub(super) fn may_begin(&self, now: Instant) -> bool {
        self.under_way.strong_count() == 0
            && self.began.is_none_or(|at| now.since(at) >= LOOK_EVERY)
    }

    /// To be dropped once the look is over.
    pub(super) fn begin(&mut self, now: Instant, contested: Vec<IpAddr>) -> Arc<Vec<IpAddr>> {
        let contested = Arc::new(contested);
        self.began = Some(now);
        self.under_way = Arc::downgrade(&contested);
        contested
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Advertisements of an hour, one each millisecond, while each look takes `busy`: how many looks there are, and
    /// when the last one began.
    fn flood(busy: Duration) -> (u64, Instant) {
        let heard = Heard::new();
        let (mut contest, mut looks) = (Contest::new(Arc::clone(&heard)), Looks::default());
        let (mut count, mut last, mut under_way) = (0, Instant::ZERO, None);
        let end = Instant::from_millis(3_600_000);
        let mut now = Instant::from_millis(1);
        // The turns go on.
        while now <= end + Duration::from_secs(10) {
            if now <= end {
                heard.note(now);
            }
            under_way = under_way.filter(|_| now.since(last) < busy);
            if looks.may_begin(now) && contest.take() {
                under_way = Some(looks.begin(now, Vec::new()));
                (count, last) = (count + 1, now);
            }
            now = now + Duration::from_millis(1);
        }
        (count, last)
    }

    #[test]
    fn a_flood_of_contests_leads_to_few_looks_and_one_after_the_last() {
        let end = Instant::from_millis(3_600_000);
        for (busy, looks) in [(Duration::ZERO, 3600), (Duration::from_secs(4), 900)] {
            let (count, last) = flood(busy);
            assert!((looks..=looks + 1).contains(&count), "{count}");
            assert!(last >= end && last.since(end) <= busy.max(LOOK_EVERY));
        }
    }

    #[test]
    fn one_contest_is_followed_by_one_look_at_once() {
        let heard = Heard::new();
        let (mut contest, looks) = (Contest::new(Arc::clone(&heard)), Looks::default());
        assert!(!contest.take());
        heard.note(Instant::from_millis(7));
        assert!(looks.may_begin(Instant::from_millis(7)));
        assert!(contest.take());
        assert!(!contest.take());
    }
}
