//! A simulated segment: two to seven routers, their kernels, a client that learns from announcements, a default
//! gateway, and all that goes wrong between them, drawn from a seed. Sixty simulated seconds per seed.
//!
//! `VRRP_LAN_SEED=N` runs seed N alone; `VRRP_LAN_SEEDS=N` runs that many (3000 by default).
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod defect;
mod ear;
mod fault;
mod host;
mod judge;
mod random;
mod scenario;
/// The product's own rules for being cut off.
#[path = "../../../src/vrrp/isolation/silence.rs"]
mod silence;
mod world;

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    thread,
};

use defect::Defect;
use world::World;

fn number(variable: &str) -> Option<u64> {
    let text = std::env::var(variable).ok()?;
    Some(text.parse().expect("a number"))
}

/// Every seed keeps every invariant.
#[test]
fn seeds_keep_the_invariants() {
    if let Some(seed) = number("VRRP_LAN_SEED") {
        match World::new(seed, Defect::None).run() {
            Ok(steps) => println!("seed {seed}: {steps} steps"),
            Err((violation, story)) => panic!("seed {seed}: {violation}\n{story}"),
        }
        return;
    }
    let seeds = number("VRRP_LAN_SEEDS").unwrap_or(3_000);
    let next = AtomicU64::new(0);
    let failures: Vec<String> = thread::scope(|scope| {
        let work = || {
            let mut failures = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return failures;
                }
                if let Err((violation, _)) = World::new(seed, Defect::None).run() {
                    failures.push(format!("VRRP_LAN_SEED={seed}: {violation}"));
                }
            }
        };
        let threads: Vec<_> = (0..2).map(|_| scope.spawn(work)).collect();
        threads
            .into_iter()
            .flat_map(|thread| thread.join().expect("no seed panics"))
            .collect()
    });
    assert!(
        failures.is_empty(),
        "{} of {seeds} seeds:\n{}",
        failures.len(),
        failures.join("\n")
    );
}

/// With each planted defect, the invariants notice: the suite is not blind to it.
#[test]
fn every_planted_defect_is_noticed() {
    for defect in Defect::PLANTED {
        let mut noticed = BTreeMap::new();
        let mut first = None;
        for seed in 0..20 {
            if let Err((violation, _)) = World::new(seed, defect).run() {
                *noticed.entry(format!("{:?}", violation.rule)).or_insert(0) += 1;
                first = first.or(Some(seed));
            }
        }
        println!("{defect:?}: first in seed {first:?}, by {noticed:?} of 20");
        assert!(first.is_some(), "{defect:?} was not noticed");
    }
}

/// One seed is one run: what fails can be run again.
#[test]
fn a_seed_is_repeatable() {
    let run = || {
        World::new(7, Defect::NoYield)
            .run()
            .map_err(|(_, story)| story)
    };
    assert_eq!(run(), run());
}
