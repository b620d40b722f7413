//! Numbers that a seed fixes: the same seed gives the same run, as far as the machine's timing allows.

use std::time::Duration;

/// A generator (`SplitMix64`, Steele, Lea and Flood 2014): good enough to choose by, and seeded by any number.
#[derive(Clone, Debug)]
pub(super) struct Random(u64);

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Another one for `stream`, whose numbers have nothing to do with this one's.
    pub(super) fn fork(&self, stream: u64) -> Self {
        let mut mixed = Self(self.0 ^ stream.wrapping_mul(GOLDEN));
        Self(mixed.next())
    }

    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(GOLDEN);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    /// From `low` to `high`, both included.
    pub(super) fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low + self.next() % span.max(1)
    }

    /// True in `percent` of a hundred cases.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.between(1, 100) <= percent
    }

    /// One of `all`, which must not be empty.
    pub(super) fn one_of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.index(all.len())]
    }

    /// An index below `count`.
    pub(super) fn index(&mut self, count: usize) -> usize {
        usize::try_from(self.between(1, count.max(1) as u64) - 1).unwrap_or(0)
    }

    pub(super) fn time(&mut self, low: Duration, high: Duration) -> Duration {
        let micros = |time: Duration| u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        Duration::from_micros(self.between(micros(low), micros(high)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_itself_and_forks_differ() {
        let draw = |mut random: Random| [random.next(), random.next(), random.next()];
        let seeded = Random::new(7);
        assert_eq!(draw(seeded.clone()), draw(Random::new(7)));
        assert_ne!(draw(seeded.fork(1)), draw(seeded.fork(2)));
        let mut random = Random::new(1);
        let mut seen = [false; 3];
        for _ in 0..100 {
            let number = random.between(5, 7);
            seen[usize::try_from(number - 5).unwrap()] = true;
        }
        assert_eq!(seen, [true; 3]);
    }
}
