//! Writes the table of values into the chart's README; `--check` fails where it differs.

use std::fs;
use std::process::ExitCode;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use e2e::chart;

/// Writes the table of values into the chart's README.
#[derive(Debug, Parser)]
struct Options {
    /// Write nothing, and fail if something would be written
    #[arg(long)]
    check: bool,
}

fn main() -> ExitCode {
    e2e::exit(run(&Options::parse()))
}

fn run(options: &Options) -> Result<()> {
    let path = chart::folder().join("README.md");
    let text = chart::readme()?;
    if options.check {
        ensure!(
            chart::read("README.md")? == text,
            "{} differs from values.yaml; run `make chart` and commit it",
            path.display()
        );
        return Ok(());
    }
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))
}
