//! A minute of `make soak`: each fault and each edit once under hundreds of sessions.

use std::time::Duration;

use anyhow::Result;
use e2e::soak::{self, Options};
use e2e::testing::in_lab;

#[test]
fn every_close_has_a_cause_and_nothing_is_lost_or_left_over() -> Result<()> {
    let test = "every_close_has_a_cause_and_nothing_is_lost_or_left_over";
    let options = Options {
        seed: soak::any_seed(),
        sessions: 400,
        time: Duration::from_mins(1),
    };
    in_lab(test, |cluster| {
        let summary = soak::run(cluster, options)?;
        println!("{summary}");
        summary.verdict()
    })
}
