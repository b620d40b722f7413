//! Leaves an endpoint out that fails clients, for longer each time; pure.
//!
//! A failure in use counts, whatever a check says: it is what clients get. One that comes back is on
//! trial: it is used as before, and the first failure leaves it out again.

use std::time::{Duration, Instant};

use super::Ejection;

/// What clients' handshakes tell of one endpoint.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Outlier {
    /// Failures since the last success.
    failures: u32,
    /// How often it was left out, less what good time has made up for.
    level: u32,
    /// Until when it is, or was last.
    until: Option<Instant>,
    /// It has not succeeded since it came back.
    is_on_trial: bool,
}

impl Outlier {
    /// Until when it is left out.
    pub(super) fn ejected_until(&self, now: Instant) -> Option<Instant> {
        self.until.filter(|until| *until > now)
    }

    /// A handshake was answered.
    pub(super) const fn succeeded(&mut self) {
        self.failures = 0;
        self.is_on_trial = false;
    }

    /// A handshake came to nothing. Until when it is left out for that; `may` says whether one more of
    /// its upstream may be.
    pub(super) fn failed(&mut self, rules: &Ejection, now: Instant, may: bool) -> Option<Instant> {
        // Whoever was on the way there when it was left out tells nothing new.
        if self.ejected_until(now).is_some() {
            return None;
        }
        self.failures = self.failures.saturating_add(1);
        let is_enough = self.is_on_trial || self.failures >= rules.consecutive_failures;
        if !is_enough || !may {
            return None;
        }
        self.level = self.level_at(rules, now).saturating_add(1);
        let until = now + length(rules, self.level);
        *self = Self {
            failures: 0,
            until: Some(until),
            is_on_trial: true,
            level: self.level,
        };
        Some(until)
    }

    /// As long as it was out, it must have been well for one time to be forgotten.
    fn level_at(&self, rules: &Ejection, now: Instant) -> u32 {
        let well = self.until.map(|until| now.saturating_duration_since(until));
        let mut well = well.unwrap_or_default();
        // No longer than `most` is ever asked for: those above count as one of that length.
        let mut level = self.level.min(steps(rules));
        while level > 0 {
            let Some(left) = well.checked_sub(length(rules, level)) else {
                break;
            };
            well = left;
            level -= 1;
        }
        level
    }
}

/// How long the `level`th time takes: twice as long as the one before.
fn length(rules: &Ejection, level: u32) -> Duration {
    let doublings = level.saturating_sub(1).min(31);
    rules
        .base
        .saturating_mul(1 << doublings)
        .min(rules.most.max(rules.base))
}

/// The first level that takes the longest time.
fn steps(rules: &Ejection) -> u32 {
    let longest = rules.most.max(rules.base);
    (1..=32)
        .find(|level| length(rules, *level) >= longest)
        .unwrap_or(32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const RULES: Ejection = Ejection {
        consecutive_failures: 3,
        base: Duration::from_secs(10),
        most: Duration::from_mins(1),
        max_percent: 50,
    };

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn failures_in_a_row_are_needed_and_a_success_begins_anew() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        assert_eq!(outlier.failed(&RULES, now, true), None);
        assert_eq!(outlier.failed(&RULES, now, true), None);
        outlier.succeeded();
        assert_eq!(outlier.failed(&RULES, now, true), None);
        assert_eq!(outlier.failed(&RULES, now, true), None);
        let until = outlier.failed(&RULES, now, true);
        assert_eq!(until, Some(now + RULES.base));
        assert_eq!(outlier.ejected_until(now), until);
        assert_eq!(outlier.ejected_until(now + RULES.base), None);
    }

    #[test]
    fn one_on_trial_is_out_again_at_once_and_for_longer_up_to_a_bound() {
        let (mut outlier, mut now) = (Outlier::default(), Instant::now());
        for _ in 0..2 {
            assert_eq!(outlier.failed(&RULES, now, true), None);
        }
        for seconds in [10, 20, 40, 60, 60] {
            let until = outlier.failed(&RULES, now, true).unwrap();
            assert_eq!(until - now, SECOND * seconds);
            let late = outlier.failed(&RULES, now + SECOND, true);
            assert_eq!(late, None, "nothing new");
            now = until;
        }
    }

    #[test]
    fn good_time_shortens_the_next_one_step_by_step() {
        let mut bad = Outlier::default();
        let now = Instant::now();
        let mut until = now;
        for _ in 0..5 {
            until = (0..3)
                .find_map(|_| bad.failed(&RULES, until, true))
                .unwrap();
        }
        // The last one took 60 s, as the next would; those before 40, 20 and 10.
        for (well, next) in [
            (59, 60),
            (60, 60),
            (100, 40),
            (120, 20),
            (130, 10),
            (9999, 10),
        ] {
            let mut outlier = bad;
            outlier.succeeded();
            let at = until + SECOND * well;
            let next_until = (0..3).find_map(|_| outlier.failed(&RULES, at, true));
            assert_eq!(next_until.unwrap() - at, SECOND * next, "well for {well} s");
        }
    }

    #[test]
    fn one_that_may_not_be_left_out_is_used_on_until_it_may() {
        let (mut outlier, now) = (Outlier::default(), Instant::now());
        for _ in 0..9 {
            assert_eq!(outlier.failed(&RULES, now, false), None);
        }
        assert!(outlier.failed(&RULES, now, true).is_some());
    }

    proptest! {
        #[test]
        fn it_is_never_out_for_longer_than_the_longest_time(
            events in prop::collection::vec((0_u64..200, any::<bool>()), 1..200),
        ) {
            let (mut outlier, mut now) = (Outlier::default(), Instant::now());
            for (pause, is_failure) in events {
                now += SECOND * u32::try_from(pause).unwrap();
                let was_out = outlier.ejected_until(now).is_some();
                if is_failure {
                    let until = outlier.failed(&RULES, now, true);
                    prop_assert!(until.is_none() || !was_out);
                } else {
                    outlier.succeeded();
                }
                if let Some(until) = outlier.ejected_until(now) {
                    prop_assert!(until - now <= RULES.most);
                }
            }
        }
    }
}
