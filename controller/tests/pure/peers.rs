//! Unicast peers: nobody takes part, or leaves, before the others hear it or need not any more.

use std::sync::Arc;

use node_api::{Peering, stream::NodeFacts};
use serde_json::json;

use crate::world::World;

const ADDRESS: &str = "192.168.1.110";

/// `node` tells of its own address.
fn number(world: &mut World, node: &str, last: u8) {
    let view = Arc::make_mut(world.snapshot.views.get_mut(node).unwrap());
    let mut facts = NodeFacts::clone(&view.facts);
    facts.interfaces[0].addresses = vec![[192, 168, 1, last].into()];
    view.facts = Arc::new(facts);
}

fn start(nodes: &[&str]) -> World {
    let mut world = World::new(nodes);
    for (node, last) in nodes.iter().zip(11..) {
        number(&mut world, node, last);
    }
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": ADDRESS}]);
        spec["vrrp"] = json!({"peering": {"mode": "Unicast"}});
    });
    world.settle();
    world
}

/// Committed nodes, and the last bytes of committed peers.
fn agreed(world: &World) -> (Vec<String>, Vec<String>) {
    let committed = world.entries("chat")[ADDRESS].committed.clone().unwrap();
    let mut nodes: Vec<_> = committed.nodes.into_iter().map(|it| it.node_name).collect();
    nodes.sort();
    let peers = committed.peering.unwrap().addresses.into_iter();
    let peers = peers.map(|it| it.rsplit('.').next().unwrap().to_owned());
    (nodes, peers.collect())
}

fn is(world: &World, nodes: &[&str], peers: &[&str]) {
    let owned = |all: &[&str]| all.iter().map(|it| (*it).to_owned()).collect::<Vec<_>>();
    assert_eq!(agreed(world), (owned(nodes), owned(peers)));
}

#[test]
fn nodes_are_told_the_committed_peers() {
    let world = start(&["n1", "n2"]);
    is(&world, &["n1", "n2"], &["11", "12"]);
    let desired = world.desired();
    for node in ["n1", "n2"] {
        let parts = desired.nodes[node].resources();
        let pools = parts.filter_map(|(_, resource)| match &resource.body {
            controller::desired::Body::Pool(pool) => Some(pool),
            _ => None,
        });
        let routers: Vec<_> = pools.flat_map(|pool| &pool.virtual_routers).collect();
        let addresses = vec![[192, 168, 1, 11].into(), [192, 168, 1, 12].into()];
        assert_eq!(routers[0].peering, Peering::Unicast { addresses });
    }
}

#[test]
fn a_node_joins_once_all_others_listen_to_it() {
    let mut world = start(&["n1", "n2"]);
    world.connected("n2", false);
    world.add_node("n3");
    number(&mut world, "n3", 13);
    world.settle();
    // n2 may be Active and does not know n3.
    is(&world, &["n1", "n2"], &["11", "12", "13"]);
    world.connected("n2", true);
    world.settle();
    is(&world, &["n1", "n2", "n3"], &["11", "12", "13"]);
    // One whose Node is gone holds nothing.
    world.connected("n1", false);
    world.add_node("n4");
    number(&mut world, "n4", 14);
    world.settle();
    is(&world, &["n1", "n2", "n3"], &["11", "12", "13", "14"]);
    world.remove_node("n1");
    world.settle();
    is(&world, &["n2", "n3", "n4"], &["12", "13", "14"]);
}

#[test]
fn a_node_that_leaves_is_a_peer_until_it_has_given_up() {
    let mut world = start(&["n1", "n2", "n3"]);
    world.connected("n2", false);
    let chosen = |world: &mut World, names: &[&str]| {
        let mut priorities = Vec::new();
        for (name, priority) in names.iter().zip([200, 150, 100]) {
            priorities.push(json!({"nodeName": name, "priority": priority}));
        }
        world.edit("chat", |spec| {
            spec["virtualIPs"] = json!([{"address": ADDRESS, "nodePriorities": priorities}]);
            spec["vrrp"] = json!({"peering": {"mode": "Unicast"}});
        });
    };
    chosen(&mut world, &["n1", "n3"]);
    world.settle();
    is(&world, &["n1", "n3"], &["11", "12", "13"]);
    world.connected("n2", true);
    world.settle();
    is(&world, &["n1", "n3"], &["11", "13"]);
    // Another in its place.
    chosen(&mut world, &["n2"]);
    world.settle();
    is(&world, &["n2"], &["12"]);
}

#[test]
fn a_node_that_has_not_told_of_its_network_keeps_its_address() {
    let mut world = start(&["n1", "n2"]);
    world.snapshot.policy.cluster = Some(plan::Cluster {
        service_ranges: Vec::new(),
        node_ports: 30_000..=32_767,
    });
    let view = Arc::make_mut(world.snapshot.views.get_mut("n2").unwrap());
    view.facts = Arc::default();
    world.settle();
    is(&world, &["n1", "n2"], &["11", "12"]);
}

#[test]
fn an_address_changes_in_steps() {
    let mut world = start(&["n1", "n2"]);
    number(&mut world, "n2", 22);
    assert!(world.commit());
    is(&world, &["n1", "n2"], &["11", "12", "22"]);
    world.commit();
    is(&world, &["n1", "n2"], &["11", "12", "22"]);
    world.carry_out("n1");
    world.carry_out("n2");
    world.commit();
    is(&world, &["n1", "n2"], &["11", "22", "12"]);
    world.settle();
    is(&world, &["n1", "n2"], &["11", "22"]);
}
