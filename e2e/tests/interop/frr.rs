//! Debian's FRR as the peer: zebra and vrrpd, in the network namespace of server2.
//!
//! FRR makes no interface. It looks for one on top of the right one that has the virtual router's MAC address, and
//! finds the addresses there: on a Backup the kernel keeps that interface without carrier ("protodown").

use std::fs;
use std::net::IpAddr;
use std::process::Command;

use anyhow::{Result, bail, ensure};
use e2e::lab::{Host, INTERFACE, MacAddr, Process};
use e2e::testing::{Cluster, Gateway, SETTLE};
use e2e::{tools, wait};
use nix::sys::signal::Signal;

use crate::group::{Group, V4, V6, V6_ALONE, VRID};
use crate::peer::{Peer, Role};
use crate::roles;

/// The interface with the virtual MAC address.
const MACVLAN: &str = "vrrp";
/// Sockets and pid files: the host's own `/run`, as FRR's user must be able to write there.
const RUN: &str = "/run/frr";

/// zebra and vrrpd at work on server2.
#[derive(Debug)]
pub(crate) struct Frr {
    vrrpd: Process,
    zebra: Process,
}

/// RFC 9568 section 7.3.
fn virtual_mac(group: Group) -> MacAddr {
    let family = if group.shared().is_ipv4() { 1 } else { 2 };
    MacAddr([0, 0, 0x5e, 0, family, VRID])
}

/// The interface, with nothing but its link-local address; whatever a former start left is gone.
fn interface(host: &Host, group: Group) -> Result<()> {
    if !host.ip("link show type macvlan")?.is_empty() {
        host.ip(&format!("link del {MACVLAN}"))?;
    }
    let mac = virtual_mac(group);
    host.ip(&format!(
        "link add {MACVLAN} link {INTERFACE} address {mac} type macvlan mode bridge"
    ))?;
    host.ip(&format!("link set {MACVLAN} up"))?;
    if group.shared().is_ipv6() {
        // FRR advertises from the first address that it finds: that must be the link-local one.
        let link_local = mac.link_local();
        wait::until("a link-local address of FRR's interface", SETTLE, || {
            let shown = host.ip(&format!("-6 addr show dev {MACVLAN} to {link_local}"))?;
            let is_usable = !shown.is_empty() && !shown.contains("tentative");
            Ok(is_usable.then_some(()))
        })?;
    }
    Ok(())
}

/// Runs a line of shell on the host.
fn shell(host: &Host, line: &str) -> Result<()> {
    let mut command = Command::new("sh");
    command.args(["-c", line]);
    let output = host.output(command)?;
    ensure!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(())
}

/// Starts one of FRR's daemons, with a log of its own.
fn daemon(host: &Host, name: &str, program: &str, configuration: &str) -> Result<Process> {
    let file = host.dir().join(format!("{name}.conf"));
    fs::write(&file, configuration)?;
    drop(fs::remove_file(host.dir().join(format!("{name}.log"))));
    let mut command = Command::new(program);
    command.arg("--config_file").arg(file);
    command.args(["--pid_file", &format!("{RUN}/{name}.pid")]);
    command.args(["--socket", &format!("{RUN}/zserv.api")]);
    command.args(["--vty_socket", RUN, "--vty_port", "0"]);
    command.args(["--log", "stdout", "--log-level", "debug"]);
    host.spawn(name, command)
}

impl Peer for Frr {
    const NAME: &'static str = "FRR";
    const HOLDERS: &'static [&'static str] = &[];

    fn start(cluster: &Cluster, group: Group) -> Result<Self> {
        let host = cluster.host(Gateway::Two);
        // What daemons that are killed leave in /var/tmp goes with the host, too. And the kernel answers for every
        // address of the host on every interface, where it is not told otherwise: also for that of a Backup.
        shell(
            host,
            &format!(
                "mkdir -p {RUN} && chown frr:frr {RUN} && mount -t tmpfs frr /var/tmp && \
                 echo 1 >/proc/sys/net/ipv4/conf/{INTERFACE}/arp_ignore"
            ),
        )?;
        interface(host, group)?;
        let zebra = daemon(host, "zebra", tools::ZEBRA, "")?;
        let socket = format!("test -S {RUN}/zserv.api");
        wait::until("zebra to listen", SETTLE, || {
            ensure!(zebra.is_running(), "zebra ended: {}", zebra.log_tail());
            Ok(shell(host, &socket).ok())
        })?;
        let addresses = group.addresses.iter();
        let addresses = addresses.map(|address| match address {
            IpAddr::V4(address) => format!(" vrrp {VRID} ip {address}\n"),
            IpAddr::V6(address) => format!(" vrrp {VRID} ipv6 {address}\n"),
        });
        let configuration = format!(
            "debug vrrp protocol\ndebug vrrp packets\ninterface {INTERFACE}\n vrrp {VRID} version {}\n vrrp {VRID} \
             priority {}\n vrrp {VRID} advertisement-interval {}\n{}",
            group.version,
            group.peer,
            group.interval().as_millis(),
            addresses.collect::<String>(),
        );
        let vrrpd = daemon(host, "vrrpd", tools::VRRPD, &configuration)?;
        let started = Self { vrrpd, zebra };
        started.wait_entered(Role::Backup, 1)?;
        for address in group.addresses {
            let words = match address {
                IpAddr::V4(address) => format!("addr add {address}/32 dev {MACVLAN}"),
                IpAddr::V6(address) => format!("addr add {address}/128 dev {MACVLAN} nodad"),
            };
            host.ip(&words)?;
        }
        Ok(started)
    }

    fn process(&self) -> &Process {
        &self.vrrpd
    }

    fn log(&self) -> Result<String> {
        Ok(fs::read_to_string(self.vrrpd.log())?)
    }

    fn entered(&self, role: Role) -> Result<usize> {
        let told = match role {
            Role::Active => "-> Master",
            Role::Backup => "-> Backup",
        };
        Ok(self.log()?.matches(told).count())
    }

    fn stop(self) -> Result<String> {
        for process in [&self.vrrpd, &self.zebra] {
            process.signal(Signal::SIGTERM)?;
            process.wait(SETTLE)?;
        }
        self.log()
    }

    fn content(log: &str) -> Result<()> {
        let mut lines = log.lines();
        let complaint = lines.find(|line| {
            line.contains("datagram invalid") || line.contains("but this VRRP instance has")
        });
        complaint.map_or(Ok(()), |line| bail!("FRR complains: {line}"))
    }

    fn source(host: &Host, group: Group) -> IpAddr {
        if group.shared().is_ipv4() {
            host.address().into()
        } else {
            virtual_mac(group).link_local().into()
        }
    }

    fn mac(_host: &Host, group: Group) -> MacAddr {
        virtual_mac(group)
    }
}

#[test]
#[ignore = "make nightly"]
fn version_2_with_wsha_active() -> Result<()> {
    roles::wsha_active_beside::<Frr>("frr::version_2_with_wsha_active", Group::of(2, V4))
}

#[test]
#[ignore = "make nightly"]
fn version_2_with_frr_active() -> Result<()> {
    roles::wsha_backup_behind::<Frr>("frr::version_2_with_frr_active", Group::of(2, V4))
}

#[test]
fn version_3_with_wsha_active() -> Result<()> {
    roles::wsha_active_beside::<Frr>("frr::version_3_with_wsha_active", Group::of(3, V4))
}

#[test]
fn version_3_with_frr_active() -> Result<()> {
    roles::wsha_backup_behind::<Frr>("frr::version_3_with_frr_active", Group::of(3, V4))
}

#[test]
#[ignore = "make nightly"]
fn ipv6_with_wsha_active() -> Result<()> {
    roles::wsha_active_beside::<Frr>("frr::ipv6_with_wsha_active", Group::of(3, V6))
}

#[test]
fn ipv6_with_frr_active() -> Result<()> {
    roles::wsha_backup_behind::<Frr>("frr::ipv6_with_frr_active", Group::of(3, V6))
}

#[test]
#[ignore = "make nightly"]
fn ipv6_without_a_link_local_address_with_frr_active() -> Result<()> {
    roles::wsha_backup_behind::<Frr>(
        "frr::ipv6_without_a_link_local_address_with_frr_active",
        Group::of(3, V6_ALONE),
    )
}
