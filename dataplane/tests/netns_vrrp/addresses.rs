//! Addresses are leases (DESIGN section 4, Fencing).

use std::{
    net::IpAddr,
    time::{Duration, Instant},
};

use dataplane::sys::{clock, pages::RouterRow};
use node_api::RouterState::{Active, Backup, Initialize};

use crate::{
    ADDRESS,
    lab::Lab,
    node::{Node, eventually, router},
    wire::Ear,
};

/// Nobody is left to remove it: the kernel does.
#[test]
fn a_lease_ends_when_nobody_renews_it() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    node.kill();
    let killed = Instant::now();
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty());
    eventually("the lease ends", || lab.hosts[0].shown(ADDRESS).is_empty());
    let after = killed.elapsed();
    assert!(after < Duration::from_secs(3), "lease + 1 s, but {after:?}");
}

/// The kernel asks for a neighbour once a second: who was asked for while the link was cut would wait
/// that long for an answer of the host that took the address.
#[test]
fn whoever_takes_an_address_asks_for_its_neighbours_anew() {
    let Some(lab) = Lab::start(1) else { return };
    let asked = || lab.hosts[0].ip("neighbour show 192.168.1.77 dev eth0");
    lab.hosts[0].run(|| {
        let socket = std::net::UdpSocket::bind("0.0.0.0:0").unwrap();
        socket.send_to(b"?", "192.168.1.77:9").unwrap();
    });
    assert!(asked().contains("INCOMPLETE"), "{}", asked());
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    // It takes three seconds for the kernel to give up by itself.
    eventually("it is not asked for any more", || asked().is_empty());
}

/// What an agent does whose vrrp is gone for good.
#[test]
fn addresses_of_a_dead_process_can_be_removed() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    node.kill();
    let address: IpAddr = ADDRESS.parse().unwrap();
    let removed = lab.hosts[0].run(move || {
        let foreign = IpAddr::from([192, 168, 1, 1]);
        dataplane::vrrp::remove_addresses(&[foreign, address]).unwrap()
    });
    assert_eq!(removed, [address]);
    assert_eq!(lab.hosts[0].shown(ADDRESS), "");
    assert_ne!(lab.hosts[0].shown("192.168.1.1"), "");
}

/// A stopped process neither speaks nor renews; when it runs again it finds that it lost the role.
#[test]
fn a_stopped_process_loses_its_lease_and_listens_before_it_claims() {
    let Some(lab) = Lab::start(2) else { return };
    let mut a = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    a.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    let pid = nix::unistd::Pid::from_raw(a.process.id().try_into().unwrap());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGSTOP).unwrap();
    b.wait_state(Active);
    eventually("the lease ends", || lab.hosts[0].shown(ADDRESS).is_empty());
    nix::sys::signal::kill(pid, nix::sys::signal::SIGCONT).unwrap();
    let report = a.wait_router(|router| router.transitions.len() > 2);
    assert_eq!(report.transitions[2].to, Backup, "{:?}", report.transitions);
    // It is the better one and takes the role back in the regular way.
    a.wait_state(Active);
    b.wait_state(Backup);
    eventually("one holder", || lab.hosts[1].shown(ADDRESS).is_empty());
    lab.hosts[0].wait_shown(ADDRESS);
}

#[test]
fn what_a_former_process_left_is_removed_at_start() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    node.kill();
    wait_too_late(&node);
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty());
    node.restart(&lab.hosts[0]);
    let started = Instant::now();
    node.configure(&[]);
    eventually("residual address gone", || {
        lab.hosts[0].shown(ADDRESS).is_empty()
    });
    assert!(started.elapsed() < Duration::from_secs(1));
}

/// Until others may have taken over: two intervals after the last advertisement.
fn wait_too_late(node: &Node) {
    let silence = || {
        let last = node
            .table
            .rows
            .iter()
            .find_map(RouterRow::last_advertisement);
        Duration::from_nanos(clock::monotonic_ns() - last.unwrap())
    };
    eventually("two intervals pass", || {
        silence() > Duration::from_millis(200)
    });
}

/// It may have answered neighbours after the other host's announcements: that one announces again
/// once it hears of it.
#[test]
fn a_process_that_follows_too_late_says_so() {
    let Some(lab) = Lab::start(3) else { return };
    let mut ear = Ear::on(&lab.hosts[2]);
    let routers = [router(ADDRESS, 235)];
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    a.kill();
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 250)]);
    b.wait_state(Active);
    a.restart(&lab.hosts[0]);
    a.pair(&routers);
    a.configure(&routers);
    let report = a.wait_state(Backup);
    let first = &report.transitions[0];
    assert!(first.cause.contains("too late"), "{}", first.cause);
    // Nobody else says 235 while the other one is Active.
    ear.wait_priority(250);
    ear.wait_priority(235);
    ear.wait_announcement(ADDRESS, lab.hosts[1].mac());
}

#[test]
fn a_process_that_follows_at_once_goes_on_as_active() {
    let Some(lab) = Lab::start(2) else { return };
    let routers = [router(ADDRESS, 250)];
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    let mut tries = 0;
    let report = loop {
        tries += 1;
        a.restart(&lab.hosts[0]);
        a.pair(&routers);
        a.configure(&routers);
        let report = a.wait_state(Active);
        // On a busy machine the start may take longer than two intervals.
        if report.transitions[0].to == Active || tries == 5 {
            break report;
        }
    };
    println!("went on at try {tries}");
    assert_eq!(report.transitions[0].from, Initialize);
    assert_eq!(report.transitions[0].to, Active, "{:?}", report.transitions);
    assert!(lab.hosts[0].shown(ADDRESS).contains("192.168.1.110/32"));
}

#[test]
fn an_address_that_somebody_removed_is_put_back() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    lab.hosts[0].wait_shown(ADDRESS);
    lab.hosts[0].ip("addr del 192.168.1.110/32 dev eth0");
    let removed = Instant::now();
    eventually("put back", || !lab.hosts[0].shown(ADDRESS).is_empty());
    println!("put back after {:?}", removed.elapsed());
    let report = node.wait_state(Active);
    assert_eq!(report.transitions.len(), 2, "never left Active");
}

#[test]
fn a_virtual_address_configured_by_hand_is_reported() {
    let Some(lab) = Lab::start(1) else { return };
    lab.hosts[0].ip("addr add 192.168.1.110/24 dev eth0");
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_router(|_| true);
    assert!(
        node.report
            .warnings
            .iter()
            .any(|w| w.contains("by somebody else")),
        "{:?}",
        node.report.warnings
    );
}

/// Never asked for, it is not this process' to remove.
#[test]
fn a_virtual_address_configured_by_hand_outlives_a_backup() {
    let Some(lab) = Lab::start(2) else { return };
    let mut a = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    a.wait_state(Active);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    lab.hosts[1].ip("addr add 192.168.1.110/32 dev eth0");
    assert!(b.configure(&[]).is_empty());
    assert!(!lab.hosts[1].shown(ADDRESS).is_empty());
}
