//! The control timer: the gaps that this machine's own scheduling puts into any measurement.

use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::Result;

/// How often the timer wants to run.
const PERIOD: Duration = Duration::from_millis(2);
/// Delays below this are not worth keeping.
const WORTH_KEEPING: Duration = Duration::from_millis(1);

/// A thread that sleeps 2 ms at a time, at the priority of everything in the lab, and notes by how much it woke late.
#[derive(Debug)]
pub struct ControlTimer {
    stop: Arc<AtomicBool>,
    gaps: Arc<Mutex<Vec<(Instant, Duration)>>>,
    thread: Option<JoinHandle<()>>,
}

impl ControlTimer {
    /// Starts the timer.
    pub fn start() -> Result<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let gaps = Arc::new(Mutex::new(Vec::new()));
        let (ended, noted) = (Arc::clone(&stop), Arc::clone(&gaps));
        let thread = thread::Builder::new()
            .name("control".into())
            .spawn(move || {
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

/// Raises this process and all it starts above the machine's other work (nice -20, also for the session's
/// autogroup, inside which alone nice counts). Returns whether that was allowed; [`lower_priority`] ends it.
pub fn raise_priority() -> bool {
    let own = std::process::id().to_string();
    let raised = quiet(Command::new("renice").args(["-n", "-20", "-p", &own]));
    raised && std::fs::write("/proc/self/autogroup", "-20").is_ok()
}

/// Puts the session's autogroup back: it outlives us.
pub fn lower_priority() {
    // Where there are no autogroups there is nothing to put back.
    drop(std::fs::write("/proc/self/autogroup", "0"));
}

fn quiet(command: &mut Command) -> bool {
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}
