//! Python's module `websockets`, from `PyPI`, in the cache.

use std::fs;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context, Result};

use super::{alone, cache_dir, need, quiet};

const VERSION: &str = "15.0.1";

/// Fetches the module into the cache, once. Returns the directory to give python as `PYTHONPATH`.
pub fn install_websockets() -> Result<PathBuf> {
    let dir = cache_dir()?.join(format!("websockets-{VERSION}"));
    fs::create_dir_all(cache_dir()?)?;
    let _alone = alone(&dir.with_extension("lock"))?;
    if dir.join("websockets/version.py").is_file() {
        return Ok(dir);
    }
    let fresh = dir.with_extension("new");
    drop(fs::remove_dir_all(&fresh));
    let mut pip = Command::new(need("python3", "python3")?);
    pip.args(["-m", "pip", "install", "--quiet", "--no-deps", "--target"])
        .arg(&fresh)
        .arg(format!("websockets=={VERSION}"));
    quiet(&mut pip).context("pip (package python3-pip) cannot fetch websockets from PyPI")?;
    fs::rename(&fresh, &dir).with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}
