//! Outages that a client sees: wsha beside keepalived and nginx, one probe, one run, one table.

mod faults;
mod load;
mod page;
mod probe;

use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use e2e::{control, tools};

/// Measures how long a client is cut off by each fault, for wsha and for keepalived with nginx.
///
/// Subjects take turns, one repetition of all faults each. Fails if a repetition did, and, from 20 repetitions on,
/// if wsha does not reach what it must; the reasons stand below the table.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true)]
struct CommandLine {
    #[command(subcommand)]
    other: Option<Other>,
    #[command(flatten)]
    faults: faults::Options,
}

/// What else can be measured.
#[derive(Debug, Subcommand)]
enum Other {
    Load(load::Options),
    Probe(probe::Options),
}

fn main() -> ExitCode {
    let options = CommandLine::parse();
    e2e::exit(match &options.other {
        None => faults::run(&options.faults),
        Some(Other::Load(options)) => load::run(options),
        Some(Other::Probe(options)) => probe::run(options),
    })
}

/// Fails where no lab can be made, and installs what one needs.
fn prepare_lab(with_peers: bool) -> Result<()> {
    if !nix::unistd::geteuid().is_root() {
        bail!("the benchmark needs root: its lab is made of network namespaces");
    }
    tools::install_backend()?;
    if with_peers {
        tools::install_peers()?;
    }
    Ok(())
}

/// Raises the priority of the lab above the machine's other work, or says that this is not allowed.
fn raise_priority() -> control::Raised {
    let raised = control::raise_priority();
    if !raised.is_allowed() {
        eprintln!("note: not allowed to raise the priority of the lab, so expect more noise");
    }
    raised
}
