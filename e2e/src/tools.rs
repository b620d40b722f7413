//! What the lab needs beyond this repository: keepalived and nginx from apt, the backend's module from npm.

use std::ffi::OsStr;
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, anyhow, bail};
use nix::fcntl::{Flock, FlockArg};

use crate::lab;

const POLICY: &str = "/usr/sbin/policy-rc.d";
const SAVED: &str = "/usr/sbin/policy-rc.d.wsha-saved";
const OURS: &str = "#!/bin/sh\n# Put here by wsha's lab while it installs packages: no service may start. Safe to remove.\nexit 101\n";

/// Where a program is, as a shell would find it, with the directories of system programs added.
pub fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut dirs: Vec<PathBuf> = std::env::split_paths(&path).collect();
    dirs.extend(["/usr/sbin", "/sbin", "/usr/bin", "/bin"].map(PathBuf::from));
    dirs.into_iter().map(|dir| dir.join(program)).find(|file| {
        file.metadata()
            .is_ok_and(|found| found.is_file() && found.permissions().mode() & 0o111 != 0)
    })
}

/// Where a program is; the error names the package that brings it.
pub fn need(program: &str, package: &str) -> Result<PathBuf> {
    find(program).ok_or_else(|| {
        anyhow!("{program} is missing: install the package {package} (make install-tools)")
    })
}

/// The peers keepalived and nginx, installed if they are not there.
pub fn install_peers() -> Result<()> {
    let wanted = [("keepalived", "keepalived"), ("nginx", "nginx-light")];
    let missing: Vec<&str> = wanted
        .iter()
        .filter(|(program, _)| find(program).is_none())
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        bail!(
            "{} missing, and installing needs root",
            missing.join(" and ")
        );
    }
    need("apt-get", "apt").context("the peers can be installed by apt only")?;
    let _alone = alone("apt")?;
    lab::on_exit(|| restore(Path::new(POLICY), Path::new(SAVED)));
    let guard = PolicyGuard::set(Path::new(POLICY), Path::new(SAVED))?;
    let mut words = vec!["install", "-y", "--no-install-recommends"];
    words.extend(&missing);
    if apt(&words).is_err() {
        // A machine that never fetched the package lists.
        apt(&["update"])?;
        apt(&words)?;
    }
    drop(guard);
    // Started by nothing now, and by nothing at the next boot: the user asked for a lab, not for servers.
    if let Some(systemctl) = find("systemctl") {
        for unit in ["nginx.service", "keepalived.service"] {
            // Where systemd does not run there is nothing to disable.
            drop(
                Command::new(&systemctl)
                    .args(["disable", unit])
                    .stdout(Stdio::null())
                    .stderr(Stdio::null())
                    .status(),
            );
        }
    }
    Ok(())
}

/// node and npm, and in a cache outside the tree the module `ws` as `e2e/backend/package-lock.json` pins it.
/// Returns the directory to give node as `NODE_PATH`.
pub fn install_backend() -> Result<PathBuf> {
    need("node", "nodejs")?;
    need("npm", "npm")?;
    let source = backend_dir();
    let lock_file = fs::read_to_string(source.join("package-lock.json"))
        .context("cannot read the backend's lock file")?;
    let cache = cache_dir()?.join("backend");
    fs::create_dir_all(&cache).with_context(|| format!("cannot make {}", cache.display()))?;
    let _alone = alone("npm")?;
    let modules = cache.join("node_modules");
    let installed = fs::read_to_string(cache.join("installed.json")).unwrap_or_default();
    if installed == lock_file && modules.join("ws/package.json").is_file() {
        return Ok(modules);
    }
    for file in ["package.json", "package-lock.json"] {
        fs::copy(source.join(file), cache.join(file))
            .with_context(|| format!("cannot copy {file}"))?;
    }
    let mut npm = Command::new("npm");
    npm.args(["ci", "--ignore-scripts", "--no-audit", "--no-fund"])
        .current_dir(&cache);
    quiet(&mut npm).context("npm cannot install the backend's module ws")?;
    fs::write(cache.join("installed.json"), lock_file)?;
    Ok(modules)
}

/// The repository's `e2e/backend`.
pub fn backend_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("backend")
}

/// The cache for tools, outside the tree.
pub fn cache_dir() -> Result<PathBuf> {
    let base = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from);
    let base =
        base.or_else(|| std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".cache")));
    Ok(base
        .context("neither XDG_CACHE_HOME nor HOME is set")?
        .join("wsha"))
}

/// The data plane's binary: `--wsha-binary`, else beside our own, where cargo puts both.
pub fn wsha_binary(given: Option<&Path>) -> Result<PathBuf> {
    let binary = if let Some(path) = given {
        path.to_owned()
    } else {
        let own = std::env::current_exe().context("cannot find the own program")?;
        // A test's program lies one directory deeper.
        let mut dirs = own
            .ancestors()
            .skip(1)
            .take(2)
            .map(|dir| dir.join("wsha-dataplane"));
        dirs.find(|file| file.is_file())
            .ok_or_else(|| anyhow!("no wsha-dataplane beside {}: build it first", own.display()))?
    };
    binary
        .canonicalize()
        .with_context(|| format!("no such program: {}", binary.display()))
}

/// Holds a lock that lets one installation run at a time.
pub(crate) fn alone(name: &str) -> Result<Flock<File>> {
    let dir = cache_dir()?;
    fs::create_dir_all(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
    let file = File::create(dir.join(format!("{name}.lock")))?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| anyhow!("cannot lock: {errno}"))
}

fn apt(words: &[&str]) -> Result<()> {
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive");
    quiet(&mut command)
}

/// Runs a command and shows its output only when it fails.
fn quiet(command: &mut Command) -> Result<()> {
    let line: Vec<&OsStr> = std::iter::once(command.get_program())
        .chain(command.get_args())
        .collect();
    let line = line.join(OsStr::new(" ")).to_string_lossy().into_owned();
    let output = command
        .stdin(Stdio::null())
        .output()
        .with_context(|| format!("cannot run {line}"))?;
    if !output.status.success() {
        let text = [output.stdout, output.stderr].concat();
        bail!(
            "{line}: {}\n{}",
            output.status,
            String::from_utf8_lossy(&text).trim()
        );
    }
    Ok(())
}

/// Keeps services from starting while packages are installed, and puts the previous state back.
#[derive(Debug)]
struct PolicyGuard<'a> {
    policy: &'a Path,
    saved: &'a Path,
}

impl<'a> PolicyGuard<'a> {
    fn set(policy: &'a Path, saved: &'a Path) -> Result<Self> {
        // What an installation that was killed left behind.
        restore(policy, saved);
        if policy.exists() {
            fs::rename(policy, saved)
                .with_context(|| format!("cannot put {} aside", policy.display()))?;
        }
        let guard = Self { policy, saved };
        fs::write(policy, OURS).with_context(|| format!("cannot write {}", policy.display()))?;
        fs::set_permissions(policy, Permissions::from_mode(0o755))?;
        Ok(guard)
    }
}

impl Drop for PolicyGuard<'_> {
    fn drop(&mut self) {
        restore(self.policy, self.saved);
    }
}

/// Puts the previous `policy-rc.d` back, or none where there was none.
fn restore(policy: &Path, saved: &Path) {
    let outcome = if saved.exists() {
        fs::rename(saved, policy)
    } else if fs::read_to_string(policy).is_ok_and(|text| text == OURS) {
        fs::remove_file(policy)
    } else {
        Ok(())
    };
    if let Err(error) = outcome {
        eprintln!(
            "cannot put {} back, see also {}: {error}",
            policy.display(),
            saved.display()
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_previous_policy_comes_back_whatever_happened() {
        let dir = std::env::temp_dir().join(format!("wsha-policy-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let (policy, saved) = (dir.join("policy-rc.d"), dir.join("saved"));
        let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;

        let guard = PolicyGuard::set(&policy, &saved).unwrap();
        assert_eq!(
            (fs::read_to_string(&policy).unwrap().as_str(), mode(&policy)),
            (OURS, 0o755)
        );
        drop(guard);
        assert!(!policy.exists());

        fs::write(&policy, "theirs").unwrap();
        fs::set_permissions(&policy, Permissions::from_mode(0o700)).unwrap();
        for killed in [false, true] {
            let guard = PolicyGuard::set(&policy, &saved).unwrap();
            assert_eq!(fs::read_to_string(&policy).unwrap(), OURS);
            if killed {
                std::mem::forget(guard);
                drop(PolicyGuard::set(&policy, &saved).unwrap());
            } else {
                drop(guard);
            }
            assert_eq!(
                (fs::read_to_string(&policy).unwrap().as_str(), mode(&policy)),
                ("theirs", 0o700)
            );
            assert!(!saved.exists());
        }
        fs::remove_dir_all(&dir).unwrap();
    }
}
