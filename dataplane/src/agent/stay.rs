//! An agent that another one followed, and that must not end (`--stay`): the kubelet would start it
//! again, and it would take back.
//!
//! It becomes this: the same process with nothing of what it was, by exec(2). It holds no lock, no
//! port and no address, and waits for SIGTERM. Should nobody serve the node any more, as after an
//! update that was undone, it becomes an agent again.

use std::{
    ffi::OsString,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    agent::waiting::Waiting,
    cli::{RunArgs, StayArgs, common_arguments},
    sys::{lock::NetworkLock, signals::StopSignals, spawn},
};

/// How often it is looked whether somebody serves the node.
const EVERY: Duration = Duration::from_secs(1);
/// The newer pod's agent may be starting again.
const NOBODY_SINCE: Duration = Duration::from_secs(5);

/// Becomes the process that waits; returns only if that fails.
///
/// # Errors
/// What the kernel says.
pub(super) fn enter(args: &RunArgs, run_dir: &Path, why: &str) -> anyhow::Result<()> {
    tracing::info!("{why}: waiting for SIGTERM");
    let mut arguments = vec![OsString::from("stay")];
    arguments.extend(common_arguments(run_dir, args.log_format));
    arguments.extend(["--why".into(), why.into(), "--".into()]);
    arguments.extend(std::env::args_os().skip(1));
    // One that comes meanwhile is found by the wait.
    let _held_back = StopSignals::hold_back().context("cannot hold signals back")?;
    Err(spawn::become_again(&arguments)).context("cannot wait without the rest of this agent")
}

/// Waits for SIGTERM, or until nobody serves the node.
///
/// # Errors
/// What the kernel says.
pub fn run(args: &StayArgs) -> anyhow::Result<()> {
    let signals = StopSignals::hold_back().context("cannot hold signals back")?;
    let waiting = Waiting::begin(&args.run_dir, args.why.clone());
    let waiting = waiting.with_context(|| {
        let run_dir = args.run_dir.display();
        format!("cannot answer probes in run directory {run_dir}")
    })?;
    let mut served = Instant::now();
    loop {
        if let Some(signal) = signals.wait_at_most(EVERY).context("cannot wait")? {
            tracing::info!(%signal, "ended");
            return Ok(());
        }
        // What cannot be told counts as served: two agents are worse than none.
        if NetworkLock::is_held().unwrap_or(true) {
            served = Instant::now();
        } else if served.elapsed() >= NOBODY_SINCE {
            tracing::warn!("nobody serves this node any more: this agent does again");
            drop(waiting);
            return Err(spawn::become_again(&args.command)).context("cannot start again");
        }
    }
}
