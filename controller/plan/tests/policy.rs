//! What a pool may claim: by the administrator's word, by the networks of its gateways, beside Services,
//! nodes and pods.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

mod common;

use common::{
    controller::{by_address, commit, controller, facts, objects, rejected},
    pool_ref,
};
use k8s_openapi::api::core::v1::{Node, Service};
use plan::{Cluster, Grant, Inputs, NodeFacts, Plan, Reason, plan};
use serde_json::json;

/// Pool `chat` with this address on nodes a and b of a cluster, both on 10.0.0.0/24.
fn cluster(address: &str) -> Inputs {
    let mut inputs = controller(objects(&["a", "b"], &[("chat", vec![address.to_owned()])]));
    inputs.policy.cluster = Some(Cluster {
        service_ranges: vec!["10.96.0.0/16".parse().unwrap()],
        node_ports: 30_000..=32_767,
    });
    for node in ["a", "b"] {
        let facts = facts(&["10.0.0.2/24"]);
        inputs.facts.insert(node.to_owned(), facts);
    }
    inputs
}

/// The same, once nodes hold the address.
fn programmed(address: &str) -> Inputs {
    let mut inputs = cluster(address);
    inputs.committed = commit(&plan(&inputs));
    assert!(!inputs.committed.routers.is_empty());
    inputs
}

fn service(spec: &serde_json::Value, status: &serde_json::Value) -> Service {
    serde_json::from_value(json!({
        "metadata": {"name": "web", "namespace": "shop"}, "spec": spec, "status": status,
    }))
    .unwrap()
}

fn node(inputs: &mut Inputs, name: &str, more: &serde_json::Value) {
    let nodes = inputs.objects.nodes.iter_mut();
    for node in nodes.filter(|node| node.metadata.name.as_deref() == Some(name)) {
        let mut value = serde_json::to_value(&**node).unwrap();
        for (key, part) in more.as_object().unwrap() {
            value[key] = part.clone();
        }
        let changed: Node = serde_json::from_value(value).unwrap();
        *node = changed.into();
    }
}

fn reasons(plan: &Plan) -> Vec<Reason> {
    let problems = plan.rejected.get(&pool_ref("chat")).into_iter().flatten();
    problems.map(|problem| problem.reason).collect()
}

/// The one sentence with which the pool is refused, and its reason.
fn refused(inputs: &Inputs) -> (Reason, String) {
    let plan = plan(inputs);
    let sentences = rejected(&plan, "chat");
    assert_eq!(sentences.len(), 1, "{sentences:?}");
    (reasons(&plan)[0], sentences[0].clone())
}

fn unresolved(plan: &Plan) -> Vec<(Reason, String)> {
    let problems = plan.unresolved.get(&pool_ref("chat")).into_iter().flatten();
    problems.map(|it| (it.reason, it.to_string())).collect()
}

#[test]
fn by_default_an_address_lies_on_a_network_of_the_gateways() {
    assert!(reasons(&plan(&cluster("10.0.0.9"))).is_empty());
    assert_eq!(
        refused(&cluster("10.0.1.9")),
        (
            Reason::AddressNotPermitted,
            "spec.virtualIPs[0].address: 10.0.1.9 lies on no network of the pool's gateway nodes, \
             which are 10.0.0.0/24; use a free address of one of these, or have the administrator \
             permit it in virtualIPRanges"
                .to_owned()
        )
    );
    // A prefix of one address is a host's own address, and no network.
    let mut inputs = cluster("10.0.1.9");
    inputs
        .facts
        .insert("a".to_owned(), facts(&["10.0.0.2/24", "10.0.1.9/32"]));
    assert_eq!(refused(&inputs).0, Reason::AddressNotPermitted);
    // An interface that is named does not help: whoever writes pools must not reach every network.
    let mut inputs = cluster("10.0.1.9");
    inputs.objects.pools[0].spec.virtual_ips[0].interface = Some("eth0".to_owned());
    assert_eq!(refused(&inputs).0, Reason::AddressNotPermitted);
}

#[test]
fn an_address_is_judged_once_the_gateways_have_told_of_their_networks() {
    let mut inputs = cluster("10.0.0.9");
    inputs.facts.clear();
    let (reason, sentence) = refused(&inputs);
    assert_eq!(reason, Reason::AddressNotJudged);
    assert!(
        sentence.contains("look at their data-plane pods"),
        "{sentence}"
    );
    // A node that tells of no interface has told nothing.
    for node in ["a", "b"] {
        inputs.facts.insert(node.to_owned(), NodeFacts::default());
    }
    assert_eq!(refused(&inputs).0, Reason::AddressNotJudged);
    // One on whose network it lies is enough; the other gets no part before it has told.
    inputs.facts.insert("b".to_owned(), facts(&["10.0.0.2/24"]));
    let plan = plan(&inputs);
    assert_eq!(by_address(&plan)[&"10.0.0.9".parse().unwrap()].1, ["b"]);
}

#[test]
fn the_administrator_bounds_addresses_and_ports_for_each_namespace() {
    let range = |text: &str| Some(vec![text.parse().unwrap()]);
    let grant = |addresses: &str| Grant {
        virtual_addresses: range(addresses),
        ports: Some(vec![8000..=8999]),
    };
    for (address, general, own, expected) in [
        ("10.0.0.9", "10.0.0.0/28", None, None),
        (
            "10.0.0.9",
            "10.0.0.10-10.0.0.20",
            None,
            Some("permits 10.0.0.10-10.0.0.20"),
        ),
        ("10.0.0.9", "10.0.0.10-10.0.0.20", Some("10.0.0.9"), None),
        (
            "10.0.0.9",
            "10.0.0.0/24",
            Some("10.0.0.7"),
            Some("not permitted in namespace default; the administrator permits 10.0.0.7"),
        ),
        // Off every network: the administrator knows better.
        ("10.7.0.9", "10.7.0.0/24", None, None),
    ] {
        let mut inputs = cluster(address);
        inputs.policy.grant = grant(general);
        if let Some(own) = own {
            let namespaces = &mut inputs.policy.namespaces;
            namespaces.insert("default".to_owned(), grant(own));
        }
        match expected {
            None => assert!(reasons(&plan(&inputs)).is_empty(), "{address} {general}"),
            Some(part) => {
                let (reason, sentence) = refused(&inputs);
                assert_eq!(reason, Reason::AddressNotPermitted);
                assert!(sentence.contains(part), "{sentence}");
            }
        }
    }

    let mut inputs = cluster("10.0.0.9");
    inputs.policy.grant.ports = Some(vec![80..=80, 8000..=8010]);
    assert_eq!(
        refused(&inputs),
        (
            Reason::PortNotPermitted,
            "spec.listeners[0].port: 8020 is not permitted in namespace default; the administrator \
             permits 80, 8000-8010"
                .to_owned()
        )
    );
    inputs.policy.grant.ports = Some(Vec::new());
    assert!(
        refused(&inputs)
            .1
            .ends_with("the administrator permits none")
    );
}

#[test]
fn addresses_and_ports_that_kube_proxy_answers_for_are_conflicts() {
    let nothing = json!({});
    for (spec, status, reason, what) in [
        (
            json!({"externalIPs": ["10.0.0.9"]}),
            nothing.clone(),
            Reason::AddressConflict,
            "an external address of Service shop/web",
        ),
        (
            nothing.clone(),
            json!({"loadBalancer": {"ingress": [{"ip": "10.0.0.9"}]}}),
            Reason::AddressConflict,
            "the load-balancer address of Service shop/web",
        ),
        (
            json!({"clusterIP": "10.0.0.9", "clusterIPs": ["10.0.0.9"]}),
            nothing.clone(),
            Reason::AddressNotPermitted,
            "the cluster address of Service shop/web",
        ),
    ] {
        let mut inputs = cluster("10.0.0.9");
        inputs.objects.services.push(service(&spec, &status).into());
        let (told, sentence) = refused(&inputs);
        assert_eq!(told, reason, "{sentence}");
        assert!(sentence.contains(what), "{sentence}");
        // Even where the administrator permits it.
        inputs.policy.grant.virtual_addresses = Some(vec!["10.0.0.0/24".parse().unwrap()]);
        assert_eq!(refused(&inputs).0, reason);
        // Plain hosts have no kube-proxy.
        inputs.policy.cluster = None;
        assert!(reasons(&plan(&inputs)).is_empty());
    }
    let mut inputs = cluster("10.0.0.9");
    inputs
        .objects
        .services
        .push(service(&json!({"clusterIP": "None"}), &nothing).into());
    assert!(reasons(&plan(&inputs)).is_empty(), "headless");

    let mut inputs = cluster("10.0.0.9");
    inputs.objects.pools[0].spec.listeners[0].port = 30_000;
    let (reason, sentence) = refused(&inputs);
    assert_eq!(reason, Reason::PortConflict);
    assert!(sentence.contains("30000 lies in 30000-32767"), "{sentence}");
}

#[test]
fn addresses_of_nodes_routers_pods_and_services_are_not_permitted() {
    let mut router = facts(&["10.0.0.2/24"]);
    router.interfaces[0].default_routers = vec!["10.0.0.1".parse().unwrap()];
    for (address, change, part) in [
        (
            "10.0.0.7",
            &(|inputs: &mut Inputs| {
                let own = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.7"}]});
                node(inputs, "b", &json!({"status": own}));
            }) as &dyn Fn(&mut Inputs),
            "is node b's own address",
        ),
        (
            "10.0.0.1",
            &|inputs: &mut Inputs| {
                inputs.facts.insert("a".to_owned(), router.clone());
            },
            "is a default router of the nodes",
        ),
        (
            "10.0.0.7",
            &|inputs: &mut Inputs| {
                let spec = json!({"podCIDR": "10.0.0.0/26", "podCIDRs": ["10.0.0.0/26"]});
                node(inputs, "b", &json!({"spec": spec}));
            },
            "lies in 10.0.0.0/26, the pod addresses of node b",
        ),
        (
            "10.0.0.7",
            &|inputs: &mut Inputs| {
                let cluster = inputs.policy.cluster.as_mut().unwrap();
                cluster.service_ranges = vec!["10.0.0.0/25".parse().unwrap()];
            },
            "lies in 10.0.0.0/25, where addresses of Services are taken from",
        ),
    ] {
        let mut inputs = cluster(address);
        assert!(reasons(&plan(&inputs)).is_empty(), "{part}");
        change(&mut inputs);
        let (reason, sentence) = refused(&inputs);
        assert_eq!(reason, Reason::AddressNotPermitted);
        assert!(sentence.contains(part), "{sentence}");
    }
}

#[test]
fn a_node_that_takes_a_programmed_address_for_its_own_withdraws_nothing() {
    let mut inputs = programmed("10.0.0.9");
    let before = by_address(&plan(&inputs));
    let own = json!({"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]});
    node(&mut inputs, "a", &json!({"status": own}));
    let after = plan(&inputs);
    assert_eq!(by_address(&after), before);
    let told = unresolved(&after);
    assert_eq!(told[0].0, Reason::AddressClaimed);
    assert!(
        told[0].1.contains("start the kubelet with --node-ip"),
        "{told:?}"
    );

    // Nor does a Service that comes later.
    let mut inputs = programmed("10.0.0.9");
    let later = service(&json!({"externalIPs": ["10.0.0.9"]}), &json!({}));
    inputs.objects.services.push(later.into());
    let after = plan(&inputs);
    assert_eq!(by_address(&after), before);
    assert_eq!(unresolved(&after)[0].0, Reason::AddressClaimed);
}

type Change = fn(&mut Inputs);

#[test]
fn facts_that_go_missing_withdraw_nothing() {
    let inputs = programmed("10.0.0.9");
    let before = by_address(&plan(&inputs));
    assert_eq!(before[&"10.0.0.9".parse().unwrap()].1.len(), 2);
    let changes: [(&str, Change); 5] = [
        ("none is known of any node", |inputs| inputs.facts.clear()),
        ("none is known of one", |inputs| {
            inputs.facts.remove("a");
        }),
        ("one has just started", |inputs| {
            inputs.facts.insert("a".to_owned(), NodeFacts::default());
        }),
        ("all have just started", |inputs| {
            for facts in inputs.facts.values_mut() {
                *facts = NodeFacts::default();
            }
        }),
        ("the network went from all", |inputs| {
            for known in inputs.facts.values_mut() {
                *known = facts(&["10.9.0.2/24"]);
            }
        }),
    ];
    for (what, change) in changes {
        let mut inputs = inputs.clone();
        change(&mut inputs);
        let plan = plan(&inputs);
        assert!(
            reasons(&plan).is_empty(),
            "{what}: {:?}",
            rejected(&plan, "chat")
        );
        assert_eq!(by_address(&plan), before, "{what}");
    }
}

#[test]
fn an_order_that_stands_is_not_sought_again() {
    let names = ["a", "b", "c", "d", "e"];
    let addresses = (1..40).map(|last| format!("10.0.0.{last}")).collect();
    let pools = [("chat", addresses), ("other", vec!["10.0.0.99".to_owned()])];
    let mut inputs = controller(objects(&names, &pools));
    let (mut outliner, mut placer) = (plan::Outliner::default(), plan::Placer::default());
    for change in 0..7 {
        match change {
            // Committed bit by bit, as it was planned.
            1 | 2 => {
                let mut committed = commit(&plan(&inputs));
                let kept = if change == 1 { 7 } else { 30 };
                committed.routers = committed.routers.into_iter().take(kept).collect();
                inputs.committed = committed;
            }
            3 => node(&mut inputs, "b", &json!({"spec": {"unschedulable": true}})),
            4 => inputs.committed = commit(&plan(&inputs)),
            // Committed otherwise than it was planned.
            5 => {
                for router in inputs.committed.routers.values_mut() {
                    router.nodes.reverse();
                }
            }
            6 => inputs.objects.nodes.truncate(3),
            _ => {}
        }
        assert_eq!(
            placer.place(&outliner.outline(std::sync::Arc::new(inputs.clone()))),
            plan(&inputs),
            "{change}"
        );
    }
}
