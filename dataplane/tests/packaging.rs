//! The Debian package, installed, upgraded and removed under a systemd of its own
//! (`packaging/test.sh`).
#![allow(clippy::unwrap_used, reason = "helpers of tests fail like tests")]

use std::{
    env, fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const CARGO_DEB: &str = "wsha/tools/cargo-deb-3.8.0/bin/cargo-deb";

/// What `test.sh` says when the machine lacks something.
const CANNOT: i32 = 77;

fn skipped(why: &str) {
    println!("SKIPPED: package: {why}");
}

fn cargo_deb() -> PathBuf {
    let cache = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty());
    let home = || PathBuf::from(env::var_os("HOME").unwrap_or_default()).join(".cache");
    cache.map_or_else(home, PathBuf::from).join(CARGO_DEB)
}

/// A package of the program as it was built for this test. `cargo-deb` takes it for a release, which
/// is all that it packs, from a directory of our own.
fn build(cargo_deb: &Path, version: &str, directory: &Path) -> PathBuf {
    let program = Path::new(env!("CARGO_BIN_EXE_wsha-dataplane"));
    let target = directory.join(version);
    fs::create_dir_all(target.join("release")).unwrap();
    symlink(program, target.join("release/wsha-dataplane")).unwrap();
    let package = directory.join(format!("wsha-dataplane_{version}.deb"));
    let built = Command::new(cargo_deb)
        .args(["--no-build", "--no-strip", "--fast"])
        .args(["--deb-version", version, "--output"])
        .arg(&package)
        .env("CARGO_TARGET_DIR", &target)
        .current_dir(env!("CARGO_MANIFEST_DIR"))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&built.stderr);
    assert!(built.status.success(), "{said}");
    package
}

#[test]
fn it_is_installed_upgraded_and_removed_under_systemd() {
    let cargo_deb = cargo_deb();
    if !cargo_deb.exists() {
        return skipped("cargo-deb is missing: run `make test`, which builds it");
    }
    let directory = env::temp_dir().join(format!("wsha-packaging-{}", std::process::id()));
    fs::create_dir_all(&directory).unwrap();
    let [old, new] = ["0.1.0-1", "0.1.0-2"].map(|version| build(&cargo_deb, version, &directory));
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/packaging/test.sh");
    let output = Command::new("timeout")
        .args(["--kill-after=5", "300", "bash", script])
        .args([old, new])
        .stdin(Stdio::null())
        .output()
        .unwrap();
    fs::remove_dir_all(&directory).unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    println!("{said}{}", String::from_utf8_lossy(&output.stderr));
    if output.status.code() == Some(CANNOT) {
        return skipped(said.lines().last().unwrap_or_default());
    }
    assert!(output.status.success());
}
