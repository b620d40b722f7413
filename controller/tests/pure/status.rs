use controller::{
    commit,
    status::{self, ACCEPTED, DEGRADED, PROGRAMMED, READY},
};
use crds::WebSocketHAPoolStatus;
use k8s_openapi::jiff::Timestamp;

use crate::world::World;

fn status_at(world: &World, pool: &str, second: i64) -> WebSocketHAPoolStatus {
    let pool = world.pool(pool);
    let committed = commit::committed_part(pool);
    let now = Timestamp::from_second(second).unwrap();
    status::status(pool, &committed, &world.snapshot, &world.desired(), now)
}

fn condition(status: &WebSocketHAPoolStatus, type_: &str) -> (String, String, String) {
    let mut conditions = status.conditions.iter();
    let condition = conditions.find(|it| it.type_ == type_).unwrap();
    (
        condition.status.clone(),
        condition.reason.clone(),
        condition.message.clone(),
    )
}

#[test]
fn a_pool_that_is_carried_out_is_programmed_and_ready() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.settle();
    let status = status_at(&world, "chat", 10);
    for type_ in [ACCEPTED, PROGRAMMED, READY] {
        assert_eq!(condition(&status, type_).0, "True", "{type_}");
    }
    assert_eq!(condition(&status, DEGRADED).0, "False");
    let gateways = status.gateways.unwrap();
    assert_eq!((gateways.ready, gateways.total), (2, 2));
    let active: Vec<_> = status
        .virtual_ips
        .iter()
        .map(|entry| entry.active_node_name.clone().unwrap())
        .collect();
    assert_ne!(active[0], active[1], "spread");
    assert_eq!(status.virtual_ips[0].backup_node_names.len(), 1);
    let since = status.virtual_ips[0].active_since.as_ref().unwrap();
    assert_eq!(since.0, Timestamp::from_second(1).unwrap());
}

#[test]
fn a_node_that_is_away_is_named() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    world.connected("n2", false);
    let status = status_at(&world, "chat", 10);
    let (holds, reason, message) = condition(&status, PROGRAMMED);
    assert_eq!((&*holds, &*reason), ("False", "GatewayUnreachable"));
    assert!(message.contains("n2"), "{message}");
}

#[test]
fn a_node_that_has_not_answered_is_waited_for() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.commit();
    world.carry_out("n1");
    let (holds, reason, message) = condition(&status_at(&world, "chat", 10), PROGRAMMED);
    assert_eq!(
        (&*holds, &*reason, &*message),
        ("False", "Pending", "waiting for n2")
    );
}

#[test]
fn two_that_hold_one_address_are_reported() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    for view in world.snapshot.views.values_mut() {
        let view = std::sync::Arc::make_mut(view);
        let mut report = (**view.report.as_ref().unwrap()).clone();
        report.virtual_routers[0].state = node_api::RouterState::Active;
        view.report = Some(std::sync::Arc::new(report));
    }
    let (holds, ..) = condition(&status_at(&world, "chat", 3), DEGRADED);
    assert_eq!(holds, "False", "it may be on its way");
    let (holds, reason, message) = condition(&status_at(&world, "chat", 10), DEGRADED);
    assert_eq!((&*holds, &*reason), ("True", "SeveralActive"));
    assert!(message.contains("n1 and n2"), "{message}");
}

#[test]
fn an_upstream_without_a_server_that_is_well_is_reported() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let mut find = |usable: [bool; 4]| {
        let view = world.snapshot.views.get_mut("n1").unwrap();
        let view = std::sync::Arc::make_mut(view);
        let mut report = (**view.report.as_ref().unwrap()).clone();
        let endpoints = (1..)
            .zip(usable)
            .map(|(port, usable)| node_api::EndpointReport {
                upstream: "echo".to_owned(),
                address: ([10, 0, 0, 1], port).into(),
                usable,
                problem: (!usable).then(|| "its health check fails: it answers 503".to_owned()),
                sessions: 0,
                drained_at_unix_ms: None,
            });
        report.pools = vec![node_api::PoolReport {
            pool: node_api::PoolRef {
                namespace: "default".to_owned(),
                name: "chat".to_owned(),
            },
            listeners: Vec::new(),
            endpoints: endpoints.collect(),
        }];
        view.report = Some(std::sync::Arc::new(report));
        condition(&status_at(&world, "chat", 10), DEGRADED)
    };
    assert_eq!(find([false, false, true, false]).0, "False");
    let (holds, reason, message) = find([false; 4]);
    assert_eq!((&*holds, &*reason), ("True", "EndpointsUnwell"));
    let fails = "its health check fails: it answers 503";
    assert_eq!(
        message,
        format!(
            "n1 finds no server of upstream echo well: 10.0.0.1:1, {fails}; 10.0.0.1:2, {fails}; \
             10.0.0.1:3, {fails} (and 1 more)"
        )
    );
    world.connected("n1", false);
    let away = condition(&status_at(&world, "chat", 10), DEGRADED);
    assert_eq!(away.0, "False", "what it said may be long over");
}

#[test]
fn a_stranger_with_the_address_is_reported() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let before = status_at(&world, "chat", 10);
    let mut found = |own_interface: Option<&str>| {
        for view in world.snapshot.views.values_mut() {
            let view = std::sync::Arc::make_mut(view);
            let mut report = (**view.report.as_ref().unwrap()).clone();
            report.virtual_routers[0].conflicts = vec![node_api::AddressConflict {
                address: "192.168.1.110".parse().unwrap(),
                hardware_address: "02:00:00:00:00:07".to_owned(),
                own_interface: own_interface.map(str::to_owned),
                since_unix_ms: 1_000,
            }];
            view.report = Some(std::sync::Arc::new(report));
        }
        status_at(&world, "chat", 10)
    };
    let after = found(None);
    let (holds, reason, message) = condition(&after, DEGRADED);
    assert_eq!((&*holds, &*reason), ("True", "AddressInUse"));
    // Of the node that holds it alone.
    assert_eq!(message.matches("02:00:00:00:00:07").count(), 1, "{message}");
    // An event when it begins, and one when it is over.
    let events = |from, to| {
        let events = status::news(from, to).into_iter();
        let events = events.map(|it| (it.warns, it.reason));
        events.collect::<Vec<_>>()
    };
    let begins = events(&before, &after);
    assert_eq!(begins, [(true, "AddressInUse".to_owned())]);
    assert_eq!(events(&after, &after), []);
    let ends = events(&after, &before);
    assert_eq!(ends, [(false, "AsExpected".to_owned())]);
    let (_, reason, message) = condition(&found(Some("eth1")), DEGRADED);
    assert_eq!(reason, "AddressInUse");
    assert!(message.contains("eth1 of n1"), "{message}");
}

#[test]
fn a_node_where_a_check_fails_is_named() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110", "192.168.1.112"]);
    world.settle();
    let view = world.snapshot.views.get_mut("n2").unwrap();
    let view = std::sync::Arc::make_mut(view);
    let mut report = (**view.report.as_ref().unwrap()).clone();
    for router in &mut report.virtual_routers {
        router.lowered_by = vec![node_api::Lowering {
            kind: node_api::Tracked::Check,
            name: "router".to_owned(),
            weight: 20,
            problem: "fails: cannot connect to 192.168.1.1:53: refused".to_owned(),
            since_unix_ms: 1_000,
        }];
    }
    view.report = Some(std::sync::Arc::new(report));
    let (holds, reason, message) = condition(&status_at(&world, "chat", 10), DEGRADED);
    assert_eq!((&*holds, &*reason), ("True", "CheckFailed"));
    assert_eq!(
        message,
        "check router on n2 fails: cannot connect to 192.168.1.1:53: refused, which lowers its \
         priority by 20",
        "once, for both addresses"
    );
}

#[test]
fn a_node_that_is_cut_off_is_named() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let view = world.snapshot.views.get_mut("n2").unwrap();
    let view = std::sync::Arc::make_mut(view);
    let mut report = (**view.report.as_ref().unwrap()).clone();
    report.virtual_routers[0].isolated_since_unix_ms = Some(1_000);
    view.report = Some(std::sync::Arc::new(report));
    let (holds, reason, message) = condition(&status_at(&world, "chat", 10), DEGRADED);
    assert_eq!((&*holds, &*reason), ("True", "NodeIsolated"));
    assert!(message.starts_with("n2 gave up"), "{message}");
}

#[test]
fn the_time_of_a_transition_stays_where_the_state_does() {
    let mut world = World::new(&["n1", "n2"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let first = status_at(&world, "chat", 10);
    let mut pool = world.pool("chat").clone();
    pool.status = Some(first.clone());
    world.snapshot.pools[0] = std::sync::Arc::new(pool);
    assert_eq!(status_at(&world, "chat", 20), first, "nothing to write");
    world.connected("n2", false);
    let later = status_at(&world, "chat", 30);
    let time = |status: &WebSocketHAPoolStatus, type_: &str| {
        let mut conditions = status.conditions.iter();
        conditions
            .find(|it| it.type_ == type_)
            .unwrap()
            .last_transition_time
            .0
    };
    assert_eq!(time(&later, ACCEPTED), Timestamp::from_second(10).unwrap());
    assert_eq!(
        time(&later, PROGRAMMED),
        Timestamp::from_second(30).unwrap()
    );
}

#[test]
fn counters_alone_are_no_difference() {
    let mut world = World::new(&["n1"]);
    world.apply("chat", &["192.168.1.110"]);
    world.settle();
    let one = status_at(&world, "chat", 10);
    let mut other = one.clone();
    other.sessions = Some(5);
    assert!(!status::differs_beyond_counters(&one, &other));
    other.gateways.as_mut().unwrap().ready = 0;
    assert!(status::differs_beyond_counters(&one, &other));
}

#[test]
fn a_pool_that_is_refused_says_what_to_do() {
    let mut world = World::new(&["n1"]);
    world.edit("chat", |spec| {
        spec["virtualIPs"] = serde_json::json!([{"address": "192.168.1.110"}]);
        spec["upstreams"][0]["endpoints"][0]["address"] = "192.168.1.110".into();
    });
    let (holds, _, message) = condition(&status_at(&world, "chat", 10), ACCEPTED);
    assert_eq!(holds, "False");
    assert!(message.contains("spec.upstreams[0]"), "{message}");
}

#[test]
fn an_upstream_without_a_ready_server_is_named_and_so_is_one_without_a_route() {
    let mut world = World::new(&["n1"]);
    let meta = |name: &str| serde_json::json!({"name": name, "namespace": "default"});
    let service = serde_json::json!({"metadata": meta("feed"), "spec": {"ports": [{"port": 80}]}});
    let mut slice = serde_json::json!({
        "metadata": meta("feed-1"),
        "addressType": "IPv4",
        "ports": [{"port": 8010}],
        "endpoints": [
            {"addresses": ["10.0.0.1"], "conditions": {"ready": false}},
            {"addresses": ["10.0.0.2"], "conditions": {"ready": false}},
        ],
    });
    slice["metadata"]["labels"] = serde_json::json!({"kubernetes.io/service-name": "feed"});
    world.add(service, slice);
    let mut route_to = |upstreams: &[&str]| {
        world.edit("chat", |spec| {
            let route =
                |name: &&str| serde_json::json!({"pathPrefix": format!("/{name}"), "upstreamName": name});
            spec["virtualIPs"] = serde_json::json!([{"address": "192.168.1.110"}]);
            spec["listeners"][0]["routes"] = upstreams.iter().map(route).collect();
            let feed = serde_json::json!({"name": "feed", "service": {"name": "feed", "port": 80}});
            spec["upstreams"].as_array_mut().unwrap().push(feed);
        });
        world.settle();
        status_at(&world, "chat", 10)
    };
    let both = route_to(&["echo", "feed"]);
    let (holds, reason, message) = condition(&both, DEGRADED);
    assert_eq!((&*holds, &*reason), ("True", "NoEndpoints"));
    assert_eq!(
        message,
        "no server of upstream feed is ready; clients get 503 there until one is"
    );
    assert_eq!(
        condition(&both, ACCEPTED).2,
        "the object is valid and permitted"
    );
    // 10.0.0.1 is a server of both.
    let endpoints = both.endpoints.unwrap();
    assert_eq!((endpoints.ready, endpoints.total), (1, 2));
    let one = route_to(&["echo"]);
    assert_eq!(condition(&one, DEGRADED).0, "False");
    let (holds, _, message) = condition(&one, ACCEPTED);
    assert_eq!(holds, "True");
    assert_eq!(
        message,
        "the object is valid and permitted; no route leads to upstream feed"
    );
}
