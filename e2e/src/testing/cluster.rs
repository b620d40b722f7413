//! A lab with wsha on its gateways, and backends behind it.

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Manifest;
use crate::backend::Backends;
use crate::lab::{Host, Lab, Process};
use crate::wait;

/// Bound against hangs for a state of the lab that is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);

/// One of the two gateways.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Gateway {
    /// server1.
    One,
    /// server2.
    Two,
}

impl Gateway {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::One, Self::Two];

    /// The host's name.
    pub fn name(self) -> &'static str {
        match self {
            Self::One => "server1",
            Self::Two => "server2",
        }
    }
}

/// One of the processes of a gateway.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Part {
    /// `wsha-dataplane run`.
    Agent,
    /// `wsha-dataplane vrrp`.
    Vrrp,
    /// `wsha-dataplane proxy`.
    Proxy,
}

impl Part {
    /// All three.
    pub const ALL: [Self; 3] = [Self::Agent, Self::Vrrp, Self::Proxy];

    fn word(self) -> &'static str {
        match self {
            Self::Agent => "run",
            Self::Vrrp => "vrrp",
            Self::Proxy => "proxy",
        }
    }
}

/// A lab with what runs in it. Dropping it ends everything.
#[derive(Debug)]
pub struct Cluster {
    agents: [Option<Process>; 2],
    binary: PathBuf,
    homes: Vec<(IpAddr, String)>,
    revision: u32,
    /// The article's application servers.
    pub backends: Backends,
    /// The network.
    pub lab: Lab,
}

impl Cluster {
    /// A lab with backends and no gateway at work.
    pub fn new(binary: PathBuf) -> Result<Self> {
        let lab = Lab::new()?;
        let backends = Backends::start(&lab)?;
        Ok(Self {
            agents: [None, None],
            binary,
            homes: Vec::new(),
            revision: 0,
            backends,
            lab,
        })
    }

    /// The gateway's host.
    pub fn host(&self, gateway: Gateway) -> &Host {
        match gateway {
            Gateway::One => self.lab.server1(),
            Gateway::Two => self.lab.server2(),
        }
    }

    /// Where the gateway's manifest lies.
    pub fn manifest_file(&self, gateway: Gateway) -> PathBuf {
        self.host(gateway).dir().join("manifests/pools.yaml")
    }

    /// The gateway's state directory.
    pub fn state_dir(&self, gateway: Gateway) -> PathBuf {
        self.host(gateway).dir().join("state")
    }

    /// Where the gateway's certificates lie, if the test gave it any before its start.
    pub fn tls_dir(&self, gateway: Gateway) -> PathBuf {
        self.host(gateway).dir().join("tls")
    }

    /// What the gateway's processes log, over all their lives.
    pub fn log(&self, gateway: Gateway) -> PathBuf {
        self.host(gateway).dir().join("wsha.log")
    }

    /// Puts `manifest` on both gateways.
    pub fn apply(&mut self, manifest: &Manifest) -> Result<()> {
        self.homes = manifest.homes();
        let text = self.next_revision(manifest);
        Gateway::BOTH
            .into_iter()
            .try_for_each(|gateway| self.replace(gateway, &text))
    }

    /// As [`Self::apply`], and waits until both running gateways have accepted it.
    pub fn edit(&mut self, manifest: &Manifest) -> Result<()> {
        self.apply(manifest)?;
        Gateway::BOTH
            .into_iter()
            .try_for_each(|gateway| self.wait_accepted(gateway))
    }

    /// As [`Self::edit`], with the files overwritten in place.
    pub fn edit_in_place(&mut self, manifest: &Manifest) -> Result<()> {
        self.homes = manifest.homes();
        let text = self.next_revision(manifest);
        Gateway::BOTH
            .into_iter()
            .try_for_each(|gateway| self.overwrite(gateway, &text))?;
        Gateway::BOTH
            .into_iter()
            .try_for_each(|gateway| self.wait_accepted(gateway))
    }

    fn next_revision(&mut self, manifest: &Manifest) -> String {
        self.revision += 1;
        format!("{manifest}{}\n", self.mark())
    }

    /// A comment that tells this revision of the file from all others.
    fn mark(&self) -> String {
        format!("# revision {} of this test", self.revision)
    }

    /// Waits until the gateway's state directory holds the newest revision: it was accepted.
    fn wait_accepted(&self, gateway: Gateway) -> Result<()> {
        let (file, mark) = (self.state_dir(gateway).join("accepted.json"), self.mark());
        wait::until(
            &format!("{} to accept revision {}", gateway.name(), self.revision),
            PATIENCE,
            || {
                Ok(fs::read_to_string(&file)
                    .unwrap_or_default()
                    .contains(&mark)
                    .then_some(()))
            },
        )
    }

    /// Replaces the gateway's manifest by rename, as editors do.
    pub fn replace(&self, gateway: Gateway, text: &str) -> Result<()> {
        let file = self.manifest_file(gateway);
        if let Some(dir) = file.parent() {
            fs::create_dir_all(dir)?;
        }
        let fresh = file.with_extension("new");
        fs::write(&fresh, text)?;
        fs::rename(&fresh, &file).with_context(|| format!("cannot replace {}", file.display()))
    }

    /// Overwrites the gateway's manifest in place.
    pub fn overwrite(&self, gateway: Gateway, text: &str) -> Result<()> {
        Ok(fs::write(self.manifest_file(gateway), text)?)
    }

    /// The command line of `run` on the gateway.
    pub fn run_command(&self, gateway: Gateway) -> Command {
        self.run_command_as(gateway, gateway.name())
    }

    /// As [`Self::run_command`], under another `--node-name`.
    pub fn run_command_as(&self, gateway: Gateway, node_name: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command
            .args(["run", "--node-name", node_name, "--manifests"])
            .arg(self.manifest_file(gateway));
        command.arg("--state-dir").arg(self.state_dir(gateway));
        let certificates = self.tls_dir(gateway);
        if certificates.is_dir() {
            command.arg("--tls-dir").arg(certificates);
        }
        command
    }

    /// Starts the gateway's agent, as an init system does: once the one before has ended. Waits for nothing else.
    pub fn start(&mut self, gateway: Gateway) -> Result<()> {
        if let Some(before) = self.slot(gateway) {
            before.wait(PATIENCE)?;
        }
        let command = self.run_command(gateway);
        self.start_with(gateway, command)
    }

    /// As [`Self::start`], by another command line.
    pub fn start_with(&mut self, gateway: Gateway, command: Command) -> Result<()> {
        let agent = self.host(gateway).spawn("wsha", command)?;
        // The one before, if any, has ended or is taken over: its handle must not kill its group.
        if let Some(before) = self.slot(gateway).replace(agent) {
            before.wait(PATIENCE)?;
        }
        Ok(())
    }

    /// Starts both agents and waits until each address is where it belongs.
    pub fn start_both(&mut self) -> Result<()> {
        for gateway in Gateway::BOTH {
            self.start(gateway)?;
        }
        self.wait_home()
    }

    fn slot(&mut self, gateway: Gateway) -> &mut Option<Process> {
        &mut self.agents[usize::from(gateway == Gateway::Two)]
    }

    /// Stops the gateway's agent in order and waits for its end.
    pub fn stop(&mut self, gateway: Gateway) -> Result<()> {
        let Some(agent) = self.slot(gateway).take() else {
            return Ok(());
        };
        agent.signal(Signal::SIGTERM)?;
        let status = agent.wait(PATIENCE)?;
        ensure!(
            status.success(),
            "the agent of {} ended with {status} on SIGTERM",
            gateway.name()
        );
        Ok(())
    }

    /// Ids of the gateway's processes of one part.
    pub fn pids(&self, gateway: Gateway, part: Part) -> Vec<Pid> {
        self.host(gateway).processes_where(|line| {
            let mut words = line.split_whitespace();
            words
                .next()
                .is_some_and(|program| program.ends_with("wsha-dataplane"))
                && words.next() == Some(part.word())
        })
    }

    /// The one process of a part.
    pub fn pid(&self, gateway: Gateway, part: Part) -> Result<Pid> {
        match self.pids(gateway, part).as_slice() {
            [pid] => Ok(*pid),
            other => bail!(
                "{} processes of {part:?} on {} instead of one",
                other.len(),
                gateway.name()
            ),
        }
    }

    /// Sends a signal to the one process of a part.
    pub fn signal(&self, gateway: Gateway, part: Part, signal: Signal) -> Result<()> {
        let pid = self.pid(gateway, part)?;
        kill(pid, signal)
            .with_context(|| format!("cannot send {signal} to {part:?} of {}", gateway.name()))
    }

    /// Waits for a process of a part that is none of `before`.
    pub fn wait_restarted(&self, gateway: Gateway, part: Part, before: Pid) -> Result<Pid> {
        wait::until(
            &format!("a new {part:?} on {}", gateway.name()),
            PATIENCE,
            || {
                Ok(self
                    .pids(gateway, part)
                    .into_iter()
                    .find(|pid| *pid != before))
            },
        )
    }

    /// Runs `wsha-dataplane WORDS` on the gateway to its end.
    pub fn output(&self, gateway: Gateway, words: &[&str]) -> Result<Output> {
        let mut command = Command::new(&self.binary);
        command.args(words);
        self.host(gateway).output(command)
    }

    /// Waits until each address with a preferred node is held there, and there alone.
    pub fn wait_home(&self) -> Result<()> {
        self.homes
            .iter()
            .try_for_each(|(address, home)| self.wait_holders(*address, &[home]))
    }

    /// Waits until exactly these gateways hold `address`.
    pub fn wait_holders(&self, address: impl Into<IpAddr>, holders: &[&str]) -> Result<()> {
        let address = address.into();
        wait::until(
            &format!("{address} to be held by {holders:?}"),
            PATIENCE,
            || Ok((self.lab.holders(address)? == holders).then_some(())),
        )
    }

    /// Fails if a process of the gateways panicked: the supervisor would hide it.
    pub(super) fn sound(&self) -> Result<()> {
        for gateway in Gateway::BOTH {
            let log =
                fs::read_to_string(self.host(gateway).dir().join("wsha.log")).unwrap_or_default();
            if let Some(line) = log.lines().find(|line| line.contains("panicked at")) {
                bail!("on {}: {line}", gateway.name());
            }
        }
        Ok(())
    }

    /// What the gateways logged, for the message about a failure.
    pub fn logs(&self) -> String {
        let tail = |gateway: Gateway| {
            let log = fs::read_to_string(self.log(gateway)).unwrap_or_default();
            let lines: Vec<&str> = log.lines().collect();
            let tail = lines
                .get(lines.len().saturating_sub(60)..)
                .unwrap_or_default();
            format!("--- {}\n{}", gateway.name(), tail.join("\n"))
        };
        Gateway::BOTH.map(tail).join("\n")
    }
}
