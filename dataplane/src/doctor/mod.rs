//! `wsha-dataplane doctor`: whether a host and its network give what virtual addresses need. Each check
//! is a function of its own, with a verdict and a remedy; nothing is changed.

mod duplicates;
mod host;
mod network;
mod peers;
mod service;
mod wire;

use std::{
    collections::BTreeSet,
    fmt,
    io::{self, Write},
    thread,
};

use anyhow::{Context, bail};

use crate::{agent::status, cli::DoctorArgs, ipc::Answer};

/// What a check found.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Verdict {
    /// As it should be.
    Fine(String),
    /// It costs, or will cost, addresses or clients.
    Problem {
        /// What is wrong.
        what: String,
        /// What to do about it.
        remedy: String,
    },
    /// It cannot be told from here.
    Unknown(String),
}

/// The result of one check.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Finding {
    /// What was looked at.
    subject: String,
    verdict: Verdict,
}

impl Finding {
    fn fine(subject: impl Into<String>, what: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            verdict: Verdict::Fine(what.into()),
        }
    }

    fn problem(
        subject: impl Into<String>,
        what: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            subject: subject.into(),
            verdict: Verdict::Problem {
                what: what.into(),
                remedy: remedy.into(),
            },
        }
    }

    fn unknown(subject: impl Into<String>, why: impl Into<String>) -> Self {
        Self {
            subject: subject.into(),
            verdict: Verdict::Unknown(why.into()),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let subject = &self.subject;
        match &self.verdict {
            Verdict::Fine(what) => write!(f, "ok       {subject}: {what}"),
            Verdict::Problem { what, remedy } => write!(f, "PROBLEM  {subject}: {what}; {remedy}"),
            Verdict::Unknown(why) => write!(f, "unknown  {subject}: {why}"),
        }
    }
}

/// Who else is on the networks: all of it at a time, as each takes seconds.
fn segment(args: &DoctorArgs, answer: &Answer) -> Vec<Finding> {
    let routers = answer.report.virtual_routers.iter();
    let interfaces: BTreeSet<_> = routers
        .filter_map(|router| router.interface.as_deref())
        .collect();
    if interfaces.is_empty() {
        return Vec::new();
    }
    let intervals = answer.routers.iter().map(|it| it.advertisement_interval);
    let patience = intervals.filter_map(wire::patience).max();
    let patience = patience.unwrap_or(wire::LEAST);
    let (duplicates, traffic) = thread::scope(|scope| {
        let duplicates = scope.spawn(|| duplicates::check(&answer.report));
        let traffic = wire::watch(&interfaces, patience);
        (duplicates.join(), traffic)
    });
    let mut findings = Vec::new();
    let traffic = traffic.unwrap_or_else(|error| {
        let why = format!("what passes the interfaces cannot be seen ({error})");
        findings.push(Finding::unknown("advertisements", why));
        wire::Traffic::new()
    });
    match status::ask(&args.state_dir) {
        Ok(after) => findings.extend(peers::check(
            &answer.report,
            &after.report,
            &after.routers,
            &traffic,
        )),
        Err(error) => findings.push(Finding::problem(
            "agent",
            format!("{error:#}"),
            "it has ended while this looked: see its log",
        )),
    }
    findings.extend(duplicates.unwrap_or_else(|_| {
        let why = "the check failed, which is a defect of this program";
        vec![Finding::unknown("addresses", why)]
    }));
    findings
}

/// Looks, and prints what it finds.
///
/// # Errors
/// If there is a problem.
pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let mut findings = host::check();
    match status::ask(&args.state_dir) {
        Ok(answer) => {
            findings.extend(service::check(&answer.report));
            findings.extend(network::check(&answer.report));
            findings.extend(segment(args, &answer));
        }
        Err(error) => findings.push(Finding::problem(
            "agent",
            format!("{error:#}"),
            "start it: without it no address and no port can be looked at",
        )),
    }
    // Last, as it changes this process.
    findings.push(host::locked_memory());
    let lines: Vec<_> = findings.iter().map(ToString::to_string).collect();
    let text = lines.join("\n") + "\n";
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            return Err(error).context("cannot print what was found");
        }
        _ => {}
    }
    let is_problem = |one: &&Finding| matches!(one.verdict, Verdict::Problem { .. });
    match findings.iter().filter(is_problem).count() {
        0 => Ok(()),
        1 => bail!("there is 1 problem"),
        more => bail!("there are {more} problems"),
    }
}
