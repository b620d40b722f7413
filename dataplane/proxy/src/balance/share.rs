//! What share of the sessions an endpoint is to get now.

use std::{
    cmp::Ordering,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};

use crate::endpoint::Endpoint;

/// A full share of an endpoint of weight 1: shares are whole numbers, and those of slow starts parts.
const WHOLE: u32 = 100;

/// The first share of an endpoint that starts slowly.
const FIRST: u32 = WHOLE / 10;

/// An endpoint that may be chosen.
#[derive(Clone, Copy, Debug)]
pub(super) struct Candidate<'a> {
    pub(super) endpoint: &'a Arc<Endpoint>,
    pub(super) weight: u32,
}

impl Candidate<'_> {
    pub(super) fn load(&self) -> usize {
        self.endpoint.load.load(Relaxed)
    }

    /// Load per weight: a/b < c/d, in whole numbers.
    pub(super) fn compare_loads(&self, other: &Self) -> Ordering {
        let ours = self.load() as u128 * u128::from(other.weight);
        ours.cmp(&(other.load() as u128 * u128::from(self.weight)))
    }
}

/// Endpoints with their shares of now.
pub(super) fn candidates<'a>(
    endpoints: impl Iterator<Item = &'a Arc<Endpoint>>,
    slow_start: Duration,
) -> Vec<Candidate<'a>> {
    let now = (!slow_start.is_zero()).then(Instant::now);
    let candidate = |endpoint: &'a Arc<Endpoint>| {
        let percent = now.map_or(WHOLE, |now| started(endpoint.accepts_for(now), slow_start));
        Candidate {
            endpoint,
            weight: u32::from(endpoint.weight()) * percent,
        }
    };
    endpoints.map(candidate).collect()
}

/// Share of an endpoint that has accepted for `age`: it grows evenly to the whole.
fn started(age: Duration, slow_start: Duration) -> u32 {
    let part = u128::from(WHOLE) * age.as_millis() / slow_start.as_millis().max(1);
    u32::try_from(part).map_or(WHOLE, |part| part.clamp(FIRST, WHOLE))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_grows_evenly_from_a_tenth_to_the_whole() {
        let at = |seconds| started(Duration::from_secs(seconds), Duration::from_secs(20));
        assert_eq!([0, 1, 10, 19, 20, 900].map(at), [10, 10, 50, 95, 100, 100]);
    }
}
