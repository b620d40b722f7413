//! The one conversion of a spec into checked values.
//!
//! Whatever can be said of a pool by looking at it alone is said here, all of it at once, each
//! problem with the path of its field. What needs other objects (clashes, nodes, Services) is for
//! [`plan`](crate::plan()). The API server has checked most of the ranges by the schema already; they
//! are checked again, since values that made it here are used without further question.

mod address;
mod asking;
mod balancing;
mod health;
mod limits;
mod origin;
mod peering;
mod plain_requests;
mod proxies;
mod rebalance;
mod routes;
mod timing;
mod tls;
mod tracking;
mod upstream;

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

use crds::{VirtualIP, WebSocketHAPool};
use k8s_openapi::jiff::Timestamp;
use node_api::{
    AccessLog, Drain, Heartbeat, Limits, Listener, Password, PoolRef, Preemption, Tracking,
    VrrpVersion,
};

pub(crate) use address::targets;
pub use address::{AddressError, endpoint_address, parse_address};
pub(crate) use asking::is_request_target;
pub(crate) use balancing::is_token;
pub(crate) use health::is_label_value;
pub use peering::Peering;
pub(crate) use peering::family;
pub(crate) use routes::is_host_pattern;
pub use timing::Timing;
pub(crate) use tls::is_hostname;
pub(crate) use tracking::is_file_name;
pub use upstream::{EndpointSource, ServicePort, UpstreamIntent};

use crate::Problem;

/// Most nodes that one virtual router has.
pub const MAX_NODES: usize = 10;

/// Most addresses of a virtual router besides the first.
const MAX_ADDITIONAL: usize = 15;

/// A pool whose own fields make sense.
#[derive(Clone, Debug, PartialEq)]
pub struct PoolIntent {
    /// Namespace and name.
    pub name: PoolRef,
    /// When the object was created; of two that clash the older one stands.
    pub created: Option<Timestamp>,
    /// Virtual addresses, in the user's order.
    pub virtual_ips: Vec<VirtualIpIntent>,
    /// Labels of the nodes that may hold them.
    pub match_labels: BTreeMap<String, String>,
    /// Where clients are accepted.
    pub listeners: Vec<Listener>,
    /// Where sessions go.
    pub upstreams: Vec<UpstreamIntent>,
    /// Version, interval and preemption.
    pub timing: Timing,
    /// How nodes reach each other.
    pub peering: Peering,
    /// What version 2 asks of each packet besides.
    pub password: Option<Password>,
    /// Pings.
    pub heartbeat: Heartbeat,
    /// Ends of sessions.
    pub drain: Drain,
    /// What nodes look at besides VRRP.
    pub tracking: Tracking,
    /// Records of connections.
    pub access_log: Option<AccessLog>,
    /// What clients may do.
    pub limits: Limits,
}

/// A virtual address that makes sense by itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualIpIntent {
    /// The address.
    pub address: IpAddr,
    /// Further addresses of the same virtual router.
    pub additional_addresses: Vec<IpAddr>,
    /// The VRID that the user names.
    pub virtual_router_id: Option<u8>,
    /// The interface that the user names, for the address or for the pool.
    pub interface: Option<String>,
    /// Who is to hold it.
    pub order: Order,
}

/// What the user says of the order of nodes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Order {
    /// Nothing: the planner spreads.
    Spread,
    /// This node first; the planner spreads the others behind it.
    Preferred(String),
    /// These nodes with these priorities, highest first, and no others.
    Fixed(Vec<(String, u8)>),
}

impl TryFrom<&WebSocketHAPool> for PoolIntent {
    type Error = Vec<Problem>;

    fn try_from(pool: &WebSocketHAPool) -> Result<Self, Self::Error> {
        let spec = &pool.spec;
        let mut problems = Vec::new();
        let mut virtual_ips = Vec::new();
        bounds(&mut problems, "spec.virtualIPs", spec.virtual_ips.len(), 16);
        for (index, virtual_ip) in spec.virtual_ips.iter().enumerate() {
            let path = format!("spec.virtualIPs[{index}]");
            let intent = virtual_ip_intent(&mut problems, &path, virtual_ip);
            virtual_ips.extend(intent.map(|intent| VirtualIpIntent {
                interface: intent.interface.or_else(|| spec.gateways.interface.clone()),
                ..intent
            }));
        }
        each_once(&mut problems, &virtual_ips);
        let name = pool_ref(pool);
        let listeners = listeners(
            &mut problems,
            &name.namespace,
            &spec.listeners,
            &spec.upstreams,
        );
        let upstreams = upstream::upstreams(&mut problems, &name.namespace, &spec.upstreams);
        let timing = timing::timing(&mut problems, &spec.vrrp);
        let second = timing.filter(|timing| timing.version == VrrpVersion::V2);
        let mut addresses = virtual_ips.iter().map(|virtual_ip| virtual_ip.address);
        if let Some(address) = second.and_then(|_| addresses.find(IpAddr::is_ipv6)) {
            problems.push(Problem::new(
                "spec.vrrp.version",
                format!("is 2, which has no IPv6, and {address} is an IPv6 address; use 3"),
            ));
        }
        let peering = peering::peering(&mut problems, &spec.vrrp.peering, &virtual_ips);
        let authentication = &spec.vrrp.authentication;
        let password = peering::password(&mut problems, authentication, spec.vrrp.version);
        let heartbeat = timing::heartbeat(&mut problems, &spec.heartbeat);
        let drain = timing::drain(&mut problems, &spec.drain);
        let tracking = tracking::tracking(&mut problems, spec, timing);
        let access_log = access_log(&mut problems, spec.access_log.as_ref());
        let limits = limits::limits(&mut problems, &spec.limits);
        match timing {
            Some(timing) if problems.is_empty() => Ok(Self {
                name,
                created: pool.metadata.creation_timestamp.as_ref().map(|at| at.0),
                virtual_ips,
                match_labels: spec.gateways.node_selector.match_labels.clone(),
                listeners,
                upstreams,
                timing,
                peering,
                password,
                heartbeat,
                drain,
                tracking,
                access_log,
                limits,
            }),
            _ => Err(problems),
        }
    }
}

/// Namespace and name of a pool; `default` where a file names no namespace.
pub fn pool_ref(pool: &WebSocketHAPool) -> PoolRef {
    PoolRef {
        namespace: pool
            .metadata
            .namespace
            .as_deref()
            .unwrap_or("default")
            .to_owned(),
        name: pool.metadata.name.clone().unwrap_or_default(),
    }
}

impl VirtualIpIntent {
    /// All its addresses, each with the field where it stands; the first one names it.
    pub(crate) fn addresses(&self) -> impl Iterator<Item = (String, IpAddr)> {
        let first = ("address".to_owned(), self.address);
        let more = self.additional_addresses.iter().enumerate();
        let more = more.map(|(at, address)| (format!("additionalAddresses[{at}]"), *address));
        std::iter::once(first).chain(more)
    }
}

fn each_once(problems: &mut Vec<Problem>, virtual_ips: &[VirtualIpIntent]) {
    let mut seen = BTreeMap::new();
    for (index, virtual_ip) in virtual_ips.iter().enumerate() {
        for (field, address) in virtual_ip.addresses() {
            if let Some(first) = seen.insert(address, index) {
                problems.push(Problem::new(
                    format!("spec.virtualIPs[{index}].{field}"),
                    format!(
                        "{address} stands in spec.virtualIPs[{first}] already; remove one of the two"
                    ),
                ));
            }
        }
    }
}

fn bounds(problems: &mut Vec<Problem>, path: &str, len: usize, most: usize) {
    if len == 0 {
        problems.push(Problem::new(path, "is empty; at least one entry is needed"));
    } else if len > most {
        problems.push(Problem::new(
            path,
            format!("has {len} entries; at most {most} are possible"),
        ));
    }
}

fn virtual_ip_intent(
    problems: &mut Vec<Problem>,
    path: &str,
    virtual_ip: &VirtualIP,
) -> Option<VirtualIpIntent> {
    if virtual_ip.virtual_router_id == Some(0) {
        problems.push(Problem::new(
            format!("{path}.virtualRouterID"),
            "is 0; use a number from 1 to 255",
        ));
    }
    let order = order(problems, path, virtual_ip);
    match address::virtual_address(&virtual_ip.address) {
        Ok(address) => Some(VirtualIpIntent {
            address,
            additional_addresses: additional(problems, path, address, virtual_ip),
            virtual_router_id: virtual_ip.virtual_router_id,
            interface: virtual_ip.interface.clone(),
            order,
        }),
        Err(error) => {
            problems.push(Problem::new(format!("{path}.address"), error.to_string()));
            None
        }
    }
}

fn additional(
    problems: &mut Vec<Problem>,
    path: &str,
    first: IpAddr,
    virtual_ip: &VirtualIP,
) -> Vec<IpAddr> {
    let listed = &virtual_ip.additional_addresses;
    let path = format!("{path}.additionalAddresses");
    // Those of an advertisement must fit into one packet (RFC 9568 section 5.2.5).
    if listed.len() > MAX_ADDITIONAL {
        bounds(problems, &path, listed.len(), MAX_ADDITIONAL);
    }
    let mut addresses = Vec::new();
    for (at, text) in listed.iter().enumerate() {
        match address::additional_address(text, first) {
            Ok(address) => addresses.push(address),
            Err(error) => {
                problems.push(Problem::new(format!("{path}[{at}]"), error.to_string()));
            }
        }
    }
    addresses
}

fn order(problems: &mut Vec<Problem>, path: &str, virtual_ip: &VirtualIP) -> Order {
    let listed = &virtual_ip.node_priorities;
    let path = format!("{path}.nodePriorities");
    if let Some(preferred) = &virtual_ip.preferred_node_name {
        if !listed.is_empty() {
            problems.push(Problem::new(
                path,
                "stands beside preferredNodeName; keep one of the two",
            ));
        }
        return Order::Preferred(preferred.clone());
    }
    if listed.is_empty() {
        return Order::Spread;
    }
    bounds(problems, &path, listed.len(), MAX_NODES);
    let mut names = BTreeSet::new();
    let mut priorities = BTreeMap::new();
    for (index, entry) in listed.iter().enumerate() {
        let at = format!("{path}[{index}]");
        if !names.insert(&entry.node_name) {
            problems.push(Problem::new(
                format!("{at}.nodeName"),
                format!("{} is listed twice; remove one of the two", entry.node_name),
            ));
        }
        // Without a usable endpoint a node advertises its rank from the bottom, at most the number
        // of nodes listed: every priority must lie above that, or such a node would win.
        let least = listed.len() + 1;
        if usize::from(entry.priority) < least {
            problems.push(Problem::new(
                format!("{at}.priority"),
                format!(
                    "is {}; with {} nodes listed, use a number from {least} to 255, since lower \
                     ones are for nodes without a usable endpoint",
                    entry.priority,
                    listed.len()
                ),
            ));
        }
        // Equal priorities are decided by the addresses of interfaces (RFC 9568 section 6.4.3),
        // which the plan does not know.
        if let Some(other) = priorities.insert(entry.priority, &entry.node_name) {
            problems.push(Problem::new(
                format!("{at}.priority"),
                format!(
                    "is {} for {other} and {} alike; give each node its own",
                    entry.priority, entry.node_name
                ),
            ));
        }
    }
    let fixed = listed
        .iter()
        .map(|entry| (entry.node_name.clone(), entry.priority));
    let mut fixed: Vec<_> = fixed.collect();
    fixed.sort_by_key(|(_, priority)| std::cmp::Reverse(*priority));
    Order::Fixed(fixed)
}

fn listeners(
    problems: &mut Vec<Problem>,
    namespace: &str,
    listeners: &[crds::Listener],
    upstreams: &[crds::Upstream],
) -> Vec<Listener> {
    bounds(problems, "spec.listeners", listeners.len(), 16);
    let mut names = BTreeSet::new();
    let mut ports = BTreeMap::new();
    for (index, listener) in listeners.iter().enumerate() {
        let path = format!("spec.listeners[{index}]");
        let name = &listener.name;
        if !names.insert(name) {
            problems.push(Problem::new(
                format!("{path}.name"),
                format!("{name} names two listeners; rename one of them"),
            ));
        }
        origin::check(problems, &path, &listener.allowed_origins);
        proxies::check(problems, &path, listener);
        if listener.port == 0 {
            problems.push(Problem::new(
                format!("{path}.port"),
                "is 0; use a number from 1 to 65535",
            ));
        }
        if let Some(other) = ports.insert(listener.port, name) {
            problems.push(Problem::new(
                format!("{path}.port"),
                format!(
                    "{} is also that of listener {other}, on the same addresses; give one of them \
                     another port",
                    listener.port
                ),
            ));
        }
    }
    let listeners = listeners.iter().enumerate();
    let listeners = listeners.map(|(index, listener)| Listener {
        name: listener.name.clone(),
        port: listener.port,
        allowed_origins: listener.allowed_origins.clone(),
        trusted_proxies: listener.trusted_proxies.clone(),
        proxy_protocol: proxies::mode(listener),
        routes: routes::routes(
            problems,
            &format!("spec.listeners[{index}]"),
            listener,
            upstreams,
        ),
        tls: tls::listener(
            problems,
            &format!("spec.listeners[{index}]"),
            namespace,
            listener.tls.as_ref(),
        ),
        plain_requests: plain_requests::plain_requests(
            problems,
            &format!("spec.listeners[{index}]"),
            listener.plain_requests.as_ref(),
        ),
    });
    listeners.collect()
}

/// Records of connections as the data plane wants them.
fn access_log(problems: &mut Vec<Problem>, spec: Option<&crds::AccessLog>) -> Option<AccessLog> {
    let sample_percent = spec?.sample_percent;
    if !(1..=100).contains(&sample_percent) {
        problems.push(Problem::new(
            "spec.accessLog.samplePercent",
            format!("is {sample_percent}; use a number from 1 to 100, or set mode to Disabled"),
        ));
    }
    let is_enabled = spec?.mode == crds::AccessLogMode::Enabled;
    is_enabled.then_some(AccessLog { sample_percent })
}

/// What a version can express, for messages.
pub(crate) fn version_name(version: VrrpVersion) -> &'static str {
    match version {
        VrrpVersion::V2 => "version 2",
        VrrpVersion::V3 => "version 3",
    }
}

/// Preemption as the data plane wants it.
fn preemption(problems: &mut Vec<Problem>, spec: &crds::Preemption) -> Preemption {
    match spec.mode {
        crds::PreemptionMode::Enabled => Preemption::Enabled {
            delay: spec.delay.get(),
        },
        crds::PreemptionMode::Disabled => {
            if !spec.delay.is_zero() {
                problems.push(Problem::new(
                    "spec.vrrp.preemption.delay",
                    "has no meaning while mode is Disabled; remove it or set mode to Enabled",
                ));
            }
            Preemption::Disabled
        }
    }
}
