//! What is tracked lowers the priority, and the address moves to the next host and back, held by one of
//! the two all the time.

use dataplane::ipc::{FailingCheck, ProxyToVrrp, Router, ToVrrp, UsableEndpoints};
use node_api::{
    Check, Probe, RankedNode, RouterReport,
    RouterState::{Active, Backup},
    Tracked, TrackedInterface, TrackedUpstream, Tracking,
};
use std::time::Duration;

use crate::{
    ADDRESS,
    lab::Lab,
    node::{Node, router},
};

/// The virtual router of the first host (250) and the second (235), each with this tracked.
fn group(tracking: &Tracking) -> [Router; 2] {
    let nodes: Vec<_> = [("server1", 250, 10), ("server2", 235, 9)]
        .map(|(name, priority, priority_without_endpoint)| RankedNode {
            node_name: name.to_owned(),
            priority,
            priority_without_endpoint,
            address: None,
        })
        .to_vec();
    [250, 235].map(|priority| {
        let mut router = router(ADDRESS, priority);
        router.settings.nodes.clone_from(&nodes);
        router.tracking = tracking.clone();
        router
    })
}

fn start(lab: &Lab, tracking: &Tracking) -> (Node, Node) {
    let [first, second] = group(tracking);
    let mut one = Node::serving(&lab.hosts[0], &[first]);
    one.wait_state(Active);
    let mut two = Node::serving(&lab.hosts[1], &[second]);
    two.wait_state(Backup);
    (one, two)
}

/// Waits until the address is at `two`, since `one` has lowered its priority to 230.
fn moved(one: &mut Node, two: &mut Node) -> RouterReport {
    let report = one.wait_router(|it| it.state == Backup && it.priority == 230);
    let last = report.transitions.last().unwrap();
    assert!(
        last.cause
            .contains("is Active with the higher priority 235"),
        "{last:?}"
    );
    let taken = two.wait_state(Active);
    let last = taken.transitions.last().unwrap();
    assert!(
        last.cause.contains("has the lower priority 230"),
        "{last:?}"
    );
    report
}

/// Waits until it is back.
fn back(one: &mut Node, two: &mut Node) {
    one.wait_router(|it| it.state == Active && it.priority == 250 && it.lowered_by.is_empty());
    two.wait_state(Backup);
}

#[test]
fn a_tracked_interface_without_link_or_that_is_missing_moves_the_address() {
    let Some(lab) = Lab::start(2) else { return };
    let tid = lab.hosts[0].tid;
    let add = || {
        lab.switch.ip(&format!(
            "link add up1 type veth peer name uplink netns {tid}"
        ));
        lab.switch.ip("link set up1 up");
        lab.hosts[0].ip("link set uplink up");
    };
    add();
    let tracking = Tracking {
        interfaces: vec![TrackedInterface {
            name: "uplink".to_owned(),
            weight: 20,
        }],
        ..Tracking::default()
    };
    let [first, mut second] = group(&tracking);
    second.tracking = Tracking::default();
    let mut one = Node::serving(&lab.hosts[0], &[first]);
    one.wait_router(|it| it.state == Active && it.lowered_by.is_empty());
    let mut two = Node::serving(&lab.hosts[1], &[second]);
    two.wait_state(Backup);

    lab.switch.ip("link set up1 down");
    let report = moved(&mut one, &mut two);
    let lowering = &report.lowered_by[0];
    assert_eq!(
        (lowering.kind, lowering.name.as_str(), lowering.weight),
        (Tracked::Interface, "uplink", 20)
    );
    assert_eq!(lowering.problem, "has no link");
    let warning = "the priority is lowered by 20, as interface uplink has no link";
    let mut warnings = one.report.warnings.iter();
    assert!(warnings.any(|it| it.contains(warning)), "{:?}", one.report);
    lab.switch.ip("link set up1 up");
    back(&mut one, &mut two);

    lab.switch.ip("link del up1");
    let report = moved(&mut one, &mut two);
    assert_eq!(report.lowered_by[0].problem, "does not exist");
    add();
    back(&mut one, &mut two);
}

#[test]
fn a_failing_check_moves_the_address() {
    let Some(lab) = Lab::start(2) else { return };
    let tracking = Tracking {
        checks: vec![Check {
            name: "router".to_owned(),
            weight: 20,
            interval: Duration::from_secs(1),
            timeout: Duration::from_secs(1),
            failure_threshold: 1,
            success_threshold: 1,
            probe: Probe::Tcp {
                address: "192.168.1.254:1".parse().unwrap(),
            },
        }],
        ..Tracking::default()
    };
    let (mut one, mut two) = start(&lab, &tracking);
    let check = |name: &str| FailingCheck {
        pool: router(ADDRESS, 1).pool,
        name: name.to_owned(),
        problem: "connection refused".to_owned(),
        since_unix_ms: 42,
    };
    let failing = |names: &[&str]| ToVrrp::Failing {
        checks: names.iter().map(|name| check(name)).collect(),
    };
    one.send(&failing(&["other"]));
    one.wait_router(|it| it.state == Active && it.lowered_by.is_empty());
    one.send(&failing(&["other", "router"]));
    let report = moved(&mut one, &mut two);
    let lowering = &report.lowered_by[0];
    assert_eq!(
        (lowering.since_unix_ms, lowering.kind),
        (42, Tracked::Check)
    );
    assert_eq!(lowering.problem, "fails: connection refused");
    one.send(&failing(&[]));
    back(&mut one, &mut two);
}

#[test]
fn too_few_usable_endpoints_lower_the_priority_and_none_puts_it_below_all() {
    let Some(lab) = Lab::start(2) else { return };
    let tracking = Tracking {
        upstreams: vec![TrackedUpstream {
            name: "echo".to_owned(),
            min_usable_endpoints: 2,
            weight: 20,
        }],
        ..Tracking::default()
    };
    let (mut one, mut two) = start(&lab, &tracking);
    let pool = router(ADDRESS, 1).pool;
    let reaches = |echo, other| ProxyToVrrp::Usable {
        pool: pool.clone(),
        endpoints: UsableEndpoints {
            routed: echo + other,
            upstreams: [("echo".to_owned(), echo), ("other".to_owned(), other)].into(),
        },
    };
    let usable = |echo| reaches(echo, 0);
    one.proxy().say(&usable(2));
    one.wait_router(|it| it.state == Active && it.priority == 250);
    one.proxy().say(&usable(1));
    let report = moved(&mut one, &mut two);
    assert_eq!(
        report.lowered_by[0].problem,
        "has 1 usable endpoints, fewer than 2"
    );
    // Of the other upstream it reaches some: whoever comes for that is served.
    one.proxy().say(&reaches(0, 1));
    one.wait_router(|it| {
        let problem = it.lowered_by.first().map(|it| it.problem.as_str());
        problem == Some("has 0 usable endpoints, fewer than 2") && it.priority == report.priority
    });
    one.proxy().say(&usable(0));
    one.wait_router(|it| it.priority == 10);
    one.proxy().say(&usable(2));
    back(&mut one, &mut two);
}
