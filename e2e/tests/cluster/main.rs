//! A real cluster of several nodes on this machine: scenarios in order, as one cluster serves them all.

mod harness;
mod nodes;
mod stage;

use std::process::ExitCode;

use harness::Scenario;

const SCENARIOS: &[Scenario] = &[Scenario {
    name: "pods_run_and_services_answer",
    run: nodes::pods_run_and_services_answer,
}];

fn main() -> ExitCode {
    harness::run(SCENARIOS)
}
