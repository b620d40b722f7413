//! Waits until its owner is gone and cleans up after it; the lab starts it (see `e2e::keeper`).

use std::io::Read as _;

use anyhow::{Context, Result};
use clap::Parser;
use e2e::keeper;

/// Removes what a killed lab leaves behind, once standard input ends.
#[derive(Debug, Parser)]
struct Options {
    /// Whose labs: process id and start time, as in the names of the labs' directories.
    owner: String,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut words = String::new();
    std::io::stdin()
        .read_to_string(&mut words)
        .context("cannot read what is owed")?;
    keeper::settle(&options.owner, &words)
}
