//! Virtual routers whose advertisements go to each peer by itself.

use std::{net::IpAddr, time::Instant};

use dataplane::{ipc::Router, metrics::Metric, sys::raw::AdvertisementSocket};
use node_api::{
    Password, Peering,
    RouterState::{Active, Backup, Initialize},
    VrrpVersion,
};
use vrrp::{
    Authentication, Centiseconds, Family, Priority, Version, Vrid,
    wire::{self, AddressList, Advertisement, ChecksumReading, Ends, GROUP_V4, GROUP_V6},
};

use crate::{
    ADDRESS,
    lab::{Host, Lab},
    node::{LONG, Node, eventually, router},
    wire::{Ear, Heard},
};

const ADDRESS_V6: &str = "fd00:1::110";
const BOTH: [(&str, [&str; 3]); 2] = [
    (ADDRESS, ["192.168.1.1", "192.168.1.2", "192.168.1.3"]),
    (ADDRESS_V6, ["fd00:1::1", "fd00:1::2", "fd00:1::3"]),
];

fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn unicast(address: &str, priority: u8, peers: &[&str]) -> Router {
    let mut router = router(address, priority);
    router.settings.peering = Peering::Unicast {
        addresses: peers.iter().map(|peer| ip(peer)).collect(),
    };
    router
}

/// Sum of what the node counts.
fn count(node: &mut Node, metric: Metric, reason: Option<&str>) -> u64 {
    node.wait_routers(|_| true);
    let samples = node.report.samples.iter();
    let samples = samples.filter(|sample| sample.metric == metric);
    let of_reason = samples.filter(|sample| {
        reason.is_none_or(|reason| sample.labels.iter().any(|(_, value)| value == reason))
    });
    let sum: f64 = of_reason.map(|sample| sample.value).sum();
    format!("{sum}").parse().expect("whole packets")
}

fn discarded(node: &mut Node, reason: &str) -> u64 {
    count(node, Metric::VrrpDiscardedAdvertisements, Some(reason))
}

/// A packet as the host with `source` would send it.
struct Forged<'a> {
    source: &'a str,
    destination: IpAddr,
    address: &'a str,
    priority: u8,
    ttl: u8,
}

impl Forged<'_> {
    fn send(&self, from: &Host) {
        let addresses = [ip(self.address)];
        let family = Family::of(addresses[0]);
        let (vrid, ttl_at) = match family {
            Family::V4 => (110, 8),
            Family::V6 => (16, 7),
        };
        let advertisement = Advertisement {
            version: Version::V3,
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority::new(self.priority),
            interval: Centiseconds::new(10).unwrap(),
            authentication: Authentication::None,
            addresses: AddressList::from_slice(&addresses),
        };
        let ends = Ends::between(ip(self.source), self.destination).unwrap();
        let mut buffer = [0; 128];
        let reading = ChecksumReading::WithPseudoHeader;
        let length = wire::emit(&mut buffer, ends, 1, &advertisement, reading).unwrap();
        // The kernel makes the header's checksum anew.
        buffer[ttl_at] = self.ttl;
        let packet = buffer[..length].to_vec();
        let destination = self.destination;
        from.run(move || {
            let index = nix::net::if_::if_nametoindex("eth0").unwrap();
            let group = wire::group(family);
            let socket = AdvertisementSocket::open(index, "eth0", wire::PROTOCOL, group).unwrap();
            socket.send(&packet, destination).unwrap();
        });
    }
}

/// Three hosts, of which one after the other dies; nothing goes to the group.
#[test]
fn peers_take_over_from_each_other() {
    let Some(lab) = Lab::start(4) else { return };
    for (address, peers) in BOTH {
        let mut ear = Ear::on(&lab.hosts[3]);
        let mut nodes: Vec<Node> = [250, 235, 220]
            .into_iter()
            .zip(&lab.hosts)
            .map(|(priority, host)| Node::serving(host, &[unicast(address, priority, &peers)]))
            .collect();
        let [one, two, three] = &mut nodes[..] else {
            unreachable!()
        };
        one.wait_state(Active);
        for node in [&mut *two, three] {
            let report = node.wait_router(|it| it.state == Backup && !it.peers.is_empty());
            assert_eq!(report.peers[0].address, ip(peers[0]));
            assert_eq!(report.peers[0].priority, 250);
        }
        // The host of a process that was killed says that nobody speaks the protocol there: no reason
        // to believe that nothing leaves.
        one.kill();
        two.wait_state(Active);
        three.wait_router(|it| it.peers.iter().any(|peer| peer.address == ip(peers[1])));
        assert_eq!(three.wait_router(|_| true).state, Backup);
        ear.wait_announcement(address, lab.hosts[1].mac());
        eventually("the lease ends", || lab.hosts[0].shown(address).is_empty());
        assert_eq!(count(two, Metric::VrrpAdvertisementsFailed, None), 0);
        assert!(!lab.hosts[1].shown(address).is_empty());
        // An orderly stop says priority 0 to each.
        two.configure(&[]);
        let report = three.wait_state(Active);
        assert!(report.reason.ends_with("left"), "{}", report.reason);
        // It comes back.
        one.restart(&lab.hosts[0]);
        let routers = [unicast(address, 250, &peers)];
        one.pair(&routers);
        one.configure(&routers);
        one.wait_state(Active);
        three.wait_state(Backup);
        eventually("one holder", || lab.hosts[2].shown(address).is_empty());
        let mut heard = ear.wait(|heard| {
            *heard
                == Heard::Announcement {
                    address: ip(address),
                    mac: lab.hosts[0].mac(),
                }
        });
        heard.retain(|heard| matches!(heard, Heard::Advertisement { .. }));
        assert!(heard.is_empty(), "went to the group: {heard:?}");
    }
}

/// RFC 9568 section 7.1, and who is no peer is not heard.
#[test]
fn what_is_not_from_a_peer_is_dropped() {
    let Some(lab) = Lab::start(3) else { return };
    for (address, peers) in BOTH {
        let mut node = Node::serving(&lab.hosts[0], &[unicast(address, 250, &peers[..2])]);
        node.wait_state(Active);
        let group = if ip(address).is_ipv4() {
            GROUP_V4.into()
        } else {
            GROUP_V6.into()
        };
        let good = || Forged {
            source: peers[1],
            destination: ip(peers[0]),
            address,
            priority: 255,
            ttl: 255,
        };
        for (reason, forged, from) in [
            (
                "not_peer",
                Forged {
                    source: peers[2],
                    ..good()
                },
                2,
            ),
            ("ttl", Forged { ttl: 254, ..good() }, 1),
            (
                "destination",
                Forged {
                    destination: group,
                    ..good()
                },
                1,
            ),
            // What is held is an address of the host as well.
            (
                "destination",
                Forged {
                    destination: ip(address),
                    ..good()
                },
                1,
            ),
        ] {
            lab.hosts[0].wait_shown(address);
            let before = discarded(&mut node, reason);
            forged.send(&lab.hosts[from]);
            let end = Instant::now() + LONG;
            while discarded(&mut node, reason) == before {
                assert!(Instant::now() < end, "never discarded: {reason}");
            }
            let report = node.wait_router(|_| true);
            assert_eq!(
                (report.state, report.transitions.len()),
                (Active, 2),
                "{reason}"
            );
        }
        assert_eq!(discarded(&mut node, "checksum"), 0);
        // The same from a peer is heard.
        good().send(&lab.hosts[1]);
        node.wait_router(|it| {
            it.transitions
                .iter()
                .any(|it| it.cause.contains("higher priority"))
        });
    }
}

/// A virtual router by multicast hears no peer, and the other way round.
#[test]
fn multicast_and_unicast_do_not_mix() {
    let Some(lab) = Lab::start(2) else { return };
    let (address, peers) = BOTH[0];
    let mut node = Node::serving(&lab.hosts[0], &[router(address, 250)]);
    node.wait_state(Active);
    Forged {
        source: peers[1],
        destination: ip(peers[0]),
        address,
        priority: 255,
        ttl: 255,
    }
    .send(&lab.hosts[1]);
    let end = Instant::now() + LONG;
    while discarded(&mut node, "destination") == 0 {
        assert!(Instant::now() < end, "never discarded");
    }
    assert_eq!(node.wait_router(|_| true).state, Active);
}

/// Membership changes: the virtual router keeps its state.
#[test]
fn peers_come_and_go_without_a_restart() {
    let Some(lab) = Lab::start(3) else { return };
    for (address, peers) in BOTH {
        let mut one = Node::serving(&lab.hosts[0], &[unicast(address, 250, &peers[..1])]);
        one.wait_state(Active);
        lab.hosts[0].wait_shown(address);
        for known in [2, 3] {
            assert_eq!(
                one.configure(&[unicast(address, 250, &peers[..known])]),
                [""; 0]
            );
            let own = unicast(address, 235, &peers[..known]);
            let mut other = Node::serving(&lab.hosts[known - 1], &[own]);
            other.wait_router(|it| it.state == Backup && !it.peers.is_empty());
        }
        // One that is told nothing of it any more rises.
        let mut three = Node::serving(&lab.hosts[2], &[unicast(address, 220, &peers)]);
        three.wait_router(|it| it.state == Backup && !it.peers.is_empty());
        one.configure(&[unicast(address, 250, &peers[..2])]);
        three.wait_state(Active);
        let report = one.wait_router(|_| true);
        assert_eq!((report.state, report.transitions.len()), (Active, 2));
    }
}

/// The others would not hear it.
#[test]
fn a_host_that_is_no_peer_takes_no_part() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::start(&lab.hosts[0]);
    let routers = BOTH.map(|(address, peers)| unicast(address, 250, &peers[1..]));
    node.pair(&routers);
    let problems = node.configure(&routers).join("\n");
    for told in [
        "none of this host's addresses on eth0 is among the unicast peers (192.168.1.2, 192.168.1.3)",
        "spec.vrrp.peering.addresses",
        "fd00:1::2",
    ] {
        assert!(problems.contains(told), "{told}: {problems}");
    }
    node.wait_routers(|routers| routers.iter().all(|it| it.state == Initialize));
    // Once it has such an address it does.
    lab.hosts[0].ip("addr add 192.168.1.2/24 dev eth0");
    lab.hosts[0].ip("addr add fd00:1::2/64 dev eth0");
    node.wait_routers(|routers| routers.iter().all(|it| it.state == Active));
}

/// RFC 9568 section 5.1.2.1 would have it so.
#[test]
fn peers_may_be_link_local() {
    let Some(lab) = Lab::start(2) else { return };
    lab.hosts[0].ip("addr add fe80::1/64 dev eth0");
    lab.hosts[1].ip("addr add fe80::2/64 dev eth0");
    let peers = ["fe80::1", "fe80::2"];
    let mut one = Node::serving(&lab.hosts[0], &[unicast(ADDRESS_V6, 250, &peers)]);
    one.wait_state(Active);
    let mut two = Node::serving(&lab.hosts[1], &[unicast(ADDRESS_V6, 235, &peers)]);
    let report = two.wait_router(|it| it.state == Backup && !it.peers.is_empty());
    assert_eq!(report.peers[0].address, ip("fe80::1"));
}

/// RFC 2338 section 7.1: those with another password, or none, are not heard. It is nowhere to be read.
#[test]
fn a_password_keeps_mistakes_apart() {
    let Some(lab) = Lab::start(2) else { return };
    let with = |password: Option<&str>, priority| {
        let mut router = router(ADDRESS, priority);
        router.settings.version = VrrpVersion::V2;
        router.settings.advertisement_interval = std::time::Duration::from_secs(1);
        router.settings.password = password.map(|it| Password(it.to_owned()));
        router
    };
    let mut one = Node::serving(&lab.hosts[0], &[with(Some("geheim"), 250)]);
    one.wait_state(Active);
    let warns = |node: &Node| {
        node.report
            .warnings
            .iter()
            .any(|it| it.contains("in clear"))
    };
    assert!(warns(&one));
    let shown = format!("{:?}", one.report);
    assert!(!shown.contains("geheim"), "{shown}");
    let mut two = Node::serving(&lab.hosts[1], &[with(Some("geheim"), 235)]);
    two.wait_router(|it| it.state == Backup && !it.peers.is_empty());
    assert_eq!(discarded(&mut two, "password"), 0);
    for (other, reason) in [(Some("Geheim"), "password"), (None, "authentication")] {
        two.configure(&[with(other, 235)]);
        let end = Instant::now() + LONG;
        while discarded(&mut two, reason) == 0 {
            assert!(Instant::now() < end, "never discarded: {reason}");
        }
    }
    assert!(!warns(&two));
}
