//! Static programs, by cargo.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::Image;

/// How the programs are optimised.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, clap::ValueEnum)]
pub enum Profile {
    /// As they are meant to run.
    #[default]
    Release,
    /// As tests build everything: what is built already serves.
    Dev,
}

impl Profile {
    /// Cargo's name of it. Only the data plane is optimised as a whole: nothing of the controller is hot.
    fn name(self, image: Image) -> &'static str {
        match (self, image) {
            (Self::Release, Image::Dataplane) => "dist",
            (Self::Release, _) => "release",
            (Self::Dev, _) => "dev",
        }
    }
}

/// Builds the program of an image and puts it, linked statically and stripped, into `into`.
///
/// Only the last step, the linking, differs from an ordinary build, so that both share everything
/// else; of the two programs, that of the last build lies under its name in cargo's directory.
pub fn build(image: Image, profile: Profile, into: &Path) -> Result<PathBuf> {
    let tree = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    run(cargo(image, profile, &tree), image, into)
}

/// As [`build`], from another copy of the tree. What both have in common is not built twice, and what lies
/// under its name in cargo's directory stays this tree's.
pub fn build_from(tree: &Path, image: Image, profile: Profile, into: &Path) -> Result<PathBuf> {
    let mut command = cargo(image, profile, tree);
    command
        .env("CARGO_TARGET_DIR", tree.join("target"))
        .env("CARGO_BUILD_BUILD_DIR", target_dir()?);
    run(command, image, into)
}

/// Where cargo builds this tree.
pub fn target_dir() -> Result<PathBuf> {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo)
        .args(["metadata", "--no-deps", "--format-version=1"])
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .context("cannot run cargo")?;
    let told: serde_json::Value = serde_json::from_slice(&output.stdout)
        .with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let dir = told["target_directory"].as_str();
    dir.map(PathBuf::from)
        .context("cargo does not say where it builds")
}

fn cargo(image: Image, profile: Profile, tree: &Path) -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .args(["rustc", "--quiet", "--locked", "--package", image.package()])
        .args(["--bin", image.name(), "--profile", profile.name(image)])
        .args(["--message-format", "json-render-diagnostics", "--"])
        .args(["-C", "target-feature=+crt-static", "-C", "strip=symbols"])
        .current_dir(tree)
        .stdin(Stdio::null())
        .stderr(Stdio::inherit());
    command
}

fn run(mut command: Command, image: Image, into: &Path) -> Result<PathBuf> {
    let name = image.name();
    let output = command.output().context("cannot run cargo")?;
    ensure!(
        output.status.success(),
        "cargo cannot build {name} as a static program"
    );
    let built = String::from_utf8_lossy(&output.stdout)
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["target"]["name"] == name)
        .find_map(|message| message["executable"].as_str().map(PathBuf::from))
        .with_context(|| format!("cargo does not say where {name} is"))?;
    fs::create_dir_all(into).with_context(|| format!("cannot make {}", into.display()))?;
    let path = into.join(name);
    let content = fs::read(&built).with_context(|| format!("cannot read {}", built.display()))?;
    ensure!(
        is_static(&content),
        "{} needs a loader, which an image from scratch does not have",
        built.display()
    );
    // Beside it first: another process may look.
    let partial = into.join(format!(".{name}.{}", std::process::id()));
    fs::copy(&built, &partial).with_context(|| format!("cannot copy {}", built.display()))?;
    fs::rename(&partial, &path).with_context(|| format!("cannot write {}", path.display()))?;
    Ok(path)
}

/// Whether a program of 64 bits names no interpreter (ELF, program headers).
fn is_static(program: &[u8]) -> bool {
    const INTERPRETER: usize = 3;
    let number = |at: usize, length: usize| {
        let bytes = program.get(at..at.checked_add(length)?)?;
        let mut all = [0; 8];
        all[..length].copy_from_slice(bytes);
        usize::try_from(u64::from_le_bytes(all)).ok()
    };
    let headers = || {
        let (first, size, count) = (number(32, 8)?, number(54, 2)?, number(56, 2)?);
        let types = (0..count).map(|index| number(first + index * size, 4));
        types.collect::<Option<Vec<_>>>()
    };
    let is_elf = program.starts_with(b"\x7fELF\x02\x01");
    is_elf && headers().is_some_and(|types| !types.contains(&INTERPRETER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_ordinary_program_is_not_static() {
        let own = fs::read(std::env::current_exe().unwrap()).unwrap();
        assert!(own.starts_with(b"\x7fELF"));
        assert!(!is_static(&own));
        assert!(!is_static(b"#!/bin/sh\n"));
        assert!(!is_static(&own[..40]), "cut off");
    }
}
