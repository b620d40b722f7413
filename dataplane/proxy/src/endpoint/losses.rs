//! When the clients of sessions that break together are told.

use std::time::{Duration, Instant};

/// Sessions that break together are told one after the other, so that their clients do not all come
/// back at once: each so long after the one before, in rounds of `LOSS_ROUND`.
const LOSS_STEP: Duration = Duration::from_millis(1);
const LOSS_ROUND: Duration = Duration::from_secs(1);

/// Sessions that broke one after the other.
#[derive(Debug, Default)]
pub(super) struct Losses {
    last: Option<Instant>,
    count: u32,
}

impl Losses {
    /// How long the session that broke now waits before its client is told.
    pub(super) fn slot(&mut self, now: Instant) -> Duration {
        let begins_anew = self.last.is_none_or(|last| now >= last + LOSS_ROUND);
        self.count = if begins_anew {
            0
        } else {
            self.count.wrapping_add(1)
        };
        self.last = Some(now);
        let steps = LOSS_ROUND.as_millis() / LOSS_STEP.as_millis();
        LOSS_STEP * (self.count % u32::try_from(steps).unwrap_or(u32::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn losses_follow_each_other_and_a_lone_one_does_not_wait() {
        let mut losses = Losses::default();
        let now = Instant::now();
        let slots: Vec<_> = (0..1500).map(|_| losses.slot(now).as_millis()).collect();
        assert_eq!((slots[0], slots[1], slots[999]), (0, 1, 999));
        assert_eq!((slots[1000], slots[1499]), (0, 499), "the next round");
        assert_eq!(losses.slot(now + LOSS_ROUND), Duration::ZERO);
    }
}
