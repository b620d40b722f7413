//! Configuration and interfaces of virtual routers.

use std::time::{Duration, Instant};

use dataplane::{
    ipc::{FromVrrp, VrrpToProxy},
    sys::netlink::{Change, Events},
};
use node_api::{
    Preemption,
    RouterState::{Active, Backup, Initialize},
    VrrpVersion,
};
use vrrp::Version;

use crate::{
    ADDRESS,
    lab::Lab,
    node::{Node, eventually, router},
    wire::{Ear, Heard},
};

#[test]
fn link_down_ends_it_and_link_up_starts_as_backup() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.switch.ip("link set port1 down");
    let report = node.wait_state(Initialize);
    assert_eq!(report.reason, "the interface has no link");
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
    lab.switch.ip("link set port1 up");
    let report = node.wait_state(Active);
    let states: Vec<_> = report.transitions.iter().map(|t| t.to).collect();
    assert_eq!(states, [Backup, Active, Initialize, Backup, Active]);
}

#[test]
fn an_interface_that_comes_back_under_another_number_is_found() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].ip("link del eth0");
    let report = node.wait_router(|router| router.interface.is_none());
    assert_eq!(report.state, Initialize);
    assert!(
        report.reason.contains("no interface has"),
        "{}",
        report.reason
    );
    lab.hosts[0].ip("link add eth7 type veth peer name eth8");
    lab.hosts[0].ip("addr add 192.168.1.1/24 dev eth7");
    lab.hosts[0].ip("link set eth8 up");
    lab.hosts[0].ip("link set eth7 up");
    let report = node.wait_state(Active);
    assert_eq!(report.interface.as_deref(), Some("eth7"));
    assert!(lab.hosts[0].shown(ADDRESS).contains("eth7"));
}

/// RFC 9568 section 6.4.1.
#[test]
fn an_owner_takes_its_address_at_once_whatever_the_mode() {
    let Some(lab) = Lab::start(2) else { return };
    let mut other = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    other.wait_state(Active);
    let mut own = router(ADDRESS, 255);
    own.settings.preemption = Preemption::Disabled;
    let mut owner = Node::serving(&lab.hosts[1], &[own]);
    let report = owner.wait_state(Active);
    assert_eq!(report.reason, "started as owner of the addresses");
    other.wait_state(Backup);
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
    assert_eq!(owner.wait_state(Active).transitions.len(), 1);
}

/// A bridge tells that a port left it as if the interface itself were gone.
#[test]
fn an_interface_that_leaves_a_bridge_keeps_its_router() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    lab.hosts[0].ip("link add br9 type bridge");
    lab.hosts[0].ip("link set eth0 master br9");
    lab.hosts[0].ip("link set eth0 nomaster");
    // The address added last is told last: what the bridge told was seen before it.
    lab.hosts[0].ip("addr add 192.168.1.77/24 dev eth0");
    let other = [router(ADDRESS, 250), router("192.168.1.78", 250)];
    assert_eq!(node.configure(&other), Vec::<String>::new());
    let report = node.wait_state(Active);
    assert_eq!(report.interface.as_deref(), Some("eth0"));
    assert_eq!(report.transitions.len(), 2, "{:?}", report.transitions);
}

/// Peers learn of it by priority 0, people by a transition with its cause.
#[test]
fn an_active_whose_prefix_goes_leaves_with_a_word() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    lab.hosts[0].ip("addr del 192.168.1.1/24 dev eth0");
    ear.wait_priority(0);
    let report = node.wait_router(|router| router.transitions.len() > 2);
    let last = report.transitions.last().unwrap();
    assert_eq!((last.from, last.to), (Active, Initialize));
    assert!(last.cause.contains("interface"), "{}", last.cause);
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
}

#[test]
fn an_active_whose_named_interface_is_renamed_leaves_with_a_word() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut wanted = router(ADDRESS, 250);
    wanted.settings.interface = Some("eth0".to_owned());
    let mut node = Node::serving(&lab.hosts[0], &[wanted]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    // As systemd does it since kernels allow it: without taking the link down.
    lab.hosts[0].ip("link set eth0 name eth5");
    ear.wait_priority(0);
    let report = node.wait_router(|router| router.transitions.len() > 2);
    assert_eq!(report.transitions[2].to, Initialize);
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
}

/// Neighbours send to the former hardware address until they are told of the new one.
#[test]
fn another_hardware_address_is_announced() {
    let Some(lab) = Lab::start(2) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    let mut ear = Ear::on(&lab.hosts[1]);
    lab.hosts[0].ip("link set eth0 address 02:00:00:00:00:77");
    ear.wait_announcement(ADDRESS, lab.hosts[0].mac());
}

/// What failed for lack of something is tried again, without an event.
#[test]
fn a_socket_that_could_not_be_opened_is_opened_later() {
    let Some(lab) = Lab::start(1) else { return };
    let wanted = [router(ADDRESS, 250)];
    let mut node = Node::start(&lab.hosts[0]);
    node.pair(&wanted);
    node.configure(&[]);
    let limit_descriptors = |node: &Node, most: u32| {
        let pid = format!("--pid={}", node.process.id());
        let status = std::process::Command::new("prlimit")
            .args([pid, format!("--nofile={most}:1024")])
            .status();
        assert!(status.unwrap().success());
    };
    limit_descriptors(&node, 3);
    let problems = node.configure(&wanted).join(" ");
    assert!(problems.contains("cannot open a raw socket"), "{problems}");
    let report = node.wait_router(|_| true);
    assert!(report.reason.contains("cannot open"), "{}", report.reason);
    limit_descriptors(&node, 1024);
    node.wait_state(Active);
}

/// It keeps no address that nobody hears it advertise.
#[test]
fn a_host_that_cannot_speak_loses_its_address_and_says_so() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    // A queue with room for less than a packet.
    let has_qdisc = lab.hosts[0].run(|| {
        let words = "qdisc replace dev eth0 root bfifo limit 10".split(' ');
        let output = std::process::Command::new("tc").args(words).output();
        output.is_ok_and(|output| output.status.success())
    });
    if !has_qdisc {
        println!("SKIPPED: tc cannot set a queue of bytes");
        return;
    }
    eventually("the lease is given up", || {
        lab.hosts[0].shown(ADDRESS).is_empty()
    });
    // It tries again after a while, and nothing is wrong meanwhile.
    node.wait_report(|report| {
        let mut warnings = report.warnings.iter();
        warnings.any(|warning| warning.contains("do not leave eth0"))
    });
}

#[test]
fn settings_change_without_leaving_active() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut wanted = router(ADDRESS, 250);
    let mut node = Node::serving(&lab.hosts[0], std::slice::from_ref(&wanted));
    node.wait_state(Active);
    wanted.priority = 200;
    wanted.settings.advertisement_interval = Duration::from_millis(50);
    assert!(node.configure(&[wanted]).is_empty());
    ear.wait_priority(200);
    let report = node.wait_state(Active);
    assert_eq!((report.priority, report.transitions.len()), (200, 2));
}

/// Sessions end only when their address goes: an edit of anything else tells the proxy nothing.
#[test]
fn edits_that_keep_the_address_do_not_ask_the_proxy_to_leave() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut wanted = router(ADDRESS, 250);
    let mut node = Node::serving(&lab.hosts[0], std::slice::from_ref(&wanted));
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);

    wanted.settings.version = VrrpVersion::V2;
    wanted.settings.advertisement_interval = Duration::from_secs(1);
    assert!(node.configure(std::slice::from_ref(&wanted)).is_empty());
    ear.wait(|heard| {
        let version = Version::V2;
        matches!(heard, Heard::Advertisement { version: v, .. } if *v == version)
    });
    wanted.settings.version = VrrpVersion::V3;
    wanted.settings.advertisement_interval = Duration::from_millis(100);
    wanted.settings.interface = Some("eth0".to_owned());
    assert!(node.configure(std::slice::from_ref(&wanted)).is_empty());
    let report = node.wait_state(Active);
    let is_stop = |t: &node_api::Transition| t.cause.contains("planned stop");
    assert!(!report.transitions.iter().any(is_stop), "{report:#?}");

    // Another number is another virtual router, with the same listeners and sessions.
    wanted.settings.virtual_router_id = 7;
    assert!(node.configure(std::slice::from_ref(&wanted)).is_empty());
    node.wait_router(|r| r.virtual_router_id == 7 && r.state == Active);

    assert!(node.configure(&[]).is_empty());
    let leave = |m: &VrrpToProxy| matches!(m, VrrpToProxy::Leave { .. });
    let before = node.proxy().messages_up_to(leave);
    let held: Vec<_> = before
        .iter()
        .filter_map(|message| match message {
            VrrpToProxy::Held { held, .. } => Some(*held),
            VrrpToProxy::Leave { .. } => None,
        })
        .collect();
    // As the pairing began; held; let go of and held again with the number.
    assert_eq!(
        held.last(),
        Some(&true),
        "asked while it was held: {before:?}"
    );
}

#[test]
fn one_of_two_is_removed_and_the_other_does_not_notice() {
    let Some(lab) = Lab::start(1) else { return };
    let routers = [router(ADDRESS, 250), router("192.168.1.112", 250)];
    let mut node = Node::serving(&lab.hosts[0], &routers);
    node.wait_message(|message| match message {
        FromVrrp::Report(report) => {
            report.routers.len() == 2 && report.routers.iter().all(|r| r.state == Active)
        }
        _ => false,
    });
    assert!(node.configure(&routers[1..]).is_empty());
    assert_eq!(lab.hosts[0].shown(ADDRESS), "", "gone once it is applied");
    let report = node.wait_router(|router| router.virtual_router_id == 112);
    assert_eq!((report.state, report.transitions.len()), (Active, 2));
}

#[test]
fn version_2_is_spoken_where_asked_for() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut wanted = router(ADDRESS, 100);
    wanted.settings.version = VrrpVersion::V2;
    wanted.settings.advertisement_interval = Duration::from_secs(1);
    let mut node = Node::serving(&lab.hosts[0], &[wanted]);
    node.wait_state(Active);
    let heard = ear.wait(|heard| matches!(heard, Heard::Advertisement { .. }));
    assert!(
        matches!(
            heard.last(),
            Some(Heard::Advertisement {
                version: Version::V2,
                ..
            })
        ),
        "{heard:?}"
    );
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty());
}

#[test]
fn two_hosts_with_one_priority_are_reported() {
    let Some(lab) = Lab::start(2) else { return };
    let routers = [router(ADDRESS, 250)];
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_state(Active);
    let mut b = Node::serving(&lab.hosts[1], &routers);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    let warning = b.report.warnings.join("\n");
    assert!(
        warning.contains("host 192.168.1.1 advertises priority 250")
            && warning.contains("--node-name"),
        "{warning}"
    );
}

/// For clients another VRID changes nothing: the address stays in place, and nobody is called to take
/// it.
#[test]
fn an_address_moves_between_virtual_routers() {
    let Some(lab) = Lab::start(2) else { return };
    let mut wanted = router(ADDRESS, 250);
    let mut node = Node::serving(&lab.hosts[0], std::slice::from_ref(&wanted));
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut changes = lab.hosts[0].run(|| Events::subscribe().unwrap());
    wanted.settings.virtual_router_id = 7;
    assert!(node.configure(&[wanted]).is_empty());
    let report = node.wait_router(|r| r.virtual_router_id == 7 && r.state == Active);
    assert_eq!(report.transitions.len(), 1, "{:?}", report.transitions);
    ear.wait_announcement(ADDRESS, lab.hosts[0].mac());
    // The lease of the new one, beyond that which the former one left.
    let end = Instant::now() + Duration::from_secs(3);
    while let Some(heard) = ear.next(end) {
        let is_release = matches!(heard, Heard::Advertisement { priority: 0, .. });
        assert!(!is_release, "{heard:?}");
    }
    changes
        .take(|change| assert!(!matches!(change, Change::AddressGone(_)), "{change:?}"))
        .unwrap();
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty());
}

/// VRIDs that change places: each waits until the other's is free, and neither address goes.
#[test]
fn two_addresses_exchange_their_virtual_routers() {
    const OTHER: &str = "192.168.1.112";
    let Some(lab) = Lab::start(1) else { return };
    let mut wanted = [router(ADDRESS, 250), router(OTHER, 250)];
    let mut node = Node::serving(&lab.hosts[0], &wanted);
    node.wait_state(Active);
    for address in [ADDRESS, OTHER] {
        lab.hosts[0].wait_shown(address);
    }
    let mut changes = lab.hosts[0].run(|| Events::subscribe().unwrap());
    let [first, second] = &mut wanted;
    std::mem::swap(
        &mut first.settings.virtual_router_id,
        &mut second.settings.virtual_router_id,
    );
    assert!(node.configure(&wanted).is_empty());
    node.wait_routers(|routers| {
        routers.len() == 2
            && routers.iter().all(|router| {
                let address: std::net::IpAddr = ADDRESS.parse().unwrap();
                let vrid = if router.addresses == [address] {
                    112
                } else {
                    110
                };
                router.virtual_router_id == vrid && router.state == Active
            })
    });
    changes
        .take(|change| assert!(!matches!(change, Change::AddressGone(_)), "{change:?}"))
        .unwrap();
}

#[test]
fn what_cannot_run_is_a_sentence() {
    let Some(lab) = Lab::start(1) else { return };
    let mut named = router(ADDRESS, 250);
    named.settings.interface = Some("eth9".to_owned());
    let routers = [named, router("10.9.9.9", 250)];
    let mut node = Node::serving(&lab.hosts[0], &routers);
    let problems = node.configure(&routers);
    assert_eq!(problems.len(), 2);
    assert!(
        problems[0].contains("there is no interface eth9"),
        "{problems:?}"
    );
    assert!(
        problems[1].contains("no interface has an on-link prefix"),
        "{problems:?}"
    );
}
