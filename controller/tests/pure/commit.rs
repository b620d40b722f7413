use crate::world::{World, pool_ref};

fn nodes(world: &World, pool: &str, address: &str) -> Vec<String> {
    let entries = world.entries(pool);
    let committed = entries[address].committed.clone().unwrap();
    committed.nodes.into_iter().map(|it| it.node_name).collect()
}

fn retiring(world: &World, pool: &str, address: &str) -> Option<Vec<String>> {
    let entry = world.entries(pool).get(address).cloned()?;
    Some(entry.retiring.map(|it| it.node_names).unwrap_or_default())
}

#[test]
fn nothing_is_told_before_it_is_committed() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    assert!(world.desired().nodes.is_empty(), "no status yet");
    assert!(world.commit());
    assert_eq!(world.desired().nodes.len(), 2);
    assert!(!world.commit(), "once is enough");
    let entries = world.entries("chat");
    let sequences: Vec<_> = entries
        .values()
        .map(|it| it.committed.as_ref().unwrap().sequence)
        .collect();
    assert_eq!(sequences, [1, 2]);
    assert_eq!(entries["192.168.1.110"].virtual_router_id, Some(110));
}

#[test]
fn a_restarted_controller_writes_nothing_again() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.apply("other", &["192.168.1.10"]);
    world.settle();
    let before = world.desired();
    world.restart_controller();
    assert!(!world.commit());
    assert_eq!(world.desired().nodes, before.nodes);
}

#[test]
fn an_address_that_left_stays_until_every_node_gave_it_up() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.settle();
    world.connected("n2", false);
    world.apply("chat", &["192.168.1.112"]);
    world.settle();
    let waiting = retiring(&world, "chat", "192.168.1.110").unwrap();
    assert_eq!(waiting, ["n2"], "it has not been heard to give it up");

    // Another pool may not have it, nor its VRID.
    world.apply("other", &["192.168.1.110"]);
    world.settle();
    assert!(
        world
            .desired()
            .plan
            .rejected
            .contains_key(&pool_ref("other"))
    );

    world.connected("n2", true);
    world.settle();
    assert_eq!(retiring(&world, "chat", "192.168.1.110"), None);
    world.settle();
    assert!(world.entries("other").contains_key("192.168.1.110"));
}

#[test]
fn an_address_that_comes_back_to_its_pool_is_its_own_at_once() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.settle();
    world.connected("n2", false);
    world.apply("chat", &["192.168.1.112"]);
    world.settle();
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.settle();
    assert_eq!(retiring(&world, "chat", "192.168.1.110").unwrap(), [""; 0]);
    assert_eq!(nodes(&world, "chat", "192.168.1.110").len(), 2);
}

#[test]
fn a_deleted_pool_s_addresses_are_remembered_elsewhere() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.connected("n1", false);
    world.delete("chat");
    world.settle();
    let ledger = &world.snapshot.ledger;
    assert_eq!(ledger.retirements.len(), 1, "{ledger:?}");
    assert_eq!(
        ledger.retirements[0].node_names,
        ["n1".to_owned()].into(),
        "n2 gave it up"
    );
    world.apply("other", &["192.168.1.110"]);
    world.settle();
    assert!(world.entries("other").is_empty(), "not yet free");

    world.restart_controller();
    world.connected("n1", true);
    world.settle();
    assert!(world.snapshot.ledger.retirements.is_empty());
    assert!(world.entries("other").contains_key("192.168.1.110"));
}

#[test]
fn a_node_that_left_the_cluster_holds_nothing() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.connected("n1", false);
    world.delete("chat");
    world.settle();
    world.remove_node("n1");
    world.settle();
    assert!(world.snapshot.ledger.retirements.is_empty());
}

#[test]
fn a_node_that_leaves_the_order_is_waited_for_and_the_others_are_not() {
    let mut world = World::new(&["n1", "n2", "n3"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.connected("n3", false);
    let excluded = "node.kubernetes.io/exclude-from-external-load-balancers";
    let place = &mut world.snapshot.nodes[2];
    let mut node = (**place).clone();
    node.metadata
        .labels
        .get_or_insert_default()
        .insert(excluded.to_owned(), String::new());
    *place = std::sync::Arc::new(node);
    world.settle();
    assert_eq!(nodes(&world, "chat", "192.168.1.110").len(), 2);
    assert_eq!(retiring(&world, "chat", "192.168.1.110").unwrap(), ["n3"]);

    // Its address is not free as long as the node may hold it.
    world.apply("chat", &["192.168.1.112"]);
    world.settle();
    assert_eq!(retiring(&world, "chat", "192.168.1.110").unwrap(), ["n3"]);
    world.connected("n3", true);
    world.settle();
    assert_eq!(retiring(&world, "chat", "192.168.1.110"), None);
}

#[test]
fn sequences_grow_over_pools_and_their_ends() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.delete("chat");
    world.restart_controller();
    world.settle();
    world.apply("other", &["192.168.1.112"]);
    world.settle();
    let other = world.entries("other")["192.168.1.112"].clone();
    // The second one is that of the retirement.
    assert_eq!(other.committed.unwrap().sequence, 3);
}

#[test]
fn a_pool_that_is_refused_keeps_what_is_committed() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let before = world.entries("chat");
    // Its own address as an endpoint would be a loop.
    world.edit("chat", |spec| {
        spec["virtualIPs"] = serde_json::json!([{"address": "192.168.1.110"}]);
        spec["upstreams"][0]["endpoints"][0]["address"] = "192.168.1.110".into();
    });
    assert!(!world.commit());
    assert_eq!(world.entries("chat"), before);
}

#[test]
fn what_nodes_hold_of_pools_that_nobody_saw_go_is_remembered() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    // Deleted while no controller ran.
    world.restart_controller();
    world.delete("chat");
    assert!(world.commit());
    let retirements = world.snapshot.ledger.retirements.clone();
    assert_eq!(retirements.len(), 1);
    assert_eq!(retirements[0].virtual_router_id, 110);
    assert_eq!(retirements[0].node_names.len(), 2);
    world.apply("other", &["192.168.1.110"]);
    assert!(
        world
            .desired()
            .plan
            .rejected
            .contains_key(&pool_ref("other"))
    );
    world.settle();
    assert!(world.snapshot.ledger.retirements.is_empty());
    assert!(world.entries("other").contains_key("192.168.1.110"));
}

#[test]
fn a_pool_that_was_made_anew_does_not_hide_what_the_former_one_took_along() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.identify("chat", "uid-1");
    world.settle();
    world.connected("n1", false);
    // Between two looks.
    world.delete("chat");
    world.apply("chat", &["192.168.1.112"]);
    world.identify("chat", "uid-2");
    world.settle();
    let ledger = &world.snapshot.ledger;
    assert_eq!(ledger.retirements.len(), 1, "{ledger:?}");
    assert_eq!(ledger.retirements[0].node_names, ["n1".to_owned()].into());
}

#[test]
fn another_epoch_begins_once_all_that_is_planned_stands() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.snapshot.ledger.epoch = "e1".to_owned();
    world.snapshot.ledger.next_epoch = "e2".to_owned();
    assert!(world.commit());
    let ledger = world.snapshot.ledger.clone();
    assert_eq!((&*ledger.epoch, &*ledger.next_epoch), ("e1", "e2"));
    assert!(world.commit(), "the pool stands");
    let ledger = world.snapshot.ledger.clone();
    assert_eq!((&*ledger.epoch, &*ledger.next_epoch), ("e2", ""));
    world.settle();
    assert!(!world.commit());
    assert_eq!(world.snapshot.ledger.epoch, "e2");
}
