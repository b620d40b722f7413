//! The proxy process: faces the clients, and has no privilege at all.
//!
//! In its one form it serves an agent (`served`): the agent passes it listening sockets and what to
//! serve, and vrrp, over a pairing, says which addresses the host holds and leads a planned stop. In
//! the other it runs alone, for trying and measuring (`standalone`). Both relay with the library
//! [`proxy`]; both give up everything a process can give up before a client is heard. Where the agent
//! does not start it, a tiny process (`parent`) does.

mod access_log;
mod ceilings;
mod convert;
mod lines;
mod made;
mod pairing;
mod parent;
mod report;
mod rings;
mod served;
mod standalone;

use std::{process::ExitCode, thread, time::Duration};

use anyhow::Context;

use crate::{cli::ProxyArgs, sys::pages};

/// How a proxy ended.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ending {
    /// It was asked to.
    Planned,
    /// The agent is gone; another one will come.
    Alone,
}

/// Exit status of a proxy whose agent is gone: `EX_TEMPFAIL`.
const ALONE: u8 = 75;

impl From<Ending> for ExitCode {
    fn from(ending: Ending) -> Self {
        match ending {
            Ending::Planned => Self::SUCCESS,
            Ending::Alone => Self::from(ALONE),
        }
    }
}

/// How long a planned stop waits for clients to acknowledge (DESIGN section 9.9).
const LEAVE_LIMIT: Duration = Duration::from_millis(200);

/// Runs the process until it has stopped in order.
pub fn run(args: &ProxyArgs) -> anyhow::Result<Ending> {
    let ProxyArgs {
        workers,
        run_dir,
        restart,
        stay,
        beats,
        io,
        log_format,
        gateway,
        ..
    } = args;
    if let (Some(run_dir), true) = (run_dir, restart) {
        let parent = parent::Parent {
            run_dir,
            workers: *workers,
            io: *io,
            gateway: *gateway,
            log_format: *log_format,
            stay: *stay,
        };
        return parent.run().map(|()| Ending::Planned);
    }
    let workers = workers.map_or_else(one_per_core, Ok)?;
    anyhow::ensure!(
        (1..=pages::MOST_WORKERS).contains(&workers),
        "--workers {workers}: use 1 to {}",
        pages::MOST_WORKERS
    );
    match run_dir {
        Some(run_dir) => served::run(run_dir, workers, *io, *beats, (*gateway).into()),
        None => standalone::run(args, workers).map(|()| Ending::Planned),
    }
}

fn one_per_core() -> anyhow::Result<usize> {
    let cores = thread::available_parallelism()
        .context("cannot tell the number of cores: give --workers")?;
    Ok(cores.get().min(pages::MOST_WORKERS))
}
