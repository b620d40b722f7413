//! `spec.tracking` and `spec.vrrp.isolation`: what nodes are told of them, and what is refused.

mod common;

use std::time::Duration;

use common::{accepted, addresses, config, controller, nodes, planned, pool, pool_ref, refused};
use node_api::{Probe, Tracking};
use plan::{Cluster, Inputs, Objects, plan};

const CHAT: &str = "file1.yaml: WebSocketHAPool default/chat: ";

fn texts(more: &str) -> [String; 2] {
    [
        nodes(&["server1", "server2"]),
        pool("chat", &addresses(&["10.0.0.9"]), more),
    ]
}

fn tracking(more: &str) -> Tracking {
    let [nodes, pool] = texts(more);
    let config = config(&planned(&[&nodes, &pool]), "server1");
    config.pools[&pool_ref("chat")].tracking.clone()
}

#[track_caller]
fn one(more: &str, expected: &str) {
    let [nodes, pool] = texts(more);
    assert_eq!(refused(&[&nodes, &pool]), [format!("{CHAT}{expected}")]);
}

/// A check with these fields.
fn check(fields: &str) -> String {
    format!("  tracking: {{checks: [{{name: router, weight: 20, {fields}}}]}}")
}

#[test]
fn nodes_are_told_what_to_track() {
    assert!(tracking("").is_empty());
    let found = tracking(
        "  tracking:\n    interfaces: [{name: eth1, weight: 20}]\n    upstreams: [{name: echo, \
         minUsableEndpoints: 2, weight: 30}]\n    checks:\n    - {name: dns, weight: 5, tcp: {address: \
         10.0.0.1, port: 53}}\n    - {name: web, weight: 6, interval: 10s, timeout: 3s, \
         failureThreshold: 1, successThreshold: 4, http: {address: 10.0.0.2, port: 80, path: /ok, \
         host: chat.example, expectedStatuses: [204]}}\n    - {name: own, weight: 7, command: {name: \
         own.sh}}\n  vrrp: {isolation: {timeout: 5s}}",
    );
    assert_eq!(
        (&*found.interfaces[0].name, found.interfaces[0].weight),
        ("eth1", 20)
    );
    let upstream = &found.upstreams[0];
    assert_eq!((upstream.min_usable_endpoints, upstream.weight), (2, 30));
    assert_eq!(found.isolation_timeout, Duration::from_secs(5));
    let [dns, web, own] = &found.checks[..] else {
        panic!("{found:?}");
    };
    assert_eq!(
        dns.probe,
        Probe::Tcp {
            address: "10.0.0.1:53".parse().unwrap()
        }
    );
    let second = Duration::from_secs(1);
    assert_eq!((dns.interval, dns.timeout), (2 * second, second));
    assert_eq!((dns.failure_threshold, dns.success_threshold), (3, 2));
    assert_eq!((web.interval, web.timeout), (10 * second, 3 * second));
    assert_eq!((web.failure_threshold, web.success_threshold), (1, 4));
    let http = Probe::Http {
        address: "10.0.0.2:80".parse().unwrap(),
        path: "/ok".to_owned(),
        host: Some("chat.example".to_owned()),
        expected_statuses: vec![204],
    };
    assert_eq!(web.probe, http);
    let command = Probe::Command {
        name: "own.sh".to_owned(),
    };
    assert_eq!(own.probe, command);
}

/// A pool that tracks nothing is told as it always was: nodes of the release before know no better.
#[test]
fn what_is_not_tracked_is_not_told() {
    let [nodes, pool] = texts("");
    let config = config(&planned(&[&nodes, &pool]), "server1");
    let told = serde_json::to_value(&config.pools[&pool_ref("chat")]).unwrap();
    assert!(told.get("tracking").is_none(), "{told}");
}

#[test]
fn what_is_asked_is_said_once() {
    let at = "spec.tracking.checks[0]";
    one(
        &check("interval: 1s"),
        &format!("{at}: says nothing of what is asked; add tcp, http or command"),
    );
    one(
        &check("tcp: {address: 10.0.0.1, port: 1}, command: {name: a}"),
        &format!("{at}: has several of tcp, http and command; keep one of them"),
    );
    one(
        &check("command: {name: ../a}"),
        &format!(
            "{at}.command.name: is ../a; write the name of a file in --check-dir, without its directory"
        ),
    );
    one(
        &check("http: {address: 10.0.0.1, port: 1, path: \"a b\"}"),
        &format!("{at}.http.path: is \"a b\"; write a path that begins with /, without blanks"),
    );
}

#[test]
fn times_and_weights_make_sense() {
    let at = "spec.tracking.checks[0]";
    let tcp = "tcp: {address: 10.0.0.1, port: 1}";
    one(
        &check(&format!("interval: 50ms, timeout: 10ms, {tcp}")),
        &format!("{at}.interval: is 50ms; use at least 100ms"),
    );
    one(
        &check(&format!("interval: 1s, timeout: 2s, {tcp}")),
        &format!("{at}.timeout: is 2s, which is longer than interval, 1s; use at most that"),
    );
    one(
        "  tracking: {interfaces: [{name: eth1, weight: 254}]}",
        "spec.tracking.interfaces[0].weight: is 254; use a number from 1 to 253",
    );
    one(
        "  tracking: {upstreams: [{name: other, minUsableEndpoints: 2, weight: 1}]}",
        "spec.tracking.upstreams[0].name: is other, which is no upstream of the pool; use echo",
    );
    one(
        "  vrrp: {isolation: {timeout: 500ms}}",
        "spec.vrrp.isolation.timeout: is 500ms; use at least 1000ms, which is 1s and three times \
         advertisementInterval, or 0s for never",
    );
    one(
        "  vrrp: {advertisementInterval: 1s, isolation: {timeout: 2s}}",
        "spec.vrrp.isolation.timeout: is 2s; use at least 3000ms, which is 1s and three times \
         advertisementInterval, or 0s for never",
    );
}

/// Whoever may edit a pool must learn nothing of what only the gateways can reach.
#[test]
fn checks_go_where_endpoints_may() {
    for (address, is) in [
        ("127.0.0.1", "a loopback address"),
        ("169.254.169.254", "a link-local address"),
        ("224.0.0.1", "a multicast address"),
        ("\"::1\"", "a loopback address"),
    ] {
        for kind in ["tcp", "http"] {
            one(
                &check(&format!("{kind}: {{address: {address}, port: 80}}")),
                &format!(
                    "spec.tracking.checks[0].{kind}.address: {} is {is}; use an address under which \
                     the server is reached from other hosts",
                    address.trim_matches('"')
                ),
            );
        }
    }
    one(
        &check("tcp: {address: 10.0.0.9, port: 80}"),
        "spec.tracking.checks[0].tcp.address: 10.0.0.9 is a virtual address, which its holder would \
         always reach; use the address of another host",
    );
    let second = pool("other", &addresses(&["10.0.0.8"]), "");
    let [nodes, first] = texts(&check("tcp: {address: 10.0.0.8, port: 80}"));
    let refusals = refused(&[&nodes, &first, &second]);
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(
        refusals[0].contains("10.0.0.8 is asked by a check of WebSocketHAPool default/chat"),
        "{refusals:?}"
    );
}

#[test]
fn a_gateway_is_not_asked_about_itself() {
    let node = "---\napiVersion: v1\nkind: Node\nmetadata: {name: server1, labels: {gw: \"yes\"}}\n\
                status: {addresses: [{type: InternalIP, address: 10.0.0.14}]}\n";
    let other = "---\napiVersion: v1\nkind: Node\nmetadata: {name: db}\n\
                 status: {addresses: [{type: InternalIP, address: 10.0.0.15}]}\n";
    let nodes = format!("{node}{other}");
    let [_, pool] = texts(&check("tcp: {address: 10.0.0.14, port: 80}"));
    assert_eq!(
        refused(&[&nodes, &pool]),
        [format!(
            "{CHAT}spec.tracking.checks[0].tcp.address: 10.0.0.14 is gateway node server1's own \
             address, which its holder would always reach; use the address of another host"
        )]
    );
    let [_, pool] = texts(&check("tcp: {address: 10.0.0.15, port: 80}"));
    accepted(&[&nodes, &pool]);
}

/// The API server refuses it too; a definition without its rules would not.
#[test]
fn a_cluster_runs_no_commands() {
    let [nodes, pool] = texts(&check("command: {name: own.sh}"));
    let objects: Objects = accepted(&[&nodes, &pool]);
    let mut inputs: Inputs = controller::controller(objects);
    assert!(plan(&inputs).rejected.is_empty());
    inputs.policy.cluster = Some(Cluster {
        service_ranges: Vec::new(),
        node_ports: 30_000..=32_767,
    });
    let refusals = controller::rejected(&plan(&inputs), "chat");
    assert!(
        refusals.contains(
            &"spec.tracking.checks[0].command: is for the files of plain hosts alone; in a cluster \
              use tcp or http"
                .to_owned()
        ),
        "{refusals:?}"
    );
}
