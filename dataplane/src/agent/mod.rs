//! The agent process.

pub mod status;

use crate::cli::RunArgs;

/// Runs the process until it has stopped in order.
pub fn run(args: &RunArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not wired up yet")
}
