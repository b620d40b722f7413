//! The article's network on one machine: hosts as network namespaces on a bridge with no way out.
//!
//! | host | address | role |
//! |---|---|---|
//! | server1, server2 | 192.168.1.14, .15 | gateways |
//! | server3 - server5 | .16 - .18 | backends |
//! | server6 | .19 | the backend added later |
//! | client | .20 | where the probes run |
//! | observer | .21 | asks by ARP; a client that asked would refresh its own neighbour table |
//!
//! Several labs may run at once: nothing in them has a name outside their own namespaces.

pub(crate) mod cgroup;
mod cleanup;
mod host;
mod netns;
pub mod process;
mod room;
mod rtnetlink;
mod vacated;

use std::fmt;
use std::fs::{self, File};
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, bail};
use nix::unistd::Pid;

use self::cleanup::TearDown;
pub use self::cleanup::on_exit;
pub(crate) use self::cleanup::{own_name, sweep_after};
pub use self::host::{Host, kill_at_once, signal_all};
use self::netns::NetNs;
use self::process::Home;
pub use self::process::{Process, children};
pub use self::room::Room;
pub use self::vacated::Vacated;

/// Name of each host's interface, the article's.
pub const INTERFACE: &str = "enp0s3";
/// The article's virtual address that server2 holds while all is well.
pub const VIP_SERVER2: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 110);
/// The article's virtual address that server1 holds while all is well.
pub const VIP_SERVER1: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 112);
/// The switch of those hosts that are cut off together.
const APART: &str = "br1";
/// Port that clients of the virtual addresses use.
pub const PORT: u16 = 8020;
/// Name of the interface on which the switch itself hears what is sent to all.
pub(crate) const BRIDGE: &str = "br0";
/// Port of the backends.
pub const BACKEND_PORT: u16 = 8010;

const SERVERS: [(&str, u8); 6] = [
    ("server1", 14),
    ("server2", 15),
    ("server3", 16),
    ("server4", 17),
    ("server5", 18),
    ("server6", 19),
];

/// An Ethernet address.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct MacAddr(pub [u8; 6]);

impl MacAddr {
    /// The lab's address for a host: locally administered, its last bytes those of the IPv4 address.
    pub(crate) fn of(address: Ipv4Addr) -> Self {
        let [a, b, c, d] = address.octets();
        Self([2, 0, a, b, c, d])
    }

    /// The link-local address that the kernel makes of it (RFC 4291 appendix A).
    pub fn link_local(self) -> Ipv6Addr {
        let mut octets = [0xfe, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xfe, 0, 0, 0];
        octets[8..11].copy_from_slice(&self.0[..3]);
        octets[13..].copy_from_slice(&self.0[3..]);
        octets[8] ^= 2;
        octets.into()
    }
}

impl fmt::Display for MacAddr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bytes = self.0.map(|byte| format!("{byte:02x}"));
        f.write_str(&bytes.join(":"))
    }
}

/// What the hosts of a lab share.
#[derive(Debug)]
struct Shared {
    dir: PathBuf,
    switch: NetNs,
    initial_net: Arc<File>,
    /// The namespaces in use: whatever runs in one of them is ours to end.
    homes: Mutex<Vec<Home>>,
}

impl Shared {
    fn namespace(&self, name: &str) -> Result<NetNs> {
        let made = NetNs::create(name)?;
        self.homes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(made.handles().home);
        Ok(made)
    }

    /// Ends what runs in a host's namespaces and forgets them. They must still be held: the kernel gives the
    /// numbers of those that are gone to others.
    fn vacate(&self, home: Home, residents: impl Fn() -> Vec<Pid>) -> Result<()> {
        let ended = host::kill_all(residents);
        let mut homes = self.homes.lock().unwrap_or_else(PoisonError::into_inner);
        homes.retain(|known| known.mnt != home.mnt);
        ended
    }
}

impl TearDown for Shared {
    fn tear_down(&self) {
        let homes = self
            .homes
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone();
        let ours = || {
            let homes = homes.iter().flat_map(|home| process::at_home(*home));
            homes.chain(cgroup::processes_of_lab(&self.dir)).collect()
        };
        if let Err(error) = host::kill_all(ours) {
            eprintln!("lab: {error:#}");
        }
        if let Err(error) = cleanup::remove(&self.dir) {
            eprintln!("lab: cannot remove {}: {error:#}", self.dir.display());
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.tear_down();
    }
}

/// A running lab; dropping it ends every process in it and removes all traces.
#[derive(Debug)]
pub struct Lab {
    servers: Vec<Host>,
    client: Host,
    observer: Host,
    shared: Arc<Shared>,
}

impl Lab {
    /// Builds the network. Labs whose owner was killed are removed first.
    pub fn new() -> Result<Self> {
        if !nix::unistd::geteuid().is_root() {
            bail!("the lab needs root: it makes network namespaces, bridges and raw sockets");
        }
        let switch = NetNs::create("switch")?;
        let dir = cleanup::lab_dir()?;
        let initial_net = Arc::new(
            File::open("/proc/self/ns/net").context("cannot open the own network namespace")?,
        );
        let homes = Mutex::new(vec![switch.handles().home]);
        let shared = Arc::new(Shared {
            dir,
            switch,
            initial_net,
            homes,
        });
        let weak = Arc::downgrade(&shared);
        cleanup::register(weak);
        // The switch takes part in nothing: no address, no spanning tree, multicast to all ports.
        shared
            .switch
            .run(|| fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").ok())?;
        ip(
            &shared.switch,
            &[
                &format!(
                    "link add {BRIDGE} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
                ),
                &format!("link set {BRIDGE} up"),
                &format!(
                    "link add {APART} type bridge forward_delay 0 stp_state 0 mcast_snooping 0"
                ),
                &format!("link set {APART} up"),
            ],
        )?;
        shared
            .switch
            .run(|| fs::write("/proc/sys/net/bridge/bridge-nf-call-iptables", "0").ok())?;
        let host = |name, last| Host::create(&shared, name, Ipv4Addr::new(192, 168, 1, last));
        Ok(Self {
            servers: SERVERS
                .into_iter()
                .map(|(name, last)| host(name, last))
                .collect::<Result<_>>()?,
            client: host("client", 20)?,
            observer: host("observer", 21)?,
            shared,
        })
    }

    /// server1 and server2.
    pub fn gateways(&self) -> [&Host; 2] {
        [&self.servers[0], &self.servers[1]]
    }

    /// server1, which holds [`VIP_SERVER1`] while all is well.
    pub fn server1(&self) -> &Host {
        &self.servers[0]
    }

    /// server2, which holds [`VIP_SERVER2`] while all is well.
    pub fn server2(&self) -> &Host {
        &self.servers[1]
    }

    /// server3 to server5, and server6 which is there for the backend added later.
    pub fn backends(&self) -> &[Host] {
        &self.servers[2..]
    }

    /// Where the probes run.
    pub fn client(&self) -> &Host {
        &self.client
    }

    /// Where ARP is watched from.
    pub fn observer(&self) -> &Host {
        &self.observer
    }

    /// Plugs another host into the switch, 192.168.1.`last`. It goes when it is dropped, or with the lab.
    pub fn add_host(&self, name: &'static str, last: u8) -> Result<Host> {
        Host::create(&self.shared, name, Ipv4Addr::new(192, 168, 1, last))
    }

    /// Runs `job` in the switch, where all that the hosts send can be heard on [`BRIDGE`].
    pub(crate) fn on_switch<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        self.shared.switch.run(job)
    }

    /// The lab's directory, with one directory for each host in it.
    pub fn dir(&self) -> &Path {
        &self.shared.dir
    }

    /// The gateways that hold `address` now.
    pub fn holders(&self, address: impl Into<IpAddr>) -> Result<Vec<&'static str>> {
        let address = address.into();
        let mut holders = Vec::new();
        for host in self.gateways() {
            if host.holds(address)? {
                holders.push(host.name());
            }
        }
        Ok(holders)
    }
}

/// Runs lines of `ip` in a namespace as one batch.
fn ip(ns: &NetNs, lines: &[&str]) -> Result<()> {
    let text = lines.join("\n");
    let input = text.clone();
    let output = ns.run(move || {
        let mut child = Command::new("ip")
            .args(["-batch", "-"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .context("cannot run ip (package iproute2)")?;
        if let Some(mut stdin) = child.stdin.take() {
            stdin.write_all(input.as_bytes())?;
        }
        child.wait_with_output().context("cannot wait for ip")
    })??;
    if !output.status.success() {
        bail!(
            "ip: {} ({text})",
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(())
}
