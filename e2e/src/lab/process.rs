//! A process of a lab's host: started in its namespaces, reaped at once, ended by pid.

use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use nix::sys::signal::{Signal, kill, killpg};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::Pid;

#[derive(Debug, Default)]
struct Exit {
    status: Mutex<Option<ExitStatus>>,
    changed: Condvar,
}

impl Exit {
    fn lock(&self) -> MutexGuard<'_, Option<ExitStatus>> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A process that leads a process group of its own. Dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    pid: Pid,
    log: PathBuf,
    exit: Arc<Exit>,
}

impl Process {
    /// Takes over `child` and reaps it the moment it ends: `kill -0` of a check script succeeds on a zombie.
    pub(crate) fn watch(name: &str, log: &Path, mut child: Child) -> Result<Self> {
        let pid = Pid::from_raw(i32::try_from(child.id()).context("a pid beyond i32")?);
        let exit = Arc::new(Exit::default());
        let seen = Arc::clone(&exit);
        thread::Builder::new()
            .name(format!("wait-{name}"))
            .spawn(move || {
                // Wait without reaping first: the pid stays taken until the lock that `signal` holds is ours.
                while let Err(nix::Error::EINTR) =
                    waitid(Id::Pid(pid), WaitPidFlag::WEXITED | WaitPidFlag::WNOWAIT)
                {
                }
                let mut status = seen.lock();
                *status = child.wait().ok().or_else(|| Some(ExitStatus::default()));
                seen.changed.notify_all();
            })?;
        Ok(Self {
            name: name.to_owned(),
            pid,
            log: log.to_owned(),
            exit,
        })
    }

    /// Name given at its start.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The process id, as the initial pid namespace counts.
    pub fn pid(&self) -> Pid {
        self.pid
    }

    /// The file that takes its standard output and error.
    pub fn log(&self) -> &Path {
        &self.log
    }

    /// Whether it has not ended yet.
    pub fn is_running(&self) -> bool {
        self.exit.lock().is_none()
    }

    /// Sends a signal to the process alone; nothing happens when it has ended.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        let status = self.exit.lock();
        if status.is_none() {
            kill(self.pid, signal)
                .with_context(|| format!("cannot send {signal} to {}", self.name))?;
        }
        Ok(())
    }

    /// Waits for the end of the process.
    pub fn wait(&self, bound: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + bound;
        let mut status = self.exit.lock();
        loop {
            if let Some(status) = *status {
                return Ok(status);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!(
                    "{} (pid {}) did not end within {} s",
                    self.name,
                    self.pid,
                    bound.as_secs_f32()
                );
            }
            status = self
                .exit
                .changed
                .wait_timeout(status, left)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The last lines of its log, for messages about it.
    pub fn log_tail(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines
            .get(lines.len().saturating_sub(15)..)
            .unwrap_or_default()
            .join("\n")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let status = self.exit.lock();
        if status.is_none() {
            // Its number cannot be another's: it is not reaped while we hold the lock. It may be gone all the same.
            killpg(self.pid, Signal::SIGKILL).ok();
            kill(self.pid, Signal::SIGKILL).ok();
        }
    }
}

/// The namespaces by which a host's processes are known, whatever else they do.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Home {
    /// Inode of the mount namespace: one that works in another network namespace still has it.
    pub(crate) mnt: u64,
    /// Inode of the network namespace: keepalived takes a mount namespace of its own, and enters this.
    pub(crate) net: u64,
}

/// Ids of all processes that live in `home`, zombies left out.
pub(crate) fn at_home(home: Home) -> Vec<Pid> {
    let (mnt, net) = (
        PathBuf::from(format!("mnt:[{}]", home.mnt)),
        PathBuf::from(format!("net:[{}]", home.net)),
    );
    let lives_in = |pid: &Pid, kind: &str, wanted: &PathBuf| {
        std::fs::read_link(format!("/proc/{pid}/ns/{kind}")).is_ok_and(|found| found == *wanted)
    };
    all()
        .into_iter()
        .filter(|pid| lives_in(pid, "net", &net) || lives_in(pid, "mnt", &mnt))
        .collect()
}

/// Ids of all processes that have their working directory or an open file below `dir`.
pub fn holding(dir: &Path) -> Vec<Pid> {
    all().into_iter().filter(|pid| holds(*pid, dir)).collect()
}

fn holds(pid: Pid, dir: &Path) -> bool {
    let points_there =
        |link: PathBuf| std::fs::read_link(link).is_ok_and(|target| target.starts_with(dir));
    if points_there(PathBuf::from(format!("/proc/{pid}/cwd"))) {
        return true;
    }
    std::fs::read_dir(format!("/proc/{pid}/fd"))
        .is_ok_and(|files| files.flatten().any(|file| points_there(file.path())))
}

fn all() -> Vec<Pid> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| {
            entry
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
        })
        .map(Pid::from_raw)
        .collect()
}

/// The command line of a process, words joined by blanks; empty when it has ended.
pub fn command_line(pid: Pid) -> String {
    let raw = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&raw)
        .trim_end_matches('\0')
        .replace('\0', " ")
        .trim()
        .to_owned()
}

/// The direct children of a process.
pub fn children(pid: Pid) -> Vec<Pid> {
    let mut found = Vec::new();
    let Ok(tasks) = std::fs::read_dir(format!("/proc/{pid}/task")) else {
        return found;
    };
    for task in tasks.flatten() {
        let list = std::fs::read_to_string(task.path().join("children")).unwrap_or_default();
        found.extend(
            list.split_whitespace()
                .filter_map(|id| id.parse().ok())
                .map(Pid::from_raw),
        );
    }
    found
}

/// Start of a process in clock ticks since boot: with the pid it names one process for good.
pub(crate) fn start_time(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in parentheses may hold blanks; field 22 counts from the pid.
    stat.rsplit_once(')')?
        .1
        .split_whitespace()
        .nth(19)?
        .parse()
        .ok()
}
