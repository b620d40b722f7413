//! Memory of the gateways' processes, for as long as each lives.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::cost;
use crate::testing::{Cluster, Gateway, Part};

/// Growth that is within the noise of an allocator, whatever the process had before.
const NOISE: u64 = 16 << 20;

/// Into so many parts a lifetime is divided to show its course.
const PARTS: usize = 10;

/// What a process had at a time.
#[derive(Clone, Copy, Debug)]
struct Sample {
    at: Instant,
    memory: u64,
}

/// A process from when it was first seen.
#[derive(Debug)]
struct Lifetime {
    gateway: Gateway,
    part: Part,
    samples: Vec<Sample>,
}

/// What a lifetime came to, in bytes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Memory {
    pub(super) lasted: Duration,
    /// The first after the warm-up.
    pub(super) first: u64,
    pub(super) last: u64,
    pub(super) peak: u64,
    /// What the line through all samples after the warm-up rises by, from its begin to its end.
    pub(super) growth: i64,
    /// The median of each tenth of the samples after the warm-up.
    pub(super) course: Vec<u64>,
}

impl Memory {
    /// Whether it does not grow: by no more than a quarter of what it began with, and noise.
    pub(super) fn is_flat(&self) -> bool {
        u64::try_from(self.growth).unwrap_or(0) <= self.first / 4 + NOISE
    }
}

/// All processes.
#[derive(Debug, Default)]
pub(super) struct Vitals {
    lifetimes: BTreeMap<i32, Lifetime>,
}

impl Vitals {
    /// Looks at all of them. One that is being started or stopped is passed over.
    pub(super) fn look(&mut self, cluster: &Cluster) {
        for (gateway, part) in all() {
            let Ok(pid) = cluster.pid(gateway, part) else {
                continue;
            };
            let Ok(memory) = cost::resident(&[pid]) else {
                continue;
            };
            let lifetime = self.lifetimes.entry(pid.as_raw());
            let lifetime = lifetime.or_insert_with(|| Lifetime {
                gateway,
                part,
                samples: Vec::new(),
            });
            lifetime.samples.push(Sample {
                at: Instant::now(),
                memory,
            });
        }
    }

    /// What each process came to after the warm-up, which ends at `warm`; those that lasted no longer than it are
    /// left out.
    pub(super) fn memory(&self, warm_up: Duration) -> Vec<(Gateway, Part, Memory)> {
        let of = |lifetime: &Lifetime| {
            let memory = memory(&lifetime.samples, warm_up)?;
            Some((lifetime.gateway, lifetime.part, memory))
        };
        self.lifetimes.values().filter_map(of).collect()
    }
}

pub(super) fn all() -> impl Iterator<Item = (Gateway, Part)> {
    let of = |gateway| Part::ALL.map(|part| (gateway, part));
    Gateway::BOTH.into_iter().flat_map(of)
}

fn memory(samples: &[Sample], warm_up: Duration) -> Option<Memory> {
    let begun = samples.first()?.at;
    let warm = |sample: &&Sample| sample.at >= begun + warm_up;
    let samples: Vec<Sample> = samples.iter().filter(warm).copied().collect();
    let (first, last) = (samples.first()?, samples.last()?);
    Some(Memory {
        lasted: last.at - begun,
        first: first.memory,
        last: last.memory,
        peak: samples.iter().map(|sample| sample.memory).max()?,
        growth: growth(&samples),
        course: course(&samples),
    })
}

/// The median of each of `PARTS` parts.
fn course(samples: &[Sample]) -> Vec<u64> {
    let parts = samples.chunks(samples.len().div_ceil(PARTS).max(1));
    let median = |part: &[Sample]| {
        let mut memory: Vec<u64> = part.iter().map(|sample| sample.memory).collect();
        memory.sort_unstable();
        memory.get(memory.len() / 2).copied().unwrap_or(0)
    };
    parts.map(median).collect()
}

/// What the straight line through the samples with the least squares rises by over them.
fn growth(samples: &[Sample]) -> i64 {
    let (Some(first), Some(last)) = (samples.first(), samples.last()) else {
        return 0;
    };
    let x = |sample: &Sample| (sample.at - first.at).as_millis().cast_signed();
    let y = |sample: &Sample| i128::from(sample.memory);
    let count = samples.len() as i128;
    let sum = |value: &dyn Fn(&Sample) -> i128| samples.iter().map(value).sum::<i128>();
    let (sum_x, sum_y) = (sum(&x), sum(&y));
    let covariance = count * sum(&|sample| x(sample) * y(sample)) - sum_x * sum_y;
    let variance = count * sum(&|sample| x(sample) * x(sample)) - sum_x * sum_x;
    if variance == 0 {
        return 0;
    }
    i64::try_from(covariance * x(last) / variance).unwrap_or(i64::MAX)
}

/// What a process is called in tables.
pub(super) fn name(gateway: Gateway, part: Part) -> String {
    format!("{} {part:?}", gateway.name()).to_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(memory: impl Fn(u64) -> u64) -> Vec<Sample> {
        let begun = Instant::now();
        let sample = |second| Sample {
            at: begun + Duration::from_secs(second),
            memory: memory(second),
        };
        (0..600).map(sample).collect()
    }

    #[test]
    fn a_leak_is_told_from_noise() {
        let warm_up = Duration::from_mins(1);
        let noisy = samples(|second| (100 << 20) + (second * 7919 % 13) * (1 << 20));
        let flat = memory(&noisy, warm_up).unwrap();
        assert!(flat.is_flat(), "{flat:?}");
        // 100 KiB a second.
        let leaking = samples(|second| (100 << 20) + second * (100 << 10));
        let leak = memory(&leaking, warm_up).unwrap();
        assert_eq!(leak.growth, 539 * (100 << 10));
        assert_eq!(leak.course.len(), PARTS);
        assert!(leak.course.is_sorted(), "{leak:?}");
        assert!(!leak.is_flat(), "{leak:?}");
        // What grows while it warms up is no leak.
        let warms = samples(|second| (50 << 20) + second.min(60) * (1 << 20));
        assert!(memory(&warms, warm_up).unwrap().is_flat());
        assert!(memory(&warms[..30], warm_up).is_none());
    }
}
