//! Several upstreams, and which requests go to which: what nodes are told, and what is refused.

mod common;

use common::{addresses, config, node, planned, pool, pool_ref, refused};
use node_api::{Pool, Route};
use serde_json::json;

const SERVICES: &str = "
---
apiVersion: v1
kind: Service
metadata: {name: chat}
spec: {ports: [{port: 8010}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: chat-1, labels: {kubernetes.io/service-name: chat}}
addressType: IPv4
ports: [{port: 9010}]
endpoints: [{addresses: [10.0.0.21]}, {addresses: [10.0.0.22], conditions: {ready: false}}]
---
apiVersion: v1
kind: Service
metadata: {name: rooms}
spec: {ports: [{port: 80, name: ws}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: rooms-1, labels: {kubernetes.io/service-name: rooms}}
addressType: IPv4
ports: [{port: 9080, name: ws}]
endpoints: [{addresses: [10.0.0.22]}]
";

/// The pool with other listeners and upstreams.
fn spec(listeners: &str, upstreams: &str) -> String {
    let spec = pool("chat", &addresses(&["10.0.0.9"]), "");
    let head = spec.split("  listeners:").next().unwrap_or_default();
    format!("{head}  listeners: {listeners}\n  upstreams: {upstreams}\n")
}

const TWO: &str = "[{name: chat, service: {name: chat, port: 8010}, connectTimeout: 1s}, \
                   {name: rooms, service: {name: rooms, port: ws}, handshakeTimeout: 9s}]";

fn told(listeners: &str, upstreams: &str) -> Pool {
    let plan = planned(&[&node("a"), SERVICES, &spec(listeners, upstreams)]);
    config(&plan, "a").pools[&pool_ref("chat")].clone()
}

#[test]
fn each_upstream_has_the_servers_of_its_service_and_its_own_settings() {
    let pool = told(
        "[{name: ws, port: 8020, routes: [{upstreamName: chat}, {hostnames: [rooms.example, \
         '*.rooms.example'], pathPrefix: /v1/rooms, upstreamName: rooms}]}]",
        TWO,
    );
    let upstreams = pool.upstreams.iter().map(|upstream| {
        let endpoints = upstream.endpoints.iter();
        let endpoints = endpoints.map(|it| it.socket_address().to_string());
        (
            upstream.name.as_str(),
            endpoints.collect::<Vec<_>>().join(" "),
            upstream.connect_timeout.as_secs(),
            upstream.handshake_timeout.as_secs(),
        )
    });
    assert_eq!(
        upstreams.collect::<Vec<_>>(),
        [
            ("chat", "10.0.0.21:9010 10.0.0.22:9010".to_owned(), 1, 5),
            ("rooms", "10.0.0.22:9080".to_owned(), 2, 9),
        ]
    );
    let route = |hostnames: &[&str], prefix: &str, upstream: &str| Route {
        hostnames: hostnames.iter().map(|&name| name.to_owned()).collect(),
        path_prefix: prefix.to_owned(),
        upstream_name: upstream.to_owned(),
    };
    assert_eq!(
        pool.listeners[0].routes,
        [
            route(&[], "/", "chat"),
            route(&["rooms.example", "*.rooms.example"], "/v1/rooms", "rooms"),
        ]
    );
    assert!(pool.is_routed("chat") && pool.is_routed("rooms"));
    let (_, endpoints) = pool.split();
    assert_eq!(endpoints.keys().collect::<Vec<_>>(), ["chat", "rooms"]);
}

/// There before its route, or still there after it.
#[test]
fn an_upstream_without_a_route_is_accepted() {
    let pool = told(
        "[{name: ws, port: 8020, routes: [{upstreamName: chat}]}]",
        TWO,
    );
    assert!(pool.is_routed("chat") && !pool.is_routed("rooms"));
}

/// Nodes of before know one upstream and no routes, and so do the states that they saved.
#[test]
fn one_upstream_without_routes_is_told_as_ever() {
    let one = "[{name: chat, service: {name: chat, port: 8010}}]";
    let pool = told("[{name: ws, port: 8020}]", one);
    assert!(pool.is_routed("chat"));
    let listener = serde_json::to_value(&pool.listeners[0]).unwrap();
    assert_eq!(listener, json!({"name": "ws", "port": 8020}));
    let pool = told(
        "[{name: ws, port: 8020, routes: [{upstreamName: chat}]}]",
        one,
    );
    let listener = serde_json::to_value(&pool.listeners[0]).unwrap();
    let routes = json!([{"pathPrefix": "/", "upstreamName": "chat"}]);
    assert_eq!(listener["routes"], routes);
}

#[track_caller]
fn one(listener: &str, upstreams: &str, expected: &[&str]) {
    let listeners = format!("[{{name: ws, port: 8020, {listener}}}]");
    let refusals = refused(&[&node("a"), SERVICES, &spec(&listeners, upstreams)]);
    let expected = expected.iter().map(|expected| {
        format!("file2.yaml: WebSocketHAPool default/chat: spec.listeners[0].routes{expected}")
    });
    assert_eq!(refusals, expected.collect::<Vec<_>>());
}

#[test]
fn routes_that_lead_nowhere_or_are_missing_are_refused() {
    one(
        "routes: []",
        TWO,
        &[": is empty, and there are several upstreams; say which requests go to chat or rooms"],
    );
    one(
        "routes: [{upstreamName: chat}, {pathPrefix: /x, upstreamName: room}]",
        TWO,
        &["[1].upstreamName: is room, which is no upstream of the pool; use chat or rooms"],
    );
    one(
        "routes: [{hostnames: [a]}]",
        TWO,
        &["[0].upstreamName: is missing; add it"],
    );
}

#[test]
fn two_equal_matches_are_refused_by_name() {
    one(
        "routes: [{upstreamName: chat}, {pathPrefix: /, upstreamName: rooms}]",
        TWO,
        &["[1]: matches / as routes[0] does; remove it from one of the two"],
    );
    one(
        "routes: [{hostnames: [a.example, b.example], pathPrefix: /x, upstreamName: chat}, \
         {pathPrefix: /x, upstreamName: chat}, {hostnames: [c.example, b.example], pathPrefix: /x, \
         upstreamName: rooms}, {hostnames: [b.example], pathPrefix: /, upstreamName: rooms}]",
        TWO,
        &["[2]: matches b.example/x as routes[0] does; remove it from one of the two"],
    );
}

#[test]
fn hostnames_and_prefixes_are_refused_with_what_to_write() {
    const NAME: &str = "write a name in lower case, without port, *. at most before it";
    for (name, shown) in [
        ("Chat.example", "Chat.example"),
        ("a:80", "a:80"),
        ("'*'", "*"),
    ] {
        one(
            &format!("routes: [{{hostnames: [{name}], upstreamName: chat}}]"),
            TWO,
            &[&format!("[0].hostnames[0]: is {shown}; {NAME}")],
        );
    }
    one(
        "routes: [{hostnames: [a.example, a.example], upstreamName: chat}]",
        TWO,
        &["[0].hostnames[1]: \"a.example\" stands twice; remove one of them"],
    );
    for prefix in ["chat", "/chat/", "/a//b", "/a/../b", "/a%62"] {
        one(
            &format!("routes: [{{pathPrefix: {prefix:?}, upstreamName: chat}}]"),
            TWO,
            &[&format!(
                "[0].pathPrefix: is {prefix:?}; write / or elements of letters, digits, -, ., _ and ~ \
                 behind a / each, none of them . or .., as in /chat/rooms"
            )],
        );
    }
}

#[test]
fn bounds_of_upstreams_and_routes() {
    let many = |count: usize| {
        let entry = |n| format!("{{name: u{n}, service: {{name: chat, port: 8010}}}}");
        let entries: Vec<_> = (0..count).map(entry).collect();
        format!("[{}]", entries.join(", "))
    };
    let routes = |count: usize| {
        let entry = |n| format!("{{pathPrefix: /{n}, upstreamName: u0}}");
        let entries: Vec<_> = (0..count).map(entry).collect();
        format!("routes: [{}]", entries.join(", "))
    };
    let listeners = format!("[{{name: ws, port: 8020, {}}}]", routes(64));
    let pool = told(&listeners, &many(16));
    assert_eq!(
        (pool.upstreams.len(), pool.listeners[0].routes.len()),
        (16, 64)
    );
    one(
        &routes(65),
        &many(16),
        &[": has 65 entries; at most 64 are possible"],
    );
    let listeners = format!("[{{name: ws, port: 8020, {}}}]", routes(1));
    let refusals = refused(&[&node("a"), SERVICES, &spec(&listeners, &many(17))]);
    let expected = "file2.yaml: WebSocketHAPool default/chat: spec.upstreams: has 17 entries; at most \
                    16 are possible";
    assert_eq!(refusals, [expected]);
}

/// Of one upstream a node that reaches none is below all others as it is.
#[test]
fn a_node_may_be_asked_to_reach_one_server_of_each_of_several_upstreams() {
    let listeners = "[{name: ws, port: 8020, routes: [{upstreamName: chat}]}]";
    let tracking = "  tracking: {upstreams: [{name: rooms, minUsableEndpoints: 1, weight: 20}, \
                    {name: chat, minUsableEndpoints: 2, weight: 20}]}\n";
    let spec = spec(listeners, TWO) + tracking;
    let plan = planned(&[&node("a"), SERVICES, &spec]);
    let tracked = &config(&plan, "a").pools[&pool_ref("chat")]
        .tracking
        .upstreams;
    assert_eq!((tracked.len(), tracked[0].min_usable_endpoints), (2, 1));
    let alone = pool(
        "chat",
        &addresses(&["10.0.0.9"]),
        "  tracking: {upstreams: [{name: echo, minUsableEndpoints: 1, weight: 20}]}",
    );
    let expected = "file1.yaml: WebSocketHAPool default/chat: \
                    spec.tracking.upstreams[0].minUsableEndpoints: is 1; use a number from 2 to 10000: \
                    where there is one upstream, a node that reaches none ranks below all others as it is";
    assert_eq!(refused(&[&node("a"), &alone]), [expected]);
}
