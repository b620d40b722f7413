use controller::desired::Body;
use node_api::{MacAddress, Pool, stream::ResourceName};
use serde_json::json;

use crate::world::{World, pool_ref};

fn pool_of(world: &World, node: &str, pool: &str) -> Pool {
    let desired = world.desired();
    let name = ResourceName::Pool(pool_ref(pool));
    let resource = desired.nodes[node].resource(&name).unwrap();
    match &resource.body {
        Body::Pool(body) => Pool::clone(body),
        _ => panic!("a pool is nothing else"),
    }
}

#[test]
fn virtual_routers_are_told_as_they_are_committed_and_the_rest_as_it_is_planned() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let before = pool_of(&world, "n1", "chat");
    assert_eq!(before.virtual_routers[0].nodes.len(), 2);
    assert!(
        before.upstreams[0].endpoints.is_empty(),
        "they travel apart"
    );

    // A third node is planned at once, and told when it is committed.
    world.add_node("n3");
    assert_eq!(pool_of(&world, "n1", "chat"), before);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
        spec["listeners"] = json!([{"name": "ws", "port": 9000}]);
    });
    let edited = pool_of(&world, "n1", "chat");
    assert_eq!(edited.listeners[0].port, 9000);
    assert_eq!(edited.virtual_routers, before.virtual_routers);
    world.settle();
    assert_eq!(
        pool_of(&world, "n3", "chat").virtual_routers[0].nodes.len(),
        3
    );
}

/// It is committed as the version is: a sequence of its own, and told only then.
#[test]
fn the_hardware_address_is_told_once_it_is_committed() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let before = pool_of(&world, "n1", "chat").virtual_routers[0].clone();
    assert_eq!(before.mac_address, MacAddress::Interface);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
        spec["vrrp"] = json!({"macAddress": {"mode": "VirtualRouter"}});
    });
    assert_eq!(pool_of(&world, "n1", "chat").virtual_routers[0], before);
    world.settle();
    let after = pool_of(&world, "n1", "chat").virtual_routers[0].clone();
    assert_eq!(after.mac_address, MacAddress::VirtualRouter);
    assert!(after.sequence > before.sequence);
}

#[test]
fn what_a_candidate_advertises_without_endpoints_is_what_plain_hosts_do() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let told = pool_of(&world, "n1", "chat").virtual_routers;
    let planned = world.desired().plan.pools[&pool_ref("chat")].clone();
    assert_eq!(told[0].nodes, planned.virtual_routers[0].nodes);
}

#[test]
fn endpoints_change_alone() {
    let service = json!({
        "metadata": {"name": "echo", "namespace": "default"},
        "spec": {"ports": [{"name": "ws", "port": 80}]},
    });
    let slice = |addresses: &[&str]| {
        let endpoints: Vec<_> = addresses
            .iter()
            .map(|it| json!({"addresses": [it]}))
            .collect();
        json!({
            "metadata": {"name": "echo-1", "namespace": "default",
                         "labels": {"kubernetes.io/service-name": "echo"}},
            "addressType": "IPv4",
            "endpoints": endpoints,
            "ports": [{"name": "ws", "port": 8010}],
        })
    };
    let mut world = World::new(&["n1", "n2"]);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
        spec["upstreams"] = json!([{"name": "echo", "service": {"name": "echo", "port": 80}}]);
    });
    world.add(service, slice(&["10.0.0.1"]));
    world.settle();
    let before = world.desired().nodes["n1"].clone();
    let more: k8s_openapi::api::discovery::v1::EndpointSlice =
        serde_json::from_value(slice(&["10.0.0.1", "10.0.0.2"])).unwrap();
    world.snapshot.endpoint_slices[0] = std::sync::Arc::new(more);
    assert!(!world.commit(), "endpoints are not committed");
    let after = world.desired().nodes["n1"].clone();
    let changed: Vec<_> = after
        .resources()
        .filter(|(name, resource)| before.resource(name) != Some(resource))
        .map(|(name, _)| name.to_string())
        .collect();
    assert_eq!(changed, ["endpoints/default/chat/echo"]);
}

#[test]
fn a_pool_that_is_refused_is_held_on_its_nodes() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
        spec["upstreams"][0]["endpoints"][0]["address"] = "192.168.1.110".into();
    });
    let state = world.desired().nodes["n1"].clone();
    assert!(state.parts.is_empty());
    assert!(state.held.contains(&pool_ref("chat")));
}

#[test]
fn a_node_without_a_part_is_told_nothing() {
    let mut world = World::new(&["n1", "n2"]);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = json!([{
            "address": "192.168.1.110",
            "nodePriorities": [{"nodeName": "n1", "priority": 100}],
        }]);
    });
    world.settle();
    let desired = world.desired();
    assert!(desired.nodes.contains_key("n1"));
    assert!(!desired.nodes.contains_key("n2"));
}

#[test]
fn what_is_computed_again_is_what_is_computed_at_once_and_what_has_not_changed_is_shared() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    let mut teller = controller::desired::Teller::default();
    let mut before = teller.tell(&world.snapshot).unwrap();
    for step in 0..9 {
        match step {
            0 | 5 => world.apply("chat", &["192.168.1.110"]),
            2 => world.apply("other", &["192.168.1.112", "192.168.1.113"]),
            3 => world.settle(),
            4 => world.edit("chat", |spec| {
                spec["virtualIPs"] = json!([{"address": "192.168.1.110"}]);
                spec["upstreams"][0]["endpoints"][0]["address"] = "192.168.1.110".into();
            }),
            6 => world.delete("other"),
            7 => world.delete("chat"),
            _ => {
                world.commit();
            }
        }
        let again = teller.tell(&world.snapshot).unwrap();
        assert_eq!(again.nodes, world.desired().nodes, "{step}");
        before = again;
    }
    assert!(before.nodes.is_empty());

    world.edit("one", |spec| {
        spec["virtualIPs"] = json!([{
            "address": "192.168.1.110",
            "nodePriorities": [{"nodeName": "n1", "priority": 100}],
        }]);
    });
    world.edit("two", |spec| {
        spec["virtualIPs"] = json!([{
            "address": "192.168.1.112",
            "nodePriorities": [{"nodeName": "n2", "priority": 100}],
        }]);
    });
    world.settle();
    let before = teller.tell(&world.snapshot).unwrap();
    world.delete("one");
    let after = teller.tell(&world.snapshot).unwrap();
    assert!(!after.nodes.contains_key("n1"));
    assert!(std::sync::Arc::ptr_eq(
        &before.nodes["n2"],
        &after.nodes["n2"]
    ));
}
