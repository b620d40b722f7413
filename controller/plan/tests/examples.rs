//! The manifests that the README and the demo use plan as they say.

#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path, time::Duration};

use node_api::{EndpointPhase, NodeConfig, Pool, PoolRef, Preemption, VrrpVersion};
use plan::{Inputs, manifests, node_config, plan};

fn configs(file: &str) -> (NodeConfig, NodeConfig) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../e2e/manifests");
    let text = fs::read_to_string(folder.join(file)).unwrap();
    let objects = manifests::parse(&[(file.to_owned(), text)]).unwrap();
    let plan = plan(&Inputs::plain_hosts(objects));
    let config = |name| node_config(&plan, name).unwrap();
    (config("server1"), config("server2"))
}

fn chat(config: &NodeConfig) -> &Pool {
    &config.pools[&PoolRef {
        namespace: "default".to_owned(),
        name: "chat".to_owned(),
    }]
}

/// VRID, address and the nodes with both priorities.
type Shown<'a> = (u8, String, Vec<(&'a str, u8, u8)>);

fn routers(pool: &Pool) -> Vec<Shown<'_>> {
    let routers = pool.virtual_routers.iter().map(|router| {
        let nodes = router.nodes.iter();
        let nodes = nodes.map(|it| {
            (
                it.node_name.as_str(),
                it.priority,
                it.priority_without_endpoint,
            )
        });
        (
            router.virtual_router_id,
            router.addresses[0].to_string(),
            nodes.collect(),
        )
    });
    routers.collect()
}

/// The VRID is the last byte of the address, which is 0x10 of `fd00:1::110`.
#[test]
fn dual_stack_has_a_virtual_router_of_each_family() {
    let (server1, server2) = configs("dual-stack.yaml");
    assert_eq!(chat(&server1), chat(&server2), "both hosts must agree");
    let routers = chat(&server1).virtual_routers.iter();
    let shown = routers.map(|router| {
        let addresses = router.addresses.iter().map(ToString::to_string);
        (router.virtual_router_id, addresses.collect::<Vec<_>>())
    });
    let expected = [
        (110, vec!["192.168.1.110"]),
        (16, vec!["fd00:1::110", "fe80::110"]),
    ];
    let expected = expected.map(|(vrid, all)| (vrid, all.into_iter().map(str::to_owned).collect()));
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert_eq!(chat(&server1).upstreams[0].endpoints.len(), 2);
}

#[test]
fn routes_lead_to_two_upstreams() {
    let (server1, server2) = configs("routes.yaml");
    assert_eq!(chat(&server1), chat(&server2), "both hosts must agree");
    let pool = chat(&server1);
    let routes = pool.listeners[0].routes.iter();
    let routes = routes.map(|it| (it.hostnames.len(), &*it.path_prefix, &*it.upstream_name));
    assert_eq!(
        routes.collect::<Vec<_>>(),
        [(0, "/chat", "chat"), (2, "/", "feed")]
    );
    let upstreams = pool.upstreams.iter();
    let upstreams = upstreams.map(|it| (&*it.name, it.endpoints.len()));
    assert_eq!(upstreams.collect::<Vec<_>>(), [("chat", 2), ("feed", 1)]);
}

#[test]
fn article_is_planned_as_the_article_has_it() {
    let (server1, server2) = configs("article.yaml");
    assert_eq!(server1.node_name, "server1");
    assert_eq!(chat(&server1), chat(&server2), "both hosts must agree");
    assert_eq!(
        routers(chat(&server1)),
        [
            (
                51,
                "192.168.1.110".to_owned(),
                vec![("server2", 100, 10), ("server1", 50, 9)]
            ),
            (
                52,
                "192.168.1.112".to_owned(),
                vec![("server1", 100, 10), ("server2", 50, 9)]
            ),
        ]
    );
}

#[test]
fn simple_gives_one_address_to_each_server() {
    let (server1, server2) = configs("simple.yaml");
    assert_eq!(chat(&server1), chat(&server2), "both hosts must agree");
    let pool = chat(&server1);
    let routers = routers(pool);
    let first: Vec<_> = routers.iter().map(|(_, _, nodes)| nodes[0].0).collect();
    assert!(
        first.contains(&"server1") && first.contains(&"server2"),
        "{first:?}"
    );
    for (virtual_router_id, address, nodes) in &routers {
        assert!(address.ends_with(&format!(".{virtual_router_id}")));
        let priorities: Vec<_> = nodes.iter().map(|(_, one, other)| (*one, *other)).collect();
        assert_eq!(priorities, [(250, 10), (244, 9)]);
    }
}

#[test]
fn defaults_are_those_that_the_definition_states() {
    let (server1, _) = configs("simple.yaml");
    let pool = chat(&server1);
    let router = &pool.virtual_routers[0];
    assert_eq!(router.version, VrrpVersion::V3);
    assert_eq!(router.advertisement_interval, Duration::from_millis(100));
    assert_eq!(
        router.preemption,
        Preemption::Enabled {
            delay: Duration::ZERO
        }
    );
    assert_eq!(router.interface, None);
    assert_eq!(pool.heartbeat.interval, Duration::from_secs(20));
    assert_eq!(pool.heartbeat.timeout, Duration::from_secs(10));
    assert_eq!(pool.drain.timeout, Duration::from_secs(30));
    assert_eq!(pool.drain.close_code, 1001);
    let upstream = &pool.upstreams[0];
    assert_eq!(upstream.connect_timeout, Duration::from_secs(2));
    assert_eq!(upstream.handshake_timeout, Duration::from_secs(5));
    let endpoints = upstream.endpoints.iter();
    let endpoints: Vec<_> = endpoints
        .map(|it| (it.address.to_string(), it.port, it.weight, it.phase))
        .collect();
    let expected =
        [16, 17, 18].map(|host| (format!("192.168.1.{host}"), 8010, 1, EndpointPhase::Ready));
    assert_eq!(endpoints, expected);
}
