//! Debian's keepalived as the peer.

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Result, bail};
use e2e::lab::{Host, INTERFACE, Process};
use e2e::testing::{Cluster, Gateway, SETTLE};
use e2e::tools;
use nix::sys::signal::Signal;

use crate::group::{Group, VRID};
use crate::peer::{Peer, Role};

/// keepalived at work on server2.
#[derive(Debug)]
pub(crate) struct Keepalived {
    process: Process,
}

impl Peer for Keepalived {
    const NAME: &'static str = "keepalived";

    fn start(cluster: &Cluster, group: Group) -> Result<Self> {
        let host = cluster.host(Gateway::Two);
        let file = host.dir().join("keepalived.conf");
        let addresses = group.addresses.iter();
        let addresses: Vec<_> = addresses.map(|it| format!("        {it}\n")).collect();
        let more = group.instance.iter();
        let more: Vec<_> = more.map(|line| format!("    {line}\n")).collect();
        let text = format!(
            "global_defs {{\n    router_id server2\n    vrrp_version {}\n}}\nvrrp_instance shared {{\n    state BACKUP\n    \
             interface {INTERFACE}\n    virtual_router_id {VRID}\n    priority {}\n    advert_int {}\n    \
             virtual_ipaddress {{\n{}    }}\n{}}}\n",
            group.version,
            group.peer,
            group.interval().as_secs_f32(),
            addresses.concat(),
            more.concat(),
        );
        fs::write(&file, text)?;
        drop(fs::remove_file(host.dir().join("keepalived.log")));
        for pid_file in ["keepalived.pid", "vrrp.pid"] {
            drop(fs::remove_file(host.dir().join(pid_file)));
        }
        let mut command = Command::new(tools::need("keepalived", "keepalived")?);
        command
            .args([
                "--dont-fork",
                "--log-console",
                "--log-detail",
                "--vrrp",
                "--use-file",
            ])
            .arg(file);
        command
            .arg("--pid")
            .arg(host.dir().join("keepalived.pid"))
            .arg("--vrrp_pid")
            .arg(host.dir().join("vrrp.pid"));
        Ok(Self {
            process: host.spawn("keepalived", command)?,
        })
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.process.log())?)
    }

    fn process(&self) -> &Process {
        &self.process
    }

    fn entered(&self, role: Role) -> Result<usize> {
        let told = match role {
            Role::Active => "Entering MASTER STATE",
            Role::Backup => "Entering BACKUP STATE",
        };
        Ok(self.log()?.matches(told).count())
    }

    fn source(host: &Host, group: Group) -> IpAddr {
        let lines = group.instance.iter();
        let mut named = lines.filter_map(|line| line.strip_prefix("unicast_src_ip ")?.parse().ok());
        named.next().unwrap_or_else(|| group.primary(host))
    }

    fn stop(self) -> Result<String> {
        self.process.signal(Signal::SIGTERM)?;
        self.process.wait(SETTLE)?;
        self.log()
    }

    fn content(log: &str) -> Result<()> {
        let complaints = [
            "nvalid",
            "mismatch",
            "ismatch",
            "ignor",
            "dropp",
            "nexpected",
            "not match",
            "bad ",
        ];
        let complaint = log
            .lines()
            .find(|line| complaints.iter().any(|word| line.contains(word)));
        complaint.map_or(Ok(()), |line| bail!("keepalived complains: {line}"))
    }
}
