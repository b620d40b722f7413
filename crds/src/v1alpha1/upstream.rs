//! `spec.upstreams`.

use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    Ejection, HealthCheck, Rebalance, Retry, SentProxyProtocol, UpstreamTls, ZonePreference,
};
use crate::{Duration, rules};

/// A group of servers and how to choose among them.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "has(self.service) != (has(self.endpoints) && size(self.endpoints) > 0)"
).message("exactly one of service and endpoints is needed: name a Service or list servers"))]
#[x_kube(validation = Rule::new(
    "!has(self.rebalance) || self.rebalance.mode != 'Enabled' || self.loadBalancing.type != 'ConsistentHash'"
).message("has no meaning with loadBalancing.type ConsistentHash, by which each client comes back to its server: remove it or choose another type").field_path(".rebalance"))]
pub struct Upstream {
    /// Name of the upstream, unique in the pool; status and metrics refer to it.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub name: String,

    /// The servers behind a Service of the pool's namespace. Excludes endpoints.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ServiceReference")]
    pub service: Option<ServiceReference>,

    /// The servers by address. Excludes service.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into(), "port".into()]))]
    pub endpoints: Vec<Endpoint>,

    /// How a server is chosen for a new session.
    #[serde(default)]
    pub load_balancing: LoadBalancing,

    /// Limit for one connection attempt to a server, 1ms-1h; the next server is tried after it.
    #[serde(default = "two_seconds")]
    #[x_kube(validation = rules::wait())]
    pub connect_timeout: Duration,

    /// Limit from a client's first byte to the answer that opens its session, all attempts included,
    /// 1ms-1h. Until the route is known the longest one of those that the listener leads to holds.
    #[serde(default = "five_seconds")]
    #[x_kube(validation = rules::wait())]
    pub handshake_timeout: Duration,

    /// The header of the PROXY protocol that servers get before each handshake: it says who the client
    /// is. None if left out, as servers that do not expect it refuse it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SentProxyProtocol")]
    pub proxy_protocol: Option<SentProxyProtocol>,

    /// TLS with servers. None if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "UpstreamTls")]
    pub tls: Option<UpstreamTls>,
    /// What each server is asked again and again. Without it a server counts as well that takes
    /// connections and does not fail clients.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HealthCheck")]
    pub health_check: Option<HealthCheck>,

    /// When a server that fails clients is left out, and for how long.
    #[serde(default)]
    pub ejection: Ejection,

    /// How many handshakes that a server fails are tried on another one.
    #[serde(default)]
    pub retry: Retry,

    /// Whether sessions are moved away from servers that have more than their share. Disabled if left
    /// out. Excludes loadBalancing.type ConsistentHash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Rebalance")]
    pub rebalance: Option<Rebalance>,
}

/// A port of a Service.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceReference {
    /// Name of a Service in the pool's namespace.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,

    /// Number or name of one of its ports.
    #[schemars(schema_with = "crate::schema::service_port")]
    pub port: IntOrString,
}

/// One server.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Endpoint {
    /// Address of the server. Loopback, link-local, multicast, unspecified and virtual addresses
    /// are refused.
    #[schemars(schema_with = "crate::schema::address")]
    pub address: String,

    /// TCP port of the server.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,

    /// Share of new sessions relative to the other servers.
    #[serde(default = "one")]
    #[schemars(schema_with = "crate::schema::weight")]
    pub weight: u16,

    /// Zone of the server, for loadBalancing.zonePreference.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::zone")]
    pub zone: Option<String>,
}

/// How a server is chosen for a new session.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.consistentHash) || self.type == 'ConsistentHash'"
).message("has no meaning unless type is ConsistentHash: remove it or set type to ConsistentHash").field_path(".consistentHash"))]
// Gateways of different zones would choose different servers for the same client.
#[x_kube(validation = Rule::new(
    "!has(self.zonePreference) || self.zonePreference.mode != 'SameZone' || self.type != 'ConsistentHash'"
).message("must not be SameZone with type ConsistentHash, with which all gateways choose alike: choose another type or set mode to Disabled").field_path(".zonePreference.mode"))]
pub struct LoadBalancing {
    /// RoundRobin: in turn, by weight. LeastConnections: the one with the fewest live sessions for
    /// its weight. PowerOfTwo: of two taken at random the one with fewer, so that many gateways do
    /// not all choose the same one. ConsistentHash: the same one for the same client.
    #[serde(default, rename = "type")]
    pub type_: LoadBalancingType,

    /// By what clients are told apart, with type ConsistentHash.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ConsistentHash")]
    pub consistent_hash: Option<ConsistentHash>,

    /// Time over which a server that was added, or is back, comes to its full share, from a tenth of
    /// it, 1h at most; 0s: at once.
    #[serde(default)]
    #[x_kube(validation = rules::at_most_an_hour())]
    pub slow_start: Duration,

    /// Live sessions that each gateway gives one server at most. Further ones go to the other
    /// servers; if all are full they are answered 503.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::session_limit")]
    pub max_sessions_per_endpoint: Option<u32>,

    /// Whether servers in the zone of the gateway are preferred. They are not if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ZonePreference")]
    pub zone_preference: Option<ZonePreference>,
}

/// The ways to choose.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum LoadBalancingType {
    #[default]
    RoundRobin,
    LeastConnections,
    PowerOfTwo,
    ConsistentHash,
}

/// How clients are brought to the same server again. All gateways of a pool choose alike, and a
/// server that comes or goes moves no more than its own share of the clients.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ConsistentHash {
    /// By what clients are told apart.
    #[serde(default)]
    pub key: HashKey,

    /// The most that a server may have of what would be its share of all live sessions, in percent;
    /// clients beyond go to the next server of theirs. Without it there is no such bound.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::load_percent")]
    pub max_load_percent: Option<u16>,
}

/// By what clients are told apart.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "(self.type != 'SourceAddress') == has(self.name)"
).message("is needed with Header, Cookie and QueryParameter, and has no meaning with SourceAddress").field_path(".name"))]
pub struct HashKey {
    /// SourceAddress: the client's address. Header, Cookie, QueryParameter: the value of the one
    /// that is called name; clients without it are served in turn.
    #[serde(default, rename = "type")]
    pub type_: HashKeyType,

    /// Name of the header, cookie or query parameter.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::token")]
    pub name: Option<String>,
}

/// The kinds of keys.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum HashKeyType {
    #[default]
    SourceAddress,
    Header,
    Cookie,
    QueryParameter,
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn one() -> u16 {
    1
}
