//! Pools of different kinds beside each other, and what is at its bounds, on plain hosts.

mod common;

use std::collections::{BTreeMap, BTreeSet};

use common::{addresses, node, nodes, planned, pool, pool_ref, refused, routers};
use plan::manifests;

/// A node with one more label.
fn labelled(name: &str, label: &str) -> String {
    node(name).replace("labels: {", &format!("labels: {{{label}, "))
}

fn cordoned(name: &str) -> String {
    format!("{}spec: {{unschedulable: true}}\n", node(name))
}

const EXCLUDED: &str = "node.kubernetes.io/exclude-from-external-load-balancers: \"\"";

#[test]
fn each_pool_has_its_own_nodes() {
    let east = pool("east", &addresses(&["10.0.0.8", "10.0.0.9"]), "")
        .replace("gw: \"yes\"", "gw: \"yes\", side: east");
    let west = pool("west", &addresses(&["10.0.0.10", "10.0.0.11"]), "")
        .replace("gw: \"yes\"", "side: west");
    let all = pool("all", &addresses(&["10.0.0.12", "10.0.0.13"]), "");
    let hosts = [("a", "east"), ("b", "east"), ("c", "west"), ("d", "west")];
    let hosts = hosts
        .iter()
        .map(|(name, side)| labelled(name, &format!("side: {side}")))
        .collect::<Vec<_>>()
        .concat();
    let plan = planned(&[&hosts, &east, &west, &all]);
    let nodes_of = |pool: &str| -> BTreeSet<String> {
        let routers = routers(&plan.pools[&pool_ref(pool)]).into_iter();
        routers.flat_map(|(_, _, nodes)| nodes).collect()
    };
    assert_eq!(nodes_of("east"), ["a", "b"].map(str::to_owned).into());
    assert_eq!(nodes_of("west"), ["c", "d"].map(str::to_owned).into());
    assert_eq!(nodes_of("all").len(), 4);
    // Six addresses on four nodes, two of them shared by all.
    let mut loads: BTreeMap<String, usize> = BTreeMap::new();
    for (_, _, nodes) in plan.pools.values().flat_map(|pool| routers(pool)) {
        *loads.entry(nodes[0].clone()).or_default() += 1;
    }
    assert_eq!(loads.len(), 4);
    assert!(
        loads.values().all(|load| (1..=2).contains(load)),
        "{loads:?}"
    );
}

#[test]
fn cordoned_nodes_are_chosen_only_where_others_do_not_suffice() {
    let name = |index: usize| format!("n{index:02}");
    let plan_with = |free: usize, cordoned_nodes: usize| {
        let free_nodes: String = (0..free).map(|index| node(&name(index))).collect();
        let more: String = (free..free + cordoned_nodes)
            .map(|index| cordoned(&name(index)))
            .collect();
        let list: Vec<String> = (1..=16).map(|host| format!("10.0.0.{host}")).collect();
        let list: Vec<&str> = list.iter().map(String::as_str).collect();
        let spec = pool("chat", &addresses(&list), "").replace("10.0.0.1,", "172.16.0.1,");
        planned(&[&free_nodes, &more, &spec])
    };
    for (free, cordoned_nodes) in [(12, 4), (8, 6)] {
        let plan = plan_with(free, cordoned_nodes);
        for (_, _, nodes) in routers(&plan.pools[&pool_ref("chat")]) {
            assert_eq!(nodes.len(), 10);
            let marks: Vec<bool> = nodes.iter().map(|it| *it >= name(free)).collect();
            let expected = 10_usize.saturating_sub(free);
            assert_eq!(
                marks.iter().filter(|is_cordoned| **is_cordoned).count(),
                expected
            );
            assert!(marks.is_sorted(), "{nodes:?}");
        }
    }
}

#[test]
fn fixed_orders_count_as_load_for_others() {
    let fixed = "  - address: 10.0.0.8\n    nodePriorities: [{nodeName: a, priority: 200}, {nodeName: b, priority: 100}]\n  \
                 - address: 10.0.0.9\n    nodePriorities: [{nodeName: a, priority: 200}, {nodeName: c, priority: 9}]";
    let fixed = pool("fixed", fixed, "");
    let spread = pool(
        "spread",
        &addresses(&["10.0.0.10", "10.0.0.11", "10.0.0.12", "10.0.0.13"]),
        "",
    );
    let plan = planned(&[&nodes(&["a", "b", "c"]), &spread, &fixed]);
    let first: Vec<String> = routers(&plan.pools[&pool_ref("spread")])
        .into_iter()
        .map(|(_, _, nodes)| nodes[0].clone())
        .collect();
    assert!(!first.contains(&"a".to_owned()), "{first:?}");
    assert_eq!(first.iter().filter(|name| *name == "b").count(), 2);
    let fixed = &plan.pools[&pool_ref("fixed")].virtual_routers;
    let shown: Vec<Vec<_>> = fixed
        .iter()
        .map(|router| {
            let nodes = router.nodes.iter();
            nodes
                .map(|it| {
                    (
                        it.node_name.as_str(),
                        it.priority,
                        it.priority_without_endpoint,
                    )
                })
                .collect()
        })
        .collect();
    assert_eq!(
        shown,
        [
            vec![("a", 200, 10), ("b", 100, 9)],
            vec![("a", 200, 8), ("c", 9, 7)]
        ]
    );
}

#[test]
fn an_excluded_node_that_a_pool_names_is_a_remark() {
    let excluded = labelled("c", EXCLUDED);
    let list = "  - {address: 10.0.0.8, preferredNodeName: c}\n  - address: 10.0.0.9\n    \
                nodePriorities: [{nodeName: c, priority: 200}, {nodeName: a, priority: 100}]";
    let files = [nodes(&["a", "b"]), excluded, pool("chat", list, "")];
    let files: Vec<_> = files.map(|text| ("f.yaml".to_owned(), text)).into();
    let accepted = manifests::accept(&files).unwrap();
    let key = pool_ref("chat");
    let remarks = accepted.plan.unresolved[&key].iter();
    let remarks: Vec<_> = remarks.map(ToString::to_string).collect();
    let why = "names node c, which its label \
               node.kubernetes.io/exclude-from-external-load-balancers excludes; remove the label \
               when the node is to take part again";
    assert_eq!(
        remarks,
        [
            format!("spec.virtualIPs[0].preferredNodeName: {why}"),
            format!("spec.virtualIPs[1].nodePriorities: {why}"),
        ]
    );
    let orders: Vec<_> = routers(&accepted.plan.pools[&key])
        .into_iter()
        .map(|it| it.2)
        .collect();
    assert_eq!(orders[0].len(), 2);
    assert_eq!(orders[1], ["a"]);
    // The plan is that of the objects.
    let inputs = plan::Inputs::plain_hosts(accepted.objects);
    assert_eq!(plan::plan(&inputs), accepted.plan);
}

#[test]
fn an_address_whose_every_node_is_excluded_is_refused() {
    let list = "  - address: 10.0.0.9\n    nodePriorities: [{nodeName: c, priority: 200}]";
    let refusals = refused(&[
        &node("a"),
        &labelled("c", EXCLUDED),
        &pool("chat", list, ""),
    ]);
    assert_eq!(
        refusals,
        [
            "file2.yaml: WebSocketHAPool default/chat: spec.virtualIPs[0].nodePriorities: lists no \
             node that can hold the address now; list another"
        ]
    );
}

#[test]
fn lists_end_where_the_definition_says() {
    let count = |what: &str, text: &str| {
        let refusals = refused(&[&nodes(&["a"]), text]);
        let expected = format!("file1.yaml: WebSocketHAPool default/chat: {what}");
        assert_eq!(refusals, [expected]);
    };
    let list = |count: usize| {
        let list: Vec<String> = (1..=count).map(|host| format!("10.0.9.{host}")).collect();
        addresses(&list.iter().map(String::as_str).collect::<Vec<_>>())
    };
    planned(&[&nodes(&["a"]), &pool("chat", &list(16), "")]);
    count(
        "spec.virtualIPs: has 17 entries; at most 16 are possible",
        &pool("chat", &list(17), ""),
    );
    let endpoints = |count: u16| {
        let listed = (0..count).map(|it| format!("{{address: 10.1.0.1, port: {}}}", 1000 + it));
        let listed: Vec<_> = listed.collect();
        pool("chat", &list(1), "").replace("{address: 10.0.0.1, port: 8010}", &listed.join(", "))
    };
    planned(&[&nodes(&["a"]), &endpoints(256)]);
    count(
        "spec.upstreams[0].endpoints: has 257 entries; at most 256 are possible",
        &endpoints(257),
    );
    let priorities = |count: u8| {
        let listed = (0..count).map(|it| format!("{{nodeName: n{it}, priority: {}}}", 100 + it));
        let listed: Vec<_> = listed.collect();
        let list = format!("{}\n    nodePriorities: [{}]", list(1), listed.join(", "));
        pool("chat", &list, "")
    };
    let ten = (0..10)
        .map(|it| node(&format!("n{it}")))
        .collect::<Vec<_>>()
        .concat();
    planned(&[&ten, &priorities(10)]);
    count(
        "spec.virtualIPs[0].nodePriorities: has 11 entries; at most 10 are possible",
        &priorities(11),
    );
}
