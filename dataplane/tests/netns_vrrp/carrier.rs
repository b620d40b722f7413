//! A lost link is noticed at once, also while the kernel keeps its news to itself.

use std::{
    net::IpAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use dataplane::sys::{
    netlink::{Change, Events},
    wait::Waiter,
};
use node_api::RouterState::{Active, Initialize};

use crate::{
    lab::{Host, Lab},
    node::{LONG, Node, router},
};

const ADDRESS: &str = "192.168.7.110";
/// For how long the kernel tells of no other link.
const GATHERED: Duration = Duration::from_secs(1);

/// Lays a cable whose ends have one number. The kernel tells at once of links that have another
/// interface below them, which it takes the ends of a veth pair for unless their numbers are equal; of
/// these it tells as of a network card.
fn cable(lab: &Lab, number: u32, prefix: &str) {
    let host = &lab.hosts[0];
    let tid = host.tid;
    lab.switch.ip(&format!(
        "link add cable{number} index {number} type veth peer name card{number} index {number} netns {tid}"
    ));
    lab.switch.ip(&format!("link set cable{number} up"));
    host.ip(&format!("addr add {prefix} dev card{number}"));
    host.ip(&format!("link set card{number} up"));
}

/// How long after `cut` the address went.
fn address_gone(host: &Host, mut events: Events, cut: Instant) -> Duration {
    let address: IpAddr = ADDRESS.parse().unwrap();
    host.run(move || {
        let mut waiter = Waiter::new();
        waiter.watch(events.as_fd());
        let mut is_gone = false;
        while !is_gone {
            assert!(cut.elapsed() < LONG, "the address stays");
            waiter.wait(Some(Duration::from_millis(100))).unwrap();
            let note = |change| {
                is_gone |= matches!(change, Change::AddressGone(it) if it.address == address);
            };
            events.take(note).unwrap();
        }
        cut.elapsed()
    })
}

#[test]
fn a_lost_carrier_is_noticed_while_the_kernel_gathers_its_news() {
    let Some(lab) = Lab::start(1) else { return };
    let host = &lab.hosts[0];
    cable(&lab, 77, "192.168.7.1/24");
    cable(&lab, 78, "192.168.8.1/24");
    let mut node = Node::serving(host, &[router(ADDRESS, 250)]);
    let mut noticed = Vec::new();
    for _ in 0..5 {
        node.wait_state(Active);
        host.wait_shown(ADDRESS);
        let events = host.run(|| Events::subscribe().unwrap());
        // The kernel tells of this one, and for a second of no other.
        lab.switch.ip("link set cable78 down");
        let cut = Instant::now();
        lab.switch.ip("link set cable77 down");
        noticed.push(address_gone(host, events, cut));
        let report = node.wait_state(Initialize);
        assert_eq!(report.reason, "the interface has no link");
        lab.switch.ip("link set cable77 up");
        lab.switch.ip("link set cable78 up");
    }
    noticed.sort_unstable();
    println!("from the command that cuts the cable until the address is gone: {noticed:?}");
    assert!(noticed[2] < GATHERED / 2, "{noticed:?}");
}
