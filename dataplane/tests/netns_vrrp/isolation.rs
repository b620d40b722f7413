//! A host that is cut off behind a link that stays up gives its address up, and takes part again when it hears
//! anybody; one whose gateway answers, or whose peer does, keeps it.

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use dataplane::{ipc::Router, sys::resolution::ResolutionSocket};
use node_api::{
    RouterReport,
    RouterState::{Active, Backup, Initialize},
};
use vrrp::{
    Cause,
    wire::{Arp, Neighbour, arp::Operation, neighbour::Kind},
};

use crate::{
    ADDRESS,
    lab::{Host, Lab},
    node::{LONG, Node, eventually, router},
};

/// Within one timeout four questions are asked.
const TIMEOUT: Duration = Duration::from_secs(1);
const MORE_THAN_A_TIMEOUT: usize = 8;

fn watchful(address: &str, priority: u8) -> Router {
    let mut router = router(address, priority);
    router.tracking.isolation_timeout = TIMEOUT;
    router
}

/// Gives the switch an address, for which it answers on the bridge alone, and the hosts a way out over it.
fn gateway(lab: &Lab) {
    let ignore = "/proc/sys/net/ipv4/conf/all/arp_ignore";
    lab.switch.run(move || std::fs::write(ignore, "1").unwrap());
    lab.switch.ip("addr add 192.168.1.254/24 dev br0");
    for host in &lab.hosts {
        host.ip("route add default via 192.168.1.254 dev eth0");
    }
}

/// Waits until so many questions about `address` have come to `host`, which answers them or not.
fn asked(host: &Host, interface: &str, address: &str, times: usize) {
    let index = host.ip(&format!("-o link show dev {interface}"));
    let index: u32 = index.split(':').next().unwrap().parse().unwrap();
    let address: IpAddr = address.parse().unwrap();
    host.run(move || {
        let socket = match address {
            IpAddr::V4(_) => ResolutionSocket::arp(index),
            IpAddr::V6(_) => ResolutionSocket::neighbour_discovery(index),
        };
        let (socket, end) = (socket.unwrap(), Instant::now() + LONG);
        let mut seen = 0;
        while seen < times {
            let frame = socket.receive(end).unwrap().expect("too few questions");
            let arp = Arp::parse_frame(&frame).ok();
            let arp = arp.filter(|arp| arp.operation == Operation::Request);
            let discovery = Neighbour::parse_frame(&frame).ok();
            let discovery = discovery.filter(|it| it.kind == Kind::Solicitation);
            let target = arp.map(|it| it.target.into());
            let target: Option<IpAddr> = target.or_else(|| discovery.map(|it| it.target.into()));
            seen += usize::from(target == Some(address));
        }
    });
}

/// How often it gave up.
fn given_up(router: &RouterReport) -> usize {
    let cause = Cause::Isolated.to_string();
    let transitions = router.transitions.iter();
    transitions.filter(|it| it.cause == cause).count()
}

#[test]
fn a_host_that_is_cut_off_gives_up_and_comes_back() {
    let Some(lab) = Lab::start(2) else { return };
    gateway(&lab);
    let mut one = Node::serving(&lab.hosts[0], &[watchful(ADDRESS, 250)]);
    one.wait_state(Active);
    let mut two = Node::serving(&lab.hosts[1], &[watchful(ADDRESS, 235)]);
    two.wait_state(Backup);
    lab.hosts[0].wait_shown(ADDRESS);

    // The other side of the partition has the gateway.
    lab.switch.ip("link set port1 nomaster");
    let report =
        one.wait_router(|it| it.isolated_since_unix_ms.is_some() && it.state == Initialize);
    assert_eq!(given_up(&report), 1, "{report:?}");
    assert_eq!(report.reason, Cause::Isolated.to_string());
    eventually("the address is gone", || {
        lab.hosts[0].shown(ADDRESS).is_empty()
    });
    let warning = "hears neither another router nor its default gateway 192.168.1.254 on eth0";
    let mut warnings = one.report.warnings.iter();
    assert!(warnings.any(|it| it.contains(warning)), "{:?}", one.report);
    two.wait_state(Active);

    lab.switch.ip("link set port1 master br0");
    let report = one.wait_state(Active);
    assert_eq!(report.isolated_since_unix_ms, None);
    assert!(one.report.warnings.is_empty(), "{:?}", one.report);
    let report = two.wait_state(Backup);
    assert_eq!(given_up(&report), 0);
}

#[test]
fn a_host_alone_keeps_the_address_while_its_gateway_answers() {
    let Some(lab) = Lab::start(1) else { return };
    gateway(&lab);
    let mut node = Node::serving(&lab.hosts[0], &[watchful(ADDRESS, 250)]);
    node.wait_state(Active);
    asked(&lab.switch, "br0", "192.168.1.254", MORE_THAN_A_TIMEOUT);
    let report = node.wait_state(Active);
    assert_eq!(given_up(&report), 0, "{report:?}");
    // The gateway goes, and the network with it, as far as this host can tell.
    lab.switch.ip("addr del 192.168.1.254/24 dev br0");
    node.wait_router(|it| given_up(it) == 1);
    lab.switch.ip("addr add 192.168.1.254/24 dev br0");
    node.wait_state(Active);
}

#[test]
fn a_gateway_of_ipv6_is_asked_as_well() {
    let Some(lab) = Lab::start(1) else { return };
    lab.switch.run(|| {
        for (name, value) in [("accept_dad", "0"), ("disable_ipv6", "0")] {
            std::fs::write(format!("/proc/sys/net/ipv6/conf/br0/{name}"), value).unwrap();
        }
    });
    lab.switch.ip("addr add fe80::fe/64 dev br0 nodad");
    lab.hosts[0].ip("-6 route add default via fe80::fe dev eth0");
    let mut node = Node::serving(&lab.hosts[0], &[watchful("fd00:1::110", 250)]);
    node.wait_state(Active);
    asked(&lab.switch, "br0", "fe80::fe", MORE_THAN_A_TIMEOUT);
    let report = node.wait_state(Active);
    assert_eq!(given_up(&report), 0, "{report:?}");
    lab.switch.ip("link set port1 nomaster");
    node.wait_router(|it| it.state == Initialize && it.isolated_since_unix_ms.is_some());
    lab.switch.ip("link set port1 master br0");
    node.wait_state(Active);
}

/// Nobody has the default gateway's address: hosts that find each other do not give up in turn.
#[test]
fn a_dead_gateway_moves_an_address_once_at_most() {
    let Some(lab) = Lab::start(2) else { return };
    gateway(&lab);
    lab.switch.ip("addr del 192.168.1.254/24 dev br0");
    let mut one = Node::serving(&lab.hosts[0], &[watchful(ADDRESS, 250)]);
    one.wait_state(Active);
    let mut two = Node::serving(&lab.hosts[1], &[watchful(ADDRESS, 235)]);
    one.wait_router(|it| given_up(it) == 1);
    one.wait_state(Active);
    asked(&lab.hosts[1], "eth0", "192.168.1.2", MORE_THAN_A_TIMEOUT);
    let report = one.wait_state(Active);
    assert_eq!(given_up(&report), 1, "{report:?}");
    let report = two.wait_state(Backup);
    assert_eq!(given_up(&report), 0, "{report:?}");
}

#[test]
fn without_a_default_gateway_nothing_follows_from_silence() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[watchful(ADDRESS, 250)]);
    node.wait_state(Active);
    let warning = "it has no default gateway of this family on eth0";
    node.wait_routers(|_| true);
    let end = Instant::now() + LONG;
    while !node.report.warnings.iter().any(|it| it.contains(warning)) {
        assert!(Instant::now() < end, "{:?}", node.report);
        node.wait_routers(|_| true);
    }
    assert_eq!(node.report.routers[0].state, Active);
}
