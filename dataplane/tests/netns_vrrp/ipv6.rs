//! Version 3 over IPv6 (RFC 9568 section 5.1.2), where the kernel behaves unlike with IPv4.

use std::time::{Duration, Instant};

use node_api::RouterState::{Active, Backup, Initialize};

use crate::{
    ADDRESS, ADDRESS_V6,
    lab::{Host, Lab},
    node::{Node, eventually, router},
    wire::{Ear, Heard},
};

/// The kernel's own one, as the virtual ones are host routes.
fn link_local(host: &Host) -> String {
    let shown = host.ip("-6 -o addr show dev eth0 scope link");
    let mut words = shown.split_whitespace();
    let net = words.find_map(|word| word.strip_suffix("/64"));
    net.unwrap().to_owned()
}

/// Usable at once, never a source, a lease, and marked as ours.
#[test]
fn an_address_of_ipv6_is_held_and_announced() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS_V6, 250)]);
    node.wait_state(Active);
    ear.wait_announcement(ADDRESS_V6, lab.hosts[0].mac());
    let heard = ear.wait(|heard| matches!(heard, Heard::Advertisement { .. }));
    let Some(Heard::Advertisement { source, vrid, .. }) = heard.last() else {
        unreachable!()
    };
    assert_eq!(source.to_string(), link_local(&lab.hosts[0]));
    assert_eq!(*vrid, 16);
    lab.hosts[0].wait_shown(ADDRESS_V6);
    let shown = lab.hosts[0].shown(ADDRESS_V6);
    for word in [
        "/128",
        "deprecated",
        "nodad",
        "preferred_lft 0sec",
        "noprefixroute",
    ] {
        assert!(shown.contains(word), "{word}: {shown}");
    }
    assert!(!shown.contains("tentative"), "{shown}");
    // Outgoing connections are from the host's own address.
    let route = lab.hosts[0].ip("-6 route get fd00:1::2");
    assert!(route.contains("src fd00:1::1 "), "{route}");
    // Whoever asks is answered.
    lab.hosts[1].ip("-6 neigh flush dev eth0");
    lab.hosts[1].run(|| {
        let socket = std::net::UdpSocket::bind("[::]:0").unwrap();
        socket.send_to(b"?", format!("[{ADDRESS_V6}]:9")).unwrap();
    });
    let mac = lab.hosts[0].mac().to_string();
    eventually("neighbours are answered", || {
        let known = lab.hosts[1].ip(&format!("-6 neigh show to {ADDRESS_V6} dev eth0"));
        known.contains(&mac)
    });

    node.configure(&[]);
    ear.wait_priority(0);
    eventually("the address is gone", || {
        lab.hosts[0].shown(ADDRESS_V6).is_empty()
    });
}

#[test]
fn the_other_host_takes_an_address_of_ipv6_over_and_gives_it_back() {
    let Some(lab) = Lab::start(3) else { return };
    let mut ear = Ear::on(&lab.hosts[2]);
    let mut a = Node::serving(&lab.hosts[0], &[router(ADDRESS_V6, 250)]);
    a.wait_state(Active);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS_V6, 235)]);
    let report = b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    assert_eq!(
        report.peers[0].address.to_string(),
        link_local(&lab.hosts[0])
    );
    a.kill();
    let killed = Instant::now();
    b.wait_state(Active);
    ear.wait_announcement(ADDRESS_V6, lab.hosts[1].mac());
    eventually("the lease ends", || {
        lab.hosts[0].shown(ADDRESS_V6).is_empty()
    });
    let after = killed.elapsed();
    println!("the lease ended after {after:?}");
    assert!(
        after < Duration::from_millis(3200),
        "lease + 1 s, but {after:?}"
    );
    a.restart(&lab.hosts[0]);
    let routers = [router(ADDRESS_V6, 250)];
    a.pair(&routers);
    a.configure(&routers);
    a.wait_state(Active);
    b.wait_state(Backup);
    ear.wait_announcement(ADDRESS_V6, lab.hosts[0].mac());
    eventually("one holder", || lab.hosts[1].shown(ADDRESS_V6).is_empty());
}

/// The kernel takes all IPv6 addresses from an interface that is switched off, the source too.
#[test]
fn an_address_of_ipv6_comes_back_with_its_interface() {
    let Some(lab) = Lab::start(2) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS_V6, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS_V6);
    lab.hosts[0].ip("link set eth0 down");
    let report = node.wait_state(Initialize);
    assert_eq!(report.reason, "the interface has no link");
    eventually("address gone", || lab.hosts[0].shown(ADDRESS_V6).is_empty());
    let mut ear = Ear::on(&lab.hosts[1]);
    lab.hosts[0].ip("link set eth0 up");
    lab.hosts[0].ip("addr add fd00:1::1/64 dev eth0");
    node.wait_state(Active);
    ear.wait_announcement(ADDRESS_V6, lab.hosts[0].mac());
    lab.hosts[0].wait_shown(ADDRESS_V6);
}

/// The carrier goes, and nothing else.
#[test]
fn an_address_of_ipv6_comes_back_with_its_link() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS_V6, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS_V6);
    lab.switch.ip("link set port1 down");
    node.wait_state(Initialize);
    eventually("address gone", || lab.hosts[0].shown(ADDRESS_V6).is_empty());
    lab.switch.ip("link set port1 up");
    let report = node.wait_state(Active);
    let states: Vec<_> = report.transitions.iter().map(|t| t.to).collect();
    assert_eq!(states, [Backup, Active, Initialize, Backup, Active]);
    lab.hosts[0].wait_shown(ADDRESS_V6);
}

/// RFC 4862 section 5.4: nothing is sent from an address that somebody else may have.
#[test]
fn a_router_of_ipv6_waits_for_its_source() {
    let Some(lab) = Lab::start(2) else { return };
    let mut node = Node::start(&lab.hosts[0]);
    let routers = [router(ADDRESS_V6, 250)];
    node.pair(&routers);
    lab.hosts[0].ip("-6 addr flush dev eth0 scope link");
    let problems = node.configure(&routers).join(" ");
    assert!(
        problems.contains("eth0 has no IPv6 link-local address to send from"),
        "{problems}"
    );
    lab.hosts[0].ip("addr add fe80::77/64 dev eth0");
    let mut ear = Ear::on(&lab.hosts[1]);
    node.wait_state(Active);
    let source = "fe80::77".parse::<std::net::IpAddr>().unwrap();
    ear.wait(|heard| matches!(heard, Heard::Advertisement { source: s, .. } if *s == source));
}

/// Both families on one interface, each a virtual router of its own, even with one number.
#[test]
fn both_families_stand_side_by_side() {
    let Some(lab) = Lab::start(2) else { return };
    let mut v6 = router(ADDRESS_V6, 250);
    v6.settings.virtual_router_id = 110;
    let routers = [router(ADDRESS, 250), v6];
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_routers(|routers| routers.len() == 2 && routers.iter().all(|r| r.state == Active));
    let mut b = Node::serving(
        &lab.hosts[1],
        &routers.clone().map(|mut router| {
            router.priority = 235;
            router
        }),
    );
    b.wait_routers(|routers| {
        let is_backup = |r: &node_api::RouterReport| r.state == Backup && !r.peers.is_empty();
        routers.len() == 2 && routers.iter().all(is_backup)
    });
    // IPv6 alone goes out of order.
    let own = link_local(&lab.hosts[0]);
    lab.hosts[0].ip(&format!("addr del {own}/64 dev eth0"));
    b.wait_routers(|routers| routers[1].state == Active);
    assert_eq!(b.report.routers[0].state, Backup);
    let report = a.wait_router(|_| true);
    assert_eq!((report.state, report.transitions.len()), (Active, 2));
}

/// RFC 9568 section 5.2.9: the link-local address first, whatever the order in the pool; all are held
/// and announced.
#[test]
fn several_addresses_are_one_virtual_router() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut wanted = router(ADDRESS_V6, 250);
    let more = ["fd00:1::111", "fe80::110"];
    wanted
        .settings
        .addresses
        .extend(more.map(|text| text.parse::<std::net::IpAddr>().unwrap()));
    let mut node = Node::serving(&lab.hosts[0], std::slice::from_ref(&wanted));
    let report = node.wait_state(Active);
    assert_eq!(report.addresses, wanted.settings.addresses);
    let heard = ear.wait(|heard| matches!(heard, Heard::Advertisement { .. }));
    let Some(Heard::Advertisement { source, first, .. }) = heard.last() else {
        unreachable!()
    };
    assert_eq!(first.to_string(), "fe80::110");
    assert_eq!(source.to_string(), link_local(&lab.hosts[0]));
    for address in [ADDRESS_V6, more[0], more[1]] {
        lab.hosts[0].wait_shown(address);
        lab.hosts[0].ip(&format!("addr del {address}/128 dev eth0"));
        lab.hosts[0].wait_shown(address);
    }
    node.configure(&[]);
    for address in [ADDRESS_V6, more[0], more[1]] {
        assert_eq!(lab.hosts[0].shown(address), "", "{address}");
    }
}
