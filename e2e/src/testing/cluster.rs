//! A lab with wsha on its gateways, and backends behind it.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use node_api::{NodeReport, RouterReport, RouterState};

use super::{Manifest, inside};
use crate::backend::Backends;
use crate::lab::{Host, Lab, Process};
use crate::wait;

/// Bound against hangs for a state of the lab that is waited for.
const PATIENCE: Duration = Duration::from_secs(30);
const ADMIN: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 9101);

/// One of the two gateways.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
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
    homes: Vec<(Ipv4Addr, String)>,
    revision: u32,
    /// The article's application servers.
    pub backends: Backends,
    /// The network.
    pub lab: Lab,
}

impl Cluster {
    /// A lab with backends and no gateway at work.
    pub(super) fn new(binary: PathBuf) -> Result<Self> {
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
        command
    }

    /// Starts the gateway's agent, and waits for nothing.
    pub fn start(&mut self, gateway: Gateway) -> Result<()> {
        let command = self.run_command(gateway);
        self.start_with(gateway, command)
    }

    /// As [`Self::start`], by another command line.
    pub fn start_with(&mut self, gateway: Gateway, command: Command) -> Result<()> {
        let agent = self.host(gateway).spawn("wsha", command)?;
        // The one before, if any, has ended or is being taken over: its handle must not kill its group.
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

    /// The gateway's agent.
    pub fn agent(&self, gateway: Gateway) -> Result<&Process> {
        let agent = self.agents[usize::from(gateway == Gateway::Two)].as_ref();
        agent.with_context(|| format!("no agent was started on {}", gateway.name()))
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

    /// The gateway's state, as its agent reports it.
    pub fn status(&self, gateway: Gateway) -> Result<NodeReport> {
        let state = self.state_dir(gateway);
        let output = self.output(
            gateway,
            &["status", "--output", "json", "--state-dir", path(&state)?],
        )?;
        ensure!(
            output.status.success(),
            "status on {}: {}",
            gateway.name(),
            String::from_utf8_lossy(&output.stderr)
        );
        serde_json::from_slice(&output.stdout)
            .with_context(|| format!("status on {} is not a report", gateway.name()))
    }

    /// Waits until the gateway's state gives a value.
    pub fn wait_status<T>(
        &self,
        gateway: Gateway,
        what: &str,
        mut wanted: impl FnMut(&NodeReport) -> Option<T>,
    ) -> Result<T> {
        let mut last = String::new();
        let found = wait::until(&format!("{what} on {}", gateway.name()), PATIENCE, || {
            // An agent that is only just starting cannot be asked yet.
            let report = match self.status(gateway) {
                Ok(report) => report,
                Err(error) => {
                    last = format!("{error:#}");
                    return Ok(None);
                }
            };
            let found = wanted(&report);
            last = format!("{report:#?}");
            Ok(found)
        });
        found.with_context(|| format!("the last state was {last}"))
    }

    /// The gateway's virtual router for an address.
    pub fn router(&self, gateway: Gateway, address: Ipv4Addr) -> Result<RouterReport> {
        let report = self.status(gateway)?;
        let router = report
            .virtual_routers
            .into_iter()
            .find(|router| router.addresses.contains(&address.into()));
        router.with_context(|| format!("{} has no virtual router for {address}", gateway.name()))
    }

    /// How often the gateway entered a state for an address, as far as its report goes back.
    pub fn entered(
        &self,
        gateway: Gateway,
        address: Ipv4Addr,
        state: RouterState,
    ) -> Result<usize> {
        Ok(self
            .router(gateway, address)?
            .transitions
            .iter()
            .filter(|transition| transition.to == state)
            .count())
    }

    /// Live sessions of the gateway, over all listeners.
    pub fn sessions(&self, gateway: Gateway) -> Result<u64> {
        let report = self.status(gateway)?;
        Ok(report
            .pools
            .iter()
            .flat_map(|pool| &pool.listeners)
            .map(|listener| listener.sessions)
            .sum())
    }

    /// Answer of the gateway's admin port: the status code and the body.
    pub fn http(&self, gateway: Gateway, path: &str) -> Result<(u16, String)> {
        inside(self.host(gateway), || {
            let mut stream = TcpStream::connect_timeout(&ADMIN, PATIENCE)
                .context("cannot connect to the admin port")?;
            stream.set_read_timeout(Some(PATIENCE))?;
            write!(
                stream,
                "GET {path} HTTP/1.1\r\nHost: {ADMIN}\r\nConnection: close\r\n\r\n"
            )?;
            let mut answer = String::new();
            stream
                .read_to_string(&mut answer)
                .with_context(|| format!("no answer to {path}"))?;
            let (head, body) = answer
                .split_once("\r\n\r\n")
                .context("an answer without end of header")?;
            let code = head
                .split_whitespace()
                .nth(1)
                .and_then(|code| code.parse().ok());
            Ok((
                code.with_context(|| format!("no status line: {head}"))?,
                body.to_owned(),
            ))
        })
    }

    /// Sum of the gateway's samples of a counter that carry all of `labels`; zero where there is none.
    pub fn count(&self, gateway: Gateway, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
        let (code, text) = self.http(gateway, "/metrics")?;
        ensure!(code == 200, "/metrics answers {code}");
        sum(&text, name, labels)
    }

    /// Waits until each address with a preferred node is held there, and there alone.
    pub fn wait_home(&self) -> Result<()> {
        self.homes
            .iter()
            .try_for_each(|(address, home)| self.wait_holders(*address, &[home]))
    }

    /// Waits until exactly these gateways hold `address`.
    pub fn wait_holders(&self, address: Ipv4Addr, holders: &[&str]) -> Result<()> {
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
    pub(super) fn logs(&self) -> String {
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

fn path(path: &Path) -> Result<&str> {
    path.to_str()
        .with_context(|| format!("{} is not UTF-8", path.display()))
}

/// Sum over the samples of `name`, with or without the suffix of counters, that carry all of `labels`.
fn sum(text: &str, name: &str, labels: &[(&str, &str)]) -> Result<u64> {
    let carried = |(label, value): &(&str, &str)| format!("{label}=\"{value}\"");
    let wanted: Vec<String> = labels.iter().map(carried).collect();
    let mut sum = 0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let Some((series, value)) = line.rsplit_once(' ') else {
            continue;
        };
        let (found, labels) = series.split_once('{').unwrap_or((series, ""));
        let named = found == name || found.strip_suffix("_total") == Some(name);
        if named && wanted.iter().all(|label| labels.contains(label.as_str())) {
            // Some writers give whole numbers a fraction.
            let whole = value.strip_suffix(".0").unwrap_or(value);
            sum += whole
                .parse::<u64>()
                .with_context(|| format!("not a count: {line}"))?;
        }
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::sum;

    #[test]
    fn sums_the_samples_that_carry_all_labels() {
        let text = "# HELP a b\na_total{reason=\"ttl\",vrid=\"1\"} 2\n\
                    a_total{reason=\"ttl\",vrid=\"2\"} 3\nb 7.0\nab_total 9\n";
        assert_eq!(sum(text, "a", &[("reason", "ttl")]).unwrap(), 5);
        assert_eq!(
            sum(text, "a", &[("reason", "ttl"), ("vrid", "2")]).unwrap(),
            3
        );
        assert_eq!(sum(text, "b", &[]).unwrap(), 7);
        assert_eq!(sum(text, "c", &[]).unwrap(), 0);
    }
}
