//! The vrrp process against the kernel: namespaces, real sockets, real addresses. Agent and proxy
//! are played by the test.

mod lab;
mod node;
mod wire;

use std::time::Instant;

use lab::Lab;
use node::{Node, eventually, router};
use node_api::RouterState::{Active, Backup, Initialize};
use wire::Ear;

const ADDRESS: &str = "192.168.1.110";

/// Two hosts and one that listens.
#[test]
fn best_host_is_active_and_its_proxy_s_death_moves_the_address() {
    let Some(lab) = Lab::start(3) else { return };
    let mut ear = Ear::on(&lab.hosts[2]);
    let best = [router(ADDRESS, 250)];
    let second = [router(ADDRESS, 235)];
    let mut a = Node::serving(&lab.hosts[0], &best);
    let mut b = Node::serving(&lab.hosts[1], &second);
    a.wait_state(Active);
    ear.wait_announcement();
    b.wait_router(|r| r.state == Backup && !r.peers.is_empty());
    eventually("address on the first host", || {
        lab.hosts[0].shown(ADDRESS).contains("valid_lft")
    });
    assert!(lab.hosts[0].shown(ADDRESS).contains("192.168.1.110/32"));
    assert_eq!(lab.hosts[1].shown(ADDRESS), "");

    // Those of the first takeover are past: 10, 50, 200 ms.
    for _ in 0..10 {
        ear.wait(|heard| matches!(heard, wire::Heard::Advertisement { .. }));
    }
    let killed = Instant::now();
    a.proxy().die();
    ear.wait_announcement();
    println!("announced by the second host after {:?}", killed.elapsed());
    b.wait_state(Active);
    let report = a.wait_state(Initialize);
    assert_eq!(report.reason, "the proxy does not run");
    eventually("address gone from the first host", || {
        lab.hosts[0].shown(ADDRESS).is_empty()
    });
    assert!(lab.hosts[1].shown(ADDRESS).contains("192.168.1.110/32"));
}
