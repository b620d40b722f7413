//! Upstreams as users write them.

use std::{collections::BTreeSet, time::Duration};

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use node_api::{
    Balancing, Endpoint, EndpointPhase, Health, ProxyProtocolVersion, Rebalance, UpstreamTls,
    ZonePreference,
};

use super::{
    address::{endpoint_address, parse_address},
    balancing::balancing,
    bounds, health, proxies,
    rebalance::rebalance,
    timing::limit,
    tls,
};
use crate::Problem;

/// A group of servers that makes sense by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct UpstreamIntent {
    /// Name.
    pub name: String,
    /// Where the servers are listed.
    pub source: EndpointSource,
    /// How one is chosen.
    pub balancing: Balancing,
    /// Time over which one that is new comes to its full share.
    pub slow_start: Duration,
    /// Live sessions that a node gives one at most.
    pub endpoint_sessions: Option<u32>,
    /// Limit for one connection attempt.
    pub connect_timeout: Duration,
    /// Limit for the whole opening of a session.
    pub handshake_timeout: Duration,
    /// The header that servers get before the handshake.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// TLS with servers.
    pub tls: Option<UpstreamTls>,
    /// How the servers are kept an eye on.
    pub health: Health,
    /// Whether servers in a node's own zone are preferred; zones of nodes are not in it.
    pub zone_preference: Option<ZonePreference>,
    /// Whether sessions are moved.
    pub rebalance: Option<Rebalance>,
}

/// Where the servers of an upstream are listed.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum EndpointSource {
    /// In the slices of a Service of the pool's namespace.
    Service {
        /// Name of the Service.
        name: String,
        /// One of its ports.
        port: ServicePort,
    },
    /// In the pool.
    Listed(Vec<Endpoint>),
}

/// A port of a Service.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum ServicePort {
    /// By number.
    Number(u16),
    /// By name.
    Name(String),
}

impl std::fmt::Display for ServicePort {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Number(number) => number.fmt(f),
            // In quotes where it would pass for a number.
            Self::Name(name) if name.bytes().all(|byte| byte.is_ascii_digit()) => {
                write!(f, "{name:?}")
            }
            Self::Name(name) => name.fmt(f),
        }
    }
}

pub(super) fn upstreams(
    problems: &mut Vec<Problem>,
    namespace: &str,
    specs: &[crds::Upstream],
) -> Vec<UpstreamIntent> {
    bounds(problems, "spec.upstreams", specs.len(), 16);
    let mut names = BTreeSet::new();
    for (index, spec) in specs.iter().enumerate() {
        if !names.insert(&spec.name) {
            problems.push(Problem::new(
                format!("spec.upstreams[{index}].name"),
                format!("{} names two upstreams; rename one of them", spec.name),
            ));
        }
    }
    let intents = specs.iter().enumerate().filter_map(|(index, spec)| {
        let path = format!("spec.upstreams[{index}]");
        limit(
            problems,
            &format!("{path}.connectTimeout"),
            spec.connect_timeout,
            false,
        );
        limit(
            problems,
            &format!("{path}.handshakeTimeout"),
            spec.handshake_timeout,
            false,
        );
        Some(UpstreamIntent {
            name: spec.name.clone(),
            source: source(problems, &path, spec)?,
            balancing: balancing(problems, &path, &spec.load_balancing)?,
            slow_start: spec.load_balancing.slow_start.get(),
            endpoint_sessions: spec.load_balancing.max_sessions_per_endpoint,
            connect_timeout: spec.connect_timeout.get(),
            handshake_timeout: spec.handshake_timeout.get(),
            proxy_protocol: proxies::sent(problems, &path, spec.proxy_protocol.as_ref()),
            tls: tls::upstream(problems, &path, namespace, spec.tls.as_ref()),
            zone_preference: health::zone_preference(problems, &path, &spec.load_balancing),
            health: health::health(problems, &path, spec)?,
            rebalance: rebalance(problems, &path, spec),
        })
    });
    intents.collect()
}

/// `None` only together with a problem.
fn source(
    problems: &mut Vec<Problem>,
    path: &str,
    spec: &crds::Upstream,
) -> Option<EndpointSource> {
    match (&spec.service, spec.endpoints.as_slice()) {
        (None, []) => {
            problems.push(Problem::new(
                path,
                "names no servers; add service or endpoints",
            ));
            None
        }
        (Some(_), [_, ..]) => {
            problems.push(Problem::new(
                path,
                "has service and endpoints; keep one of the two",
            ));
            None
        }
        (Some(service), []) => Some(EndpointSource::Service {
            name: service.name.clone(),
            port: service_port(problems, &format!("{path}.service.port"), &service.port)?,
        }),
        (None, listed) => {
            bounds(problems, &format!("{path}.endpoints"), listed.len(), 256);
            Some(EndpointSource::Listed(endpoints(problems, path, listed)))
        }
    }
}

fn service_port(
    problems: &mut Vec<Problem>,
    path: &str,
    port: &IntOrString,
) -> Option<ServicePort> {
    let (found, shown) = match port {
        IntOrString::Int(number) => (
            u16::try_from(*number)
                .ok()
                .filter(|number| *number > 0)
                .map(ServicePort::Number),
            number.to_string(),
        ),
        IntOrString::String(name) => (
            (1..=63)
                .contains(&name.len())
                .then(|| ServicePort::Name(name.clone())),
            format!("{name:?}"),
        ),
    };
    if found.is_none() {
        problems.push(Problem::new(
            path,
            format!(
                "is {shown}; use a number from 1 to 65535 or the name of a port of the Service"
            ),
        ));
    }
    found
}

fn endpoints(problems: &mut Vec<Problem>, path: &str, listed: &[crds::Endpoint]) -> Vec<Endpoint> {
    let mut seen = BTreeSet::new();
    let mut endpoints = Vec::new();
    for (index, endpoint) in listed.iter().enumerate() {
        let path = format!("{path}.endpoints[{index}]");
        if endpoint.port == 0 {
            problems.push(Problem::new(
                format!("{path}.port"),
                "is 0; use a number from 1 to 65535",
            ));
        }
        if !(1..=256).contains(&endpoint.weight) {
            problems.push(Problem::new(
                format!("{path}.weight"),
                format!("is {}; use a number from 1 to 256", endpoint.weight),
            ));
        }
        let zone = health::zone(problems, &path, endpoint.zone.as_deref());
        let address = parse_address(&endpoint.address)
            .and_then(|address| endpoint_address(address).map(|()| address));
        match address {
            Ok(address) if seen.insert((address, endpoint.port)) => endpoints.push(Endpoint {
                address,
                port: endpoint.port,
                weight: endpoint.weight,
                phase: EndpointPhase::Ready,
                zone,
            }),
            Ok(address) => problems.push(Problem::new(
                path,
                format!(
                    "{address} port {} is listed twice; remove one of the two",
                    endpoint.port
                ),
            )),
            Err(error) => {
                problems.push(Problem::new(format!("{path}.address"), error.to_string()));
            }
        }
    }
    endpoints
}
