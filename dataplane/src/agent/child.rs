//! One of the two processes: started, watched, started again, or waited for.

use std::{
    ffi::OsString,
    io,
    os::unix::process::ExitStatusExt,
    process::ExitStatus,
    time::{Duration, Instant},
};

use serde::Serialize;
use tokio::sync::mpsc;

use crate::{
    agent::{
        event::{Event, Role},
        link::Link,
    },
    restart::{Restarts, Waits},
    sys::spawn::{self, Process, Rights},
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
    /// How soon it is started again.
    pub(super) waits: Waits,
}

/// How a process comes to be.
#[derive(Clone, Debug)]
pub(super) enum Origin {
    /// It is started here.
    Ours(Recipe),
    /// Somebody else starts it, and it connects: a container of its own. All that is known of it is
    /// its connection.
    Elsewhere,
}

/// The process and the connection to it.
#[derive(Debug)]
pub(super) struct Child<M> {
    recipe: Option<Recipe>,
    process: Option<Process>,
    /// Counts starts, so that the end of one is not taken for the end of the next.
    start: u64,
    pace: Option<Restarts>,
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
    pub(super) fn new(origin: Origin) -> Self {
        let recipe = match origin {
            Origin::Ours(recipe) => Some(recipe),
            Origin::Elsewhere => None,
        };
        Self {
            pace: recipe.as_ref().map(|recipe| Restarts::new(recipe.waits)),
            recipe,
            process: None,
            start: 0,
            link: None,
            linked: Instant::now(),
            sent: 0,
            applied: 0,
            restarts: 0,
        }
    }

    /// Whether somebody else starts it.
    pub(super) fn is_elsewhere(&self) -> bool {
        self.recipe.is_none()
    }

    /// Starts it; its end comes as [`Event::Ended`]. One that is started elsewhere comes by itself.
    pub(super) fn start(&mut self, events: &mpsc::Sender<Event>) -> io::Result<()> {
        let Some(recipe) = &self.recipe else {
            return Ok(());
        };
        // One that cannot even be started did not live long either, and is not tried again at once
        // for ever.
        if let Some(pace) = &mut self.pace {
            pace.started();
        }
        let mut command = spawn::this_program(recipe.role.name());
        command
            .args(&recipe.arguments)
            .env_remove("NOTIFY_SOCKET")
            .env_remove("WATCHDOG_USEC")
            .env_remove("WATCHDOG_PID");
        let process = Process::start(command, &recipe.rights)?;
        let end = process.end_signal()?;
        self.start += 1;
        let (role, start, events) = (recipe.role, self.start, events.clone());
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

    /// How long to wait before the next start.
    pub(super) fn wait_before_restart(&mut self) -> Duration {
        self.restarts += 1;
        self.pace.as_mut().map_or(Duration::ZERO, Restarts::ended)
    }

    /// Its number, while it runs.
    pub(super) fn pid(&self) -> Option<u32> {
        self.process.as_ref().map(Process::pid)
    }

    /// Whether it runs; of one that is started elsewhere: whether it is connected.
    pub(super) fn runs(&self) -> bool {
        self.process.is_some() || (self.is_elsewhere() && self.link.is_some())
    }

    /// Whether the process with this number of start runs.
    pub(super) fn is_running(&self, start: u64) -> bool {
        self.runs() && start == self.start
    }

    /// Kills it; its end comes as [`Event::Ended`]. One that is started elsewhere is cut off, which
    /// comes as [`Event::Closed`]: whoever starts it ends it when it hangs.
    pub(super) fn kill(&mut self) {
        let Some(recipe) = &self.recipe else {
            if let Some(link) = &self.link {
                link.cut();
            }
            return;
        };
        let process = recipe.role.name();
        let killed = self.process.as_mut().map(Process::kill);
        if let Some(Err(error)) = killed {
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
        if self.is_elsewhere() {
            self.restarts += u64::from(self.start > 0);
            self.start += 1;
        }
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

/// How a process ended, for a sentence that begins with its name.
pub(super) fn describe(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was ended by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}
