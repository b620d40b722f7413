//! Pools that cannot stand beside each other, and addresses that nobody can hold, as a controller
//! finds them.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{
    controller::{by_address, commit, controller, facts, objects, rejected, router},
    pool_ref,
};
use plan::{Inputs, Plan, Policy, Reason, plan};

/// Pools with the addresses listed, the first being the oldest, on nodes a and b.
fn pools(list: &[(&str, &[&str])]) -> Inputs {
    let list: Vec<_> = list
        .iter()
        .map(|(name, addresses)| (*name, addresses.iter().map(|&it| it.to_owned()).collect()))
        .collect();
    let mut inputs = controller(objects(&["a", "b"], &list));
    for (pool, second) in inputs.objects.pools.iter_mut().zip(1..) {
        let at = k8s_openapi::jiff::Timestamp::from_second(second).unwrap();
        pool.metadata.creation_timestamp = Some(at.into());
    }
    inputs
}

fn accepted(plan: &Plan) -> Vec<&str> {
    plan.pools.keys().map(|pool| pool.name.as_str()).collect()
}

fn reasons(plan: &Plan, pool: &str) -> Vec<Reason> {
    let problems = plan.rejected.get(&pool_ref(pool)).into_iter().flatten();
    problems.map(|problem| problem.reason).collect()
}

/// The endpoint that each pool of `objects` lists.
const SERVER: &str = "172.16.0.1";

#[test]
fn a_pool_that_is_not_accepted_takes_nothing_from_others() {
    // Its address is not permitted, and is the other's endpoint.
    let mut inputs = pools(&[("old", &["10.0.0.8"]), ("new", &["10.0.0.9"])]);
    inputs.committed = commit(&plan(&inputs));
    inputs.objects.pools[1].spec.virtual_ips[0].address = SERVER.to_owned();
    inputs.policy.grant.virtual_addresses = Some(vec!["10.0.0.0/8".parse().unwrap()]);
    let planned = plan(&inputs);
    assert_eq!(accepted(&planned), ["old"]);
    assert!(reasons(&planned, "new").contains(&Reason::AddressNotPermitted));

    // Nor do a VRID, an address and an endpoint of a pool that is refused for its port.
    let mut inputs = pools(&[
        ("old", &["10.0.0.8@7", "10.0.0.9"]),
        ("new", &["10.0.0.9@7"]),
    ]);
    let endpoints = &mut inputs.objects.pools[0].spec.upstreams[0].endpoints;
    endpoints[0].address = "10.0.0.9".to_owned();
    inputs.objects.pools[0].spec.listeners[0].port = 30_000;
    inputs.policy.grant.ports = Some(vec![8000..=8999]);
    let planned = plan(&inputs);
    assert_eq!(accepted(&planned), ["new"]);
    assert!(reasons(&planned, "old").contains(&Reason::PortNotPermitted));
}

#[test]
fn a_virtual_address_and_an_endpoint_clash() {
    // The newer pool's address is the older one's server.
    let mut inputs = pools(&[("old", &["10.0.0.8"]), ("new", &[SERVER])]);
    inputs.objects.pools[1].spec.upstreams[0].endpoints[0].address = "172.16.0.2".to_owned();
    let planned = plan(&inputs);
    assert_eq!(
        rejected(&planned, "new"),
        [
            "spec.virtualIPs[0].address: 172.16.0.1 is an endpoint of WebSocketHAPool default/old; \
             use one that no server has"
        ]
    );
    assert_eq!(accepted(&planned), ["old"]);

    // The same, and the newer one is committed.
    let only_new = {
        let mut inputs = inputs.clone();
        inputs.objects.pools.remove(0);
        plan(&inputs)
    };
    inputs.committed = commit(&only_new);
    let planned = plan(&inputs);
    assert_eq!(accepted(&planned), ["new"]);
    assert_eq!(
        rejected(&planned, "old"),
        [
            "spec.upstreams[0].endpoints[0].address: 172.16.0.1 is a virtual address, which would be \
             a loop; use the server's own address"
        ]
    );

    // The newer pool's server is the older one's address.
    let mut inputs = pools(&[("old", &["10.0.0.8"]), ("new", &["10.0.0.9"])]);
    inputs.objects.pools[1].spec.upstreams[0].endpoints[0].address = "10.0.0.8".to_owned();
    let planned = plan(&inputs);
    assert_eq!(accepted(&planned), ["old"]);
    assert_eq!(reasons(&planned, "new"), [Reason::EndpointNotPermitted]);
}

#[test]
fn an_endpoint_that_stands_for_a_virtual_address_is_a_loop() {
    for address in ["64:ff9b::a00:8", "::a00:8", "::ffff:0:a00:8"] {
        let mut inputs = pools(&[("old", &["10.0.0.8"]), ("new", &["10.0.0.9"])]);
        let spec = &mut inputs.objects.pools[1].spec;
        spec.upstreams[0].endpoints[0].address = address.to_owned();
        let planned = plan(&inputs);
        let sentence = rejected(&planned, "new").remove(0);
        assert!(
            sentence.contains("stands for 10.0.0.8, a virtual address"),
            "{sentence}"
        );
    }
}

#[test]
fn networks_that_grow_together_are_reported() {
    let mut inputs = pools(&[("old", &["10.0.1.9"]), ("new", &["10.0.0.9"])]);
    let apart = facts(&["10.0.0.2/24", "10.0.1.2/24"]);
    inputs.facts.insert("a".to_owned(), apart);
    let before = plan(&inputs);
    assert!(by_address(&before).values().all(|(vrid, _)| *vrid == 9));
    inputs.committed = commit(&before);
    inputs.facts.insert("a".to_owned(), facts(&["10.0.0.2/16"]));
    let planned = plan(&inputs);
    assert_eq!(accepted(&planned), ["old"]);
    assert_eq!(reasons(&planned, "new"), [Reason::VirtualRouterIDConflict]);
    assert_eq!(
        rejected(&planned, "new"),
        [
            "spec.virtualIPs[0].virtualRouterID: was 9 when networks were apart that are one now, \
             where it is also that of 10.0.1.9 of WebSocketHAPool default/old; remove the address \
             from the pool, then add it again with another"
        ]
    );
}

#[test]
fn a_committed_virtual_router_id_stays() {
    let mut inputs = pools(&[("chat", &["10.0.0.9"])]);
    inputs.committed = commit(&plan(&inputs));
    let named = &mut inputs.objects.pools[0].spec.virtual_ips[0].virtual_router_id;
    *named = Some(77);
    assert_eq!(
        rejected(&plan(&inputs), "chat"),
        [
            "spec.virtualIPs[0].virtualRouterID: is 77, and nodes hold 10.0.0.9 with 9 already; to \
             change it remove the address from the pool, then add it again"
        ]
    );
    // Another pool may have 77, and 9 is still taken.
    let mut both = pools(&[
        ("chat", &["10.0.0.9@77"]),
        ("p7", &["10.0.0.7@77"]),
        ("p6", &["10.0.0.6@9"]),
    ]);
    both.committed = inputs.committed.clone();
    let planned = plan(&both);
    assert_eq!(accepted(&planned), ["p7"]);
    assert_eq!(reasons(&planned, "p6"), [Reason::VirtualRouterIDConflict]);
    // Named as it is committed it is no change.
    let named = &mut inputs.objects.pools[0].spec.virtual_ips[0].virtual_router_id;
    *named = Some(9);
    assert_eq!(accepted(&plan(&inputs)), ["chat"]);
}

#[test]
fn an_address_that_no_node_reaches_is_reported() {
    let mut inputs = pools(&[("chat", &["10.0.0.9", "10.0.1.9"])]);
    for node in ["a", "b"] {
        inputs
            .facts
            .insert(node.to_owned(), facts(&["10.0.0.2/24"]));
    }
    let unresolved = |inputs: &Inputs| -> Vec<String> {
        let plan = plan(inputs);
        let problems = plan.unresolved.get(&pool_ref("chat")).into_iter().flatten();
        problems.map(ToString::to_string).collect()
    };
    assert_eq!(
        unresolved(&inputs),
        [
            "spec.virtualIPs[1].address: is 10.0.1.9, which no gateway node's network reaches; \
             correct the address or set interface"
        ]
    );
    inputs.objects.pools[0].spec.virtual_ips[1].interface = Some("eth7".to_owned());
    assert_eq!(
        unresolved(&inputs),
        [
            "spec.virtualIPs[1].address: is 10.0.1.9, for which interface eth7 is named, and no \
             gateway node has one of that name; correct the interface"
        ]
    );
    inputs.objects.pools[0].spec.virtual_ips[1].interface = Some("eth0".to_owned());
    assert!(unresolved(&inputs).is_empty());
}

#[test]
fn foreign_virtual_router_ids_are_avoided_where_the_link_is_unknown() {
    let chosen = |heard_on: usize, interface: Option<&str>, address: &str| {
        let mut inputs = pools(&[("chat", &[address])]);
        let mut both = facts(&["10.0.0.2/24", "10.0.1.2/24"]);
        both.interfaces[heard_on].heard = vec![router(9, "10.0.3.77", "10.0.3.1")];
        inputs.facts.insert("a".to_owned(), both);
        let virtual_ip = &mut inputs.objects.pools[0].spec.virtual_ips[0];
        virtual_ip.interface = interface.map(str::to_owned);
        by_address(&plan(&inputs)).pop_first().unwrap().1.0
    };
    // Of no known prefix: anything that was heard may be there.
    assert_eq!(chosen(1, Some("eth0"), "10.0.7.9"), 1);
    assert_eq!(chosen(0, None, "10.0.7.9"), 1);
    // On the link where it lies, and on the interface that is named.
    assert_eq!(chosen(0, None, "10.0.0.9"), 1);
    assert_eq!(chosen(1, None, "10.0.0.9"), 9);
    assert_eq!(chosen(1, Some("eth1"), "10.0.0.9"), 1);
}

#[test]
fn reasons_are_words_for_conditions() {
    let mut inputs = pools(&[("chat", &["10.0.0.9"]), ("other", &["10.0.0.9"])]);
    let planned = plan(&inputs);
    assert_eq!(reasons(&planned, "other"), [Reason::AddressConflict]);
    assert_eq!(
        Reason::VirtualRouterIDConflict.to_string(),
        "VirtualRouterIDConflict"
    );
    inputs.objects.pools[1].spec.virtual_ips[0].address = "10.0.0.300".to_owned();
    assert_eq!(reasons(&plan(&inputs), "other"), [Reason::Invalid]);
    inputs.policy = Policy {
        virtual_router_ids: None,
        ..inputs.policy
    };
    inputs.objects.pools[1].spec.virtual_ips[0].address = "10.0.1.9".to_owned();
    let planned = plan(&inputs);
    assert_eq!(
        reasons(&planned, "other"),
        [Reason::VirtualRouterIDConflict]
    );
}
