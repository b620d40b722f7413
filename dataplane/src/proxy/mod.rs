//! The proxy process: faces the clients, and has no privilege at all.
//!
//! In its one form it serves an agent (`served`): the agent passes it listening sockets and what to
//! serve, and vrrp, over a pairing, says which addresses the host holds and leads a planned stop. In
//! the other it runs alone, for trying and measuring (`standalone`). Both relay with the library
//! [`proxy`]; both give up everything a process can give up before a client is heard.

mod convert;
mod pairing;
mod report;
mod served;
mod standalone;

use std::{thread, time::Duration};

use anyhow::Context;

use crate::{cli::ProxyArgs, sys::pages};

/// How long a planned stop waits for clients to acknowledge (DESIGN section 9.9).
const LEAVE_LIMIT: Duration = Duration::from_millis(200);

/// Runs the process until it has stopped in order.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    let ProxyArgs {
        listen,
        upstream,
        workers,
        run_dir,
        log_format: _,
    } = args;
    let workers = workers.map_or_else(one_per_core, Ok)?;
    anyhow::ensure!(
        (1..=pages::MOST_WORKERS).contains(&workers),
        "--workers {workers}: use 1 to {}",
        pages::MOST_WORKERS
    );
    match run_dir {
        Some(run_dir) => served::run(run_dir, workers),
        None => standalone::run(listen, upstream, workers),
    }
}

fn one_per_core() -> anyhow::Result<usize> {
    let cores = thread::available_parallelism()
        .context("cannot tell the number of cores: give --workers")?;
    Ok(cores.get().min(pages::MOST_WORKERS))
}
