//! When the sessions of endpoints that go are told: one after the other, so that their clients do not
//! come back as a herd, and all before the deadline. No clock of its own.

use std::time::Duration;

use crate::config::Drain;

/// One worker's sessions of one pool that are to be told.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Schedule {
    pub(crate) drain: Drain,
    /// How many there are.
    pub(crate) sessions: usize,
    /// How long it takes until those that were to be told before are.
    pub(crate) busy: Duration,
    /// Number of the worker, and how many there are, which have as many: their turns are interleaved.
    pub(crate) worker: usize,
    pub(crate) workers: usize,
}

impl Schedule {
    /// How long session number `index` waits.
    ///
    /// With a rate it is the rate that counts, behind those that go already, for as long as the
    /// deadline lets it; else, and without one, all of the time is used, evenly.
    pub(crate) fn wait(&self, index: usize) -> Duration {
        let Drain {
            timeout,
            sessions_per_second,
            ..
        } = self.drain;
        let slots = number(self.sessions * self.workers).max(1);
        let slot = number(index * self.workers + self.worker);
        let paced = sessions_per_second.and_then(|rate| {
            let at = |slot| self.busy + Duration::from_secs(1) * slot / rate.max(1);
            (at(slots) <= timeout).then(|| at(slot))
        });
        paced.unwrap_or_else(|| timeout * slot / slots)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// When each session is told, in milliseconds, over two workers.
    fn told(timeout: u64, rate: Option<u32>, busy: u64, sessions: usize) -> Vec<u128> {
        let of = |worker| {
            let schedule = Schedule {
                drain: Drain {
                    timeout: Duration::from_secs(timeout),
                    sessions_per_second: rate,
                    close_code: 1001,
                },
                sessions: sessions / 2,
                busy: Duration::from_secs(busy),
                worker,
                workers: 2,
            };
            (0..sessions / 2).map(move |index| schedule.wait(index).as_millis())
        };
        let mut all: Vec<_> = of(0).chain(of(1)).collect();
        all.sort_unstable();
        all
    }

    #[test]
    fn without_a_rate_all_of_the_time_is_used_evenly() {
        assert_eq!(told(4, None, 0, 4), [0, 1000, 2000, 3000]);
        assert_eq!(
            told(4, None, 3, 4),
            [0, 1000, 2000, 3000],
            "whoever goes already"
        );
        assert_eq!(told(0, None, 0, 4), [0; 4]);
    }

    #[test]
    fn a_rate_counts_while_the_deadline_lets_it() {
        assert_eq!(told(60, Some(2), 0, 4), [0, 500, 1000, 1500]);
        assert_eq!(told(2, Some(2), 0, 4), [0, 500, 1000, 1500]);
        assert_eq!(told(2, Some(1), 0, 4), [0, 500, 1000, 1500], "the deadline");
        assert_eq!(told(0, Some(1), 0, 4), [0; 4]);
    }

    #[test]
    fn those_that_go_already_are_waited_for_if_there_is_time() {
        assert_eq!(told(60, Some(2), 10, 4), [10_000, 10_500, 11_000, 11_500]);
        assert_eq!(told(12, Some(2), 10, 4), [10_000, 10_500, 11_000, 11_500]);
        assert_eq!(told(11, Some(2), 10, 4), [0, 2750, 5500, 8250]);
    }

    #[test]
    fn many_sessions_over_a_long_time_are_told_within_it() {
        let last = |rate| told(3600, rate, 0, 2_000_000).pop().unwrap();
        assert!((3_590_000..3_600_000).contains(&last(None)));
        assert_eq!(last(Some(1_000_000)), 1999);
    }
}
