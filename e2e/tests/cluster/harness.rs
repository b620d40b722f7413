//! Runs scenarios one after another on one cluster, and tells of each as the usual harness does.

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use e2e::cluster::{Local, Provider};
use e2e::testing::skipped;

use crate::stage::Stage;

/// A named piece of the test.
pub(crate) struct Scenario {
    pub(crate) name: &'static str,
    /// Whether it works on the nodes themselves, which must be on this machine then.
    pub(crate) local: bool,
    pub(crate) run: fn(&mut Stage) -> Result<()>,
}

#[derive(Default)]
struct Tally {
    passed: usize,
    failed: Vec<&'static str>,
}

impl Tally {
    fn take(&mut self, name: &'static str, began: Instant, outcome: &Result<()>) {
        let seconds = began.elapsed().as_secs_f32();
        match outcome {
            Ok(()) => {
                self.passed += 1;
                println!("test {name} ... ok ({seconds:.1} s)");
            }
            Err(error) => {
                self.failed.push(name);
                println!("test {name} ... FAILED ({seconds:.1} s)\n{error:#}\n");
            }
        }
    }

    fn finish(self) -> ExitCode {
        let word = if self.failed.is_empty() {
            "ok"
        } else {
            "FAILED"
        };
        for name in &self.failed {
            println!("    {name}");
        }
        println!(
            "\ntest result: {word}. {} passed; {} failed",
            self.passed,
            self.failed.len()
        );
        ExitCode::from(u8::from(!self.failed.is_empty()))
    }
}

/// Runs those scenarios whose names contain a word of the command line, all without one. The cluster's own
/// start and end are results like the others.
pub(crate) fn run(scenarios: &[Scenario]) -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    if words.iter().any(|word| word == "--list") {
        for scenario in scenarios {
            println!("{}: test", scenario.name);
        }
        return ExitCode::SUCCESS;
    }
    let filters: Vec<&String> = words.iter().filter(|word| !word.starts_with('-')).collect();
    let wanted = |scenario: &&Scenario| {
        filters.is_empty() || filters.iter().any(|word| scenario.name.contains(*word))
    };
    let wanted: Vec<&Scenario> = scenarios.iter().filter(wanted).collect();
    let mut tally = Tally::default();
    if wanted.is_empty() {
        return tally.finish();
    }
    let provider = match Provider::chosen() {
        Ok(provider) => provider,
        Err(error) => {
            eprintln!("{error:#}");
            return ExitCode::FAILURE;
        }
    };
    if let Some(why) = provider.cannot_run() {
        skipped("cluster", &why);
        return tally.finish();
    }
    let is_local = provider == Provider::Local;
    let began = Instant::now();
    let (started, stage) = match Stage::start(provider) {
        Ok(stage) => (Ok(()), Some(stage)),
        Err(error) => (Err(error), None),
    };
    tally.take("the_cluster_starts", began, &started);
    let Some(mut stage) = stage else {
        return tally.finish();
    };
    for scenario in wanted {
        if scenario.local && !is_local {
            skipped(scenario.name, "needs nodes on this machine");
            continue;
        }
        let began = Instant::now();
        let outcome = (scenario.run)(&mut stage);
        tally.take(scenario.name, began, &outcome);
        if outcome.is_err() {
            println!("{}", stage.logs());
        }
    }
    let began = Instant::now();
    let traces = stage.local().map(Local::traces).ok();
    drop(stage);
    if let Some(traces) = traces {
        let left = traces.left();
        let outcome = (|| {
            ensure!(left.is_empty(), "left on the machine: {}", left.join(", "));
            Ok(())
        })();
        tally.take("the_cluster_leaves_nothing_behind", began, &outcome);
    }
    tally.finish()
}
