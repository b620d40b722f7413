//! Desired state of one node.

use std::{collections::BTreeMap, fmt, net::IpAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    Health, Keys, Limits, ListenerTls, MacAddress, Password, Peering, UpstreamTls, ZonePreference,
    routes::Route, tracking::Tracking,
};

/// Everything one node is to do. Equal content means nothing to do.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeConfig {
    /// The node this is meant for.
    pub node_name: String,
    /// Pools in which the node takes part, by name.
    #[serde(with = "by_pool")]
    pub pools: BTreeMap<PoolRef, Pool>,
    /// What their TLS needs.
    #[serde(default, skip_serializing_if = "Keys::is_empty")]
    pub keys: Keys,
}

/// Namespace and name of a `WebSocketHAPool`.
#[derive(Clone, Debug, Deserialize, Eq, Hash, Ord, PartialEq, PartialOrd, Serialize)]
pub struct PoolRef {
    /// Namespace; `default` where a file names none.
    pub namespace: String,
    /// Name of the object.
    pub name: String,
}

impl fmt::Display for PoolRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// One pool as a node sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Pool {
    /// Virtual routers that this node takes part in, in the order of `spec.virtualIPs`.
    pub virtual_routers: Vec<VirtualRouter>,
    /// Where clients are accepted, on each address of each virtual router.
    pub listeners: Vec<Listener>,
    /// Groups of endpoints.
    pub upstreams: Vec<Upstream>,
    /// Pings to quiet sides.
    pub heartbeat: Heartbeat,
    /// How sessions end when they must.
    pub drain: Drain,
    /// What the node looks at besides.
    #[serde(default, skip_serializing_if = "Tracking::is_empty")]
    pub tracking: Tracking,
    /// Records of connections; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub access_log: Option<AccessLog>,
    /// What clients may do on this node.
    #[serde(default, skip_serializing_if = "Limits::is_none")]
    pub limits: Limits,
    /// What a node must know to carry the pool out as it is meant, each by a name that is never given
    /// again. A field that is added says so here where it is used, if a node that ignored it would serve
    /// clients otherwise than the pool says: such a node refuses the pool ([`Pool::unknown`]), and the
    /// last one that it understood serves on.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<String>,
}

/// Records of connections at their end.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// Of how many connections in a hundred one is made, 1-100.
    pub sample_percent: u8,
}

/// One virtual router (RFC 9568 section 5.2): a VRID on a segment, with its addresses.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualRouter {
    /// VRID, 1-255.
    pub virtual_router_id: u8,
    /// Virtual addresses, all of one family; the first one names the virtual router. One of IPv6 that
    /// is link-local is advertised before the others.
    pub addresses: Vec<IpAddr>,
    /// Interface by name; `None`: the one on whose link the first address lies, found by the node.
    pub interface: Option<String>,
    /// Protocol version.
    pub version: VrrpVersion,
    /// Advertisement interval; whole seconds for version 2, whole centiseconds for version 3.
    #[serde(with = "millis")]
    pub advertisement_interval: Duration,
    /// Whether a better node takes over from a living one.
    pub preemption: Preemption,
    /// Its hardware address.
    #[serde(default, skip_serializing_if = "MacAddress::is_default")]
    pub mac_address: MacAddress,
    /// All candidates in order, best first, this node among them.
    pub nodes: Vec<RankedNode>,
    /// How they reach each other.
    #[serde(default, skip_serializing_if = "Peering::is_multicast")]
    pub peering: Peering,
    /// What version 2 asks of each packet besides; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub password: Option<Password>,
    /// Number of the commitment that these settings come from: a node ignores an older one. 0 on
    /// plain hosts, which commit nothing.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: i64,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
pub(crate) fn is_zero(number: &i64) -> bool {
    *number == 0
}

/// A candidate of a virtual router.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RankedNode {
    /// Name of the node.
    pub node_name: String,
    /// What it advertises while it has a usable endpoint, 1-255.
    pub priority: u8,
    /// What it advertises while it has none: its rank from the bottom, below every `priority`.
    pub priority_without_endpoint: u8,
    /// Its own address among unicast peers; `None`: there are none, or it is for the node to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub address: Option<IpAddr>,
}

/// Whether an IPv6 address is valid on one link only, and the same ones on each (RFC 4291 section
/// 2.5.6).
pub const fn is_link_local_v6(address: IpAddr) -> bool {
    matches!(address, IpAddr::V6(address) if address.is_unicast_link_local())
}

impl VirtualRouter {
    /// The addresses on which clients are accepted. A link-local one is there for the protocol's sake:
    /// whoever binds it must name an interface.
    pub fn client_addresses(&self) -> impl Iterator<Item = IpAddr> {
        let addresses = self.addresses.iter().copied();
        addresses.filter(|address| !is_link_local_v6(*address))
    }

    /// The entry of `node_name` among the candidates.
    pub fn candidate(&self, node_name: &str) -> Option<&RankedNode> {
        self.nodes.iter().find(|node| node.node_name == node_name)
    }
}

/// Version on the wire.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum VrrpVersion {
    /// RFC 3768.
    V2,
    /// RFC 9568.
    V3,
}

/// RFC 9568 section 6.1, `Preempt_Mode`, with a delay as keepalived has it.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Preemption {
    /// A better node takes over once it has heard lower priorities for `delay`.
    Enabled {
        /// How long a lower priority must be heard first.
        #[serde(with = "millis")]
        delay: Duration,
    },
    /// The Active router keeps its role for as long as it lives.
    Disabled,
}

/// A port on which clients are accepted.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listener {
    /// Name, unique in the pool.
    pub name: String,
    /// TCP port.
    pub port: u16,
    /// Origins of the web pages that may connect; empty: all. `*.` before a host stands for any
    /// names.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub allowed_origins: Vec<String>,
    /// Proxies before the node that are believed about who the client is, each `ADDRESS/LENGTH` with
    /// the host part zero.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trusted_proxies: Vec<String>,
    /// Whether connections begin with a header of the PROXY protocol.
    #[serde(default, skip_serializing_if = "ProxyProtocolMode::is_disabled")]
    pub proxy_protocol: ProxyProtocolMode,
    /// Which upstream a request goes to; empty: all to the pool's only one.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<Route>,
    /// TLS with clients; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<ListenerTls>,
    /// What becomes of requests that ask for no session; `None`: they are refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub plain_requests: Option<PlainRequests>,
}

/// Requests that ask for no session and are brought to endpoints.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainRequests {
    /// How long one may stand still.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// Whether connections begin with a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum ProxyProtocolMode {
    /// They do not.
    #[default]
    Disabled,
    /// All do, of version 1 or 2, and come from a trusted proxy; others are closed.
    Required,
}

impl ProxyProtocolMode {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_disabled(&self) -> bool {
        *self == Self::Disabled
    }
}

/// Version of a header of the PROXY protocol.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum ProxyProtocolVersion {
    /// Text.
    V1,
    /// Binary.
    V2,
}

/// A group of endpoints and how to choose among them.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Upstream {
    /// Name, unique in the pool.
    pub name: String,
    /// Endpoints, sorted by address and port, each once.
    pub endpoints: Vec<Endpoint>,
    /// How one is chosen.
    pub balancing: Balancing,
    /// Time over which an endpoint that was added, or is back, comes to its full share.
    #[serde(default, skip_serializing_if = "Duration::is_zero", with = "millis")]
    pub slow_start: Duration,
    /// Live sessions that this node gives one endpoint at most.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint_sessions: Option<u32>,
    /// Limit for one TCP connection attempt.
    #[serde(with = "millis")]
    pub connect_timeout: Duration,
    /// Limit from the client's first byte to the 101, tries on several endpoints included.
    #[serde(with = "millis")]
    pub handshake_timeout: Duration,
    /// The header of the PROXY protocol that endpoints get before the handshake.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub proxy_protocol: Option<ProxyProtocolVersion>,
    /// TLS with endpoints; `None`: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tls: Option<UpstreamTls>,
    /// How its endpoints are kept an eye on.
    #[serde(default, skip_serializing_if = "Health::is_default")]
    pub health: Health,
    /// Whether endpoints in the node's own zone are preferred; `None`: no.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone_preference: Option<ZonePreference>,
    /// Whether sessions are moved away from endpoints that have too many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebalance: Option<Rebalance>,
}

/// Sessions that are ended since their endpoint has more than its share.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Of a hundred live sessions of the upstream, how many this node ends in a minute at most.
    pub percent_per_minute: u8,
    /// How much more than its share an endpoint may have, in percent of it.
    pub tolerance_percent: u8,
}

/// One server.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address of the server.
    pub address: IpAddr,
    /// TCP port.
    pub port: u16,
    /// Share of new sessions, relative to the others; at least 1.
    pub weight: u16,
    /// Whether it takes new sessions.
    pub phase: EndpointPhase,
    /// Its zone, where the upstream prefers one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
}

/// Where an endpoint is in its life.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum EndpointPhase {
    /// Takes new sessions.
    Ready,
    /// Takes none for now; those it has go on.
    NotReady,
    /// Takes none; those it has are closed over `drain.timeout`.
    Terminating,
}

/// How an endpoint is chosen for a new session.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Balancing {
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest live sessions for its weight.
    LeastConnections,
    /// The one with fewer of two taken at random.
    PowerOfTwo,
    /// The same one for the same key, on all nodes.
    #[serde(rename_all = "camelCase")]
    ConsistentHash {
        /// What a client is known by.
        key: HashKey,
        /// The most an endpoint may have of its share of live sessions, in percent; at least 101.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        max_load_percent: Option<u16>,
    },
}

/// What a client is known by.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HashKey {
    /// Its address.
    SourceAddress,
    /// The value of a header.
    Header(String),
    /// The value of a cookie.
    Cookie(String),
    /// The value of a parameter of the query.
    QueryParameter(String),
}

/// Pings that we send to a side that has been quiet.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub struct Heartbeat {
    /// Silence after which a side is pinged; zero: never.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// Silence after that ping which ends the session.
    #[serde(with = "millis")]
    pub timeout: Duration,
}

/// How sessions end when their endpoint, listener, address or pool goes.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// Until when, at the latest, the sessions of a gone endpoint are closed.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// How many of them are closed in a second, if not more must be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sessions_per_second: Option<u32>,
    /// Close code sent (RFC 6455 section 7.4).
    pub close_code: u16,
}

/// Durations as whole milliseconds.
pub(crate) mod millis {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    pub(crate) fn serialize<S: Serializer>(value: &Duration, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_u64(u64::try_from(value.as_millis()).unwrap_or(u64::MAX))
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Duration, D::Error> {
        u64::deserialize(from).map(Duration::from_millis)
    }
}

/// JSON has string keys only: the map travels as a list of pairs.
mod by_pool {
    use std::collections::BTreeMap;

    use serde::{Deserialize, Deserializer, Serializer};

    use super::{Pool, PoolRef};

    pub(super) fn serialize<S: Serializer>(
        pools: &BTreeMap<PoolRef, Pool>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        to.collect_seq(pools)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<BTreeMap<PoolRef, Pool>, D::Error> {
        Ok(Vec::<(PoolRef, Pool)>::deserialize(from)?
            .into_iter()
            .collect())
    }
}
