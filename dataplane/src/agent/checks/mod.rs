//! Users' checks: asks again and again, and knows which fail.
//!
//! Each check is a task of its own, so that one that waits keeps no other waiting. Which priority a
//! failing one costs is for vrrp ([`crate::ipc::ToVrrp::Failing`]).

mod ask;
mod command;
mod directory;
mod response;
mod verdict;

use std::{collections::BTreeMap, time::Duration};

use node_api::{Check, NodeConfig, PoolRef, Probe};
use tokio::{
    sync::mpsc,
    task::AbortHandle,
    time::{self, MissedTickBehavior},
};

pub(super) use directory::CheckDir;
use verdict::Verdict;

use super::{app::App, event::Event};
use crate::{
    ipc::FailingCheck,
    metrics::{Metric, Sample},
    sys::{clock, users::Identity},
};

/// With what programs are run.
#[derive(Clone, Debug)]
pub(super) struct Programs {
    /// Where they are.
    pub(super) directory: Option<CheckDir>,
    /// As whom.
    pub(super) user: Identity,
}

/// All checks of this node.
#[derive(Debug)]
pub(super) struct Checks {
    programs: Programs,
    running: BTreeMap<(PoolRef, String), Running>,
    next: u64,
}

/// A check that is asked.
#[derive(Debug)]
struct Running {
    /// Its number, so that the word of one that was replaced is not taken for its own.
    number: u64,
    /// But for its weight.
    check: Check,
    task: AbortHandle,
    failing: Option<Failing>,
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// How a check fails.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Failing {
    problem: String,
    since_unix_ms: u64,
}

/// What a task found, when that is something new.
#[derive(Debug)]
pub(super) struct Found {
    number: u64,
    pool: PoolRef,
    name: String,
    /// What is wrong; `None`: it passes.
    problem: Option<String>,
}

impl Checks {
    pub(super) const fn new(programs: Programs) -> Self {
        Self {
            programs,
            running: BTreeMap::new(),
            next: 0,
        }
    }

    /// Asks what `config` wants asked, and nothing else.
    pub(super) fn follow(&mut self, config: &NodeConfig, events: &mpsc::Sender<Event>) {
        let mut former = std::mem::take(&mut self.running);
        for (pool, settings) in &config.pools {
            for check in &settings.tracking.checks {
                let key = (pool.clone(), check.name.clone());
                let wanted = Check {
                    weight: 0,
                    ..check.clone()
                };
                let running = match former.remove(&key) {
                    Some(running) if running.check == wanted => running,
                    // Until its first answer it is what the one before was.
                    former => self.start(
                        pool,
                        wanted,
                        former.and_then(|it| it.failing.clone()),
                        events,
                    ),
                };
                self.running.insert(key, running);
            }
        }
    }

    fn start(
        &mut self,
        pool: &PoolRef,
        check: Check,
        failing: Option<Failing>,
        events: &mpsc::Sender<Event>,
    ) -> Running {
        self.next += 1;
        let asked = Asked {
            number: self.next,
            pool: pool.clone(),
            check: check.clone(),
            programs: self.programs.clone(),
        };
        let task = tokio::spawn(asked.run(failing.clone(), events.clone()));
        Running {
            number: self.next,
            check,
            task: task.abort_handle(),
            failing,
        }
    }

    fn take(&mut self, found: Found) {
        let Found {
            number,
            pool,
            name,
            problem,
        } = found;
        let running = self.running.get_mut(&(pool.clone(), name.clone()));
        let Some(running) = running.filter(|it| it.number == number) else {
            return;
        };
        match (&problem, &running.failing) {
            (Some(problem), None) => {
                tracing::warn!(%pool, check = name, "the check fails: {problem}");
            }
            (None, Some(_)) => tracing::info!(%pool, check = name, "the check passes again"),
            _ => {}
        }
        let before = running.failing.take();
        let since = before.map_or_else(clock::now_unix_ms, |before| before.since_unix_ms);
        running.failing = problem.map(|problem| Failing {
            problem,
            since_unix_ms: since,
        });
    }

    /// The checks that fail now.
    pub(super) fn failing(&self) -> Vec<FailingCheck> {
        let failing = self.running.iter().filter_map(|((pool, name), running)| {
            let failing = running.failing.as_ref()?;
            Some(FailingCheck {
                pool: pool.clone(),
                name: name.clone(),
                problem: failing.problem.clone(),
                since_unix_ms: failing.since_unix_ms,
            })
        });
        failing.collect()
    }

    /// For metrics.
    pub(super) fn samples(&self) -> impl Iterator<Item = Sample> + '_ {
        self.running.iter().map(|((pool, name), running)| {
            let pool = pool.to_string();
            let labels = [("pool", pool.as_str()), ("check", name.as_str())];
            let fails = u64::from(running.failing.is_some());
            Sample::new(Metric::CheckFailing, &labels, fails)
        })
    }
}

impl App {
    /// A check says something new.
    pub(super) fn hear_check(&mut self, found: Found) {
        self.checks.take(found);
    }
}

/// A check as its task knows it.
struct Asked {
    number: u64,
    pool: PoolRef,
    check: Check,
    programs: Programs,
}

impl Asked {
    /// Asks until it is aborted, and tells what is new.
    async fn run(self, failing: Option<Failing>, events: mpsc::Sender<Event>) {
        let Check {
            failure_threshold,
            success_threshold,
            interval,
            ..
        } = self.check;
        let mut verdict = Verdict::new(failure_threshold, success_threshold, failing.is_some());
        let mut told = failing.map(|failing| failing.problem);
        let mut turns = time::interval(interval);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            turns.tick().await;
            let outcome = self.ask().await;
            verdict.take(outcome.is_ok());
            let problem = match outcome {
                _ if !verdict.is_failing() => None,
                Err(problem) => Some(problem),
                // Not often enough in a row yet.
                Ok(()) => told.clone(),
            };
            if problem == told {
                continue;
            }
            told.clone_from(&problem);
            let found = Found {
                number: self.number,
                pool: self.pool.clone(),
                name: self.check.name.clone(),
                problem,
            };
            if events.send(Event::Check(found)).await.is_err() {
                return;
            }
        }
    }

    async fn ask(&self) -> Result<(), String> {
        let timeout = self.check.timeout;
        let asked = async {
            match &self.check.probe {
                Probe::Tcp { address } => ask::connect(*address).await.map(drop),
                Probe::Http {
                    address,
                    path,
                    host,
                    expected_statuses,
                } => ask::get(*address, path, host.as_deref(), expected_statuses).await,
                Probe::Command { name } => self.run_program(name).await,
            }
        };
        let outcome = time::timeout(timeout, asked).await;
        outcome.unwrap_or_else(|_| Err(format!("no answer within {}", show(timeout))))
    }

    async fn run_program(&self, name: &str) -> Result<(), String> {
        let Some(directory) = &self.programs.directory else {
            return Err(format!(
                "names command {name}, and the agent was given no --check-dir: give it one"
            ));
        };
        let program = directory.program(name).map_err(|error| error.to_string())?;
        command::run(&program, self.programs.user).await
    }
}

fn show(span: Duration) -> String {
    format!("{} ms", span.as_millis())
}
