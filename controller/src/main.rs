//! `wsha-controller`: arguments, logging, the runtime; nothing else.

use std::{env, process::ExitCode};

use anyhow::Context;
use clap::Parser;
use controller::{
    app,
    args::{Cli, Command, LogFormat, RunArgs},
    check, plan_command, retire_command,
};
use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

/// Most worker threads. They are idle but for moments, and each of a large machine's would keep memory of its own.
const WORKERS: usize = 4;

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::Run(args) => run(&args),
        Command::Plan(args) => plan_command::run(&args),
        Command::Check(args) => block_on(check::run(&args)),
        Command::Retire(args) => block_on(retire_command::run(&args)),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("wsha-controller: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &RunArgs) -> anyhow::Result<()> {
    log(args.log_format);
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores.clamp(2, WORKERS))
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(app::run(args))?;
    Ok(())
}

/// Runs a command that ends by itself.
fn block_on(command: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start the event loop")?;
    runtime.block_on(command)
}

/// `RUST_LOG` chooses the level, `info` by default. The client of the API server writes what it cannot read
/// as a whole, which may be a Secret: of that, errors alone.
fn log(format: LogFormat) {
    let words = env::var(EnvFilter::DEFAULT_ENV).unwrap_or_default();
    let filter = EnvFilter::try_new(&words)
        .ok()
        .filter(|_| !words.is_empty());
    let words = filter.map_or("info", |_| words.as_str());
    let filter = EnvFilter::new(format!("{words},kube_client::client=error"));
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        .with_target(false);
    match format {
        LogFormat::Text => registry.with(layer.with_ansi(false)).init(),
        LogFormat::Json => registry.with(layer.json().flatten_event(true)).init(),
    }
}
