//! `wsha-dataplane doctor`: whether a host and its network give what virtual addresses need. Each check
//! is a function of its own, with a verdict and a remedy; nothing is changed.

mod duplicates;
mod host;
mod network;
mod service;

use std::{
    fmt,
    io::{self, Write},
};

use anyhow::{Context, bail};

use crate::{agent::status, cli::DoctorArgs};

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

/// Looks, and prints what it finds.
///
/// # Errors
/// If there is a problem.
pub fn run(args: &DoctorArgs) -> anyhow::Result<()> {
    let mut findings = host::check();
    match status::ask(&args.state_dir) {
        Ok(report) => {
            findings.extend(service::check(&report));
            findings.extend(network::check(&report));
            findings.extend(duplicates::check(&report));
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
