//! The process that starts the proxy where the agent does not: `proxy --restart`, the first process of
//! a container of its own.
//!
//! It waits until an agent listens, starts the proxy, and starts it again in place when it ends or
//! hangs, sooner than a kubelet would. It has no client, no listening socket and next to no memory. The
//! proxy stops on the agent's word, so SIGTERM means only that no other is started.

use std::{
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
    process::{Command, ExitStatus},
    time::{Duration, Instant},
};

use anyhow::Context;

use crate::{
    cli::{GatewayArgs, Io, LogFormat, common_arguments},
    ipc::PROXY_SOCKET,
    restart::{self, Restarts},
    sys::{
        clock::monotonic_ns,
        memory::Shared,
        pages::WorkerBeats,
        signals::StopSignals,
        spawn::{self, Process, Rights},
    },
};

/// How often it is looked whether an agent listens.
const LOOK: Duration = Duration::from_millis(100);
/// An agent that has stopped its proxy needs a moment to end.
const AFTER_STOP: Duration = Duration::from_secs(1);
/// How often it is looked whether the proxy turns.
const WATCH: Duration = Duration::from_secs(1);
/// A proxy of which a worker does not turn for so long hangs; vrrp has withdrawn the host before.
const HANGS: Duration = Duration::from_secs(10);
/// If this loop itself did not turn for so long, the host paused, and beats are old everywhere.
const OWN_PAUSE: Duration = Duration::from_secs(2);

/// What is to be started.
#[derive(Debug)]
pub(super) struct Parent<'a> {
    /// Of the agent.
    pub(super) run_dir: &'a Path,
    /// Of the proxy; `None`: one per core.
    pub(super) workers: Option<usize>,
    /// Of the proxy.
    pub(super) io: Io,
    /// Of the proxy.
    pub(super) gateway: GatewayArgs,
    /// Of both.
    pub(super) log_format: LogFormat,
    /// Whether to wait for SIGTERM after a planned stop.
    pub(super) stay: bool,
}

impl Parent<'_> {
    /// Keeps a proxy running until it was stopped as planned, or SIGTERM.
    pub(super) fn run(&self) -> anyhow::Result<()> {
        let signals = StopSignals::hold_back_with_ends().context("cannot hold signals back")?;
        let page = WorkerBeats::create().context("cannot share memory")?;
        let inherited = page.to_inherit().context("cannot share memory")?;
        let mut restarts = Restarts::new(restart::PROXY);
        loop {
            if self.wait_for_agent(&signals)? {
                return Ok(());
            }
            page.end();
            restarts.started();
            let (status, is_asked) = self.serve(&signals, &page, &inherited)?;
            if is_asked {
                return Ok(());
            }
            let wait = if status.success() {
                if !self.stay {
                    return Ok(());
                }
                tracing::info!("stopped in order: waiting for SIGTERM, or for an agent");
                AFTER_STOP
            } else {
                let wait = restarts.ended();
                tracing::warn!(
                    ?wait,
                    "the proxy process ended ({status}); it is started again"
                );
                wait
            };
            if pause(&signals, wait)? {
                return Ok(());
            }
        }
    }

    /// Whether SIGTERM came before an agent listened.
    fn wait_for_agent(&self, signals: &StopSignals) -> anyhow::Result<bool> {
        let path = self.run_dir.join(PROXY_SOCKET);
        let mut said = None;
        while let Err(error) = UnixStream::connect(&path) {
            if said != Some(error.kind()) {
                said = Some(error.kind());
                tracing::info!("waiting for the agent at {} ({error})", path.display());
            }
            if pause(signals, LOOK)? {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Runs one proxy to its end. Says how it ended, and whether SIGTERM came meanwhile.
    fn serve(
        &self,
        signals: &StopSignals,
        page: &Shared<WorkerBeats>,
        inherited: &OwnedFd,
    ) -> anyhow::Result<(ExitStatus, bool)> {
        let rights = Rights {
            user: None,
            keep: Vec::new(),
            is_expendable: true,
            is_guest: false,
        };
        let started = Process::start(self.command(inherited), &rights);
        let mut proxy = started.context("cannot start the proxy")?;
        tracing::debug!(pid = proxy.pid(), "started the proxy");
        let (mut is_asked, mut was_late) = (false, false);
        loop {
            if let Some(status) = proxy.ended().context("cannot look after the proxy")? {
                return Ok((status, is_asked));
            }
            let began = Instant::now();
            is_asked |= signals
                .wait_at_most(WATCH)
                .context("cannot wait")?
                .is_some();
            let before = Duration::from_nanos(monotonic_ns()).saturating_sub(HANGS);
            let before = u64::try_from(before.as_nanos()).unwrap_or(0);
            // Late twice in a row, so that one pause of the whole host ends nobody.
            let is_late =
                began.elapsed() < OWN_PAUSE && page.oldest().is_some_and(|beat| beat < before);
            if is_late && was_late {
                tracing::error!("the proxy process hangs; it is ended");
                proxy.kill().context("cannot end the proxy")?;
            }
            was_late = is_late;
        }
    }

    fn command(&self, inherited: &OwnedFd) -> Command {
        let mut command = spawn::this_program("proxy");
        command
            .args(common_arguments(self.run_dir, self.log_format))
            .arg("--beats")
            .arg(inherited.as_raw_fd().to_string());
        if let Some(workers) = self.workers {
            command.arg("--workers").arg(workers.to_string());
        }
        command.arg(self.io.argument());
        command.args(self.gateway.arguments());
        command
    }
}

/// Waits; says whether SIGTERM came.
fn pause(signals: &StopSignals, wait: Duration) -> anyhow::Result<bool> {
    let until = Instant::now() + wait;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        if signals.wait_at_most(left).context("cannot wait")?.is_some() {
            return Ok(true);
        }
        if Instant::now() >= until {
            return Ok(false);
        }
    }
}
