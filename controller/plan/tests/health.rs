//! Checks, ejection, retries and zones of an upstream, from object to node.

mod common;

use std::{collections::BTreeMap, time::Duration};

use common::{addresses, config, node, planned, pool, pool_ref, refused};
use node_api::{Ejection, Health, HealthCheck, HealthProbe, Retry, Upstream};
use plan::{Inputs, Outliner, Placer};

const CHAT: &str = "file1.yaml: WebSocketHAPool default/chat: spec.upstreams[0].";

/// The upstream of a pool with these fields, as node `a` is told.
fn upstream(fields: &str) -> Upstream {
    let spec = pool("chat", &addresses(&["10.0.0.9"]), fields);
    let plan = planned(&[&node("a"), &spec]);
    config(&plan, "a").pools[&pool_ref("chat")].upstreams[0].clone()
}

#[track_caller]
fn one(fields: &str, expected: &str) {
    let spec = pool("chat", &addresses(&["10.0.0.9"]), fields);
    assert_eq!(refused(&[&node("a"), &spec]), [format!("{CHAT}{expected}")]);
}

#[test]
fn what_is_said_of_servers_reaches_the_node() {
    let silent = upstream("");
    assert_eq!(silent.health, Health::default());
    assert!(silent.zone_preference.is_none());
    let found = upstream(
        "    healthCheck: {interval: 2s, failureThreshold: 4, port: 9000, http: {path: /ok, host: \
         chat.example, expectedStatuses: [204]}}\n    ejection: {consecutiveFailures: 5, \
         baseEjection: 1s, maxEjection: 1m, maxEjectedPercent: 0}\n    retry: {budgetPercent: 0, \
         minPerSecond: 7}",
    );
    assert_eq!(
        found.health,
        Health {
            check: Some(HealthCheck {
                probe: HealthProbe::Http {
                    path: "/ok".to_owned(),
                    host: Some("chat.example".to_owned()),
                    expected_statuses: vec![204],
                },
                port: Some(9000),
                interval: Duration::from_secs(2),
                timeout: Duration::from_secs(1),
                failure_threshold: 4,
                success_threshold: 2,
            }),
            ejection: Ejection {
                consecutive_failures: 5,
                base: Duration::from_secs(1),
                most: Duration::from_mins(1),
                max_percent: 0,
            },
            retry: Retry {
                budget_percent: 0,
                min_per_second: 7,
            },
        }
    );
    let probe = |check: &str| {
        let check = upstream(&format!("    healthCheck: {check}")).health.check;
        check.map(|check| check.probe)
    };
    assert_eq!(probe("{tcp: {}}"), Some(HealthProbe::Tcp));
    let web_socket = HealthProbe::WebSocket {
        path: "/".to_owned(),
        host: None,
    };
    assert_eq!(probe("{webSocket: {}}"), Some(web_socket));
}

#[test]
fn what_makes_no_sense_is_refused_with_a_remedy() {
    for (fields, expected) in [
        (
            "healthCheck: {}",
            "healthCheck: says nothing of what is asked; add tcp, http or webSocket",
        ),
        (
            "healthCheck: {tcp: {}, webSocket: {}}",
            "healthCheck: has several of tcp, http and webSocket; keep one of them",
        ),
        (
            "healthCheck: {tcp: {}, timeout: 6s}",
            "healthCheck.timeout: is 6s, which is longer than interval, 5s; use at most that",
        ),
        (
            "healthCheck: {tcp: {}, interval: 50ms, timeout: 50ms}",
            "healthCheck.interval: is 50ms; use at least 100ms",
        ),
        (
            "healthCheck: {http: {path: ok}}",
            "healthCheck.http.path: is ok; write a path that begins with /, without blanks",
        ),
        (
            "ejection: {baseEjection: 10m}",
            "ejection.maxEjection: is 5m, which is shorter than baseEjection, 10m; use at least that",
        ),
        (
            "ejection: {maxEjectedPercent: 101}",
            "ejection.maxEjectedPercent: is 101; use a number from 0 to 100",
        ),
        (
            "retry: {budgetPercent: 200}",
            "retry.budgetPercent: is 200; use a number from 0 to 100",
        ),
        (
            "loadBalancing: {zonePreference: {minSharePercent: 30}}",
            "loadBalancing.zonePreference.minSharePercent: has no meaning unless mode is SameZone; \
             remove it or set mode to SameZone",
        ),
        (
            "loadBalancing: {type: ConsistentHash, zonePreference: {mode: SameZone}}",
            "loadBalancing.zonePreference.mode: is SameZone, and with ConsistentHash all gateways \
             choose the same server for a client, whatever their zone; choose another type or set mode \
             to Disabled",
        ),
    ] {
        one(&format!("    {fields}"), expected);
    }
}

const PREFERS: &str = "    loadBalancing: {zonePreference: {mode: SameZone}}";

fn in_zone(name: &str, zone: &str) -> String {
    node(name).replace(
        "gw: \"yes\"",
        &format!("gw: \"yes\", topology.kubernetes.io/zone: {zone}"),
    )
}

#[test]
fn zones_of_nodes_and_servers_are_told_where_they_matter() {
    let listed = |more: &str| {
        pool("chat", &addresses(&["10.0.0.9"]), more)
            .replace("port: 8010}", "port: 8010, zone: west}")
    };
    let nodes = in_zone("a", "west") + &in_zone("b", "east") + &node("c");
    let told = |spec: &str, more: &str| {
        let plan = planned(&[&nodes, &format!("{spec}{more}")]);
        config(&plan, "b").pools[&pool_ref("chat")].upstreams[0].clone()
    };
    let silent = told(&listed(""), "");
    assert_eq!(silent.endpoints[0].zone, None, "nobody looks at it");
    let upstream = told(&listed(PREFERS), "");
    assert_eq!(upstream.endpoints[0].zone.as_deref(), Some("west"));
    let preference = upstream.zone_preference.unwrap_or_else(|| panic!("none"));
    assert_eq!(preference.min_share_percent, 20);
    let zones =
        [("a", "west"), ("b", "east")].map(|(node, zone)| (node.to_owned(), zone.to_owned()));
    assert_eq!(preference.nodes, BTreeMap::from(zones));
    let spec = pool("chat", &addresses(&["10.0.0.9"]), PREFERS).replace(
        "endpoints: [{address: 10.0.0.1, port: 8010}]",
        "service: {name: echo, port: 80}",
    );
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo}\nspec: {ports: [{port: 80}]}\n\
         ---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {name: echo-1, labels: \
         {kubernetes.io/service-name: echo}}\naddressType: IPv4\nports: [{port: 8010}]\nendpoints: \
         [{addresses: [10.1.0.1], zone: east}, {addresses: [10.1.0.2]}]\n";
    let upstream = told(&spec, service);
    let zones: Vec<_> = upstream
        .endpoints
        .iter()
        .map(|it| it.zone.as_deref())
        .collect();
    assert_eq!(zones, [Some("east"), None]);
}

/// What was made before is made again where only the zone of a node has changed.
#[test]
fn a_node_that_moves_to_another_zone_is_noticed() {
    let spec = pool("chat", &addresses(&["10.0.0.9"]), PREFERS);
    let (mut outliner, mut placer) = (Outliner::default(), Placer::default());
    let mut zone = |zone: &str| {
        let inputs = Inputs::plain_hosts(common::accepted(&[&in_zone("a", zone), &spec]));
        let plan = placer.place(&outliner.outline(inputs.into()));
        let upstream = config(&plan, "a").pools[&pool_ref("chat")].upstreams[0].clone();
        upstream.zone_preference.map(|preference| preference.nodes)
    };
    for name in ["west", "east"] {
        let expected = BTreeMap::from([("a".to_owned(), name.to_owned())]);
        assert_eq!(zone(name), Some(expected));
    }
}
