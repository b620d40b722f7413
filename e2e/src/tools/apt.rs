//! Installs packages by apt; no service of theirs starts, not now and not at the next boot.

use std::fs::{self, File, Permissions};
use std::io::Read as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{alone, find, need};
use crate::keeper::{self, Duty};
use crate::{lab, wait};

const POLICY: &str = "/usr/sbin/policy-rc.d";
const SAVED: &str = "/usr/sbin/policy-rc.d.wsha-saved";
const OURS: &str = "#!/bin/sh\n# Put here by wsha's lab while it installs packages: no service may start. Safe to remove.\nexit 101\n";
/// Only root writes there, and only root installs.
const LOCK: &str = "/run/wsha-apt.lock";
/// Bound against hangs for an installation that a signal finds under way.
const PATIENCE: Duration = Duration::from_mins(2);

/// A program that must be there.
pub(super) struct Wanted {
    program: &'static str,
    package: &'static str,
    /// The service that the package brings.
    service: Option<&'static str>,
}

impl Wanted {
    pub(super) const fn program(program: &'static str, package: &'static str) -> Self {
        Self {
            program,
            package,
            service: None,
        }
    }

    /// With a service of the program's name.
    pub(super) const fn server(program: &'static str, package: &'static str) -> Self {
        Self::beside(program, package, program)
    }

    /// That comes with a service.
    pub(super) const fn beside(
        program: &'static str,
        package: &'static str,
        service: &'static str,
    ) -> Self {
        Self {
            program,
            package,
            service: Some(service),
        }
    }
}

/// Installs what is missing of `wanted`.
pub(super) fn install(wanted: &[Wanted]) -> Result<()> {
    let root = nix::unistd::geteuid().is_root();
    let lock = if root {
        let lock = alone(Path::new(LOCK))?;
        // An installation that was killed may have brought the programs and left its policy.
        restore(Path::new(POLICY), Path::new(SAVED))?;
        Some(lock)
    } else {
        None
    };
    let missing: Vec<&Wanted> = wanted
        .iter()
        .filter(|wanted| find(wanted.program).is_none())
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let names: Vec<&str> = missing.iter().map(|wanted| wanted.package).collect();
    let Some(lock) = lock else {
        bail!("{} missing, and installing needs root", names.join(" and "));
    };
    need("apt-get", "apt")
        .with_context(|| format!("{} can be installed by apt only", names.join(" and ")))?;
    let services = missing.iter().filter_map(|wanted| wanted.service);
    *NEW.lock().unwrap_or_else(PoisonError::into_inner) = services.collect();
    lab::on_exit(end_of_installation);
    keeper::remember(Duty::Policy);
    let guard = PolicyGuard::set(Path::new(POLICY), Path::new(SAVED))?;
    let words = [&["install", "-y", "--no-install-recommends"][..], &names].concat();
    if apt(&lock, &words).is_err() {
        // A machine that never fetched the package lists.
        apt(&lock, &["update"])?;
        apt(&lock, &words)?;
    }
    drop(guard);
    keeper::forget(Duty::Policy);
    disable_new();
    Ok(())
}

/// Services that come with what is being installed.
static NEW: Mutex<Vec<&str>> = Mutex::new(Vec::new());

/// New services do not start at the next boot either: the user asked for a lab, not for servers.
fn disable_new() {
    let new = std::mem::take(&mut *NEW.lock().unwrap_or_else(PoisonError::into_inner));
    let Some(systemctl) = find("systemctl") else {
        return;
    };
    for service in new {
        // Where systemd does not run there is nothing to disable.
        drop(
            Command::new(&systemctl)
                .args(["disable", &format!("{service}.service")])
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .status(),
        );
    }
}

/// Puts `policy-rc.d` back once nobody installs any more.
pub(crate) fn restore_policy() -> Result<()> {
    let _alone = alone(Path::new(LOCK))?;
    restore(Path::new(POLICY), Path::new(SAVED))
}

/// The apt at work.
#[derive(Debug)]
enum Apt {
    Idle,
    Runs(Child),
    /// We are about to end: none may start.
    Over,
}

static APT: Mutex<Apt> = Mutex::new(Apt::Idle);

fn state() -> MutexGuard<'static, Apt> {
    APT.lock().unwrap_or_else(PoisonError::into_inner)
}

/// On a signal: servers may start again when apt is through, and not before.
fn end_of_installation() {
    let mut state = state();
    let running = std::mem::replace(&mut *state, Apt::Over);
    if let Apt::Runs(mut apt) = running {
        eprintln!("waiting for apt to end");
        let ended = wait::until("apt to end", PATIENCE, || Ok(apt.try_wait()?.map(drop)));
        if let Err(error) = ended {
            eprintln!("{error:#}; until it does, {POLICY} keeps services from starting");
            return;
        }
    }
    match restore(Path::new(POLICY), Path::new(SAVED)) {
        Ok(()) => keeper::forget(Duty::Policy),
        Err(error) => eprintln!("{error:#}"),
    }
    disable_new();
}

/// Runs apt-get and shows its output only when it fails.
fn apt(lock: &File, words: &[&str]) -> Result<()> {
    let (mut output, writer) = std::io::pipe()?;
    let mut command = Command::new("apt-get");
    command
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(words)
        .env("DEBIAN_FRONTEND", "noninteractive")
        // An empty input, and more: if we are killed, apt has the lock until it ends.
        .stdin(lock.try_clone()?)
        .stdout(writer.try_clone()?)
        .stderr(writer);
    {
        let mut state = state();
        ensure!(!matches!(*state, Apt::Over), "a signal ends the program");
        *state = Apt::Runs(command.spawn().context("cannot run apt-get")?);
    }
    // With it go our own ends of the pipe.
    drop(command);
    let mut text = Vec::new();
    output.read_to_end(&mut text)?;
    let mut state = state();
    let Apt::Runs(mut apt) = std::mem::replace(&mut *state, Apt::Idle) else {
        *state = Apt::Over;
        bail!("a signal ends the program");
    };
    let status = apt.wait()?;
    ensure!(
        status.success(),
        "apt-get {}: {status}\n{}",
        words.join(" "),
        String::from_utf8_lossy(&text).trim()
    );
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
        restore(policy, saved)?;
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
        if let Err(error) = restore(self.policy, self.saved) {
            eprintln!("{error:#}");
        }
    }
}

/// Puts the previous `policy-rc.d` back, or none where there was none.
fn restore(policy: &Path, saved: &Path) -> Result<()> {
    let outcome = if saved.exists() {
        fs::rename(saved, policy)
    } else if fs::read_to_string(policy).is_ok_and(|text| text == OURS) {
        fs::remove_file(policy)
    } else {
        Ok(())
    };
    outcome.with_context(|| {
        format!(
            "cannot put {} back, see also {}",
            policy.display(),
            saved.display()
        )
    })
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
                restore(&policy, &saved).unwrap();
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

    #[test]
    fn what_asks_for_input_gets_none() {
        let file = std::env::temp_dir().join(format!("wsha-apt-{}.lock", std::process::id()));
        let lock = alone(&file).unwrap();
        let mut cat = Command::new("cat");
        let output = cat.stdin(lock.try_clone().unwrap()).output().unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        fs::remove_file(&file).unwrap();
    }
}
