//! What goes over the control stream, between versions that differ.
#![expect(clippy::unwrap_used, reason = "in a test it is an assertion")]

use std::time::Duration;

use node_api::{
    Balancing, Decoded, Drain, Endpoint, EndpointPhase, Heartbeat, Http2, Keys, Limits, Listener,
    ListenerTls, MessageRate, MissingEndpoints, Password, Peering, Pool, PoolRef, Preemption,
    RankedNode, Secret, TicketKeys, TlsVersion, Upstream, UpstreamTls, VirtualRouter, VrrpVersion,
    stream::{
        EndpointsDelta, Hello, NodeFacts, ResourceName, Revision, ToController, ToNode, Welcome,
    },
};
use proptest::prelude::*;
use serde_json::{Value, json};

fn pool_ref() -> PoolRef {
    PoolRef {
        namespace: "default".to_owned(),
        name: "chat".to_owned(),
    }
}

/// What a side that knows neither would not understand is told only where it is asked for.
#[test]
fn peers_and_passwords_are_told_where_there_are_any() {
    let mut router = pool().virtual_routers.remove(0);
    let plain = serde_json::to_value(&router).unwrap();
    assert!(plain.get("peering").is_none() && plain.get("password").is_none());
    assert!(plain["nodes"][0].get("address").is_none());
    assert_eq!(
        serde_json::from_value::<VirtualRouter>(plain).unwrap(),
        router
    );
    router.peering = Peering::Unicast {
        addresses: vec![[10, 0, 0, 1].into()],
    };
    router.password = Some(Password("geheim".to_owned()));
    let told = serde_json::to_value(&router).unwrap();
    assert_eq!(told["password"], "geheim");
    assert_eq!(
        serde_json::from_value::<VirtualRouter>(told).unwrap(),
        router
    );
    assert!(!format!("{router:?}").contains("geheim"));
}

/// TLS is told where there is any, and what it is made of apart from it.
#[test]
fn tls_is_told_where_there_is_any_and_keys_never_show() {
    let plain = serde_json::to_value(pool()).unwrap();
    assert!(plain["listeners"][0].get("tls").is_none());
    assert!(plain["upstreams"][0].get("tls").is_none());
    let mut pool = pool();
    pool.listeners[0].tls = Some(ListenerTls {
        certificates: vec!["default/chat-tls".to_owned()],
        minimum_version: TlsVersion::V12,
        http2: Http2::Enabled,
    });
    pool.upstreams[0].tls = Some(UpstreamTls {
        hostname: "chat.example".to_owned(),
        ca: "default/ca".to_owned(),
        client_certificate: None,
    });
    let told = serde_json::to_value(&pool).unwrap();
    assert_eq!(
        told["listeners"][0]["tls"],
        json!({"certificates": ["default/chat-tls"]})
    );
    assert_eq!(serde_json::from_value::<Pool>(told).unwrap(), pool);

    let secret = Secret {
        key: Some("geheim".to_owned()),
        ..Secret::default()
    };
    let told = serde_json::to_value(&secret).unwrap();
    assert_eq!(told, json!({"key": "geheim"}));
    let tickets = TicketKeys(vec!["geheim".to_owned()]);
    assert_eq!(serde_json::to_value(&tickets).unwrap(), json!(["geheim"]));
    let keys = Keys {
        secrets: [("default/chat-tls".to_owned(), secret)].into(),
        tickets: vec![(pool_ref(), tickets)],
    };
    assert!(!format!("{keys:?}").contains("geheim"));
    let told = serde_json::to_value(&keys).unwrap();
    assert_eq!(serde_json::from_value::<Keys>(told).unwrap(), keys);
    for name in ["secrets/default/chat-tls", "ticketKeys/default/chat"] {
        let known = ResourceName::from(name);
        assert!(!matches!(known, ResourceName::Other(_)));
        assert_eq!(known.to_string(), name);
    }
}

fn endpoint(port: u16) -> Endpoint {
    Endpoint {
        address: "10.0.0.21".parse().unwrap(),
        port,
        weight: 1,
        phase: EndpointPhase::Ready,
        zone: None,
    }
}

fn pool() -> Pool {
    let upstream = |name: &str, ports: &[u16]| Upstream {
        name: name.to_owned(),
        endpoints: ports.iter().copied().map(endpoint).collect(),
        balancing: Balancing::RoundRobin,
        slow_start: Duration::ZERO,
        endpoint_sessions: None,
        connect_timeout: Duration::from_secs(2),
        handshake_timeout: Duration::from_secs(5),
        proxy_protocol: None,
        tls: None,
        health: node_api::Health::default(),
        zone_preference: None,
        rebalance: None,
    };
    Pool {
        virtual_routers: vec![VirtualRouter {
            virtual_router_id: 110,
            addresses: vec!["192.168.1.110".parse().unwrap()],
            interface: None,
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(100),
            preemption: Preemption::Disabled,
            mac_address: node_api::MacAddress::Interface,
            nodes: vec![RankedNode {
                node_name: "server1".to_owned(),
                priority: 250,
                priority_without_endpoint: 10,
                address: None,
            }],
            peering: Peering::Multicast,
            password: None,
            sequence: 7,
        }],
        listeners: vec![Listener {
            name: "ws".to_owned(),
            port: 8020,
            allowed_origins: Vec::new(),
            trusted_proxies: Vec::new(),
            proxy_protocol: node_api::ProxyProtocolMode::Disabled,
            routes: Vec::new(),
            plain_requests: None,
            tls: None,
        }],
        upstreams: vec![upstream("echo", &[1, 2]), upstream("none", &[])],
        heartbeat: Heartbeat {
            interval: Duration::ZERO,
            timeout: Duration::ZERO,
        },
        drain: Drain {
            timeout: Duration::ZERO,
            sessions_per_second: None,
            close_code: 1001,
        },
        tracking: node_api::Tracking::default(),
        access_log: None,
        limits: Limits {
            sessions: Some(500),
            frame_size: Some(1 << 40),
            messages: Some(MessageRate {
                per_second: 5,
                burst: 9,
            }),
            session_age: Some(Duration::from_hours(24)),
            ..Limits::default()
        },
        requires: Vec::new(),
    }
}

fn upsert(body: Value) -> ToNode {
    ToNode::Upsert {
        name: ResourceName::Pool(pool_ref()),
        revision: Revision("r1".to_owned()),
        body,
    }
}

fn to_node() -> Vec<ToNode> {
    vec![
        ToNode::Welcome(Welcome {
            version: "0.1.0".to_owned(),
            replica: "wsha-controller-0".to_owned(),
            silence_ms: 15_000,
            epoch: "e1".to_owned(),
        }),
        upsert(json!({})),
        ToNode::EndpointsDelta(EndpointsDelta {
            name: ResourceName::from("endpoints/default/chat/echo"),
            base: Revision("r1".to_owned()),
            revision: Revision("r2".to_owned()),
            upserts: vec![endpoint(1)],
            removals: vec!["10.0.0.21:2".parse().unwrap()],
        }),
        ToNode::Remove {
            name: ResourceName::Pool(pool_ref()),
        },
        ToNode::Synced {
            sequence: 7,
            keep: Some([ResourceName::Pool(pool_ref())].into()),
        },
        ToNode::Watching { live: false },
        ToNode::Retire,
    ]
}

fn to_controller() -> Vec<ToController> {
    let name = || ResourceName::Pool(pool_ref());
    vec![
        ToController::Hello(Box::new(Hello {
            held: [(name(), Revision("r1".to_owned()))].into(),
            ..Hello::default()
        })),
        ToController::Ack {
            name: name(),
            revision: None,
        },
        ToController::Nack {
            name: name(),
            revision: Revision("r1".to_owned()),
            reason: "no".to_owned(),
        },
        ToController::Report(Box::new(report())),
        ToController::Facts(NodeFacts::default()),
        ToController::Trusts {
            authorities: vec!["ab".to_owned()],
        },
        ToController::Retired,
    ]
}

fn report() -> node_api::NodeReport {
    serde_json::from_value(json!({
        "nodeName": "server1", "version": "0.1.0", "staleReason": null, "warnings": [],
        "virtualRouters": [], "pools": [],
    }))
    .unwrap()
}

/// The names of all kinds, of messages that are read back as they were.
macro_rules! kinds {
    ($messages:expr, $type:ty) => {{
        let kinds = $messages.into_iter().map(|message| {
            let text = serde_json::to_string(&message).unwrap();
            let kind = serde_json::from_str::<Value>(&text).unwrap()["kind"].clone();
            assert_eq!(<$type>::decode(&text).unwrap(), Decoded::Message(message));
            kind.as_str().unwrap().to_owned()
        });
        kinds.collect::<Vec<_>>()
    }};
}

#[test]
fn every_message_is_read_back_and_its_kind_is_listed() {
    assert_eq!(kinds!(to_node(), ToNode), ToNode::KINDS);
    assert_eq!(kinds!(to_controller(), ToController), ToController::KINDS);
}

#[test]
fn unknown_fields_are_ignored() {
    let body = json!({
        "virtualRouters": [], "listeners": [{"name": "ws", "port": 1, "new": 1}], "upstreams": [],
        "heartbeat": {"interval": 0, "timeout": 0}, "drain": {"timeout": 0, "closeCode": 1001},
        "new": {"a": []},
    });
    let pool: Pool = serde_json::from_value(body).unwrap();
    assert_eq!(pool.listeners.len(), 1);
    let text = r#"{"kind":"synced","sequence":3,"new":[1]}"#;
    let synced = ToNode::Synced {
        sequence: 3,
        keep: None,
    };
    assert_eq!(ToNode::decode(text).unwrap(), Decoded::Message(synced));
}

#[test]
fn unknown_kinds_of_messages_are_skipped() {
    for text in [
        r#"{"kind":"later","name":"pools/a/b","revision":"r"}"#,
        r#"{"kind":"later"}"#,
    ] {
        let later = || "later".to_owned();
        assert_eq!(ToNode::decode(text).unwrap(), Decoded::UnknownKind(later()));
        assert_eq!(
            ToController::decode(text).unwrap(),
            Decoded::UnknownKind(later())
        );
    }
}

#[test]
fn unknown_kinds_of_resources_keep_their_names() {
    for text in [
        "routes/default/chat",
        "pools/chat",
        "pools/a/b/c",
        "endpoints/a/b",
        "secrets/a",
        "secrets/a/b/c",
        "ticketKeys/a",
        "",
    ] {
        let name = ResourceName::from(text);
        assert_eq!(name, ResourceName::Other(text.to_owned()));
        assert_eq!(name.to_string(), text);
    }
}

#[test]
fn an_unknown_value_of_an_enum_refuses_that_resource_only() {
    let mut delta = serde_json::to_value(&to_node()[2]).unwrap();
    delta["upserts"][0]["phase"] = json!("Resting");
    let Decoded::Refused {
        name,
        revision,
        reason,
    } = ToNode::decode(&delta.to_string()).unwrap()
    else {
        unreachable!("it is no message that is understood");
    };
    assert_eq!(name.to_string(), "endpoints/default/chat/echo");
    assert_eq!(revision.0, "r2");
    assert!(reason.contains("Resting"), "{reason}");

    // A whole resource comes as it is, to be decoded by itself.
    let mut body = serde_json::to_value(pool()).unwrap();
    body["upstreams"][0]["balancing"] = json!("Best");
    let text = serde_json::to_string(&upsert(body.clone())).unwrap();
    assert_eq!(
        ToNode::decode(&text).unwrap(),
        Decoded::Message(upsert(body.clone()))
    );
    let error = serde_json::from_value::<Pool>(body).unwrap_err();
    assert!(error.to_string().contains("Best"), "{error}");
}

#[test]
fn what_is_no_message_is_an_error() {
    for (text, kind) in [
        ("", ""),
        ("{", ""),
        ("[]", ""),
        ("{}", ""),
        (r#"{"kind":"remove"}"#, "remove"),
        (r#"{"kind":"synced","sequence":"x"}"#, "synced"),
    ] {
        assert_eq!(ToNode::decode(text).unwrap_err().kind, kind, "{text}");
    }
}

#[test]
fn a_pool_is_taken_apart_and_put_together() {
    let (settings, endpoints) = pool().split();
    assert!(
        settings
            .upstreams
            .iter()
            .all(|one| one.endpoints.is_empty())
    );
    assert_eq!(endpoints["echo"].len(), 2);
    assert_eq!(endpoints["none"].len(), 0);
    let joined = settings.clone().join(|name| endpoints.get(name).cloned());
    assert_eq!(joined.unwrap(), pool());
    let joined = settings.join(|name| (name == "echo").then(Vec::new));
    assert_eq!(joined, Err(MissingEndpoints("none".to_owned())));
}

#[test]
fn plain_hosts_and_older_versions_know_no_sequence() {
    let mut router = pool().virtual_routers.remove(0);
    router.sequence = 0;
    let mut value = serde_json::to_value(&router).unwrap();
    assert_eq!(value.get("sequence"), None);
    assert_eq!(
        serde_json::from_value::<VirtualRouter>(value.clone()).unwrap(),
        router
    );
    value["sequence"] = json!(9);
    let newer: VirtualRouter = serde_json::from_value(value).unwrap();
    assert_eq!(newer.sequence, 9);
}

#[test]
fn an_older_controller_sets_no_limits() {
    let mut pool = serde_json::to_value(pool()).unwrap();
    let limits = &pool["limits"];
    assert_eq!(limits["sessionAge"], json!(86_400_000));
    assert_eq!(
        limits.get("slowReader"),
        None,
        "what is not set is not told"
    );
    pool.as_object_mut().unwrap().remove("limits");
    let pool: Pool = serde_json::from_value(pool).unwrap();
    assert!(pool.limits.is_none());
    assert_eq!(serde_json::to_value(&pool).unwrap().get("limits"), None);
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let phase = prop_oneof![
        Just(EndpointPhase::Ready),
        Just(EndpointPhase::NotReady),
        Just(EndpointPhase::Terminating)
    ];
    let one = ((0_u8..4, 1_u16..6), (1_u16..3, phase));
    prop::collection::btree_map(one.clone().prop_map(|(key, _)| key), one, 0..20).prop_map(|all| {
        let endpoint = |((last, port), (_, (weight, phase)))| Endpoint {
            address: [10, 0, 0, last].into(),
            port,
            weight,
            phase,
            zone: None,
        };
        all.into_iter().map(endpoint).collect()
    })
}

proptest! {
    #[test]
    fn a_delta_makes_the_new_of_the_old(old in endpoints(), new in endpoints()) {
        let revision = |all: &Vec<Endpoint>| Revision::of(all).unwrap();
        let name = ResourceName::from("endpoints/default/chat/echo");
        let delta = EndpointsDelta::between(name, (revision(&old), &old), (revision(&new), &new));
        prop_assert_eq!(&delta.apply(&old), &new);
        prop_assert_eq!(revision(&delta.apply(&old)), delta.revision.clone());
        prop_assert_eq!(delta.base == delta.revision, old == new);
        prop_assert!(delta.upserts.len() <= new.len() && delta.removals.len() <= old.len());
        if old == new {
            prop_assert!(delta.upserts.is_empty() && delta.removals.is_empty());
        }
    }
}
