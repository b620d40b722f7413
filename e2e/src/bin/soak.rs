//! Thousands of sessions for hours, with faults and edits: `make soak`.

use std::fs;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::soak::{self, Options};
use e2e::testing::in_lab;

/// Soaks two gateways: every byte is compared, every end of a session attributed, memory must not grow.
#[derive(Debug, Parser)]
struct Arguments {
    /// How long, in hours; --seconds comes on top
    #[arg(long, default_value_t = 2)]
    hours: u64,
    /// How long, in seconds
    #[arg(long, default_value_t = 0)]
    seconds: u64,
    /// Clients, each with one session at a time
    #[arg(long, default_value_t = 3000)]
    sessions: usize,
    /// Repeats the faults, edits and clients of an earlier run; another one each time if left out
    #[arg(long)]
    seed: Option<u64>,
    /// Where to write the summary, too
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    e2e::exit(run(&Arguments::parse()))
}

fn run(arguments: &Arguments) -> Result<()> {
    let time = Duration::from_hours(arguments.hours) + Duration::from_secs(arguments.seconds);
    let options = Options {
        seed: arguments.seed.unwrap_or_else(soak::any_seed),
        sessions: arguments.sessions,
        time,
    };
    in_lab("soak", |cluster| {
        let summary = soak::run(cluster, options)?;
        println!("{summary}");
        if let Some(file) = &arguments.markdown {
            fs::write(file, summary.to_string())
                .with_context(|| format!("cannot write {}", file.display()))?;
        }
        summary.verdict()
    })
}
