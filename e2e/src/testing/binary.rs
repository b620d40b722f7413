//! The program under test.

use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

use anyhow::{Context, Result, anyhow, bail, ensure};

/// Names a data plane to test instead of the one of this tree.
const ENVIRONMENT: &str = "WSHA_DATAPLANE";

/// The data plane: what `WSHA_DATAPLANE` names, else this tree's, built with the tests' own profile.
pub fn dataplane() -> Result<PathBuf> {
    static FOUND: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    FOUND
        .get_or_init(|| find().map_err(|error| format!("{error:#}")))
        .clone()
        .map_err(|error| anyhow!(error))
}

fn find() -> Result<PathBuf> {
    if let Some(given) = std::env::var_os(ENVIRONMENT) {
        let given = PathBuf::from(given);
        return given
            .canonicalize()
            .with_context(|| format!("{ENVIRONMENT} names {}", given.display()));
    }
    let own = std::env::current_exe().context("cannot find the own program")?;
    // TARGET/PROFILE/deps/TEST
    let (Some(profile_dir), Some(target)) = (own.ancestors().nth(2), own.ancestors().nth(3)) else {
        bail!(
            "{} does not lie in a target directory: name the data plane in {ENVIRONMENT}",
            own.display()
        )
    };
    let directory = profile_dir
        .file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default();
    let profile = if directory == "debug" {
        "dev"
    } else {
        directory
    };
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // Cargo's own lock lets one of several tests build, and the others find it done.
    let output = Command::new(cargo)
        .args(["build", "--quiet", "--bin", "wsha-dataplane"])
        // With the features that the workspace's tests are built with, so that little is built twice.
        .args(["--workspace", "--profile", profile])
        .arg("--target-dir")
        .arg(target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .with_context(|| {
            format!("cannot run cargo to build the data plane: name one in {ENVIRONMENT}")
        })?;
    ensure!(
        output.status.success(),
        "the data plane does not build:\n{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(profile_dir.join("wsha-dataplane"))
}
