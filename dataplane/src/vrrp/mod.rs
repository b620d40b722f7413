//! The vrrp process.

use crate::cli::VrrpArgs;

/// Runs the process until it has stopped in order.
pub fn run(args: &VrrpArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not wired up yet")
}
