//! The Autobahn test suite: `wstest`, from `PyPI`, in a virtual environment of its own in the cache. It runs on
//! Python 2.7 only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use super::{alone, cache_dir, find, need, quiet};

/// The suite and all that it needs, as it was released last.
const REQUIREMENTS: &str = include_str!("../../autobahn/requirements.txt");
/// The last line of versions that make environments for Python 2.7.
const VIRTUALENV: &str = "virtualenv==20.21.1";

/// Where `wstest` is.
pub fn wstest() -> Result<PathBuf> {
    let program = environment()?.join("bin/wstest");
    if program.is_file() {
        return Ok(program);
    }
    bail!("the Autobahn test suite is missing: make install-tools fetches it")
}

fn environment() -> Result<PathBuf> {
    Ok(cache_dir()?.join("autobahn"))
}

/// Fetches the suite into the cache, once.
pub fn install_autobahn() -> Result<PathBuf> {
    let dir = environment()?;
    fs::create_dir_all(cache_dir()?)?;
    let _alone = alone(&dir.with_extension("lock"))?;
    if let Ok(program) = wstest() {
        return Ok(program);
    }
    let python = python()?;
    let fresh = dir.with_extension("new");
    drop(fs::remove_dir_all(&fresh));
    let tool = fresh.join("virtualenv");
    let mut pip = Command::new(need("python3", "python3")?);
    pip.args(["-m", "pip", "install", "--quiet", "--target"])
        .arg(&tool)
        .arg(VIRTUALENV);
    quiet(&mut pip).context("pip (package python3-pip) cannot fetch virtualenv from PyPI")?;
    // Its programs name their interpreter by its path, so it is made where it stays.
    drop(fs::remove_dir_all(&dir));
    let mut make = Command::new(need("python3", "python3")?);
    make.env("PYTHONPATH", &tool)
        .args(["-m", "virtualenv", "--quiet", "--python"])
        .arg(python)
        .arg(&dir);
    quiet(&mut make).context("cannot make an environment for Python 2.7")?;
    let requirements = fresh.join("requirements.txt");
    fs::write(&requirements, REQUIREMENTS)?;
    let mut pip = Command::new(dir.join("bin/pip"));
    pip.args(["install", "--quiet", "--no-deps", "--requirement"])
        .arg(&requirements);
    quiet(&mut pip).context("cannot fetch the Autobahn test suite from PyPI")?;
    drop(fs::remove_dir_all(&fresh));
    wstest()
}

/// A Python 2.7 that runs: the system's, or one that pyenv built, whose entry in `PATH` only works where it
/// was chosen.
fn python() -> Result<PathBuf> {
    let root = std::env::var_os("PYENV_ROOT").map(PathBuf::from);
    let root = root.or_else(|| Some(std::env::home_dir()?.join(".pyenv")));
    let versions = root.and_then(|root| fs::read_dir(root.join("versions")).ok());
    let versions = versions.into_iter().flatten().flatten();
    let built = versions.map(|version| version.path().join("bin/python2.7"));
    find("python2.7")
        .into_iter()
        .chain(built)
        .find(|program| runs(program))
        .context("Python 2.7 is missing: pyenv install 2.7")
}

fn runs(python: &Path) -> bool {
    let mut command = Command::new(python);
    command
        .arg("--version")
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}
