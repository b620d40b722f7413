//! Properties of whole plans on plain hosts: from files to what each node does.

mod common;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use common::{addresses, config, node, nodes, planned, pool, pool_ref, routers};
use node_api::PoolRef;
use plan::{Plan, node_config};
use proptest::{collection::btree_set, prelude::*, sample::Index};

/// A set of objects: nodes, and pools with the last bytes of their addresses.
#[derive(Clone, Debug)]
struct Wanted {
    nodes: usize,
    pools: Vec<Vec<u8>>,
    preferred: Option<Index>,
}

impl Wanted {
    fn names(&self) -> Vec<String> {
        (0..self.nodes)
            .map(|index| format!("server{index}"))
            .collect()
    }

    /// The objects, one text each.
    fn texts(&self) -> Vec<String> {
        let names = self.names();
        let pools = self.pools.iter().enumerate().map(|(index, hosts)| {
            let mut listed: Vec<String> =
                hosts.iter().map(|host| format!("10.0.0.{host}")).collect();
            listed.sort();
            let list: Vec<&str> = listed.iter().map(String::as_str).collect();
            let mut list = addresses(&list);
            if let Some(preferred) = self.preferred {
                list = format!("{list}\n    preferredNodeName: {}", preferred.get(&names));
            }
            pool(&format!("pool{index}"), &list, "").replace("10.0.0.1,", "172.16.0.1,")
        });
        let texts: Vec<String> = names.iter().map(|name| node(name)).chain(pools).collect();
        texts
    }
}

fn wanted() -> impl Strategy<Value = Wanted> {
    let hosts = btree_set(1_u8..=254, 1..30);
    (
        1_usize..7,
        hosts,
        1_usize..4,
        proptest::option::of(any::<Index>()),
    )
        .prop_map(|(nodes, hosts, pools, preferred)| {
            let hosts: Vec<u8> = hosts.into_iter().collect();
            let size = hosts.len().div_ceil(pools).min(16);
            Wanted {
                nodes,
                pools: hosts.chunks(size).map(<[u8]>::to_vec).collect(),
                preferred,
            }
        })
}

fn plan_of(texts: &[String]) -> Plan {
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    planned(&texts)
}

/// VRID and nodes in order, by pool and address.
fn by_address(plan: &Plan) -> BTreeMap<(PoolRef, IpAddr), (u8, Vec<String>)> {
    let pools = plan.pools.iter();
    let routers = pools.flat_map(|(name, pool)| {
        let entries = routers(pool).into_iter();
        entries.map(|(address, vrid, nodes)| ((name.clone(), address), (vrid, nodes)))
    });
    routers.collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Two hosts with the same objects plan the same, however their files are cut, in whatever
    /// order, and whatever they planned before.
    #[test]
    fn equal_files_give_equal_plans(wanted in wanted(), before in wanted(), order in any::<Vec<u64>>()) {
        let texts = wanted.texts();
        let plan = plan_of(&texts);
        let mut keyed: Vec<_> = texts.iter().enumerate().collect();
        keyed.sort_by_key(|(index, _)| order.get(*index).copied().unwrap_or_default());
        let shuffled: Vec<String> = keyed.into_iter().rev().map(|(_, text)| text.clone()).collect();
        plan_of(&before.texts());
        prop_assert_eq!(&plan_of(&shuffled), &plan);
        prop_assert_eq!(&plan_of(&[shuffled.concat()]), &plan);
    }

    /// The order of a list of addresses is the user's and decides nothing.
    #[test]
    fn order_of_addresses_decides_nothing(hosts in btree_set(1_u8..=254, 1..16)) {
        let list: Vec<String> = hosts.iter().map(|host| format!("10.0.0.{host}")).collect();
        let mut list: Vec<&str> = list.iter().map(String::as_str).collect();
        let spec = |list: &[&str]| pool("chat", &addresses(list), "").replace("10.0.0.1,", "172.16.0.1,");
        let three = nodes(&["a", "b", "c"]);
        let plan = planned(&[&three, &spec(&list)]);
        list.reverse();
        prop_assert_eq!(by_address(&planned(&[&three, &spec(&list)])), by_address(&plan));
    }

    /// All nodes are told the same of what they share, and each only what it takes part in.
    #[test]
    fn nodes_agree(wanted in wanted()) {
        let plan = plan_of(&wanted.texts());
        for name in wanted.names() {
            let config = config(&plan, &name);
            prop_assert_eq!(&config.node_name, &name);
            for (pool, told) in &config.pools {
                prop_assert!(!told.virtual_routers.is_empty());
                for router in &told.virtual_routers {
                    prop_assert!(router.candidate(&name).is_some());
                    prop_assert!(plan.pools[pool].virtual_routers.contains(router));
                }
            }
        }
    }

    /// Counted over all pools together no node holds more than one address above another, unless a
    /// node is preferred.
    #[test]
    fn addresses_of_all_pools_are_spread(wanted in wanted()) {
        let plan = plan_of(&wanted.texts());
        let mut loads: BTreeMap<String, usize> =
            wanted.names().into_iter().map(|name| (name, 0)).collect();
        for (_, nodes) in by_address(&plan).into_values() {
            *loads.get_mut(&nodes[0]).unwrap() += 1;
            prop_assert_eq!(nodes.len(), wanted.nodes);
        }
        if let Some(preferred) = wanted.preferred {
            // The address listed last in each pool is the one with a preference.
            for (index, hosts) in wanted.pools.iter().enumerate() {
                let last = hosts.iter().map(|host| format!("10.0.0.{host}")).max().unwrap();
                let key = (pool_ref(&format!("pool{index}")), last.parse().unwrap());
                let names = wanted.names();
                prop_assert_eq!(&by_address(&plan)[&key].1[0], preferred.get(&names));
            }
        } else {
            let (least, most) = (loads.values().min().unwrap(), loads.values().max().unwrap());
            prop_assert!(most - least <= 1, "{:?}", loads);
        }
    }

    /// Without a word from the user the VRID is the last byte of the address.
    #[test]
    fn virtual_router_ids_are_last_bytes(wanted in wanted()) {
        for ((_, address), (vrid, _)) in by_address(&plan_of(&wanted.texts())) {
            let last = format!(".{vrid}");
            prop_assert!(address.to_string().ends_with(&last));
        }
    }

    /// Priorities fall in steps of 15 from 250; without an endpoint a node is below all of them.
    #[test]
    fn priorities_follow_ranks(count in 1_usize..14) {
        let names: Vec<String> = (0..count).map(|index| format!("n{index}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let plan = planned(&[&nodes(&names), &pool("chat", &addresses(&["10.0.0.9"]), "")]);
        let router = &plan.pools[&pool_ref("chat")].virtual_routers[0];
        let found: Vec<_> = router.nodes.iter().map(|it| (it.priority, it.priority_without_endpoint)).collect();
        let priority = |rank: u8| if rank == 0 { 250 } else { 244 - 15 * (rank - 1) };
        let expected: Vec<_> = (0..10_u8).map(|rank| (priority(rank), 10 - rank)).take(count).collect();
        prop_assert_eq!(found, expected);
        let distinct: BTreeSet<_> = router.nodes.iter().map(|it| &it.node_name).collect();
        prop_assert_eq!(distinct.len(), count.min(10));
    }
}

#[test]
fn only_members_take_part() {
    let excluded = "---\napiVersion: v1\nkind: Node\nmetadata:\n  name: excluded\n  labels: {gw: \"yes\", node.kubernetes.io/exclude-from-external-load-balancers: \"\"}\n";
    let other = "---\napiVersion: v1\nkind: Node\nmetadata: {name: other, labels: {gw: \"no\"}}\n";
    let cordoned = "---\napiVersion: v1\nkind: Node\nmetadata: {name: cordoned, labels: {gw: \"yes\"}}\nspec: {unschedulable: true}\n";
    let spec = pool(
        "chat",
        &addresses(&["10.0.0.9", "10.0.0.10", "10.0.0.11"]),
        "",
    );
    let plan = planned(&[&nodes(&["a", "b"]), excluded, other, cordoned, &spec]);
    for (_, _, nodes) in routers(&plan.pools[&pool_ref("chat")]) {
        assert_eq!(nodes.len(), 3);
        assert_eq!(nodes[2], "cordoned");
    }
    // They exist all the same, with nothing to do.
    assert!(config(&plan, "excluded").pools.is_empty());
    assert!(config(&plan, "other").pools.is_empty());
    assert_eq!(
        node_config(&plan, "nobody").unwrap_err().to_string(),
        "no Node is named nobody; those present are a, b, cordoned, excluded, other"
    );
}

#[test]
fn how_servers_are_chosen_reaches_the_node() {
    let upstream = |how: &str| {
        let more = format!("    loadBalancing: {{{how}}}");
        let spec = pool("chat", "  - address: 10.0.0.9", &more);
        let plan = planned(&[&node("a"), &spec]);
        config(&plan, "a").pools[&pool_ref("chat")].upstreams[0].clone()
    };
    let slow = upstream("type: PowerOfTwo, slowStart: 30s, maxSessionsPerEndpoint: 500");
    assert_eq!(slow.balancing, node_api::Balancing::PowerOfTwo);
    assert_eq!(slow.slow_start.as_secs(), 30);
    assert_eq!(slow.endpoint_sessions, Some(500));
    let hashed = |key, max_load_percent| node_api::Balancing::ConsistentHash {
        key,
        max_load_percent,
    };
    assert_eq!(
        upstream("type: ConsistentHash").balancing,
        hashed(node_api::HashKey::SourceAddress, None)
    );
    let how = "type: ConsistentHash, consistentHash: {key: {type: Cookie, name: session}, maxLoadPercent: 125}";
    assert_eq!(
        upstream(how).balancing,
        hashed(node_api::HashKey::Cookie("session".to_owned()), Some(125))
    );
}

#[test]
fn sessions_are_moved_where_it_is_asked_for() {
    let wanted = |rebalance: &str| {
        let more = format!("    rebalance: {{{rebalance}}}");
        let spec = pool("chat", "  - address: 10.0.0.9", &more);
        let plan = planned(&[&node("a"), &spec]);
        config(&plan, "a").pools[&pool_ref("chat")].upstreams[0].rebalance
    };
    let of = |percent_per_minute, tolerance_percent| {
        Some(node_api::Rebalance {
            percent_per_minute,
            tolerance_percent,
        })
    };
    assert_eq!(wanted(""), None);
    assert_eq!(wanted("percentPerMinute: 7"), None);
    assert_eq!(wanted("mode: Enabled"), of(5, 10));
    let both = "mode: Enabled, percentPerMinute: 7, tolerancePercent: 20";
    assert_eq!(wanted(both), of(7, 20));
}

#[test]
fn proxies_before_the_gateways_reach_the_node() {
    let more = "    proxyProtocol: {version: 2}";
    let spec = pool("chat", "  - address: 10.0.0.9", more).replace(
        "port: 8020}",
        "port: 8020, trustedProxies: [192.0.2.0/24], proxyProtocol: {mode: Required}}",
    );
    let plan = planned(&[&node("a"), &spec]);
    let pool = config(&plan, "a").pools[&pool_ref("chat")].clone();
    let listener = &pool.listeners[0];
    assert_eq!(listener.trusted_proxies, ["192.0.2.0/24"]);
    assert_eq!(
        listener.proxy_protocol,
        node_api::ProxyProtocolMode::Required
    );
    let sent = pool.upstreams[0].proxy_protocol;
    assert_eq!(sent, Some(node_api::ProxyProtocolVersion::V2));
}

#[test]
fn plain_requests_reach_the_node_which_must_know_them() {
    let wanted = |how: &str| {
        let spec = pool("chat", "  - address: 10.0.0.9", "");
        let spec = spec.replace("port: 8020}", &format!("port: 8020{how}}}"));
        let plan = planned(&[&node("a"), &spec]);
        let pool = config(&plan, "a").pools[&pool_ref("chat")].clone();
        assert!(pool.unknown().is_empty());
        let timeout = pool.listeners[0].plain_requests.map(|plain| plain.timeout);
        (timeout, pool.requires)
    };
    let known = || vec!["plainRequests".to_owned()];
    let seconds = |seconds| Some(Duration::from_secs(seconds));
    assert_eq!(wanted(""), (None, Vec::new()));
    assert_eq!(wanted(", plainRequests: {timeout: 5s}"), (None, Vec::new()));
    let minute = wanted(", plainRequests: {mode: Proxied}");
    assert_eq!(minute, (seconds(60), known()));
    let short = wanted(", plainRequests: {mode: Proxied, timeout: 5s}");
    assert_eq!(short, (seconds(5), known()));
}

#[test]
fn tls_reaches_the_node_with_references_into_the_pools_namespace() {
    let more = "    tls: {hostname: chat.example, caCertificateRef: {name: ca}, \
                clientCertificateRef: {name: own}}";
    let spec = pool("chat", "  - address: 10.0.0.9", more).replace(
        "port: 8020}",
        "port: 8020, tls: {certificateRefs: [{name: b}, {name: a}], minimumVersion: \"1.3\", \
         http2: {mode: Disabled}}}",
    );
    let plan = planned(&[&node("a"), &spec]);
    let pool = config(&plan, "a").pools[&pool_ref("chat")].clone();
    let tls = pool.listeners[0].tls.as_ref().unwrap();
    assert_eq!(tls.certificates, ["default/b", "default/a"]);
    assert_eq!(tls.minimum_version, node_api::TlsVersion::V13);
    assert_eq!(tls.http2, node_api::Http2::Disabled);
    let tls = pool.upstreams[0].tls.as_ref().unwrap();
    assert_eq!(
        (tls.hostname.as_str(), tls.ca.as_str()),
        ("chat.example", "default/ca")
    );
    assert_eq!(tls.client_certificate.as_deref(), Some("default/own"));
    let referred: Vec<_> = pool.secrets().into_iter().collect();
    assert_eq!(
        referred,
        ["default/a", "default/b", "default/ca", "default/own"]
    );
}

#[test]
fn records_are_made_of_the_share_that_is_asked_for() {
    let share = |more: &str| {
        let spec = pool("chat", "  - address: 10.0.0.9", more);
        let plan = planned(&[&node("a"), &spec]);
        let log = config(&plan, "a").pools[&pool_ref("chat")].access_log;
        log.map(|log| log.sample_percent)
    };
    assert_eq!(share(""), None);
    assert_eq!(share("  accessLog: {samplePercent: 5}"), None);
    assert_eq!(share("  accessLog: {mode: Enabled}"), Some(100));
    let some = "  accessLog: {mode: Enabled, samplePercent: 5}";
    assert_eq!(share(some), Some(5));
}

#[test]
fn what_clients_may_do_reaches_the_node() {
    let limits = |limits: &str| {
        let spec = pool(
            "chat",
            "  - address: 10.0.0.9",
            &format!("  limits: {{{limits}}}"),
        );
        let plan = planned(&[&node("a"), &spec]);
        config(&plan, "a").pools[&pool_ref("chat")].limits
    };
    let default = node_api::Limits {
        slow_reader: Some(Duration::from_mins(1)),
        ..node_api::Limits::default()
    };
    assert_eq!(limits(""), default);
    assert!(limits("slowReaderTimeout: 0s").is_none());
    let all = "maxSessions: 1, maxSessionsPerSource: 2, maxSessionsPerOrigin: 3, handshakesPerSecond: 4, \
               maxFrameSize: 125, maxMessageSize: 6, messagesPerSecond: 7, messageBurst: 8, \
               maxSessionAge: 9s, slowReaderTimeout: 10s, maxBufferedBytes: 65536";
    let rate = |burst| node_api::MessageRate {
        per_second: 7,
        burst,
    };
    let expected = node_api::Limits {
        sessions: Some(1),
        sessions_per_source: Some(2),
        sessions_per_origin: Some(3),
        handshakes_per_second: Some(4),
        frame_size: Some(125),
        message_size: Some(6),
        messages: Some(rate(8)),
        session_age: Some(Duration::from_secs(9)),
        slow_reader: Some(Duration::from_secs(10)),
        buffered_bytes: Some(65_536),
    };
    assert_eq!(limits(all), expected);
    assert_eq!(limits("messagesPerSecond: 7").messages, Some(rate(7)));
}

#[test]
fn every_setting_reaches_the_node() {
    let more = "    loadBalancing: {type: LeastConnections}\n    connectTimeout: 300ms\n    handshakeTimeout: 1s\n  \
                vrrp: {version: 2, preemption: {mode: Disabled}}\n  heartbeat: {interval: 0s}\n  drain: {timeout: 0s, sessionsPerSecond: 50, closeCode: 4000}";
    let spec = pool(
        "chat",
        "  - {address: 10.0.0.9, virtualRouterID: 7, interface: eth1}\n  - address: 10.0.0.10",
        more,
    )
    .replace("gateways: {", "gateways: {interface: eth0, ")
    .replace("port: 8010}", "port: 8010, weight: 3}");
    let plan = planned(&[&node("a"), &spec]);
    let config = config(&plan, "a");
    let pool = &config.pools[&pool_ref("chat")];
    let router = &pool.virtual_routers[0];
    assert_eq!(
        (router.virtual_router_id, router.interface.as_deref()),
        (7, Some("eth1"))
    );
    assert_eq!(pool.virtual_routers[1].interface.as_deref(), Some("eth0"));
    assert_eq!(router.version, node_api::VrrpVersion::V2);
    assert_eq!(
        router.advertisement_interval.as_secs(),
        1,
        "the default of version 2"
    );
    assert_eq!(router.preemption, node_api::Preemption::Disabled);
    let upstream = &pool.upstreams[0];
    assert_eq!(upstream.balancing, node_api::Balancing::LeastConnections);
    assert_eq!(upstream.connect_timeout.as_millis(), 300);
    assert_eq!(upstream.handshake_timeout.as_millis(), 1000);
    assert_eq!(upstream.endpoints[0].weight, 3);
    assert!(upstream.slow_start.is_zero() && upstream.endpoint_sessions.is_none());
    assert!(pool.heartbeat.interval.is_zero());
    assert_eq!(
        (pool.drain.timeout.as_secs(), pool.drain.close_code),
        (0, 4000)
    );
    assert_eq!(pool.drain.sessions_per_second, Some(50));
}

#[test]
fn endpoints_come_from_all_slices_of_the_service() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: echo}\nspec: {ports: [{name: ws, port: 80, targetPort: 8010}]}\n";
    let slice = |name: &str, of: &str, endpoints: &str| {
        format!(
            "---\napiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {name}, labels: {{kubernetes.io/service-name: {of}}}}}\naddressType: IPv4\nports: [{{name: ws, port: 8010}}, {{name: admin, port: 9000}}]\nendpoints:\n{endpoints}\n"
        )
    };
    let first = slice(
        "echo-1",
        "echo",
        "- {addresses: [10.1.0.3]}\n- {addresses: [10.1.0.1], conditions: {ready: true, serving: true, terminating: false}}\n\
         - {addresses: [10.1.0.5], conditions: {ready: false, serving: true, terminating: true}}",
    );
    let second = slice(
        "echo-2",
        "echo",
        "- {addresses: [10.1.0.2], conditions: {ready: false}}\n- {addresses: [10.1.0.3], conditions: {ready: false}}",
    );
    let other = slice("other-1", "other", "- {addresses: [10.1.0.9]}");
    for port in ["80", "ws"] {
        let spec = pool("chat", &addresses(&["10.0.0.9"]), "").replace(
            "endpoints: [{address: 10.0.0.1, port: 8010}]",
            &format!("service: {{name: echo, port: {port}}}"),
        );
        let plan = planned(&[&node("a"), &spec, service, &second, &other, &first]);
        let found = plan.pools[&pool_ref("chat")].upstreams[0].endpoints.iter();
        let found: Vec<_> = found
            .map(|it| format!("{}:{} {:?}", it.address, it.port, it.phase))
            .collect();
        assert_eq!(
            found,
            [
                "10.1.0.1:8010 Ready",
                "10.1.0.2:8010 NotReady",
                "10.1.0.3:8010 Ready",
                "10.1.0.5:8010 Terminating"
            ]
        );
    }
}
