//! A whole cluster on one machine: a control plane and nodes as hosts of a lab.

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::thread::{self, ScopedJoinHandle};
use std::time::Duration;

use anyhow::{Context, Result, anyhow, ensure};
use nix::unistd::Pid;

use super::controlplane::{ControlPlane, Settings};
use super::dns;
use super::node::{self, Node};
use super::site::Site;
use super::tools::{self, Program, Programs};
use crate::image::{self, Image, Profile};
use crate::lab::process::{command_line, start_time};
use crate::lab::{Host, Lab, Process, cgroup};
use crate::{tools as installed, wait};

/// Bound against hangs for nodes to come up; a loaded machine takes 30 s.
const BOUND: Duration = Duration::from_mins(5);
/// Last byte of the control plane's address.
const CONTROL: u8 = 30;
/// Nodes by name, last byte of their address, and whether gateways may be there.
const NODES: [(&str, u8, bool); 3] = [
    ("node1", 41, true),
    ("node2", 42, true),
    ("node3", 43, false),
];
/// Label of nodes that are to be gateways.
const GATEWAY: &str = "wsha.dev/gateway";
/// Tag of the pods' image.
const TAG: &str = "1";

/// The cluster. Dropping it ends all of it and removes its files, on a panic or a signal too.
#[derive(Debug)]
pub struct Local {
    nodes: Vec<Node>,
    dns: Process,
    control_plane: ControlPlane,
    lab: Lab,
}

/// The programs that this takes.
fn programs() -> Vec<Program> {
    let mut all = settings().programs();
    all.extend([
        Program::Coredns,
        Program::Helm,
        Program::KubeProxy,
        Program::Kubelet,
    ]);
    all
}

fn settings() -> Settings {
    let mut users: Vec<_> = NODES.map(|(name, ..)| node::user_of(name)).into();
    users.push((node::PROXY_USER.to_owned(), Vec::new()));
    Settings {
        controllers: true,
        users,
        ..Settings::default()
    }
}

/// Why it cannot run here, if so.
pub fn cannot_run() -> Option<String> {
    if let Some(why) = tools::cannot_get(&programs()) {
        return Some(why);
    }
    if let Err(error) = installed::install_node_programs() {
        return Some(format!("{error:#}"));
    }
    if !Path::new("/sys/fs/cgroup").is_dir() {
        return Some("needs control groups at /sys/fs/cgroup".into());
    }
    None
}

/// What pods run that are not ours, as an image in an archive in `dir`.
pub(super) fn pod_image(dir: &Path) -> Result<PathBuf> {
    let program = image::build(Image::Pod, Profile::Dev, dir)?;
    let path = dir.join(format!("{}.tar", Image::Pod.name()));
    fs::write(&path, Image::Pod.archive(&program, &pod_reference())?)?;
    Ok(path)
}

/// Name of the image of pods that are not ours: with the arguments `echo PORT` it is the article's server.
pub fn pod_reference() -> String {
    Image::Pod.reference(TAG)
}

impl Local {
    /// Starts one and waits until pods can run and find each other by name.
    pub fn start() -> Result<Self> {
        let programs = Programs::get(&programs())?;
        let lab = Lab::new()?;
        let image = pod_image(lab.dir())?;
        let site = Site::Host(lab.add_host("control", CONTROL)?);
        let control_plane = ControlPlane::start(site, programs, settings())?;
        let mut nodes = NODES
            .into_iter()
            .map(|(name, last, gateway)| {
                let labels = if gateway {
                    format!("{GATEWAY}=true")
                } else {
                    String::new()
                };
                Node::new(
                    lab.add_host(name, last)?,
                    &control_plane,
                    &labels,
                    &pod_reference(),
                )
            })
            .collect::<Result<Vec<_>>>()?;
        let addresses: Vec<Ipv4Addr> = nodes.iter().map(|node| node.host().address()).collect();
        at_once(&mut nodes, |node| {
            node.boot(&addresses)?;
            node.load(&image)?;
            node.start_proxy()?;
            node.start_kubelet()
        })?;
        // Pods ask the API server, and it must know the way back.
        if let Site::Host(control) = control_plane.site() {
            for node in &nodes {
                let (range, address) = (node.pod_range(), node.host().address());
                control.ip(&format!("route add {range} via {address}"))?;
            }
        }
        let dns = dns::start(&control_plane)?;
        let local = Self {
            nodes,
            dns,
            control_plane,
            lab,
        };
        local.wait_nodes().with_context(|| local.logs())?;
        Ok(local)
    }

    /// Waits until every node is Ready, and tells the API server which addresses its pods have.
    fn wait_nodes(&self) -> Result<()> {
        let mut names = self.nodes.iter().map(Node::name);
        names.try_for_each(|name| self.welcome(name))
    }

    /// Waits until a node that is new to the API server is Ready, and tells it which addresses its pods have.
    pub fn welcome(&self, name: &str) -> Result<()> {
        self.wait_ready(name)?;
        let range = self.node(name)?.pod_range();
        let patch = format!("{{\"spec\":{{\"podCIDR\":\"{range}\",\"podCIDRs\":[\"{range}\"]}}}}");
        let words = ["patch", "node", name, "--patch", &patch];
        self.control_plane.kubectl(&words)?.success().map(drop)
    }

    /// Loads the images of an archive on every node.
    pub fn load(&self, archive: &Path) -> Result<()> {
        thread::scope(|scope| {
            let load = |node| scope.spawn(move || Node::load(node, archive));
            let workers: Vec<_> = self.nodes.iter().map(load).collect();
            workers.into_iter().try_for_each(joined)
        })
    }

    /// Waits until a node is Ready.
    pub fn wait_ready(&self, node: &str) -> Result<()> {
        let path = "-o=jsonpath={.status.conditions[?(@.type==\"Ready\")].status}";
        wait::until(&format!("{node} to be Ready"), BOUND, || {
            self.alive()?;
            let answer = self.control_plane.kubectl(&["get", "node", node, path])?;
            Ok((answer.ok && answer.stdout == "True").then_some(()))
        })
    }

    /// The network.
    pub fn lab(&self) -> &Lab {
        &self.lab
    }

    /// A host outside the cluster, on the nodes' link.
    pub fn client(&self) -> &Host {
        self.lab.client()
    }

    /// The control plane.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.control_plane
    }

    /// The nodes.
    pub fn nodes(&self) -> &[Node] {
        &self.nodes
    }

    /// The node of that name.
    pub fn node(&self, name: &str) -> Result<&Node> {
        let found = self.nodes.iter().find(|node| node.name() == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// As [`Self::node`], to be changed.
    pub fn node_mut(&mut self, name: &str) -> Result<&mut Node> {
        let found = self.nodes.iter_mut().find(|node| node.name() == name);
        found.with_context(|| format!("no node {name}"))
    }

    /// Boots a node again after its power-off.
    pub fn power_on(&mut self, name: &str) -> Result<()> {
        let addresses: Vec<Ipv4Addr> = self
            .nodes
            .iter()
            .map(|node| node.host().address())
            .collect();
        self.node_mut(name)?.power_on(&addresses)
    }

    /// Fails when something that belongs to the cluster has ended by itself.
    pub fn alive(&self) -> Result<()> {
        self.control_plane.alive()?;
        ensure!(
            self.dns.is_running(),
            "CoreDNS ended:\n{}",
            self.dns.log_tail()
        );
        self.nodes.iter().try_for_each(Node::alive)
    }

    /// The last lines of all logs.
    pub fn logs(&self) -> String {
        let nodes: String = self.nodes.iter().map(Node::logs).collect();
        self.control_plane.logs() + &nodes
    }
}

/// By what a cluster could be seen on the machine.
#[derive(Debug)]
pub struct Traces {
    dir: PathBuf,
    processes: Vec<(Pid, Option<u64>)>,
}

impl Local {
    /// What must be gone once the cluster is.
    pub fn traces(&self) -> Traces {
        let all = self.nodes.iter().flat_map(|node| node.host().processes());
        Traces {
            dir: self.lab.dir().to_owned(),
            processes: all.map(|pid| (pid, start_time(pid))).collect(),
        }
    }
}

impl Traces {
    /// What is there still.
    pub fn left(&self) -> Vec<String> {
        let mut left: Vec<String> = cgroup::of_lab(&self.dir);
        if self.dir.exists() {
            left.push(self.dir.display().to_string());
        }
        let alive = |(pid, started): &&(Pid, Option<u64>)| {
            started.is_some() && start_time(*pid) == *started && !command_line(*pid).is_empty()
        };
        let alive = self.processes.iter().filter(alive);
        left.extend(alive.map(|(pid, _)| format!("{} (pid {pid})", command_line(*pid))));
        left
    }
}

/// Does the same with all nodes at the same time.
fn at_once(nodes: &mut [Node], work: impl Fn(&mut Node) -> Result<()> + Sync) -> Result<()> {
    thread::scope(|scope| {
        let work = &work;
        let start = |node| scope.spawn(move || work(node));
        let workers: Vec<_> = nodes.iter_mut().map(start).collect();
        workers.into_iter().try_for_each(joined)
    })
}

fn joined(worker: ScopedJoinHandle<'_, Result<()>>) -> Result<()> {
    let outcome = worker.join();
    outcome.unwrap_or_else(|_| Err(anyhow!("a thread of a node panicked")))
}
