//! The hub over failures: of itself, of the disk, of the controller's memory.

use node_api::stream::{
    HEARD, HeardRouter, InterfaceFacts, NodeFacts, ToController, ToNode, Welcome,
};

use super::{
    assemble::State,
    hub::Hub,
    hub_tests::{Bench, addresses, saved},
    messages::{Effect, Input, StreamId},
    samples::{NODE, endpoints, endpoints_name, pool, pool_name, pool_ref},
};

#[test]
fn endpoints_are_saved_once_a_second_and_acknowledged_at_once() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    let effects = bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    bench.carry_out(&effects);
    replica.acks();
    let is_save = |effect: &&Effect| matches!(effect, Effect::Save(..));
    let saves = |effects: &[Effect]| effects.iter().filter(is_save).count();
    for (ports, expected) in [(&[1, 2][..], 1), (&[1, 2, 3], 0), (&[1], 0)] {
        let effects = bench.upsert(&replica, endpoints_name("a"), &endpoints(ports));
        assert_eq!(saves(&effects), expected, "{ports:?}");
        let Some(Effect::Apply(version, _)) = effects.first() else {
            unreachable!("{effects:?}");
        };
        bench.put(Input::Applied(*version));
        assert_eq!(replica.acks().len(), 1, "whether it is on disk or not");
    }
    let effects = bench.put(Input::Second);
    let [Effect::Save(4, state)] = &effects[..] else {
        unreachable!("the newest: {effects:?}");
    };
    let config = state.config(NODE);
    assert_eq!(config.pools[&pool_ref("a")].upstreams[0].endpoints.len(), 1);
    let effects = bench.upsert(&replica, endpoints_name("a"), &endpoints(&[2]));
    assert_eq!(saves(&effects), 0, "that second has its write");
    // A virtual router does not wait, and takes the rest along.
    let effects = bench.upsert(&replica, pool_name("a"), &pool(2, &["10.0.0.2"]));
    assert_eq!(saves(&effects), 1);
    for _ in 0..2 {
        assert_eq!(bench.put(Input::Second), []);
    }
    let effects = bench.upsert(&replica, endpoints_name("a"), &endpoints(&[3]));
    assert_eq!(saves(&effects), 1);
}

#[test]
fn endpoints_are_not_acknowledged_before_the_routers_they_came_with() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    bench.upsert(&replica, endpoints_name("a"), &endpoints(&[1, 2]));
    bench.put(Input::Applied(2));
    assert_eq!(replica.acks(), []);
    bench.put(Input::Saved(1, Ok(())));
    assert_eq!(replica.acks().len(), 2);
}

/// A backup of the API server was restored, or the namespace was made anew.
#[test]
fn a_controller_of_another_history_is_followed_though_its_sequence_is_lower() {
    let mut bench = Bench::new(Some(State {
        epoch: "e1".to_owned(),
        ..saved(5, pool(5, &["10.0.0.1"]))
    }));
    let welcome = |bench: &mut Bench, id: StreamId, epoch: &str| {
        let welcome = Welcome {
            epoch: epoch.to_owned(),
            replica: format!("replica-{id}"),
            ..Welcome::default()
        };
        bench.put(Input::Welcome(id, welcome));
    };
    let [ours, other] = [1, 2].map(|id| bench.open(id));
    welcome(&mut bench, 1, "e1");
    welcome(&mut bench, 2, "e2");
    assert_eq!(bench.tell(&ours, 4, &pool(4, &["10.0.0.9"])), []);
    let effects = bench.tell(&other, 2, &pool(2, &["10.0.0.2"]));
    assert_eq!(addresses(&effects), ["10.0.0.2"]);
    let Some(Effect::Save(_, state)) = effects.last() else {
        unreachable!("{effects:?}");
    };
    assert_eq!((state.epoch.as_str(), state.sequence), ("e2", 2));
    // That of the history of before is the other one now.
    assert_eq!(bench.sync(&ours, 9, &[]), []);
    let third = bench.open(3);
    let hello = third.outbox.take().into_iter().next();
    let Some(ToController::Hello(hello)) = hello else {
        unreachable!("{hello:?}");
    };
    assert_eq!((hello.epoch.as_str(), hello.sequence), ("e2", 2));
}

#[test]
fn a_hub_that_follows_one_that_failed_goes_on_where_it_stopped() {
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    let effects = bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    bench.carry_out(&effects);
    bench.upsert(&replica, endpoints_name("a"), &endpoints(&[1, 2]));
    let memory = bench.hub.memory();
    assert_eq!(memory.to_save().unwrap().0, 2);
    bench.hub = Hub::resume(NODE.to_owned(), memory, 1);
    // What the agent says of versions of before.
    let effects = bench.put(Input::Applied(1));
    assert!(
        matches!(effects[..], [Effect::Apply(3, _), Effect::Save(3, _)]),
        "{effects:?}"
    );
    assert_eq!(addresses(&effects), ["10.0.0.1"]);
    assert!(bench.status.has_state);
    assert!(bench.status.warnings[0].contains("failed 1 times"));
    let replica = bench.open(2);
    let held = ["pools/default/a", "endpoints/default/a/echo"];
    assert_eq!(replica.hello(), (1, held.map(str::to_owned).to_vec()));
    bench.sync(&replica, 1, &[pool_name("a"), endpoints_name("a")]);
    assert_eq!(replica.acks(), []);
    bench.carry_out(&effects);
    assert_eq!(replica.acks().len(), 2);

    // In the middle of an uninstall.
    bench.put(Input::Told(2, ToNode::Retire));
    bench.hub = Hub::resume(NODE.to_owned(), bench.hub.memory(), 2);
    assert!(bench.hub.memory().to_save().is_none());
    let effects = bench.put(Input::Second);
    let [Effect::Apply(version, _)] = effects[..] else {
        unreachable!("{effects:?}");
    };
    assert_eq!(addresses(&effects), [""; 0]);
    assert_eq!(bench.put(Input::Applied(version)), [Effect::Erase]);
}

#[test]
fn virtual_routers_of_its_own_are_not_told_as_others() {
    let heard = |virtual_router_id: u8, address: &str| HeardRouter {
        virtual_router_id,
        source: "10.0.0.77".parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
    };
    // The one that the pool has, its VRID for another address, its address with another VRID.
    let mut all = vec![
        heard(1, "10.0.0.1"),
        heard(1, "10.0.0.9"),
        heard(9, "10.0.0.1"),
    ];
    let facts = |heard: &[HeardRouter]| NodeFacts {
        interfaces: vec![InterfaceFacts {
            name: "eth0".to_owned(),
            heard: heard.to_vec(),
            ..InterfaceFacts::default()
        }],
    };
    let mut bench = Bench::new(None);
    let replica = bench.open(1);
    bench.put(Input::Facts(facts(&all)));
    let told = |messages: Vec<ToController>| {
        let mut told = messages.into_iter().filter_map(|message| match message {
            ToController::Facts(facts) => Some(facts),
            _ => None,
        });
        (told.next(), told.next())
    };
    assert_eq!(told(replica.outbox.take()), (Some(facts(&all)), None));
    bench.tell(&replica, 1, &pool(1, &["10.0.0.1"]));
    let others = facts(&all[1..]);
    assert_eq!(told(replica.outbox.take()), (Some(others), None));

    all.extend((10..100).map(|vrid| heard(vrid, "10.0.0.9")));
    bench.put(Input::Facts(facts(&all)));
    let (Some(few), None) = told(replica.outbox.take()) else {
        unreachable!("told once");
    };
    assert_eq!(few.interfaces[0].heard.len(), HEARD);
}
