//! The host takes part exactly while its proxy serves (DESIGN section 4, Tracking).

use std::time::Instant;

use dataplane::ipc::{FromVrrp, ProxyToVrrp, ToVrrp, UsableEndpoints, VrrpToProxy};
use node_api::RouterState::{Active, Backup, Initialize};

use crate::{
    ADDRESS,
    lab::Lab,
    node::{Node, eventually, router},
    wire::{Ear, Heard},
};

#[test]
fn the_best_host_is_active_and_the_death_of_its_proxy_moves_the_address() {
    let Some(lab) = Lab::start(3) else { return };
    let mut ear = Ear::on(&lab.hosts[2]);
    let mut a = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    a.wait_state(Active);
    a.proxy()
        .wait_message(|message| matches!(message, VrrpToProxy::Held { held: true, .. }));
    ear.wait_announcement(ADDRESS, lab.hosts[0].mac());
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    let shown = lab.hosts[0].shown(ADDRESS);
    assert!(shown.contains("192.168.1.110/32") && shown.contains("valid_lft"));
    assert_eq!(lab.hosts[1].shown(ADDRESS), "");

    let winner = lab.hosts[1].mac();
    let killed = Instant::now();
    a.proxy().die();
    ear.wait_announcement(ADDRESS, winner);
    println!(
        "announced by the second host {:?} after the death",
        killed.elapsed()
    );
    b.wait_state(Active);
    let report = a.wait_state(Initialize);
    assert_eq!(report.reason, "the proxy does not run");
    eventually("address gone from the first host", || {
        lab.hosts[0].shown(ADDRESS).is_empty()
    });
    lab.hosts[1].wait_shown(ADDRESS);
    assert!(lab.hosts[1].shown(ADDRESS).contains("192.168.1.110/32"));

    // A new proxy: takes part again, but preempts only after it has accepted for three seconds.
    let accepts_from = Instant::now();
    a.pair(&[router(ADDRESS, 250)]);
    a.wait_state(Backup);
    a.wait_state(Active);
    assert!(accepts_from.elapsed().as_millis() >= 3000);
    b.wait_state(Backup);
}

/// A vrrp that dies along with its proxy does not forget that the proxy died.
#[test]
fn a_vrrp_that_died_too_holds_as_well() {
    let Some(lab) = Lab::start(2) else { return };
    let routers = [router(ADDRESS, 250)];
    let mut a = Node::serving(&lab.hosts[0], &routers);
    a.wait_state(Active);
    let mut b = Node::serving(&lab.hosts[1], &[router(ADDRESS, 235)]);
    b.wait_router(|router| router.state == Backup && !router.peers.is_empty());
    a.kill();
    a.proxy().die();
    b.wait_state(Active);
    a.restart(&lab.hosts[0]);
    let accepts_from = Instant::now();
    a.pair(&routers);
    a.configure(&routers);
    a.wait_state(Active);
    assert!(accepts_from.elapsed().as_millis() >= 3000);
}

#[test]
fn a_hanging_proxy_is_withdrawn_and_taken_back() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    node.proxy().set_beating(false);
    let report = node.wait_state(Initialize);
    assert_eq!(report.reason, "the proxy hangs");
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
    node.proxy().set_beating(true);
    // Nobody else is there: the hold does not matter.
    node.wait_state(Active);
}

#[test]
fn takes_part_only_while_every_listener_accepts() {
    let Some(lab) = Lab::start(1) else { return };
    let mut node = Node::start(&lab.hosts[0]);
    node.pair(&[]);
    node.configure(&[router(ADDRESS, 250)]);
    let report = node
        .wait_router(|router| router.reason == "the proxy does not accept on 192.168.1.110:8020");
    assert_eq!(report.state, Initialize);
    let listeners = vec!["192.168.1.110:8020".parse().unwrap()];
    node.proxy().say(&ProxyToVrrp::Accepting { listeners });
    node.wait_state(Active);
    node.proxy().say(&ProxyToVrrp::Accepting {
        listeners: Vec::new(),
    });
    node.wait_state(Initialize);
    eventually("address gone", || lab.hosts[0].shown(ADDRESS).is_empty());
}

#[test]
fn without_an_endpoint_the_priority_is_the_lower_one() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let wanted = router(ADDRESS, 250);
    let mut node = Node::serving(&lab.hosts[0], std::slice::from_ref(&wanted));
    node.wait_state(Active);
    ear.wait_priority(250);
    let usable = |routed| ProxyToVrrp::Usable {
        pool: wanted.pool.clone(),
        endpoints: UsableEndpoints {
            routed,
            upstreams: [("echo".to_owned(), routed)].into(),
        },
    };
    node.proxy().say(&usable(0));
    ear.wait_priority(10);
    node.proxy().say(&usable(1));
    ear.wait_priority(250);
    let report = node.wait_state(Active);
    assert_eq!(report.transitions.len(), 2, "never left Active");
}

/// Listeners and sessions first, then priority 0, then the address (DESIGN section 9.9).
#[test]
fn a_planned_stop_goes_in_order() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let routers = [router(ADDRESS, 250), router("192.168.1.112", 250)];
    let mut node = Node::serving(&lab.hosts[0], &routers);
    node.wait_message(|message| match message {
        FromVrrp::Report(report) => {
            report.routers.len() == 2 && report.routers.iter().all(|r| r.state == Active)
        }
        _ => false,
    });
    node.proxy()
        .answers
        .store(false, std::sync::atomic::Ordering::Release);
    node.send(&ToVrrp::Leave);
    let first = match node
        .proxy()
        .wait_message(|m| matches!(m, VrrpToProxy::Leave { .. }))
    {
        VrrpToProxy::Leave { addresses } => addresses,
        VrrpToProxy::Held { .. } => panic!("not what was waited for"),
    };
    // The proxy has not answered: the host still advertises and still holds both.
    assert!(!lab.hosts[0].shown(ADDRESS).is_empty());
    assert!(!lab.hosts[0].shown("192.168.1.112").is_empty());
    node.proxy().say(&ProxyToVrrp::Left {
        addresses: first.clone(),
    });
    let heard = ear.wait(|heard| matches!(heard, Heard::Advertisement { priority: 0, .. }));
    node.proxy()
        .wait_message(|m| matches!(m, VrrpToProxy::Leave { addresses } if *addresses != first));
    assert_eq!(
        lab.hosts[0].shown(ADDRESS),
        "",
        "before the next one's turn"
    );
    assert!(
        matches!(heard.last(), Some(Heard::Advertisement { vrid: 110, .. })),
        "one after another: {heard:?}"
    );
    // The second one's answer never comes: the host does not wait for ever.
    let heard = ear.wait(|heard| {
        matches!(
            heard,
            Heard::Advertisement {
                vrid: 112,
                priority: 0,
                ..
            }
        )
    });
    assert!(!heard.is_empty());
    node.wait_message(|message| *message == FromVrrp::Left);
    assert!(node.process.wait().unwrap().success());
    assert_eq!(lab.hosts[0].shown(ADDRESS), "");
    assert_eq!(lab.hosts[0].shown("192.168.1.112"), "");
}

#[test]
fn stop_signals_are_ignored_and_the_end_of_the_agent_is_an_order_to_leave() {
    let Some(lab) = Lab::start(2) else { return };
    let mut ear = Ear::on(&lab.hosts[1]);
    let mut node = Node::serving(&lab.hosts[0], &[router(ADDRESS, 250)]);
    node.wait_state(Active);
    let pid = nix::unistd::Pid::from_raw(node.process.id().try_into().unwrap());
    for signal in [nix::sys::signal::SIGTERM, nix::sys::signal::SIGINT] {
        nix::sys::signal::kill(pid, signal).unwrap();
    }
    ear.wait_priority(250);
    ear.wait_priority(250);
    node.end_agent();
    ear.wait_priority(0);
    assert!(node.process.wait().unwrap().success());
    assert_eq!(lab.hosts[0].shown(ADDRESS), "");
}
