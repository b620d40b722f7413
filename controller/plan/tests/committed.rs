//! The planner as a controller calls it: with what is committed, with facts of nodes, with a policy.

mod common;

use std::{collections::BTreeSet, net::IpAddr};

use common::{
    controller::{by_address, commit, controller, facts, objects, rejected, router, unresolved},
    pool_ref,
};
use node_api::PoolRef;
use plan::{Retirement, plan};
use proptest::{collection::btree_set, prelude::*};

/// Addresses of two subnets, so that last bytes meet.
fn some_addresses() -> impl Strategy<Value = Vec<String>> {
    let address = (0_u8..3, 0_u8..20).prop_map(|(net, host)| format!("10.0.{net}.{host}"));
    btree_set(address, 1..24).prop_map(|addresses| addresses.into_iter().collect())
}

fn cut(addresses: &[String]) -> Vec<(&'static str, Vec<String>)> {
    ["p0", "p1", "p2", "p3"]
        .into_iter()
        .zip(addresses.chunks(7).map(<[String]>::to_vec))
        .collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    /// VRIDs are unique per segment, whatever the last bytes; with prefixes unknown all addresses
    /// are one segment.
    #[test]
    fn virtual_router_ids_are_unique(addresses in some_addresses(), known in any::<bool>()) {
        let mut inputs = controller(objects(&["a", "b"], &cut(&addresses)));
        if known {
            for node in ["a", "b"] {
                let nets = ["10.0.0.0/24", "10.0.1.0/24", "10.0.2.0/24"];
                inputs.facts.insert(node.to_owned(), facts(&nets));
            }
        }
        let planned = by_address(&plan(&inputs));
        prop_assert_eq!(planned.len(), addresses.len());
        let mut taken = BTreeSet::new();
        for (address, (vrid, _)) in &planned {
            let IpAddr::V4(v4) = address else { unreachable!() };
            let segment = if known { v4.octets()[2] } else { 0 };
            prop_assert!(taken.insert((segment, *vrid)), "{} has a VRID of another", address);
            if known && v4.octets()[3] != 0 {
                prop_assert_eq!(*vrid, v4.octets()[3]);
            }
        }
    }

    /// What is committed does not change when pools and nodes come, and only Active roles that
    /// evenness wants elsewhere move.
    #[test]
    fn committed_is_stable(addresses in some_addresses(), first in 1_usize..24, more in 0_usize..3) {
        let first = first.min(addresses.len());
        let names = ["a", "b", "c", "d", "e"];
        let before = plan(&controller(objects(&names[..2], &cut(&addresses[..first]))));
        let mut inputs = controller(objects(&names[..2], &cut(&addresses[..first])));
        inputs.committed = commit(&before);
        prop_assert_eq!(&plan(&inputs), &before, "planned again");

        let mut inputs = controller(objects(&names[..2 + more], &cut(&addresses)));
        inputs.committed = commit(&before);
        let (before, after) = (by_address(&before), by_address(&plan(&inputs)));
        let mut moved = 0;
        for (address, (vrid, nodes)) in &before {
            prop_assert_eq!(after[address].0, *vrid, "VRID of {}", address);
            moved += usize::from(after[address].1[0] != nodes[0]);
        }
        // Even loads are shares that differ by one; the nodes with most get the greater ones, and
        // what is above them must move.
        let mut loads: Vec<usize> = names[..2 + more]
            .iter()
            .map(|name| before.values().filter(|(_, nodes)| nodes[0] == *name).count())
            .collect();
        loads.sort_unstable_by(|one, other| other.cmp(one));
        let (share, greater) = (addresses.len() / loads.len(), addresses.len() % loads.len());
        let shares = loads.iter().enumerate().map(|(place, _)| share + usize::from(place < greater));
        let above: usize = loads.iter().zip(shares).map(|(load, share)| load.saturating_sub(share)).sum();
        prop_assert_eq!(moved, above);
    }

    /// The order in which a user lists addresses decides nothing, VRIDs included where last bytes
    /// meet.
    #[test]
    fn order_of_addresses_decides_nothing(addresses in some_addresses()) {
        let mut pools = cut(&addresses);
        let planned = plan(&controller(objects(&["a", "b", "c"], &pools)));
        for (_, list) in &mut pools {
            list.reverse();
        }
        let reversed = plan(&controller(objects(&["a", "b", "c"], &pools)));
        prop_assert_eq!(by_address(&reversed), by_address(&planned));
    }

    /// A lost node's addresses are planned where VRRP has put them already.
    #[test]
    fn a_lost_node_moves_nothing_more(addresses in some_addresses(), count in 2_usize..6) {
        let names = ["a", "b", "c", "d", "e"];
        let before = plan(&controller(objects(&names[..count], &cut(&addresses))));
        let mut inputs = controller(objects(&names[1..count], &cut(&addresses)));
        inputs.committed = commit(&before);
        let after = by_address(&plan(&inputs));
        for (address, (_, nodes)) in by_address(&before) {
            let holder = nodes.iter().find(|name| *name != "a").unwrap();
            prop_assert_eq!(&after[&address].1[0], holder);
        }
    }
}

/// All nodes list the same addresses: those that are committed stay, and are nobody else's.
#[test]
fn further_addresses_are_committed_with_the_first() {
    let wants = |more: &[&str], other: &str| {
        let list = |addresses: &[&str]| addresses.iter().map(|&it| it.to_owned()).collect();
        let pools = [("chat", list(&["10.0.0.9"])), ("other", list(&[other]))];
        let mut inputs = controller(objects(&["a", "b"], &pools));
        let spec = &mut inputs.objects.pools[0];
        spec.spec.virtual_ips[0].additional_addresses = list(more);
        inputs
    };
    let fresh = plan(&wants(&["10.0.0.12", "10.0.0.11"], "10.0.0.7"));
    let router = &fresh.pools[&pool_ref("chat")].virtual_routers[0];
    let texts: Vec<_> = router.addresses.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        ["10.0.0.9", "10.0.0.11", "10.0.0.12"],
        "in one order"
    );

    let committed = commit(&fresh);
    let again = |more: &[&str], other: &str| {
        let mut inputs = wants(more, other);
        inputs.committed = committed.clone();
        inputs
            .committed
            .routers
            .retain(|(pool, _), _| pool.name == "chat");
        plan(&inputs)
    };
    assert_eq!(again(&["10.0.0.11", "10.0.0.12"], "10.0.0.7"), fresh);
    assert_eq!(
        rejected(&again(&["10.0.0.11"], "10.0.0.7"), "chat"),
        [
            "spec.virtualIPs[0].additionalAddresses: are not those with which nodes hold 10.0.0.9 \
             already, which are 10.0.0.11, 10.0.0.12; to change them remove the address from the \
             pool, then add it again"
        ]
    );
    assert_eq!(
        rejected(&again(&["10.0.0.11", "10.0.0.12"], "10.0.0.12"), "other"),
        [
            "spec.virtualIPs[0].address: 10.0.0.12 is also an address of WebSocketHAPool \
             default/chat; an address belongs to one pool, so remove it from one of the two"
        ]
    );
}

#[test]
fn what_is_held_still_is_not_given_away() {
    let held = |nodes: &[&str]| Retirement {
        pool: pool_ref("gone"),
        address: "10.0.0.9".parse().unwrap(),
        additional_addresses: vec!["10.0.0.10".parse().unwrap()],
        virtual_router_id: 9,
        nodes: nodes.iter().map(|&name| name.to_owned()).collect(),
    };
    let wants = |list: &[&str], retirement: Retirement| {
        let list = list.iter().map(|&it| it.to_owned()).collect();
        let mut inputs = controller(objects(&["a", "b"], &[("chat", list)]));
        inputs.committed.retirements.push(retirement);
        plan(&inputs)
    };
    // The address.
    assert_eq!(
        rejected(&wants(&["10.0.0.9"], held(&["a"])), "chat")[0],
        "spec.virtualIPs[0].address: 10.0.0.9 is still being given up by WebSocketHAPool \
         default/gone; it is free once its nodes have acknowledged that"
    );
    assert_eq!(
        rejected(&wants(&["10.0.0.10"], held(&["a"])), "chat")[0],
        "spec.virtualIPs[0].address: 10.0.0.10 is still being given up by WebSocketHAPool \
         default/gone; it is free once its nodes have acknowledged that"
    );
    // The VRID: named by the user, and not.
    assert_eq!(
        rejected(&wants(&["10.0.0.8@9"], held(&["a"])), "chat"),
        [
            "spec.virtualIPs[0].virtualRouterID: 9 is also that of 10.0.0.9 of WebSocketHAPool \
          default/gone, which its nodes are still giving up; choose another from 1 to 255"
        ]
    );
    let plan = wants(&["10.0.1.9"], held(&["a"]));
    assert_eq!(
        by_address(&plan)[&"10.0.1.9".parse().unwrap()].0,
        1,
        "the next free one"
    );
    // Acknowledged by all, or held by a node that left.
    for free in [held(&[]), held(&["c"])] {
        let plan = wants(&["10.0.0.9"], free);
        assert_eq!(by_address(&plan)[&"10.0.0.9".parse().unwrap()].0, 9);
    }
}

#[test]
fn the_committed_one_wins_a_clash() {
    let pools = |vrid: &str| {
        [
            ("a", vec![format!("10.0.0.8@{vrid}")]),
            ("b", vec!["10.0.0.9".to_owned()]),
        ]
    };
    let before = plan(&controller(objects(&["node"], &pools("8")[1..])));
    assert_eq!(by_address(&before)[&"10.0.0.9".parse().unwrap()].0, 9);
    let mut inputs = controller(objects(&["node"], &pools("9")));
    inputs.committed = commit(&before);
    let after = plan(&inputs);
    assert_eq!(
        rejected(&after, "a"),
        [
            "spec.virtualIPs[0].virtualRouterID: 9 is also that of 10.0.0.9 of WebSocketHAPool \
          default/b; choose another from 1 to 255"
        ]
    );
    assert!(after.pools.contains_key(&pool_ref("b")));
    // An address that another pool has committed.
    let mut inputs = controller(objects(
        &["node"],
        &[
            ("a", vec!["10.0.0.9".to_owned()]),
            ("b", vec!["10.0.0.9".to_owned()]),
        ],
    ));
    inputs.committed = commit(&before);
    let after = plan(&inputs);
    assert_eq!(rejected(&after, "a").len(), 1);
    assert_eq!(after.pools.keys().collect::<Vec<_>>(), [&pool_ref("b")]);
}

#[test]
fn the_older_one_wins_a_clash_of_new_ones() {
    let mut objects = objects(
        &["node"],
        &[
            ("a", vec!["10.0.0.9".to_owned()]),
            ("b", vec!["10.0.0.9".to_owned()]),
        ],
    );
    for (pool, second) in objects.pools.iter_mut().zip([20, 10]) {
        let at = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        pool.metadata.creation_timestamp = Some(at.into());
    }
    let plan = plan(&controller(objects));
    assert_eq!(plan.pools.keys().collect::<Vec<_>>(), [&pool_ref("b")]);
    assert_eq!(plan.rejected.keys().collect::<Vec<_>>(), [&pool_ref("a")]);
}

#[test]
fn facts_choose_candidates_and_avoid_foreign_routers() {
    let both = vec!["10.0.0.9".to_owned(), "10.0.1.9".to_owned()];
    let mut inputs = controller(objects(&["a", "b", "c"], &[("chat", both)]));
    inputs.facts.insert("a".to_owned(), facts(&["10.0.0.2/24"]));
    inputs
        .facts
        .insert("b".to_owned(), facts(&["10.0.0.3/24", "10.0.1.3/24"]));
    // Nothing is known of c: it may take part.
    let planned = by_address(&plan(&inputs));
    let candidates = |address: &str| -> BTreeSet<String> {
        planned[&address.parse().unwrap()]
            .1
            .iter()
            .cloned()
            .collect()
    };
    assert_eq!(
        candidates("10.0.0.9"),
        ["a", "b", "c"].map(str::to_owned).into()
    );
    assert_eq!(candidates("10.0.1.9"), ["b", "c"].map(str::to_owned).into());
    // Two segments: the last byte does for both.
    assert!(planned.values().all(|(vrid, _)| *vrid == 9));

    // A router that is none of ours has VRID 9 on the first.
    let heard = &mut inputs.facts.get_mut("a").unwrap().interfaces[0];
    heard.heard.push(router(9, "10.0.0.77", "10.0.0.1"));
    let planned = by_address(&plan(&inputs));
    assert_eq!(planned[&"10.0.0.9".parse().unwrap()].0, 1);
    assert_eq!(planned[&"10.0.1.9".parse().unwrap()].0, 9);

    inputs.facts.get_mut("a").unwrap().interfaces[0].default_routers =
        vec!["10.0.0.9".parse().unwrap()];
    assert_eq!(
        rejected(&plan(&inputs), "chat"),
        [
            "spec.virtualIPs[0].address: 10.0.0.9 is a default router of the nodes; use one that no host owns"
        ]
    );
}

#[test]
fn a_named_virtual_router_id_may_be_shared_with_others() {
    let mut inputs = controller(objects(&["a"], &[("chat", vec!["10.0.0.9@51".to_owned()])]));
    let mut known = facts(&["10.0.0.2/24"]);
    known.interfaces[0].heard = vec![router(51, "10.0.0.77", "10.0.0.9")];
    inputs.facts.insert("a".to_owned(), known);
    let planned = plan(&inputs);
    assert_eq!(by_address(&planned)[&"10.0.0.9".parse().unwrap()].0, 51);
    assert_eq!(unresolved(&planned, "chat"), [""; 0]);
}

#[test]
fn a_stranger_with_the_same_virtual_router_id_is_named() {
    let named = vec!["10.0.0.9@51".to_owned()];
    let mut inputs = controller(objects(&["a", "b"], &[("chat", named)]));
    let mut known = facts(&["10.0.0.2/24"]);
    known.interfaces[0].heard = vec![router(51, "10.0.0.77", "10.0.0.1")];
    inputs.facts.insert("a".to_owned(), known);
    let said = [
        "spec.virtualIPs[0].virtualRouterID: VRID 51 of 10.0.0.9 is also spoken by 10.0.0.77, which \
         is no gateway, for 10.0.0.1, as node a hears on eth0: only one of the two can be active; \
         give that one another VRID, or remove 10.0.0.9 here and, once it is given up, add it again \
         with a virtualRouterID that is free",
    ];
    let planned = plan(&inputs);
    assert_eq!(unresolved(&planned, "chat"), said);
    // What is committed stays, whoever comes.
    inputs.committed = commit(&planned);
    inputs.objects.pools[0].spec.virtual_ips[0].virtual_router_id = None;
    let planned = plan(&inputs);
    assert_eq!(by_address(&planned)[&"10.0.0.9".parse().unwrap()].0, 51);
    assert_eq!(unresolved(&planned, "chat"), said);
    // Another node has that address, or it lies elsewhere.
    let mut other = facts(&["10.0.0.3/24"]);
    other.interfaces[0].addresses = vec!["10.0.0.77".parse().unwrap()];
    inputs.facts.insert("b".to_owned(), other);
    assert_eq!(unresolved(&plan(&inputs), "chat"), [""; 0]);
    inputs.facts.remove("b");
    let interface = &mut inputs.facts.get_mut("a").unwrap().interfaces[0];
    interface.prefixes = vec!["10.0.1.0/24".parse().unwrap()];
    assert_eq!(unresolved(&plan(&inputs), "chat"), [""; 0]);
}

#[test]
fn routers_of_other_pools_and_of_the_other_family_are_no_strangers() {
    let mut inputs = controller(objects(
        &["a", "b"],
        &[("chat", vec!["10.0.0.9".to_owned()])],
    ));
    let mut one = facts(&["10.0.0.2/24"]);
    one.interfaces[0].addresses = vec!["10.0.0.2".parse().unwrap()];
    one.interfaces[0].heard = vec![router(9, "10.0.0.3", "10.0.0.1")];
    let mut other = facts(&["10.0.0.3/24"]);
    other.interfaces[0].addresses = vec!["10.0.0.3".parse().unwrap()];
    other.interfaces[0].heard = vec![router(9, "fe80::77", "fd00::1")];
    inputs.facts = [("a".to_owned(), one), ("b".to_owned(), other)].into();
    let planned = plan(&inputs);
    assert_eq!(by_address(&planned)[&"10.0.0.9".parse().unwrap()].0, 9);
    assert_eq!(unresolved(&planned, "chat"), [""; 0]);
}

#[test]
fn what_is_missing_does_not_reject_where_it_may_come_later() {
    let mut objects = objects(&["a"], &[("chat", vec!["10.0.0.9".to_owned()])]);
    let spec = &mut objects.pools[0].spec;
    spec.virtual_ips[0].preferred_node_name = Some("away".to_owned());
    let plan = plan(&controller(objects));
    let key: PoolRef = pool_ref("chat");
    assert_eq!(plan.pools[&key].virtual_routers[0].nodes[0].node_name, "a");
    assert_eq!(plan.unresolved[&key].len(), 1);
}
