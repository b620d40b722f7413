//! Somebody else answers for an address that is held (RFC 5227, RFC 4861).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use dataplane::{
    ipc::Router,
    sys::{raw::AdvertisementSocket, resolution::ResolutionSocket},
};
use node_api::{AddressConflict, RouterReport, RouterState::Active};
use vrrp::{
    Advertisement, Authentication, Centiseconds, Family, Priority, Version, Vrid,
    wire::{self, AddressList, ChecksumReading, Ends, Mac, resolution},
};

use crate::{
    ADDRESS, ADDRESS_V6,
    lab::{Host, Lab},
    node::{Node, router},
    wire::{Ear, Heard},
};

fn is_told(router: &RouterReport) -> bool {
    router.state == Active && !router.conflicts.is_empty()
}

fn the_only_one(report: &RouterReport) -> &AddressConflict {
    let [conflict] = &report.conflicts[..] else {
        panic!("{:?}", report.conflicts);
    };
    assert_eq!(conflict.address, report.addresses[0]);
    conflict
}

/// A host that has had the address all the time: the takeover waits for nothing, and people are told.
#[test]
fn a_stranger_with_the_address_is_told_of_and_taken_over_from() {
    stranger(ADDRESS);
}

#[test]
fn a_stranger_with_an_address_of_ipv6_is_told_of_and_taken_over_from() {
    stranger(ADDRESS_V6);
}

fn stranger(address: &str) {
    let Some(lab) = Lab::start(2) else { return };
    lab.hosts[1].ip(&format!("addr add {address} dev eth0"));
    let mut node = Node::serving(&lab.hosts[0], &[router(address, 250)]);
    let mac = lab.hosts[0].mac();
    let risen = node.wait_state(Active);
    assert_eq!(risen.transitions.len(), 2, "{:?}", risen.transitions);
    let mut ear = Ear::on(&lab.hosts[1]);
    let report = node.wait_router(is_told);
    let conflict = the_only_one(&report);
    let stranger = lab.hosts[1].mac().to_string();
    assert_eq!(conflict.hardware_address, stranger);
    assert_eq!(conflict.own_interface, None);
    assert_eq!(report.transitions.len(), 2, "it stays Active");
    let told = |warning: &String| warning.contains(&stranger);
    assert!(
        node.report.warnings.iter().any(told),
        "{:?}",
        node.report.warnings
    );
    // The address stays, and is announced again for as long as the other one answers: more often than
    // the schedule of a takeover and the refresh would.
    let announced = Heard::Announcement {
        address: address.parse().unwrap(),
        mac,
    };
    ear.wait(|heard| *heard == announced);
    assert!(!lab.hosts[0].shown(address).is_empty());
    // Once it is gone, so is the complaint.
    lab.hosts[1].ip(&format!("addr del {address} dev eth0"));
    let report = node.wait_router(|router| router.conflicts.is_empty());
    assert_eq!(report.transitions.len(), 2);
    assert!(!node.report.warnings.iter().any(told));
}

/// A router that hears nobody claims the address, and announces it several times while it rises. The true
/// Active hears it, and has the last word each time: more often than it announces by itself in that time.
#[test]
fn who_hears_nobody_is_contradicted_each_time() {
    contradicted(ADDRESS);
}

#[test]
fn who_hears_nobody_is_contradicted_each_time_on_ipv6() {
    contradicted(ADDRESS_V6);
}

fn contradicted(address: &'static str) {
    let Some(lab) = Lab::start(2) else { return };
    let (home, deaf) = (&lab.hosts[0], &lab.hosts[1]);
    let routers = [router(address, 250)];
    let mut node = Node::serving(home, &routers);
    node.wait_state(Active);
    home.wait_shown(address);
    let mut ear = Ear::on(deaf);
    let vrid = routers[0].settings.virtual_router_id;
    let source = source(deaf, address);
    let (own, mac) = (deaf.mac(), home.mac());
    let socket = deaf.run(move || claim_to_be_active(address, source, vrid));
    let announces =
        |heard: &Heard, who: Mac| matches!(heard, Heard::Announcement { mac, .. } if *mac == who);
    let began = Instant::now();
    ear.wait(|heard| announces(heard, mac));
    let mut frame = [0; resolution::FRAME_LEN];
    let length = resolution::announcement(&mut frame, own, address.parse().unwrap()).unwrap();
    // In five seconds the schedule of one that was contested has six.
    for _ in 0..12 {
        socket.send(&frame[..length]).unwrap();
        // The claim itself is heard here, too: what comes after it is the answer.
        ear.wait(|heard| announces(heard, own));
        ear.wait(|heard| announces(heard, mac));
    }
    assert!(
        began.elapsed() < Duration::from_secs(5),
        "too slow to tell: {:?}",
        began.elapsed()
    );
    let report = node.wait_state(Active);
    assert_eq!(report.transitions.len(), 2, "{:?}", report.transitions);
}

/// The address that advertisements of `host` are from.
fn source(host: &Host, address: &str) -> IpAddr {
    let shown = if address.contains(':') {
        host.ip("-6 -o addr show dev eth0 scope link")
    } else {
        host.ip("-4 -o addr show dev eth0")
    };
    let words = shown.split_whitespace().nth(3).unwrap();
    words.split('/').next().unwrap().parse().unwrap()
}

/// Advertises as a router of lower priority, once; what it returns speaks of addresses.
fn claim_to_be_active(address: &str, source: IpAddr, vrid: u8) -> ResolutionSocket {
    let index = nix::net::if_::if_nametoindex("eth0").unwrap();
    let addresses = [address.parse().unwrap()];
    let group = wire::group(Family::of(source));
    let word = Advertisement {
        version: Version::V3,
        vrid: Vrid::new(vrid).unwrap(),
        priority: Priority::new(235),
        interval: Centiseconds::new(10).unwrap(),
        authentication: Authentication::None,
        addresses: AddressList::from_slice(&addresses),
    };
    let mut packet = [0; 128];
    let (ends, reading) = (Ends::to_group(source), ChecksumReading::WithPseudoHeader);
    let length = wire::emit(&mut packet, ends, 1, &word, reading).unwrap();
    let speaker = AdvertisementSocket::open(index, "eth0", wire::PROTOCOL, group).unwrap();
    speaker.send(&packet[..length], group).unwrap();
    if source.is_ipv4() {
        ResolutionSocket::arp(index).unwrap()
    } else {
        ResolutionSocket::neighbour_discovery(index).unwrap()
    }
}

/// The host that had the address before answers until its lease ends: that is no stranger.
#[test]
fn the_host_before_is_no_stranger() {
    let Some(lab) = Lab::start(2) else { return };
    let mut a = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    a.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    b.wait_router(|router| !router.peers.is_empty());
    a.kill();
    b.wait_state(Active);
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty(), "its lease");
    let risen = Instant::now();
    b.wait_router(|router| {
        assert_eq!(router.conflicts, []);
        risen.elapsed() > Duration::from_secs(6)
    });
    assert!(lab.hosts[0].shown(ADDRESS).is_empty());
}

/// A host with a second interface on the segment, `eth1`.
fn with_two_interfaces() -> Option<Lab> {
    let lab = Lab::start(1)?;
    let host = &lab.hosts[0];
    let tid = host.tid;
    lab.switch.ip(&format!(
        "link add second type veth peer name eth1 netns {tid}"
    ));
    lab.switch.ip("link set second master br0 up");
    host.ip("link set eth1 up");
    Some(lab)
}

fn on_eth0(address: &str) -> Router {
    let mut wanted = router(address, 250);
    wanted.settings.interface = Some("eth0".to_owned());
    wanted
}

/// Linux answers on every interface for every IPv4 address of the host. The host's settings are left
/// alone.
#[test]
fn another_interface_of_the_host_on_the_segment_is_told_of() {
    let Some(lab) = with_two_interfaces() else {
        return;
    };
    let host = &lab.hosts[0];
    let mut node = Node::serving(host, &[on_eth0(ADDRESS)]);
    let report = node.wait_router(is_told);
    let conflict = the_only_one(&report);
    assert_eq!(conflict.own_interface.as_deref(), Some("eth1"));
    let told = |warning: &String| warning.contains("arp_ignore");
    assert!(
        node.report.warnings.iter().any(told),
        "{:?}",
        node.report.warnings
    );
    let setting = "/proc/sys/net/ipv4/conf/eth1/arp_ignore";
    let setting = host.run(move || std::fs::read_to_string(setting));
    assert_eq!(setting.unwrap().trim(), "0");
}

/// For IPv6 it answers on those interfaces alone that have the address.
#[test]
fn another_interface_of_the_host_with_the_address_of_ipv6_is_told_of() {
    let Some(lab) = with_two_interfaces() else {
        return;
    };
    let host = &lab.hosts[0];
    let mut node = Node::serving(host, &[on_eth0(ADDRESS_V6)]);
    node.wait_state(Active);
    host.ip(&format!("addr add {ADDRESS_V6} dev eth1"));
    let report = node.wait_router(is_told);
    let conflict = the_only_one(&report);
    assert_eq!(conflict.own_interface.as_deref(), Some("eth1"));
    let told = |warning: &String| warning.contains("take it from eth1");
    assert!(
        node.report.warnings.iter().any(told),
        "{:?}",
        node.report.warnings
    );
}
