//! `doctor` on a host of its own, with a neighbour.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

#[allow(dead_code, reason = "shared with the tests of the agent")]
#[path = "../agent_process/host.rs"]
mod host;

use std::process::{Child, Command};

use host::{Host, eventually, manifests};
use node_api::RouterState;

fn run(words: &str) {
    let mut words = words.split(' ');
    let status = Command::new(words.next().unwrap()).args(words).status();
    assert!(status.unwrap().success());
}

/// What it prints.
fn doctor(host: &Host) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wsha-dataplane"));
    command
        .args(["doctor", "--state-dir"])
        .arg(host.at("state"));
    let output = command.output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.success(), !said.contains("PROBLEM"), "{said}");
    said
}

/// A host at the other end of the link; ended when dropped.
struct Neighbour(Child);

impl Neighbour {
    fn new() -> Self {
        let own = std::fs::read_link("/proc/thread-self/ns/net").unwrap();
        let process = Command::new("unshare")
            .args(["--net", "sleep", "infinity"])
            .spawn();
        let neighbour = Self(process.unwrap());
        let pid = neighbour.0.id();
        eventually("a network namespace", || {
            let theirs = std::fs::read_link(format!("/proc/{pid}/ns/net"));
            theirs.is_ok_and(|theirs| theirs != own)
        });
        run(&format!("ip link set peer0 netns {pid}"));
        neighbour.run("ip link set peer0 up");
        neighbour
    }

    fn run(&self, words: &str) {
        run(&format!("nsenter --net --target {} {words}", self.0.id()));
    }
}

impl Drop for Neighbour {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

#[test]
fn it_finds_what_costs_addresses_and_clients() {
    let Some(host) = Host::new() else { return };
    let said = doctor(&host);
    assert!(said.contains("PROBLEM  agent: no agent ever ran"), "{said}");

    run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0");
    let neighbour = Neighbour::new();
    neighbour.run("sysctl -qw net.ipv6.conf.all.disable_ipv6=0");
    // The other interface that comes later would do as well.
    let on_eth0 = manifests(&["server1", "server2"], &[8020]);
    let on_eth0 = on_eth0.replace("gateways: {", "gateways: {interface: eth0, ");
    run("ip addr add fd00:7::11/64 dev eth0 nodad");
    host.write(&on_eth0.replace(
        "{address: 192.168.7.110}",
        "{address: 192.168.7.110}, {address: 'fd00:7::110'}",
    ));
    let _agent = host.start(&[]);
    host.wait_ready();
    host.wait_status("all Active", |report| {
        let mut routers = report.virtual_routers.iter();
        routers.len() == 2 && routers.all(|router| router.state == RouterState::Active)
    });
    let said = doctor(&host);
    for words in [
        "ok       rights: ",
        "ok       kernel: Linux ",
        " real-time priority: ",
        " locked memory: ",
        "ok       listeners: 2 accept",
        "unknown  virtual router 110 (192.168.7.110): Active here, its advertisements leave eth0, and \
         nobody else advertises; whether the others hear it cannot be told from here: run this on server2",
        "ok       reverse-path filter of eth0: ",
        "ok       ARP on the segment of eth0: no other interface",
        "ok       address 192.168.7.110: held here, and nobody else answers for it",
        "ok       address fd00:7::110: held here, and nobody else answers for it",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }

    // Packet filters have no say in what is seen.
    if Command::new("nft").arg("--version").output().is_err() {
        eprintln!("SKIPPED in part: needs nft");
        return;
    }
    run("nft add table inet doctor");
    run("nft add chain inet doctor out { type filter hook output priority 0 ; }");
    run("nft add rule inet doctor out ip protocol 112 drop");
    let said = doctor(&host);
    let words = "PROBLEM  virtual router 110 (192.168.7.110): Active here, and no advertisement leaves eth0";
    assert!(said.contains(words), "{said}");
    run("nft delete table inet doctor");

    // Another host has the address, another interface is on the segment, and answers leave elsewhere.
    neighbour.run("ip addr add 192.168.7.110/24 dev peer0");
    neighbour.run("ip addr add fd00:7::110/64 dev peer0 nodad");
    run("ip link add eth1 type veth peer name peer1");
    run("ip addr add 192.168.7.12/24 dev eth1");
    run("ip link set eth1 up");
    run("ip link set peer1 up");
    run("ip route add default via 192.168.7.1 dev eth1");
    run("sysctl -qw net.ipv4.conf.eth0.rp_filter=1");
    let said = doctor(&host);
    for words in [
        "PROBLEM  address 192.168.7.110: held here, and ",
        "PROBLEM  address fd00:7::110: held here, and ",
        "PROBLEM  ARP on the segment of eth0: eth1 is on it too",
        "PROBLEM  reverse-path filter of eth0: it is strict",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
    // The remedies help.
    neighbour.run("ip addr del 192.168.7.110/24 dev peer0");
    neighbour.run("ip addr del fd00:7::110/64 dev peer0");
    run("sysctl -qw net.ipv4.conf.all.arp_ignore=1 net.ipv4.conf.all.arp_announce=2");
    run("sysctl -qw net.ipv4.conf.all.rp_filter=0 net.ipv4.conf.eth0.rp_filter=2");
    let said = doctor(&host);
    for subject in ["address", "ARP", "reverse-path"] {
        assert!(!said.contains(&format!("PROBLEM  {subject}")), "{said}");
    }
}

/// What leaves from the virtual router's own hardware address leaves its interface, too.
#[test]
fn it_understands_a_hardware_address_of_the_virtual_routers_own() {
    let Some(host) = Host::new() else { return };
    let _neighbour = Neighbour::new();
    let text = manifests(&["server1", "server2"], &[8020]);
    let own = "  vrrp: {macAddress: {mode: VirtualRouter}}\n  upstreams: [";
    host.write(&text.replace("  upstreams: [", own));
    let _agent = host.start(&[]);
    host.wait_ready();
    host.wait_status("Active", |report| {
        let router = report.virtual_routers.first();
        router.is_some_and(|router| router.state == RouterState::Active)
    });
    let said = doctor(&host);
    for words in [
        "Active here, its advertisements leave eth0, and nobody else advertises",
        "ok       ARP on the segment of eth0: no other interface",
        "ok       address 192.168.7.110: held here, and nobody else answers for it",
    ] {
        assert!(said.contains(words), "{words}: {said}");
    }
}
