use std::{collections::BTreeSet, sync::Arc};

use controller::retire::{Progress, progress};

use crate::world::World;

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|&it| it.to_owned()).collect()
}

fn say_retired(world: &mut World, node: &str) {
    let view = world.snapshot.views.get_mut(node).unwrap();
    Arc::make_mut(view).retired = true;
}

#[test]
fn every_node_with_a_pod_or_an_address_is_waited_for() {
    let mut world = World::new(&["n1", "n2", "n3", "n4"]);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = serde_json::json!([{
            "address": "192.168.1.110",
            "nodePriorities": [{"nodeName": "n1", "priority": 100}],
        }]);
    });
    world.settle();
    let pods = names(&["n2", "n3"]);
    let first = progress(&world.snapshot, &pods, "1");
    assert_eq!(first.waiting, names(&["n1", "n2", "n3"]), "n4 has neither");
    assert!(first.retired.is_empty());

    say_retired(&mut world, "n1");
    world.snapshot.ledger.retire = Some(progress(&world.snapshot, &pods, "1"));
    assert_eq!(
        world.snapshot.ledger.retire,
        Some(Progress {
            request: "1".to_owned(),
            retired: names(&["n1"]),
            waiting: names(&["n2", "n3"]),
        })
    );

    // Another replica leads now, to which n1 has said nothing; and n3 leaves the cluster.
    let view = world.snapshot.views.get_mut("n1").unwrap();
    Arc::make_mut(view).retired = false;
    world.remove_node("n3");
    say_retired(&mut world, "n2");
    let last = progress(&world.snapshot, &pods, "1");
    assert_eq!(last.retired, names(&["n1", "n2"]));
    assert!(last.waiting.is_empty());

    // What an earlier request came to says nothing of the next.
    world.snapshot.ledger.retire = Some(last);
    let again = progress(&world.snapshot, &pods, "2");
    assert_eq!(again.waiting, names(&["n1"]));
}

#[test]
fn a_request_that_was_withdrawn_leaves_nothing_in_the_ledger() {
    let mut world = World::new(&["n1"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.snapshot.ledger.retire = Some(Progress::default());
    assert!(world.commit());
    assert_eq!(world.snapshot.ledger.retire, None);
}
