//! Leaves nothing behind: on drop, on a signal, and after an owner that was killed.

use std::fs::{self, DirBuilder};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, Once, PoisonError, RwLock, RwLockReadGuard, Weak};
use std::thread;

use anyhow::{Context, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::unistd::Pid;
use signal_hook::consts::{SIGHUP, SIGINT, SIGQUIT, SIGTERM};
use signal_hook::iterator::Signals;

use super::host::kill_all;
use super::{cgroup, process};
use crate::keeper;

/// What leaves nothing behind when it is told to end.
pub(super) trait TearDown: Send + Sync {
    /// Ends all processes and removes all traces.
    fn tear_down(&self);
}

static LABS: Mutex<Vec<Weak<dyn TearDown>>> = Mutex::new(Vec::new());
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

/// Has `lab` taken down when this process ends without doing so itself.
pub(super) fn register(lab: Weak<dyn TearDown>) {
    keeper::start();
    LABS.lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(lab);
    watch_signals();
}

/// Runs `action` when SIGINT, SIGTERM, SIGHUP or SIGQUIT end this process.
pub fn on_exit(action: fn()) {
    ON_EXIT
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(action);
    watch_signals();
}

fn watch_signals() {
    SIGNALS.call_once(|| {
        let Ok(mut signals) = Signals::new([SIGINT, SIGTERM, SIGHUP, SIGQUIT]) else {
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

/// Makes the directory of a new lab, after those of labs whose owner is gone are removed with all that runs there.
pub(super) fn lab_dir() -> Result<PathBuf> {
    loop {
        let base = base()?;
        let _alone = lock(&base)?;
        sweep(&base, None)?;
        match fresh(&base) {
            // The last lab to go took the base along while we waited for the lock.
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            made => {
                return made
                    .with_context(|| format!("cannot make a directory in {}", base.display()));
            }
        }
    }
}

/// Removes the directory of a lab, and the base with the last one.
pub(super) fn remove(dir: &Path) -> Result<()> {
    remove_groups(dir)?;
    if std::env::var_os(KEEP).is_some() {
        eprintln!("lab: kept {}", dir.display());
        return Ok(());
    }
    let base = dir.parent().unwrap_or(dir);
    let _alone = lock(base)?;
    match fs::remove_dir_all(dir) {
        // A signal came while the lab was on its way out: two of our threads take it down.
        Err(error) if error.kind() == ErrorKind::NotFound => {}
        outcome => outcome?,
    }
    // Others are at work where this fails.
    fs::remove_dir(base).ok();
    Ok(())
}

fn remove_groups(dir: &Path) -> Result<()> {
    let groups = cgroup::of_lab(dir);
    groups.iter().try_for_each(|name| cgroup::remove(name))
}

/// Directory under which every lab of this user has its own. Only the user writes there; others may pass through.
fn base() -> Result<PathBuf> {
    let user = nix::unistd::geteuid();
    let name = if user.is_root() {
        "wsha-lab".to_owned()
    } else {
        format!("wsha-lab-{user}")
    };
    let base = std::env::temp_dir().join(name);
    match DirBuilder::new().mode(0o711).create(&base) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => {
            return Err(error).with_context(|| format!("cannot make {}", base.display()));
        }
        _ => {}
    }
    let ours = fs::symlink_metadata(&base).is_ok_and(|found| {
        let private = found.uid() == user.as_raw() && found.mode() & 0o022 == 0;
        found.is_dir() && private
    });
    if !ours && base.exists() {
        bail!(
            "{} exists and is not a directory of ours; remove it",
            base.display()
        );
    }
    Ok(base)
}

/// One at a time: a sweeper has files open in the directory it removes, and by those it knows what to end.
fn lock(base: &Path) -> Result<Option<Flock<fs::File>>> {
    match fs::File::open(base) {
        Ok(dir) => {
            let locked = Flock::lock(dir, FlockArg::LockExclusive).map_err(|(_, errno)| errno);
            Ok(Some(locked.context("cannot lock the labs' directory")?))
        }
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error).with_context(|| format!("cannot open {}", base.display())),
    }
}

/// By what the directories of our labs begin: pid and start time, which name one process for good.
pub(crate) fn own_name() -> String {
    let pid = nix::unistd::getpid();
    let started = process::start_time(pid).unwrap_or_default();
    format!("{pid}-{started}")
}

/// Its name tells the owner, and a counter.
fn fresh(base: &Path) -> std::io::Result<PathBuf> {
    static COUNT: AtomicU32 = AtomicU32::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let dir = base.join(format!("{}-{count}", own_name()));
    DirBuilder::new().mode(0o711).create(&dir)?;
    Ok(dir)
}

/// Removes the labs of the process with this [`own_name`], which is gone, and of all others that are.
pub(crate) fn sweep_after(owner: &str) -> Result<()> {
    let base = base()?;
    let _alone = lock(&base)?;
    sweep(&base, Some(owner))?;
    // Others are at work where this fails.
    fs::remove_dir(&base).ok();
    Ok(())
}

/// Ends what dead owners left; `gone` is known to be dead, while its number is there until its parent looks.
fn sweep(base: &Path, gone: Option<&str>) -> Result<()> {
    let Ok(entries) = fs::read_dir(base) else {
        return Ok(());
    };
    for entry in entries.flatten() {
        let dir = entry.path();
        let name = entry.file_name();
        let name = name.to_str().unwrap_or_default();
        let is_gone = gone.is_some_and(|gone| name.starts_with(&format!("{gone}-")));
        let mut parts = name.split('-');
        let mut number = || parts.next().and_then(|part| part.parse::<u64>().ok());
        let (Some(pid), Some(started)) = (number(), number()) else {
            continue;
        };
        let owner = i32::try_from(pid).map(Pid::from_raw);
        if !is_gone && owner.is_ok_and(|owner| process::start_time(owner) == Some(started)) {
            continue;
        }
        let left = || [process::holding(&dir), cgroup::processes_of_lab(&dir)].concat();
        kill_all(left).with_context(|| format!("cannot end the processes of {}", dir.display()))?;
        remove_groups(&dir)?;
        if std::env::var_os(KEEP).is_none() {
            fs::remove_dir_all(&dir).with_context(|| format!("cannot remove {}", dir.display()))?;
        }
    }
    Ok(())
}

/// When set, the lab's directory with its configurations and logs stays.
const KEEP: &str = "WSHA_LAB_KEEP";
