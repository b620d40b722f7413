//! From what a node is told ([`node_api`]) to what the proxy serves, and the names back.

use std::{collections::BTreeMap, net::SocketAddr};

use ipnet::IpNet;
use node_api::{HashKey, HealthProbe, Pool, PoolRef, ProxyProtocolMode, ProxyProtocolVersion};

use super::made::Made;

/// Desired state of the proxy with what its library does not need to know.
#[derive(Debug, Default)]
pub(super) struct Desired {
    /// What the library shall serve.
    pub(super) config: proxy::Config,
    /// Pools by the name that the library knows them by.
    pub(super) pools: BTreeMap<String, PoolRef>,
    /// What could not be expressed, each a sentence with its remedy.
    pub(super) problems: Vec<String>,
}

impl Desired {
    pub(super) fn new(pools: &[(PoolRef, Pool)], tls: &mut Made) -> Self {
        let mut desired = Self::default();
        for (pool_ref, pool) in pools {
            // What no planner makes, and the relay would refuse together with all other pools.
            if let Err(problem) = pool.check_routes() {
                let problem = format!("pool {pool_ref} is not served: {problem}");
                desired.problems.push(problem);
                continue;
            }
            let name = pool_ref.to_string();
            desired.pools.insert(name.clone(), pool_ref.clone());
            let pool = proxy::Pool {
                listeners: listeners((pool_ref, pool), tls, &mut desired.problems),
                upstreams: pool
                    .upstreams
                    .iter()
                    .map(|upstream| {
                        convert_upstream(pool_ref, upstream, tls, &mut desired.problems)
                    })
                    .collect(),
                heartbeat: proxy::Heartbeat {
                    interval: pool.heartbeat.interval,
                    timeout: pool.heartbeat.timeout,
                },
                drain: proxy::Drain {
                    timeout: pool.drain.timeout,
                    sessions_per_second: pool.drain.sessions_per_second,
                    close_code: pool.drain.close_code,
                },
                access_log: pool.access_log.map(|log| log.sample_percent),
                limits: limits(&pool.limits),
            };
            desired.config.pools.insert(name, pool);
        }
        desired
    }
}

/// Each listener is on each address of each virtual router that the node takes part in. One whose TLS
/// cannot be served is left out: it must not be served without.
fn listeners(
    (pool_ref, pool): (&PoolRef, &Pool),
    tls: &mut Made,
    problems: &mut Vec<String>,
) -> Vec<proxy::Listener> {
    let on_all_addresses = |listener: &node_api::Listener| {
        let tls = match tls.server(pool_ref, listener) {
            Ok(tls) => tls,
            Err(problem) => {
                problems.push(problem);
                return None;
            }
        };
        Some(proxy::Listener {
            name: listener.name.clone(),
            addresses: pool
                .virtual_routers
                .iter()
                .flat_map(|router| &router.addresses)
                .map(|address| SocketAddr::new(*address, listener.port))
                .collect(),
            allowed_origins: listener.allowed_origins.clone(),
            trusted_proxies: networks(&listener.trusted_proxies, problems),
            proxy_protocol: listener.proxy_protocol == ProxyProtocolMode::Required,
            tls,
            routes: listener.routes.iter().map(route).collect(),
            plain_requests: listener.plain_requests.map(|plain| proxy::PlainRequests {
                timeout: plain.timeout,
            }),
        })
    };
    pool.listeners.iter().filter_map(on_all_addresses).collect()
}

fn route(route: &node_api::Route) -> proxy::Route {
    proxy::Route {
        hostnames: route.hostnames.clone(),
        path_prefix: route.path_prefix.clone(),
        upstream: route.upstream_name.clone(),
    }
}

fn networks(texts: &[String], problems: &mut Vec<String>) -> Vec<IpNet> {
    let network = |text: &String| {
        let network = text.parse().ok();
        if network.is_none() {
            problems.push(format!(
                "trustedProxies {text:?} is no network and trusts nobody: write it as 192.0.2.0/24"
            ));
        }
        network
    };
    texts.iter().filter_map(network).collect()
}

/// One whose TLS cannot be served has no endpoints: none is reached without.
fn convert_upstream(
    pool_ref: &PoolRef,
    upstream: &node_api::Upstream,
    tls: &mut Made,
    problems: &mut Vec<String>,
) -> proxy::Upstream {
    let (tls, endpoints) = match tls.client(pool_ref, upstream) {
        Ok(tls) => (tls, upstream.endpoints.as_slice()),
        Err(problem) => {
            problems.push(problem);
            (None, &[][..])
        }
    };
    let preference = upstream.zone_preference.as_ref();
    // The agent leaves the node's own in it alone.
    let zone = preference.and_then(|preference| preference.nodes.values().next());
    let endpoint = |endpoint: &node_api::Endpoint| proxy::Endpoint {
        address: SocketAddr::new(endpoint.address, endpoint.port),
        weight: endpoint.weight,
        phase: match endpoint.phase {
            node_api::EndpointPhase::Ready => proxy::Phase::Ready,
            node_api::EndpointPhase::NotReady => proxy::Phase::NotReady,
            node_api::EndpointPhase::Terminating => proxy::Phase::Terminating,
        },
        is_near: zone.is_some() && endpoint.zone.as_ref() == zone,
    };
    proxy::Upstream {
        name: upstream.name.clone(),
        endpoints: endpoints.iter().map(endpoint).collect(),
        balancing: balancing(&upstream.balancing),
        slow_start: upstream.slow_start,
        endpoint_sessions: upstream.endpoint_sessions,
        connect_timeout: upstream.connect_timeout,
        handshake_timeout: upstream.handshake_timeout,
        proxy_protocol: upstream.proxy_protocol.map(|version| match version {
            ProxyProtocolVersion::V1 => proxy::proxy_protocol::Version::V1,
            ProxyProtocolVersion::V2 => proxy::proxy_protocol::Version::V2,
        }),
        tls,
        health: health(&upstream.health),
        min_near_percent: preference
            .filter(|_| zone.is_some())
            .map(|preference| preference.min_share_percent),
        rebalance: upstream.rebalance.map(|wanted| proxy::Rebalance {
            percent_per_minute: wanted.percent_per_minute.into(),
            tolerance_percent: wanted.tolerance_percent.into(),
        }),
    }
}

fn health(health: &node_api::Health) -> proxy::Health {
    let node_api::Health {
        check,
        ejection,
        retry,
    } = health;
    proxy::Health {
        check: check.as_ref().map(|check| proxy::HealthCheck {
            probe: match &check.probe {
                HealthProbe::Tcp => proxy::Probe::Tcp,
                HealthProbe::Http {
                    path,
                    host,
                    expected_statuses,
                } => proxy::Probe::Http {
                    path: path.clone(),
                    host: host.clone(),
                    expected_statuses: expected_statuses.clone(),
                },
                HealthProbe::WebSocket { path, host } => proxy::Probe::WebSocket {
                    path: path.clone(),
                    host: host.clone(),
                },
            },
            port: check.port,
            interval: check.interval,
            timeout: check.timeout,
            failure_threshold: check.failure_threshold,
            success_threshold: check.success_threshold,
        }),
        ejection: proxy::Ejection {
            consecutive_failures: ejection.consecutive_failures,
            base: ejection.base,
            most: ejection.most,
            max_percent: ejection.max_percent,
        },
        retry: proxy::Retry {
            budget_percent: retry.budget_percent,
            min_per_second: retry.min_per_second,
        },
    }
}

fn balancing(balancing: &node_api::Balancing) -> proxy::Balancing {
    match balancing {
        node_api::Balancing::RoundRobin => proxy::Balancing::RoundRobin,
        node_api::Balancing::LeastConnections => proxy::Balancing::LeastConnections,
        node_api::Balancing::PowerOfTwo => proxy::Balancing::PowerOfTwo,
        node_api::Balancing::ConsistentHash {
            key,
            max_load_percent,
        } => proxy::Balancing::ConsistentHash(proxy::ConsistentHash {
            key: match key {
                HashKey::SourceAddress => proxy::HashKey::SourceAddress,
                HashKey::Header(name) => proxy::HashKey::Header(name.clone()),
                HashKey::Cookie(name) => proxy::HashKey::Cookie(name.clone()),
                HashKey::QueryParameter(name) => proxy::HashKey::QueryParameter(name.clone()),
            },
            max_load_percent: *max_load_percent,
        }),
    }
}

fn limits(limits: &node_api::Limits) -> proxy::Limits {
    proxy::Limits {
        sessions: limits.sessions,
        sessions_per_source: limits.sessions_per_source,
        sessions_per_origin: limits.sessions_per_origin,
        handshakes_per_second: limits.handshakes_per_second,
        frame_size: limits.frame_size,
        message_size: limits.message_size,
        messages: limits.messages.map(|rate| proxy::MessageRate {
            per_second: rate.per_second,
            burst: rate.burst,
        }),
        session_age: limits.session_age,
        slow_reader: limits.slow_reader,
        buffered_bytes: limits.buffered_bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use node_api::{
        Balancing, Drain, Endpoint, EndpointPhase, Heartbeat, Listener, Preemption, Upstream,
        VirtualRouter, VrrpVersion,
    };

    use super::*;

    fn router(id: u8, addresses: &[&str]) -> VirtualRouter {
        VirtualRouter {
            virtual_router_id: id,
            addresses: addresses.iter().map(|a| a.parse().unwrap()).collect(),
            interface: None,
            version: VrrpVersion::V3,
            advertisement_interval: Duration::from_millis(100),
            preemption: Preemption::Disabled,
            mac_address: node_api::MacAddress::Interface,
            nodes: Vec::new(),
            peering: node_api::Peering::Multicast,
            password: None,
            sequence: 0,
        }
    }

    fn pool() -> (PoolRef, Pool) {
        let pool_ref = PoolRef {
            namespace: "default".to_owned(),
            name: "chat".to_owned(),
        };
        let pool = Pool {
            virtual_routers: vec![
                router(10, &["10.0.0.1", "10.0.0.2"]),
                router(12, &["10.0.0.3"]),
            ],
            listeners: [("ws", 8020), ("other", 8021)]
                .map(|(name, port)| Listener {
                    name: name.to_owned(),
                    port,
                    allowed_origins: Vec::new(),
                    trusted_proxies: Vec::new(),
                    proxy_protocol: ProxyProtocolMode::Disabled,
                    routes: Vec::new(),
                    plain_requests: None,
                    tls: None,
                })
                .to_vec(),
            upstreams: vec![Upstream {
                name: "echo".to_owned(),
                endpoints: vec![Endpoint {
                    address: "10.1.0.1".parse().unwrap(),
                    port: 8010,
                    weight: 3,
                    phase: EndpointPhase::Terminating,
                    zone: None,
                }],
                balancing: Balancing::LeastConnections,
                slow_start: Duration::ZERO,
                endpoint_sessions: None,
                connect_timeout: Duration::from_secs(2),
                handshake_timeout: Duration::from_secs(5),
                proxy_protocol: None,
                tls: None,
                health: node_api::Health::default(),
                zone_preference: None,
                rebalance: Some(node_api::Rebalance {
                    percent_per_minute: 5,
                    tolerance_percent: 10,
                }),
            }],
            heartbeat: Heartbeat {
                interval: Duration::from_secs(20),
                timeout: Duration::from_secs(10),
            },
            drain: Drain {
                timeout: Duration::from_secs(30),
                sessions_per_second: Some(50),
                close_code: 1012,
            },
            tracking: node_api::Tracking::default(),
            access_log: None,
            limits: node_api::Limits::default(),
            requires: Vec::new(),
        };
        (pool_ref, pool)
    }

    fn convert(pools: &[(PoolRef, Pool)]) -> Desired {
        Desired::new(pools, &mut Made::default())
    }

    /// The agent hands on no such pool.
    #[test]
    fn what_is_meant_for_tls_is_never_without() {
        let (pool_ref, mut pool) = pool();
        pool.listeners[0].tls = Some(node_api::ListenerTls {
            certificates: vec!["default/chat-tls".to_owned()],
            minimum_version: node_api::TlsVersion::V12,
            http2: node_api::Http2::default(),
        });
        pool.upstreams[0].tls = Some(node_api::UpstreamTls {
            hostname: "chat.example".to_owned(),
            ca: "default/ca".to_owned(),
            client_certificate: None,
        });
        let desired = convert(&[(pool_ref, pool)]);
        let served = &desired.config.pools["default/chat"];
        assert_eq!(served.listeners.len(), 1);
        assert_eq!(served.listeners[0].name, "other");
        assert_eq!(served.upstreams[0].endpoints, []);
        assert_eq!(desired.problems.len(), 2, "{:?}", desired.problems);
    }

    #[test]
    fn listeners_are_on_every_address_of_every_virtual_router() {
        let desired = convert(&[pool()]);
        let addresses: Vec<_> = desired.config.addresses().map(|a| a.to_string()).collect();
        assert_eq!(
            addresses,
            [
                "10.0.0.1:8020",
                "10.0.0.2:8020",
                "10.0.0.3:8020",
                "10.0.0.1:8021",
                "10.0.0.2:8021",
                "10.0.0.3:8021"
            ]
        );
        let served = &desired.config.pools["default/chat"];
        assert_eq!(
            served.upstreams[0].balancing,
            proxy::Balancing::LeastConnections
        );
        assert_eq!(served.upstreams[0].endpoints[0].weight, 3);
        let rebalance = proxy::Rebalance {
            percent_per_minute: 5,
            tolerance_percent: 10,
        };
        assert_eq!(served.upstreams[0].rebalance, Some(rebalance));
        assert_eq!(
            served.upstreams[0].endpoints[0].phase,
            proxy::Phase::Terminating
        );
        assert_eq!(served.drain.close_code, 1012);
        assert_eq!(served.drain.sessions_per_second, Some(50));
        assert_eq!(desired.pools["default/chat"], pool().0);
        assert!(desired.problems.is_empty());
    }

    #[test]
    fn proxies_before_the_node_are_trusted_by_network() {
        let (pool_ref, mut pool) = pool();
        let listener = &mut pool.listeners[0];
        listener.trusted_proxies = vec!["192.0.2.0/24".to_owned(), "proxies".to_owned()];
        listener.proxy_protocol = ProxyProtocolMode::Required;
        pool.upstreams[0].proxy_protocol = Some(ProxyProtocolVersion::V1);
        let desired = convert(&[(pool_ref, pool)]);
        let served = &desired.config.pools["default/chat"];
        assert_eq!(
            served.listeners[0].trusted_proxies,
            ["192.0.2.0/24".parse().unwrap()]
        );
        assert!(served.listeners[0].proxy_protocol && !served.listeners[1].proxy_protocol);
        let sent = served.upstreams[0].proxy_protocol;
        assert_eq!(sent, Some(proxy::proxy_protocol::Version::V1));
        assert!(desired.problems[0].contains("\"proxies\""));
    }

    #[test]
    fn endpoints_in_the_zone_of_the_node_are_near() {
        let (name, mut pool) = pool();
        pool.upstreams[0].endpoints[0].zone = Some("a".to_owned());
        let mut preference = node_api::ZonePreference {
            min_share_percent: 30,
            nodes: BTreeMap::from([("server1".to_owned(), "a".to_owned())]),
        };
        let mut near = |preference: &node_api::ZonePreference| {
            pool.upstreams[0].zone_preference = Some(preference.clone());
            let served = convert(&[(name.clone(), pool.clone())]).config;
            let upstream = &served.pools["default/chat"].upstreams[0];
            (upstream.min_near_percent, upstream.endpoints[0].is_near)
        };
        assert_eq!(near(&preference), (Some(30), true));
        preference
            .nodes
            .insert("server1".to_owned(), "b".to_owned());
        assert_eq!(near(&preference), (Some(30), false));
        preference.nodes.clear();
        assert_eq!(near(&preference), (None, false), "the node is in no zone");
    }

    /// What says nothing of it, as that of an older controller, means the same on both sides.
    #[test]
    fn defaults_of_the_contract_are_those_of_the_library() {
        let told = health(&node_api::Health::default());
        assert_eq!(told, proxy::Health::default());
    }

    #[test]
    fn a_pool_that_leads_nowhere_is_named_and_the_others_are_served() {
        let (mut nameless, mut empty) = pool();
        nameless.name = "empty".to_owned();
        empty.upstreams.clear();
        let desired = convert(&[(nameless, empty), pool()]);
        assert_eq!(desired.config.pools.len(), 1);
        assert!(desired.problems[0].contains("default/empty"));
    }

    #[test]
    fn routes_lead_to_upstreams_by_name() {
        let (pool_ref, mut pool) = pool();
        let mut other = pool.upstreams[0].clone();
        other.name = "other".to_owned();
        pool.upstreams.push(other);
        for listener in &mut pool.listeners {
            listener.routes = vec![node_api::Route {
                hostnames: vec!["*.example.com".to_owned()],
                path_prefix: "/chat".to_owned(),
                upstream_name: "other".to_owned(),
            }];
        }
        let desired = convert(&[(pool_ref, pool)]);
        assert_eq!(desired.problems, [""; 0]);
        let served = &desired.config.pools["default/chat"];
        assert_eq!(served.upstreams.len(), 2);
        let route = &served.listeners[1].routes[0];
        assert_eq!(route.hostnames, ["*.example.com"]);
        assert_eq!((&*route.path_prefix, &*route.upstream), ("/chat", "other"));
    }
}
