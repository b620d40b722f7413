//! `wsha-dataplane status`: asks the running agent and prints.

use crate::cli::StatusArgs;

/// Prints the state of the agent's node on standard output.
pub fn run(args: &StatusArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not wired up yet")
}
