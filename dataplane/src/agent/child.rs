//! One of the two processes: started, watched, started again.

use std::{
    ffi::OsString,
    io,
    os::unix::process::{CommandExt, ExitStatusExt},
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    agent::{
        event::{Event, Role},
        link::Link,
    },
    sys::spawn::{Process, Rights},
};

/// How to start it.
#[derive(Clone, Debug)]
pub(super) struct Recipe {
    /// Which of the two.
    pub(super) role: Role,
    /// Arguments after the program's name.
    pub(super) arguments: Vec<OsString>,
    /// What it may do.
    pub(super) rights: Rights,
    /// One that lived so long did not crash at its start.
    pub(super) settled_after: Duration,
    /// Wait before it is started again after its first end.
    pub(super) first_wait: Duration,
    /// Longest wait before it is started again.
    pub(super) longest_wait: Duration,
}

/// The process and the connection to it.
#[derive(Debug)]
pub(super) struct Child<M> {
    recipe: Recipe,
    process: Option<Process>,
    /// Counts starts, so that the end of one is not taken for the end of the next.
    start: u64,
    started: Instant,
    quick_ends: u32,
    /// The connection, once the process has said hello.
    pub(super) link: Option<Link<M>>,
    /// When the connection was made.
    pub(super) linked: Instant,
    /// Number of the last configuration sent.
    pub(super) sent: u64,
    /// Number of the last configuration it has in force.
    pub(super) applied: u64,
    /// How many times it was started again.
    pub(super) restarts: u64,
}

impl<M: Serialize + Send + 'static> Child<M> {
    /// Not started yet.
    pub(super) fn new(recipe: Recipe) -> Self {
        let now = Instant::now();
        Self {
            recipe,
            process: None,
            start: 0,
            started: now,
            quick_ends: 0,
            link: None,
            linked: now,
            sent: 0,
            applied: 0,
            restarts: 0,
        }
    }

    /// Starts it; its end comes as [`Event::Ended`].
    pub(super) fn start(&mut self, events: &mpsc::Sender<Event>) -> io::Result<()> {
        // Not the path of the file, which an upgrade may have replaced: the same release.
        let mut command = Command::new("/proc/self/exe");
        command
            .arg0("wsha-dataplane")
            .arg(self.recipe.role.name())
            .args(&self.recipe.arguments)
            .stdin(std::process::Stdio::null())
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        let process = Process::start(command, &self.recipe.rights)?;
        let end = process.end_signal()?;
        self.start += 1;
        self.started = Instant::now();
        let (role, start, events) = (self.recipe.role, self.start, events.clone());
        tracing::debug!(
            process = role.name(),
            pid = process.pid(),
            "started a process"
        );
        self.process = Some(process);
        tokio::spawn(async move {
            end.wait().await;
            drop(events.send(Event::Ended(role, start)).await);
        });
        Ok(())
    }

    /// Reaps it if this is about the running one. Says how it ended.
    pub(super) fn reap(&mut self, start: u64) -> Option<ExitStatus> {
        if start != self.start {
            return None;
        }
        let status = self.process.as_mut()?.ended().ok().flatten()?;
        self.process = None;
        self.link = None;
        Some(status)
    }

    /// How long to wait before the next start: at first what the recipe says, then 100 ms at least,
    /// doubled each time it ends soon after its start.
    pub(super) fn wait_before_restart(&mut self) -> Duration {
        self.restarts += 1;
        if self.started.elapsed() >= self.recipe.settled_after {
            self.quick_ends = 0;
        }
        let wait = backoff(self.quick_ends, self.recipe.longest_wait).max(self.recipe.first_wait);
        self.quick_ends = self.quick_ends.saturating_add(1);
        wait
    }

    /// Its number, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether it runs.
    pub(super) fn runs(&self) -> bool {
        self.process.is_some()
    }

    /// Whether the process with this number of start runs.
    pub(super) fn is_running(&self, start: u64) -> bool {
        self.runs() && start == self.start
    }

    /// Kills it; its end comes as [`Event::Ended`].
    pub(super) fn kill(&mut self) {
        let killed = self.process.as_mut().map(Process::kill);
        if let Some(Err(error)) = killed {
            let process = self.recipe.role.name();
            tracing::error!(process, %error, "cannot end a process");
        }
    }

    /// Kills it and waits for its end.
    pub(super) fn end(&mut self) {
        self.link = None;
        if let Some(mut process) = self.process.take() {
            process.kill_and_reap();
        }
    }

    /// Takes the connection of a process that said hello.
    pub(super) fn connect(&mut self, link: Link<M>) {
        self.link = Some(link);
        self.linked = Instant::now();
        self.sent = 0;
        self.applied = 0;
    }

    /// Whether this is the connection in use.
    pub(super) fn has_link(&self, id: u64) -> bool {
        self.link.as_ref().is_some_and(|link| link.id() == id)
    }

    /// Whether it has all that it was sent in force; a process that is away has nothing to do.
    pub(super) fn is_done(&self) -> bool {
        self.link.is_none() || self.applied == self.sent
    }

    /// Sends a message, if it is connected.
    pub(super) fn send(&self, message: M) {
        if let Some(link) = &self.link {
            link.send(message, Vec::new());
        }
    }
}

fn backoff(quick_ends: u32, longest: Duration) -> Duration {
    match quick_ends {
        0 => Duration::ZERO,
        more => {
            (Duration::from_millis(100) * 2_u32.saturating_pow(more - 1).min(1 << 10)).min(longest)
        }
    }
}

/// How a process ended, for a sentence that begins with its name.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_slows_down() {
        let waits: Vec<u128> = (0..9)
            .map(|ends| backoff(ends, Duration::from_secs(5)).as_millis())
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(
            backoff(u32::MAX, Duration::from_secs(1)),
            Duration::from_secs(1)
        );
    }
}
