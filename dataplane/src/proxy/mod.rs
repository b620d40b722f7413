//! The proxy process.

use crate::cli::ProxyArgs;

/// Runs the process until it has stopped in order.
pub fn run(args: &ProxyArgs) -> anyhow::Result<()> {
    anyhow::bail!("{args:?} is not wired up yet")
}
