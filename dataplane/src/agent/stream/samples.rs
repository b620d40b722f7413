//! Content for the tests beside.

use std::{sync::Arc, time::Duration};

use node_api::{
    Balancing, Drain, Endpoint, EndpointPhase, Heartbeat, Listener, Pool, PoolRef, Preemption,
    RankedNode, Upstream, VirtualRouter, VrrpVersion,
    stream::{ResourceName, Revision},
};
use serde_json::Value;

use super::content::{Content, Held, Resources};

pub(super) const NODE: &str = "server1";

pub(super) fn pool_ref(name: &str) -> PoolRef {
    PoolRef {
        namespace: "default".to_owned(),
        name: name.to_owned(),
    }
}

pub(super) fn pool_name(name: &str) -> ResourceName {
    ResourceName::Pool(pool_ref(name))
}

pub(super) fn endpoints_name(name: &str) -> ResourceName {
    ResourceName::Endpoints {
        pool: pool_ref(name),
        upstream: "echo".to_owned(),
    }
}

/// Settings with one virtual router for each address, all of one sequence.
pub(super) fn pool(sequence: i64, addresses: &[&str]) -> Pool {
    let router = |address: &&str| VirtualRouter {
        virtual_router_id: address.rsplit('.').next().unwrap().parse().unwrap(),
        addresses: vec![address.parse().unwrap()],
        interface: None,
        version: VrrpVersion::V3,
        advertisement_interval: Duration::from_millis(100),
        preemption: Preemption::Disabled,
        mac_address: node_api::MacAddress::Interface,
        nodes: vec![RankedNode {
            node_name: NODE.to_owned(),
            priority: 250,
            priority_without_endpoint: 10,
            address: None,
        }],
        peering: node_api::Peering::Multicast,
        password: None,
        sequence,
    };
    Pool {
        virtual_routers: addresses.iter().map(router).collect(),
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
        upstreams: vec![Upstream {
            name: "echo".to_owned(),
            endpoints: Vec::new(),
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
        }],
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
        limits: node_api::Limits::default(),
        requires: Vec::new(),
    }
}

pub(super) fn endpoints(ports: &[u16]) -> Vec<Endpoint> {
    let endpoint = |port: &u16| Endpoint {
        address: "10.0.0.21".parse().unwrap(),
        port: *port,
        weight: 1,
        phase: EndpointPhase::Ready,
        zone: None,
    };
    ports.iter().map(endpoint).collect()
}

/// The body of a message, and its revision.
pub(super) fn body(content: &impl serde::Serialize) -> (Revision, Value) {
    let revision = Revision::of(content).unwrap();
    (revision, serde_json::to_value(content).unwrap())
}

pub(super) fn held_pool(pool: &Pool) -> Held {
    Held {
        revision: Revision::of(pool).unwrap(),
        content: Content::Pool(Arc::new(pool.clone())),
    }
}

pub(super) fn held_endpoints(ports: &[u16]) -> Held {
    let endpoints = endpoints(ports);
    Held {
        revision: Revision::of(&endpoints).unwrap(),
        content: Content::Endpoints(Arc::new(endpoints)),
    }
}

/// Pools with their endpoints.
pub(super) fn resources(pools: &[(&str, Pool, &[u16])]) -> Resources {
    let of_pool = |(name, pool, ports): &(&str, Pool, &[u16])| {
        [
            (pool_name(name), held_pool(pool)),
            (endpoints_name(name), held_endpoints(ports)),
        ]
    };
    pools.iter().flat_map(of_pool).collect()
}
