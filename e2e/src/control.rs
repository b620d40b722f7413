//! The control timer: the gaps that this machine's own scheduling puts into any measurement.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::keeper::{self, Duty};
use crate::lab;

/// How often the timer wants to run.
const PERIOD: Duration = Duration::from_millis(2);
/// Delays below this are not worth keeping.
const WORTH_KEEPING: Duration = Duration::from_millis(1);

/// A thread that sleeps 2 ms at a time and notes by how much it woke late.
#[derive(Debug)]
pub struct ControlTimer {
    stop: Arc<AtomicBool>,
    gaps: Arc<Mutex<Vec<(Instant, Duration)>>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlTimer {
    /// Starts the timer, at the priority of everything in the lab: what it notes, any process may have had to wait.
    pub fn start() -> Result<Self> {
        Self::spawn(|| ())
    }

    /// Starts the timer with real-time priority, where that is allowed: what it still notes are the gaps of the
    /// machine itself, which no set-up can help.
    pub fn start_real_time() -> Result<Self> {
        Self::spawn(|| {
            real_time();
        })
    }

    fn spawn(prepare: impl FnOnce() + Send + 'static) -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let gaps = Arc::new(Mutex::new(Vec::new()));
        let (ended, noted) = (Arc::clone(&stop), Arc::clone(&gaps));
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
                prepare();
                let mut due = Instant::now() + PERIOD;
                while !ended.load(Ordering::Relaxed) {
                    thread::sleep(due.saturating_duration_since(Instant::now()));
                    let now = Instant::now();
                    let late = now.saturating_duration_since(due);
                    if late >= WORTH_KEEPING {
                        noted
                            .lock()
                            .unwrap_or_else(PoisonError::into_inner)
                            .push((now, late));
                    }
                    due = now + PERIOD;
                }
            })?;
        Ok(Self {
            stop,
            gaps,
            thread: Some(thread),
        })
    }

    /// The longest time by which the timer woke late between `from` and `to`.
    pub fn worst(&self, from: Instant, to: Instant) -> Duration {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        let overlapping = gaps
            .iter()
            .filter(|(at, late)| *at >= from && *at <= to + *late);
        overlapping.map(|(_, late)| *late).max().unwrap_or_default()
    }

    /// How often the timer woke late by `limit` or more since `from`.
    pub fn count(&self, from: Instant, limit: Duration) -> usize {
        let gaps = self.gaps.lock().unwrap_or_else(PoisonError::into_inner);
        gaps.iter()
            .filter(|(at, late)| *at >= from && *late >= limit)
            .count()
    }

    /// Forgets what ended before `before`.
    pub fn forget(&self, before: Instant) {
        self.gaps
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .retain(|(at, _)| *at >= before);
    }
}

impl Drop for ControlTimer {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// Gives the calling thread real-time priority, so that what it measures is the set-up and not itself.
/// Returns whether that was allowed.
pub fn real_time() -> bool {
    let Ok(task) = std::fs::read_link("/proc/thread-self") else {
        return false;
    };
    let Some(id) = task.file_name() else {
        return false;
    };
    quiet(Command::new("chrt").args(["--fifo", "--pid", "40"]).arg(id))
}

/// The raised priority of this process and all it starts; ends when dropped.
#[derive(Debug)]
pub struct Raised {
    allowed: bool,
}

impl Raised {
    /// Whether it was allowed, so that there is anything raised.
    pub fn is_allowed(&self) -> bool {
        self.allowed
    }
}

impl Drop for Raised {
    fn drop(&mut self) {
        lower_priority();
    }
}

/// What the session's autogroup had before it was raised.
static BEFORE: Mutex<Option<i32>> = Mutex::new(None);

/// Raises this process and all it starts above the machine's other work (nice -20, also for the session's
/// autogroup, inside which alone nice counts). The autogroup outlives us, so it gets back what it had, however
/// we end.
pub fn raise_priority() -> Raised {
    let own = std::process::id().to_string();
    let mut allowed = quiet(Command::new("renice").args(["-n", "-20", "-p", &own]));
    if allowed && let Some(before) = autogroup() {
        *BEFORE.lock().unwrap_or_else(PoisonError::into_inner) = Some(before);
        lab::on_exit(lower_priority);
        keeper::remember(Duty::Autogroup(before));
        allowed = set_autogroup(-20);
    }
    Raised { allowed }
}

fn lower_priority() {
    let before = BEFORE.lock().unwrap_or_else(PoisonError::into_inner).take();
    let Some(before) = before else { return };
    if set_autogroup(before) {
        keeper::forget(Duty::Autogroup(before));
    } else {
        eprintln!("cannot give the session's autogroup its nice value {before} back");
    }
}

/// The nice value of the session's autogroup; none where there are no autogroups.
fn autogroup() -> Option<i32> {
    let text = std::fs::read_to_string("/proc/self/autogroup").ok()?;
    text.split_whitespace().last()?.parse().ok()
}

/// Sets the nice value of the session's autogroup. Returns whether that was allowed.
pub(crate) fn set_autogroup(nice: i32) -> bool {
    std::fs::write("/proc/self/autogroup", nice.to_string()).is_ok()
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
