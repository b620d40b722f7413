//! A host of the lab: a network namespace, a `/run` and a directory of its own, and one link to the switch.

mod link;
mod scarce;

use std::fs::{self, OpenOptions};
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::ifaddrs::getifaddrs;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::netns::NetNs;
use super::process::{self, Home, Process};
use super::{BRIDGE, INTERFACE, MacAddr, Shared, cgroup, cleanup, ip};
use crate::wait;

/// Links of hosts are numbered from here, by the last byte of the address: beyond those that a namespace begins with.
const FIRST_INDEX: u32 = 1000;

/// A host of the lab.
#[derive(Debug)]
pub struct Host {
    name: &'static str,
    address: Ipv4Addr,
    mac: MacAddr,
    dir: PathBuf,
    ns: RwLock<NetNs>,
    lab: Arc<Shared>,
}

impl Host {
    /// Makes the host and plugs it into the switch.
    pub(super) fn create(lab: &Arc<Shared>, name: &'static str, address: Ipv4Addr) -> Result<Self> {
        let dir = lab.dir.join(name);
        fs::create_dir(&dir).with_context(|| format!("cannot make {}", dir.display()))?;
        let host = Self {
            name,
            address,
            mac: MacAddr::of(address),
            dir,
            ns: RwLock::new(lab.namespace(name)?),
            lab: Arc::clone(lab),
        };
        host.plug()?;
        Ok(host)
    }

    /// Name of the host, `server1` for instance.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// The host's own address.
    pub fn address(&self) -> Ipv4Addr {
        self.address
    }

    /// MAC address of its interface.
    pub fn mac(&self) -> MacAddr {
        self.mac
    }

    /// Directory for its configuration, state and logs; goes away with the lab.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    fn ns(&self) -> RwLockReadGuard<'_, NetNs> {
        self.ns.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn port(&self) -> String {
        format!("sw-{}", self.name)
    }

    /// The number of both ends of the cable. As they have the same, the kernel tells of them as of network cards: of
    /// ends with different numbers it tells at once, as if they were interfaces on top of others.
    fn index(&self) -> u32 {
        let [.., last] = self.address.octets();
        FIRST_INDEX + u32::from(last)
    }

    /// Lays the cable and sets the address; ends a [`Self::unplug`].
    pub fn plug(&self) -> Result<()> {
        let (port, mac, address) = (self.port(), self.mac, self.address);
        let ns = self.ns();
        let index = self.index();
        let path = &ns.handles().net_path;
        ip(
            &self.lab.switch,
            &[
                &format!(
                    "link add {port} index {index} type veth peer name {INTERFACE} index {index} address {mac} netns {path}"
                ),
                &format!("link set {port} master {BRIDGE}"),
                &format!("link set {port} up"),
            ],
        )?;
        ip(
            &ns,
            &[
                "link set lo up",
                &format!("addr add {address}/24 brd + dev {INTERFACE}"),
                &format!("link set {INTERFACE} up"),
            ],
        )?;
        // A namespace starts with the machine's own settings; a lab host routes for nobody.
        ns.run(|| fs::write("/proc/sys/net/ipv4/ip_forward", "0"))?
            .context("cannot turn forwarding off")
    }

    /// Gives the host an address of `fd00:1::/64`, its last group that of the IPv4 address as it is read. Returns when
    /// the link-local address is usable, too. What takes the interface down or away takes these along.
    pub fn number_ipv6(&self) -> Result<()> {
        let [.., last] = self.address.octets();
        self.ip(&format!(
            "addr replace fd00:1::{last}/64 dev {INTERFACE} nodad"
        ))?;
        let link_local = self.mac.link_local();
        wait::until("a link-local address", Duration::from_mins(1), || {
            let shown = self.ip(&format!("-6 addr show dev {INTERFACE} to {link_local}"))?;
            let is_usable = !shown.is_empty() && !shown.contains("tentative");
            Ok(is_usable.then_some(()))
        })
        .with_context(|| format!("on {}", self.name))
    }

    /// Starts `command` on this host. Output goes to `NAME.log` in the host's directory.
    pub fn spawn(&self, name: &str, command: Command) -> Result<Process> {
        self.spawn_where(name, command, false)
    }

    /// As [`Self::spawn`], but in the machine's own network namespace: keepalived gets process events
    /// only there, and enters the host's by its `net_namespace` setting.
    pub fn spawn_outside(&self, name: &str, command: Command) -> Result<Process> {
        self.spawn_where(name, command, true)
    }

    fn spawn_where(&self, name: &str, mut command: Command, outside: bool) -> Result<Process> {
        let log = self.dir.join(format!("{name}.log"));
        let output = OpenOptions::new().create(true).append(true).open(&log)?;
        command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output);
        command
            .current_dir(&self.dir)
            .env("WSHA_LAB_HOST", self.name)
            .process_group(0);
        let program = command.get_program().to_owned();
        let _open = cleanup::hold_open()?;
        let ns = self.ns();
        let initial = outside.then(|| Arc::clone(&self.lab.initial_net));
        let own = Arc::clone(ns.handles());
        let child = ns.run(move || {
            let Some(initial) = initial else {
                return command.spawn().map_err(Into::into);
            };
            nix::sched::setns(&*initial, nix::sched::CloneFlags::CLONE_NEWNET)?;
            let child = command.spawn();
            own.enter_net()?;
            anyhow::Ok(child?)
        })?;
        let child = child
            .with_context(|| format!("cannot start {} on {}", program.display(), self.name))?;
        Process::watch(name, &log, child)
    }

    /// Runs `command` on this host to its end.
    pub fn output(&self, mut command: Command) -> Result<Output> {
        command.current_dir(&self.dir).stdin(Stdio::null());
        let program = command.get_program().to_owned();
        self.ns()
            .run(move || command.output())?
            .with_context(|| format!("cannot run {} on {}", program.display(), self.name))
    }

    /// Runs `ip WORDS` on this host and returns its output.
    pub fn ip(&self, words: &str) -> Result<String> {
        let mut command = Command::new("ip");
        command.args(words.split_whitespace());
        let output = self.output(command)?;
        if !output.status.success() {
            bail!(
                "ip {words} on {}: {}",
                self.name,
                String::from_utf8_lossy(&output.stderr).trim()
            );
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// The interface as the article shows it: `ip addr` of the one that carries the addresses, IPv4 only.
    pub fn ip_addr(&self) -> Result<String> {
        self.ip(&format!("-4 addr show dev {INTERFACE}"))
    }

    /// All addresses of the interface but the link-local one that every interface has; no process is started for it.
    pub fn addresses(&self) -> Result<Vec<IpAddr>> {
        let link_local = IpAddr::from(self.mac.link_local());
        let found = self.ns().run(move || {
            let ours = getifaddrs()?.filter(|entry| entry.interface_name == INTERFACE);
            let addresses = ours.filter_map(|entry| {
                let address = entry.address?;
                let v4 = address.as_sockaddr_in().map(|v4| v4.ip().into());
                v4.or_else(|| address.as_sockaddr_in6().map(|v6| v6.ip().into()))
            });
            anyhow::Ok(addresses.filter(|it| *it != link_local).collect())
        })?;
        found.with_context(|| format!("cannot list the addresses of {}", self.name))
    }

    /// Whether the interface holds `address`.
    pub fn holds(&self, address: impl Into<IpAddr>) -> Result<bool> {
        Ok(self.addresses()?.contains(&address.into()))
    }

    /// What this host's neighbour table says of `address`: the line of `ip neigh`, empty without entry.
    pub fn neighbour(&self, address: impl Into<IpAddr>) -> Result<String> {
        let address = address.into();
        Ok(self
            .ip(&format!("neigh show {address} dev {INTERFACE}"))?
            .trim()
            .to_owned())
    }

    /// Forgets what the neighbour table knows.
    pub fn flush_neighbours(&self) -> Result<()> {
        self.ip(&format!("neigh flush dev {INTERFACE}")).map(drop)
    }

    /// Moves the calling thread into the host's namespaces for good.
    pub fn enter(&self) -> Result<()> {
        self.ns().handles().enter()
    }

    /// Every process of the host, whatever started it.
    pub fn processes(&self) -> Vec<Pid> {
        let mut found = process::at_home(self.home());
        // Those in containers have namespaces of their own.
        found.extend(cgroup::processes(&self.cgroup()));
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Name of the host's control group, should it get one.
    pub(crate) fn cgroup(&self) -> String {
        cgroup::prefix(&self.lab.dir) + self.name
    }

    /// Runs `job` on the thread whose namespaces are the host's: what is started there later finds them as
    /// `job` left them.
    pub(crate) fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.ns().run(job)
    }

    /// The host's processes whose command line `wanted` accepts.
    pub fn processes_where(&self, wanted: impl Fn(&str) -> bool) -> Vec<Pid> {
        self.processes()
            .into_iter()
            .filter(|pid| wanted(&process::command_line(*pid)))
            .collect()
    }

    /// Stops every process of the host where it stands (SIGSTOP). Its kernel goes on.
    pub fn freeze(&self) {
        signal_all(&self.processes(), Signal::SIGSTOP);
    }

    /// Ends a [`Self::freeze`].
    pub fn thaw(&self) {
        signal_all(&self.processes(), Signal::SIGCONT);
    }

    /// Pulls the plug: nothing leaves the host any more, and all its processes end at once.
    pub fn power_off(&self) -> Result<()> {
        self.cable_cut()?;
        kill_all(|| self.processes())
    }

    /// Boots the host: a fresh kernel state, the same address and disk. What ran must be started again.
    pub fn power_on(&self) -> Result<()> {
        self.lab.vacate(self.home(), || self.processes())?;
        // The old kernel state, virtual addresses included, goes with the old interface.
        self.unplug()?;
        let fresh = self.lab.namespace(self.name)?;
        *self.ns.write().unwrap_or_else(PoisonError::into_inner) = fresh;
        self.plug()
    }

    fn home(&self) -> Home {
        self.ns().handles().home
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = self.lab.vacate(self.home(), || self.processes()) {
            eprintln!("lab: {}: {error:#}", self.name);
        }
    }
}

/// Sends `signal` to each of `pids`; those that have ended meanwhile are passed over.
pub fn signal_all(pids: &[Pid], signal: Signal) {
    for pid in pids {
        // The only failure possible for root is that the process has ended.
        kill(*pid, signal).ok();
    }
}

/// `kill -9` of all of `pids` as one: none gets to run between the first death and the last.
pub fn kill_at_once(pids: &[Pid]) {
    // Children first: the end of a stopped child's parent would set the child going again.
    let mut pids = pids.to_vec();
    pids.sort_by_key(|pid| std::cmp::Reverse((process::start_time(*pid), pid.as_raw())));
    if pids.len() > 1 {
        signal_all(&pids, Signal::SIGSTOP);
    }
    signal_all(&pids, Signal::SIGKILL);
}

/// Kills what `list` names until it names nothing.
pub(super) fn kill_all(list: impl Fn() -> Vec<Pid>) -> Result<()> {
    wait::until("processes to end", Duration::from_secs(10), || {
        let pids = list();
        signal_all(&pids, Signal::SIGKILL);
        Ok(pids.is_empty().then_some(()))
    })
}
