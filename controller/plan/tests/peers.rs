//! Unicast peers and passwords.
#![allow(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

mod common;

use std::net::IpAddr;

use common::{accepted, addresses, controller::controller, planned, pool, pool_ref, refused};
use node_api::{Password, Peering, VirtualRouter};
use plan::{InterfaceFacts, NodeFacts, Plan, plan};

fn node(name: &str, internal: &[&str]) -> String {
    let entries = internal.iter();
    let entries: Vec<_> = entries
        .map(|it| format!("{{type: InternalIP, address: \"{it}\"}}"))
        .collect();
    format!(
        "---\napiVersion: v1\nkind: Node\nmetadata: {{name: {name}, labels: {{gw: \"yes\"}}}}\nstatus: {{addresses: \
         [{}]}}\n",
        entries.join(", ")
    )
}

fn unicast(virtual_ips: &[&str], listed: &[&str]) -> String {
    let listed: Vec<_> = listed.iter().map(|it| format!("\"{it}\"")).collect();
    let vrrp = format!(
        "  vrrp: {{peering: {{mode: Unicast, addresses: [{}]}}}}",
        listed.join(", ")
    );
    let quoted: Vec<_> = virtual_ips.iter().map(|it| format!("\"{it}\"")).collect();
    let quoted: Vec<_> = quoted.iter().map(String::as_str).collect();
    pool("chat", &addresses(&quoted), &vrrp)
}

fn routers(plan: &Plan) -> Vec<VirtualRouter> {
    plan.pools[&pool_ref("chat")].virtual_routers.clone()
}

/// The peers of a virtual router, and of its nodes those that take part.
fn peers(router: &VirtualRouter) -> (Vec<String>, Vec<&str>) {
    let peers = router.peering.unicast().unwrap().iter();
    let mut nodes: Vec<_> = router
        .nodes
        .iter()
        .map(|it| it.node_name.as_str())
        .collect();
    nodes.sort_unstable();
    (peers.map(ToString::to_string).collect(), nodes)
}

#[test]
fn candidates_are_each_other_s_peers_by_family() {
    let nodes = [
        node("a", &["10.0.0.11", "fd00::11"]),
        node("b", &["fd00::12", "10.0.0.12"]),
    ];
    let plan = planned(&[&nodes.concat(), &unicast(&["10.0.0.9", "fd00::9"], &[])]);
    let routers = routers(&plan);
    assert_eq!(peers(&routers[0]).0, ["10.0.0.11", "10.0.0.12"]);
    assert_eq!(peers(&routers[1]).0, ["fd00::11", "fd00::12"]);
    let own = routers[0].nodes.iter().find(|it| it.node_name == "b");
    assert_eq!(own.unwrap().address, Some([10, 0, 0, 12].into()));
    let multicast = planned(&[
        &nodes.concat(),
        &pool("chat", &addresses(&["10.0.0.9"]), ""),
    ]);
    assert!(self::routers(&multicast)[0].peering.is_multicast());
}

/// What the node tells of the link of the address is better than what its Node says.
#[test]
fn a_node_s_network_decides() {
    let nodes = [
        node("a", &["192.0.2.1"]),
        node("b", &["10.0.0.22"]),
        node("c", &["10.0.0.33"]),
    ];
    let mut inputs = controller(accepted(&[&nodes.concat(), &unicast(&["10.0.0.9"], &[])]));
    let facts = |own: &[&str]| {
        let interface = |name: &str, prefix: &str, own: &[&str]| InterfaceFacts {
            name: name.to_owned(),
            prefixes: vec![prefix.parse().unwrap()],
            addresses: own.iter().map(|it| it.parse::<IpAddr>().unwrap()).collect(),
            ..InterfaceFacts::default()
        };
        NodeFacts {
            interfaces: vec![
                interface("eth0", "192.0.2.0/24", &["192.0.2.1"]),
                interface("eth1", "10.0.0.0/24", own),
            ],
        }
    };
    inputs.facts.insert("a".to_owned(), facts(&["10.0.0.11"]));
    // The InternalIP first, where it is on the link.
    let several = facts(&["10.0.0.12", "10.0.0.22", "fe80::12"]);
    inputs.facts.insert("b".to_owned(), several);
    inputs.facts.insert("c".to_owned(), facts(&["fe80::13"]));
    let plan = plan(&inputs);
    let routers = routers(&plan);
    let own = ["10.0.0.11", "10.0.0.22"].map(str::to_owned).to_vec();
    assert_eq!(peers(&routers[0]), (own, vec!["a", "b"]));
    let told = &plan.unresolved[&pool_ref("chat")];
    assert_eq!(
        told[0].to_string(),
        "spec.vrrp.peering.mode: is Unicast, and c has no IPv4 address on the link of 10.0.0.9; give it \
         one (on plain hosts, an InternalIP of its Node), or choose other nodes"
    );
}

#[test]
fn listed_peers_are_those_of_the_family_and_nodes_must_be_among_them() {
    let listed = ["10.0.0.12", "10.0.0.11", "10.0.0.200", "fe80::2", "fe80::1"];
    let pools = unicast(&["10.0.0.9", "fd00::9"], &listed);
    let nodes = [node("a", &["10.0.0.11"]), node("b", &["192.0.2.2"])];
    let mut inputs = controller(accepted(&[&nodes.concat(), &pools]));
    let routers_of = |inputs: &plan::Inputs| routers(&plan(inputs));
    let all = routers_of(&inputs);
    let v4 = ["10.0.0.11", "10.0.0.12", "10.0.0.200"];
    assert_eq!(
        peers(&all[0]),
        (v4.map(str::to_owned).to_vec(), vec!["a", "b"])
    );
    assert_eq!(peers(&all[1]).0, ["fe80::1", "fe80::2"]);
    // One that says it has none of them would not be heard.
    let interface = InterfaceFacts {
        name: "eth0".to_owned(),
        prefixes: vec!["10.0.0.0/24".parse().unwrap()],
        addresses: vec![[10, 0, 0, 13].into()],
        ..InterfaceFacts::default()
    };
    let facts = NodeFacts {
        interfaces: vec![interface],
    };
    inputs.facts.insert("b".to_owned(), facts);
    let plan = plan(&inputs);
    assert_eq!(peers(&routers(&plan)[0]).1, ["a"]);
    let told = plan.unresolved[&pool_ref("chat")][0].to_string();
    assert_eq!(
        told,
        "spec.vrrp.peering.addresses: lists no address that b has on the link of 10.0.0.9; list it, or \
         choose other nodes"
    );
}

fn one(pool: &str, told: &str) {
    let nodes = node("a", &["10.0.0.11"]);
    let refused = refused(&[&nodes, pool]);
    assert_eq!(
        refused,
        [format!("file1.yaml: WebSocketHAPool default/chat: {told}")]
    );
}

#[test]
fn peers_that_cannot_be_are_refused() {
    let path = "spec.vrrp.peering.addresses";
    let vip = ["10.0.0.9"];
    let simple = addresses(&vip);
    one(
        &pool(
            "chat",
            &simple,
            "  vrrp: {peering: {addresses: [10.0.0.1, 10.0.0.2]}}",
        ),
        &format!(
            "{path}: has no meaning while mode is Multicast; remove it or set mode to Unicast"
        ),
    );
    one(
        &unicast(&vip, &["10.0.0.11"]),
        &format!(
            "{path}: lists less than two IPv4 addresses, and 10.0.0.9 is one; list all its routers, the \
             nodes' own addresses among them"
        ),
    );
    for (wrong, told) in [
        (
            "fd00::1",
            "fd00::1 is an IPv6 address, and the pool has no virtual one; remove it",
        ),
        (
            "10.0.0.9",
            "10.0.0.9 is a virtual address of this pool; list the routers' own",
        ),
        (
            "10.0.0.11",
            "10.0.0.11 is listed twice; remove one of the two",
        ),
        (
            "10.0.0.13/24",
            "10.0.0.13/24 carries a prefix length; leave out /24",
        ),
    ] {
        one(
            &unicast(&vip, &["10.0.0.11", "10.0.0.12", wrong]),
            &format!("{path}[2]: {told}"),
        );
    }
    one(
        &unicast(&["fd00::9"], &[]),
        "spec.vrrp.peering.mode: is Unicast, and a has no IPv6 address on the link of fd00::9; give it \
         one (on plain hosts, an InternalIP of its Node), or choose other nodes",
    );
}

#[test]
fn passwords_are_for_version_2_and_are_not_shown() {
    let with = |vrrp: &str| {
        pool(
            "chat",
            &addresses(&["10.0.0.9"]),
            &format!("  vrrp: {{{vrrp}}}"),
        )
    };
    let path = "spec.vrrp.authentication";
    let secret = |version: u8, password: &str| {
        with(&format!(
            "version: {version}, authentication: {{mode: SimplePassword, password: {password}}}"
        ))
    };
    let nodes = node("a", &[]);
    let plan = planned(&[&nodes, &secret(2, "geheim")]);
    assert_eq!(
        routers(&plan)[0].password,
        Some(Password("geheim".to_owned()))
    );
    assert_eq!(routers(&plan)[0].peering, Peering::Multicast);
    assert!(!format!("{plan:?}").contains("geheim"));
    one(
        &secret(3, "geheim"),
        &format!(
            "{path}.mode: is SimplePassword, which version 3 does not have; set it to None or version \
             to 2"
        ),
    );
    for wrong in ["geheim789", "\"geh\\teim\"", "\"\""] {
        one(
            &secret(2, wrong),
            &format!(
                "{path}.password: is not 1 to 8 printable ASCII characters long; write another"
            ),
        );
    }
    one(
        &secret(2, "12345678"),
        &format!("{path}.password: is no text; put it in quotes"),
    );
    one(
        &with("version: 2, authentication: {mode: SimplePassword}"),
        &format!("{path}.password: is missing; write 1 to 8 characters or set mode to None"),
    );
    one(
        &with("version: 2, authentication: {password: geheim}"),
        &format!(
            "{path}.password: has no meaning while mode is None; remove it or set mode to SimplePassword"
        ),
    );
}
