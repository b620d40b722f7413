//! Leaves nothing behind: on drop, on a signal, and after an owner that was killed.

use std::fs::{self, DirBuilder};
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;

use super::Shared;
use super::host::kill_all;
use super::process;

static LABS: Mutex<Vec<Weak<Shared>>> = Mutex::new(Vec::new());
static ON_EXIT: Mutex<Vec<fn()>> = Mutex::new(Vec::new());
/// True once a signal asked us to end: nothing may be started after that.
static CLOSING: RwLock<bool> = RwLock::new(false);
static SIGNALS: Once = Once::new();

/// Holds off a clean-up while something is being started; an error when one is under way.
pub(super) fn hold_open() -> Result<RwLockReadGuard<'static, bool>> {
    let closing = CLOSING.read().unwrap_or_else(PoisonError::into_inner);
    if *closing {
        bail!("the lab is being cleaned up");
    }
    Ok(closing)
}

/// Has `lab` taken down when a signal ends this process.
pub(super) fn register(lab: Weak<Shared>) {
    LABS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(lab);
    watch_signals();
}

/// Runs `action` when SIGINT, SIGTERM or SIGHUP end this process.
pub fn on_exit(action: fn()) {
    ON_EXIT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(action);
    watch_signals();
}

fn watch_signals() {
    SIGNALS.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP]) else {
            return;
        };
        let watcher = thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                if let Some(signal) = signals.forever().next() {
                    eprintln!("\ncleaning up");
                    *CLOSING.write().unwrap_or_else(PoisonError::into_inner) = true;
                    let labs: Vec<_> = LABS
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .drain(..)
                        .collect();
                    for lab in labs.iter().filter_map(Weak::upgrade) {
                        lab.tear_down();
                    }
                    for action in ON_EXIT
                        .lock()
                        .unwrap_or_else(PoisonError::into_inner)
                        .drain(..)
                    {
                        action();
                    }
                    std::process::exit(128 + signal);
                }
            });
        if let Err(error) = watcher {
            eprintln!("no clean-up on signals: {error}");
        }
    });
}

/// Directory under which every lab has its own. Only root writes there; other users may pass through.
pub(super) fn base() -> Result<PathBuf> {
    let base = std::env::temp_dir().join("wsha-lab");
    match DirBuilder::new().mode(0o711).create(&base) {
        Err(error) if error.kind() != std::io::ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", base.display()));
        }
        _ => {}
    }
    let found = fs::symlink_metadata(&base)?;
    if !found.is_dir()
        || found.uid() != nix::unistd::geteuid().as_raw()
        || found.mode() & 0o022 != 0
    {
        bail!(
            "{} exists and is not a directory of ours; remove it",
            base.display()
        );
    }
    Ok(base)
}

/// Makes the directory of a new lab; its name tells the owner: pid, start time and a counter.
pub(super) fn lab_dir(base: &Path) -> Result<PathBuf> {
    static COUNT: Mutex<u32> = Mutex::new(0);
    let mut count = COUNT.lock().unwrap_or_else(PoisonError::into_inner);
    *count += 1;
    let pid = nix::unistd::getpid();
    let started = process::start_time(pid).context("cannot read the own start time")?;
    let dir = base.join(format!("{pid}-{started}-{count}"));
    DirBuilder::new()
        .mode(0o711)
        .create(&dir)
        .with_context(|| format!("cannot make {}", dir.display()))?;
    Ok(dir)
}

/// Ends the processes of labs whose owner is gone, and removes their directories.
pub(super) fn sweep(base: &Path) -> Result<()> {
    for entry in fs::read_dir(base)?.flatten() {
        let dir = entry.path();
        let name = entry.file_name();
        let mut parts = name.to_str().unwrap_or_default().split('-');
        let owner = parts
            .next()
            .and_then(|pid| pid.parse().ok())
            .zip(parts.next().and_then(|start| start.parse().ok()));
        let Some((pid, started)) = owner else {
            continue;
        };
        if process::start_time(Pid::from_raw(pid)) == Some(started) {
            continue;
        }
        kill_all(|| process::holding(&dir))
            .with_context(|| format!("cannot end the processes of {}", dir.display()))?;
        if std::env::var_os(KEEP).is_none() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    Ok(())
}

/// When set, the lab's directory with its configurations and logs stays.
pub(super) const KEEP: &str = "WSHA_LAB_KEEP";
