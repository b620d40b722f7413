//! A node: a host of the lab with containerd, a kubelet and kube-proxy.

mod config;
mod mounts;

use std::fs;
use std::io::ErrorKind;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::sys::signal::Signal;

use self::config::Files;
use super::controlplane::ControlPlane;
use super::pki::{self, Purpose, Signed};
use super::tools::{Program, Programs};
use crate::lab::{Host, INTERFACE, Process, cgroup};
use crate::{tools, wait};

/// Bound against hangs for a daemon to come up or to end.
const BOUND: Duration = Duration::from_mins(3);
/// Addresses of Services, which kube-proxy translates.
const SERVICES: &str = "10.96.0.0/16";

/// Who a node is, for its configurations.
#[derive(Debug)]
struct Identity {
    name: &'static str,
    address: Ipv4Addr,
    cgroup: String,
    authority: PathBuf,
    serving: Signed,
    kubeconfig: PathBuf,
    proxy_kubeconfig: PathBuf,
}

/// A node of the cluster. Its processes, its pods' too, end with it.
#[derive(Debug)]
pub struct Node {
    identity: Identity,
    files: Files,
    programs: Programs,
    labels: String,
    containerd: Option<Process>,
    kubelet: Option<Process>,
    proxy: Option<Process>,
    host: Host,
}

/// The user a kubelet is, and kube-proxy's.
pub(super) fn user_of(node: &str) -> (String, Vec<String>) {
    (
        format!("system:node:{node}"),
        vec!["system:nodes".to_owned()],
    )
}

/// The user of every kube-proxy.
pub(super) const PROXY_USER: &str = "system:kube-proxy";

impl Node {
    /// Makes a node of a host. Nothing runs yet.
    pub(super) fn new(
        host: Host,
        control_plane: &ControlPlane,
        labels: &str,
        pause: &str,
    ) -> Result<Self> {
        let authority = control_plane.authority();
        let names = pki::node_names(host.name(), host.address())?;
        let serving = authority.issue(host.name(), Purpose::Server, host.name(), &[], &names)?;
        let identity = Identity {
            name: host.name(),
            address: host.address(),
            cgroup: host.cgroup(),
            authority: authority.certificate().to_owned(),
            serving,
            kubeconfig: control_plane.kubeconfig_of(&user_of(host.name()).0),
            proxy_kubeconfig: control_plane.kubeconfig_of(PROXY_USER),
        };
        let runc = tools::need("runc", "runc")?;
        let files = config::write(&identity, host.dir(), &runc, pause)?;
        Ok(Self {
            identity,
            files,
            programs: control_plane.programs().clone(),
            labels: labels.to_owned(),
            containerd: None,
            kubelet: None,
            proxy: None,
            host,
        })
    }

    /// The host that it is.
    pub fn host(&self) -> &Host {
        &self.host
    }

    /// Its name in the cluster and in the lab.
    pub fn name(&self) -> &'static str {
        self.identity.name
    }

    /// Addresses of its pods.
    pub fn pod_range(&self) -> String {
        config::pod_range(self.identity.address)
    }

    /// Sets up what a boot sets up, and starts the runtime. `others` are the nodes whose pods are reached
    /// through them.
    pub(super) fn boot(&mut self, others: &[Ipv4Addr]) -> Result<()> {
        cgroup::create(&self.identity.cgroup)?;
        let (name, dir) = (self.identity.name, self.host.dir().to_owned());
        self.host.run(move || {
            fs::write("/proc/sys/net/ipv4/ip_forward", "1").context("cannot turn forwarding on")?;
            mounts::settle(name, &dir)
        })??;
        // Without a route a process of the host is refused before kube-proxy's rules see its packet.
        self.host
            .ip(&format!("route add {SERVICES} dev {INTERFACE}"))?;
        for other in others
            .iter()
            .filter(|other| **other != self.identity.address)
        {
            let range = config::pod_range(*other);
            self.host.ip(&format!("route add {range} via {other}"))?;
        }
        self.start_containerd()
    }

    fn start_containerd(&mut self) -> Result<()> {
        let mut command = Command::new(tools::need("containerd", "containerd")?);
        command.arg("--config").arg(&self.files.containerd);
        let containerd = self.spawn("containerd", command)?;
        let socket = self.inside_run(config::RUNTIME)?;
        wait::until("containerd to answer", BOUND, || {
            ensure!(
                containerd.is_running(),
                "containerd ended:\n{}",
                containerd.log_tail()
            );
            // ctr hangs where there is no socket.
            Ok((socket.exists() && self.ctr(&["version"]).is_ok()).then_some(()))
        })?;
        self.containerd = Some(containerd);
        Ok(())
    }

    /// A path on the node, as seen from outside while the runtime or the thread of the host lives.
    fn inside_run(&self, path: &str) -> Result<PathBuf> {
        let task = self.host.run(|| fs::read_link("/proc/thread-self"))??;
        Ok(Path::new("/proc")
            .join(task)
            .join("root")
            .join(path.trim_start_matches('/')))
    }

    /// Starts the kubelet.
    pub fn start_kubelet(&mut self) -> Result<()> {
        let mut command = self.programs.command(Program::Kubelet)?;
        command
            .arg("--config")
            .arg(&self.files.kubelet)
            .arg("--kubeconfig")
            .arg(&self.identity.kubeconfig)
            .arg("--root-dir=/var/lib/kubelet")
            .arg(format!("--hostname-override={}", self.identity.name))
            .arg(format!("--node-ip={}", self.identity.address))
            .arg(format!("--node-labels={}", self.labels));
        self.kubelet = Some(self.spawn("kubelet", command)?);
        Ok(())
    }

    /// Starts kube-proxy.
    pub(super) fn start_proxy(&mut self) -> Result<()> {
        let mut command = self.programs.command(Program::KubeProxy)?;
        command.arg("--config").arg(&self.files.proxy);
        self.proxy = Some(self.spawn("kube-proxy", command)?);
        Ok(())
    }

    fn spawn(&self, name: &str, mut command: Command) -> Result<Process> {
        // runc, nft and mount are found there.
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{path}:/usr/sbin:/usr/bin:/sbin:/bin"));
        let process = self.host.spawn(name, command)?;
        cgroup::join(&self.identity.cgroup, process.pid())?;
        Ok(process)
    }

    /// Kills the kubelet alone; pods go on.
    pub fn kill_kubelet(&mut self) -> Result<()> {
        let kubelet = self.kubelet.take().context("the kubelet does not run")?;
        kubelet.signal(Signal::SIGKILL)?;
        kubelet.wait(BOUND).map(drop)
    }

    /// Pulls the plug: nothing leaves the node any more, and all that runs there ends at once.
    pub fn power_off(&mut self) -> Result<()> {
        self.host.power_off()?;
        for process in [
            self.kubelet.take(),
            self.proxy.take(),
            self.containerd.take(),
        ] {
            process.map_or(Ok(()), |process| process.wait(BOUND).map(drop))?;
        }
        cgroup::remove(&self.identity.cgroup)
    }

    /// Boots it again with the disk it had.
    pub(super) fn power_on(&mut self, others: &[Ipv4Addr]) -> Result<()> {
        self.host.power_on()?;
        self.boot(others)?;
        self.start_proxy()?;
        self.start_kubelet()
    }

    /// Loads the images of an archive.
    pub fn load(&self, archive: &Path) -> Result<()> {
        let path = archive.to_string_lossy();
        self.ctr(&["images", "import", &path])
            .with_context(|| format!("{} cannot load {path}", self.identity.name))
            .map(drop)
    }

    /// Names of the files in a directory of the node, none where there is no such directory.
    pub fn files(&self, dir: &str) -> Result<Vec<String>> {
        let path = PathBuf::from(dir);
        let found = self.host.run(move || match fs::read_dir(&path) {
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(Vec::new()),
            Err(error) => Err(error),
            Ok(entries) => {
                let names = entries.flatten().map(|entry| entry.file_name());
                Ok(names
                    .map(|name| name.to_string_lossy().into_owned())
                    .collect())
            }
        })?;
        found.with_context(|| format!("cannot list {dir} of {}", self.identity.name))
    }

    /// Removes a directory of the node with all that is in it.
    pub fn remove(&self, dir: &str) -> Result<()> {
        let path = PathBuf::from(dir);
        let removed = self.host.run(move || fs::remove_dir_all(&path))?;
        removed.with_context(|| format!("cannot remove {dir} of {}", self.identity.name))
    }

    /// Runs `nft WORDS` on the node.
    pub fn nft(&self, words: &str) -> Result<String> {
        let mut command = Command::new(tools::need("nft", "nftables")?);
        command.args(words.split_whitespace());
        self.output("nft", command, words)
    }

    /// Runs `ctr WORDS` for the kubelet's images and containers.
    pub fn ctr(&self, words: &[&str]) -> Result<String> {
        let mut command = Command::new(tools::need("ctr", "containerd")?);
        command
            .args(["--address", config::RUNTIME, "--namespace", "k8s.io"])
            .args(words);
        self.output("ctr", command, &words.join(" "))
    }

    fn output(&self, program: &str, command: Command, words: &str) -> Result<String> {
        let output = self.host.output(command)?;
        if !output.status.success() {
            let told = String::from_utf8_lossy(&output.stderr).into_owned();
            bail!("{program} {words}: {}", told.trim());
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Fails when one of its daemons has ended by itself.
    pub fn alive(&self) -> Result<()> {
        for process in self.daemons() {
            if !process.is_running() {
                bail!(
                    "{} of {} ended:\n{}",
                    process.name(),
                    self.identity.name,
                    process.log_tail()
                );
            }
        }
        Ok(())
    }

    /// The last lines of its daemons' logs.
    pub fn logs(&self) -> String {
        let tail = |process: &Process| {
            format!(
                "--- {} of {}\n{}\n",
                process.name(),
                self.identity.name,
                process.log_tail()
            )
        };
        self.daemons().map(tail).collect()
    }

    fn daemons(&self) -> impl Iterator<Item = &Process> {
        [&self.containerd, &self.kubelet, &self.proxy]
            .into_iter()
            .flatten()
    }
}
