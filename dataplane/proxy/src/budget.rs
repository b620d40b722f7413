//! How many handshakes may be tried again.
//!
//! A retry is more load, and most of it comes when there is too much already. So there are a few in each
//! second, and beyond these a share of the handshakes of the last seconds.

use std::time::Instant;

use crate::health::Retry;

/// Seconds that the budget looks back.
const WINDOW: usize = 10;

/// What is left of a budget; pure.
#[derive(Debug, Default)]
pub(crate) struct Budget {
    begun: Option<Instant>,
    /// The second that is counted now, from the beginning.
    second: u64,
    seconds: [Second; WINDOW],
}

#[derive(Clone, Copy, Debug, Default)]
struct Second {
    handshakes: u64,
    retries: u64,
}

impl Budget {
    /// Counts one that is no retry.
    pub(crate) fn handshake(&mut self, now: Instant) {
        self.now(now).handshakes += 1;
    }

    /// Takes one retry out, if there is one.
    pub(crate) fn retry(&mut self, rules: Retry, now: Instant) -> bool {
        let retries = self.now(now).retries;
        let sum = |of: fn(&Second) -> u64| self.seconds.iter().map(of).sum::<u64>();
        let share = sum(|it| it.handshakes) * u64::from(rules.budget_percent) / 100;
        let may = retries < u64::from(rules.min_per_second) || sum(|it| it.retries) < share;
        if may {
            self.now(now).retries += 1;
        }
        may
    }

    fn now(&mut self, now: Instant) -> &mut Second {
        let begun = *self.begun.get_or_insert(now);
        let second = now.saturating_duration_since(begun).as_secs();
        let gone = second.saturating_sub(self.second).min(WINDOW as u64);
        for back in 0..gone {
            *self.slot(second - back) = Second::default();
        }
        self.second = self.second.max(second);
        self.slot(self.second)
    }

    fn slot(&mut self, second: u64) -> &mut Second {
        let place = usize::try_from(second % WINDOW as u64).unwrap_or(0);
        &mut self.seconds[place]
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const RULES: Retry = Retry {
        budget_percent: 20,
        min_per_second: 3,
    };

    fn retries(budget: &mut Budget, rules: Retry, now: Instant) -> usize {
        (0..1000).filter(|_| budget.retry(rules, now)).count()
    }

    #[test]
    fn each_second_has_a_few_and_the_handshakes_of_the_last_ten_give_the_rest() {
        let mut budget = Budget::default();
        let begun = Instant::now();
        let at = |seconds: u64| begun + Duration::from_secs(seconds);
        assert_eq!(retries(&mut budget, RULES, at(0)), 3);
        assert_eq!(retries(&mut budget, RULES, at(1)), 3, "a new second");
        for _ in 0..500 {
            budget.handshake(at(2));
        }
        assert_eq!(retries(&mut budget, RULES, at(2)), 100 - 6);
        assert_eq!(retries(&mut budget, RULES, at(9)), 3);
        // What was counted ten seconds ago is forgotten, retries with handshakes.
        assert_eq!(retries(&mut budget, RULES, at(12)), 3);
        assert_eq!(retries(&mut budget, RULES, at(1_000_000)), 3);
    }

    #[test]
    fn nothing_is_tried_again_without_a_budget() {
        let none = Retry {
            budget_percent: 0,
            min_per_second: 0,
        };
        let mut budget = Budget::default();
        let now = Instant::now();
        budget.handshake(now);
        assert_eq!(retries(&mut budget, none, now), 0);
    }

    #[test]
    fn a_clock_that_seems_to_go_back_costs_nothing() {
        let mut budget = Budget::default();
        let now = Instant::now();
        budget.handshake(now + Duration::from_secs(5));
        assert_eq!(retries(&mut budget, RULES, now), 3);
    }
}
