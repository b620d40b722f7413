//! Repeats faults against a subject and tells what they cost its client.

mod phases;
mod stage;
mod table;
mod turns;
mod verdict;

use std::thread;
use std::time::Duration;

use anyhow::{Result, ensure};
use serde::Serialize;

use self::phases::Phases;
use self::stage::Stage;
pub use self::table::{Figures, align, heals, markdown, rows};
pub use self::turns::{Turn, Turns};
pub use self::verdict::{ENOUGH, Finding, findings};
use crate::control::ControlTimer;
use crate::fault::Fault;
use crate::lab::Lab;
use crate::probe::Outage;
use crate::subject::{Settings, Subject};

/// How long a lab is left to itself after its last heal, before another is measured.
const CALM: Duration = Duration::from_secs(6);

/// What one span cost.
#[derive(Clone, Debug, Serialize)]
pub struct Cost {
    /// The longest silence, ms.
    pub outage_ms: f64,
    /// All silences beyond the loss limit together, ms.
    pub total_ms: f64,
    /// By how much the control timer woke late at worst during the longest silence, ms.
    pub control_ms: f64,
    /// What the client saw.
    pub saw: String,
    /// It had not ended by itself within the bound: `outage_ms` is a lower limit.
    pub stuck: bool,
}

impl Cost {
    /// Cost of what a client saw, beside a timer.
    pub fn of(outage: &Outage, control: &ControlTimer, stuck: bool) -> Self {
        let (begin, end) = outage.between;
        Self {
            outage_ms: ms(outage.longest),
            total_ms: ms(outage.total),
            control_ms: ms(control.worst(begin, end)),
            saw: outage.saw(),
            stuck,
        }
    }
}

/// One fault and its heal.
#[derive(Clone, Debug, Serialize)]
pub struct Sample {
    /// What was hit.
    pub subject: Subject,
    /// Interval between advertisements, ms; the article's is always 1000.
    pub advertisement_ms: u128,
    /// What happened.
    pub fault: Fault,
    /// Which repetition.
    pub repeat: u32,
    /// Cost of the fault.
    pub outage: Cost,
    /// How long the host itself took to notice and to give the address up, where it could.
    pub vacated: Option<Cost>,
    /// Cost of the return, where the address had moved.
    pub fail_back: Option<Cost>,
}

/// What to run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Against what.
    pub subject: Subject,
    /// With which settings.
    pub settings: Settings,
    /// Which faults, in turn.
    pub faults: Vec<Fault>,
    /// Numbers of the repetitions.
    pub repeats: std::ops::Range<u32>,
    /// Seed of the phases.
    pub seed: u64,
}

/// What is told while a plan runs.
#[derive(Debug)]
pub enum Report {
    /// What a fault cost: a lower limit where a failure follows.
    Sample(Sample),
    /// How a subject is set up, by its name and interval, told once.
    Configuration(String, String),
    /// A repetition failed. It is made again, in a new lab.
    Failure(Subject, anyhow::Error),
}

/// Runs a plan in a lab of its own, one round of its faults each [`Turn`], and hands on what comes of it.
pub fn run(plan: &Plan, mut turn: Turn, mut report: impl FnMut(Report)) -> Result<()> {
    let mut phases = Phases::new(plan.seed, &plan.repeats);
    let mut todo: Vec<(u32, Fault)> = plan
        .repeats
        .clone()
        .flat_map(|repeat| plan.faults.iter().map(move |fault| (repeat, *fault)))
        .rev()
        .collect();
    let mut failures_in_a_row = 0;
    let mut is_told = false;
    while !todo.is_empty() {
        turn.take()?;
        let lab = Lab::new()?;
        let mut stage = Stage::set(&lab, plan)
            .map_err(|error| error.context(format!("{} does not come up", plan.subject)))?;
        if !std::mem::replace(&mut is_told, true) {
            let text = stage.gateways.configuration(lab.server1())?;
            let interval = stage.gateways.advertisement().as_millis();
            let name = format!("{}, {interval} ms", plan.subject);
            report(Report::Configuration(name, text));
        }
        while let Some((repeat, _)) = todo.last().copied() {
            turn.take()?;
            let watchers = stage.watchers()?;
            while let Some((_, fault)) = todo.pop_if(|(of, _)| *of == repeat) {
                match stage.repetition(&watchers, plan, fault, repeat, &mut phases) {
                    Ok(sample) => {
                        failures_in_a_row = 0;
                        report(Report::Sample(sample));
                    }
                    Err(failed) => {
                        failures_in_a_row += 1;
                        todo.push((repeat, fault));
                        if let Some(sample) = failed.sample {
                            report(Report::Sample(*sample));
                        }
                        let error = failed.error.context(format!(
                            "{}: {fault}, repetition {}\n{}",
                            plan.subject,
                            repeat + 1,
                            stage.gateways.logs()
                        ));
                        report(Report::Failure(plan.subject, error));
                        break;
                    }
                }
            }
            if failures_in_a_row > 0 {
                break;
            }
            // What a fault leaves behind in a lab is not to be in the next one's figures: keepalived, with
            // real-time priority, takes a core for a tenth of a second some four seconds after a heal.
            if plan.repeats.len() > 1 {
                thread::sleep(CALM);
            }
            turn.pass();
        }
        ensure!(
            failures_in_a_row < 3,
            "{}: three repetitions in a row failed",
            plan.subject
        );
    }
    Ok(())
}

fn ms(duration: Duration) -> f64 {
    (duration.as_secs_f64() * 10_000.0).round() / 10.0
}
