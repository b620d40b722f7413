//! `spec.upstreams[].healthCheck`, `ejection` and `retry`: which servers are well, and what becomes of
//! handshakes that one of them fails.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Duration,
    rules::{self, duration_rule},
};

/// A question that every gateway node asks each server again and again. A server that fails it gets no
/// new sessions while another one is well, and keeps those that it has.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.tcp), has(self.http), has(self.webSocket)].exists_one(it, it)"
).message("exactly one of tcp, http and webSocket is needed: say what is asked"))]
#[x_kube(validation = rules::answered_before_the_next())]
pub struct HealthCheck {
    /// From one question to the next, 100ms-1h.
    #[serde(default = "five_seconds")]
    #[x_kube(validation = rules::pace())]
    pub interval: Duration,

    /// How long an answer may take, 1ms-1h and no longer than interval.
    #[serde(default = "one_second")]
    #[x_kube(validation = rules::wait())]
    pub timeout: Duration,

    /// Failures in a row after which a server gets no new sessions. The first answer of a server that
    /// was added counts at once.
    #[serde(default = "three")]
    #[schemars(schema_with = "crate::schema::threshold")]
    pub failure_threshold: u32,

    /// Successes in a row after which it gets them again.
    #[serde(default = "two")]
    #[schemars(schema_with = "crate::schema::threshold")]
    pub success_threshold: u32,

    /// TCP port that is asked; that of the server if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::port")]
    pub port: Option<u16>,

    /// Whether a connection can be opened. Excludes http and webSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TcpProbe")]
    pub tcp: Option<TcpProbe>,

    /// Whether a GET is answered with an expected status. Excludes tcp and webSocket.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpProbe")]
    pub http: Option<HttpProbe>,

    /// Whether a session can be opened, and a Ping in it is answered by a Pong; it is closed again then.
    /// Excludes tcp and http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "WebSocketProbe")]
    pub web_socket: Option<WebSocketProbe>,
}

/// Whether a connection can be opened.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpProbe {}

/// Whether a GET is answered with an expected status.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpProbe {
    /// Path to ask for, with its query if any.
    #[serde(default = "root")]
    #[schemars(schema_with = "crate::schema::request_target")]
    pub path: String,

    /// Name to ask for (the Host field); the server's address and port when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub host: Option<String>,

    /// Statuses that pass; 200-399 when none is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::statuses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub expected_statuses: Vec<u16>,
}

/// Whether a session can be opened, and a Ping in it is answered.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketProbe {
    /// Path to ask for, with its query if any.
    #[serde(default = "root")]
    #[schemars(schema_with = "crate::schema::request_target")]
    pub path: String,

    /// Name to ask for (the Host field); the server's address and port when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub host: Option<String>,
}

/// When a server that fails clients is left out: while another one is well it gets no new sessions, and
/// it keeps those that it has. A failure is a handshake that is refused, reset, not answered in time, or
/// answered with 502, 503 or 504.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(duration_rule(
    "self.baseEjection",
    &duration_rule("self.maxEjection", "duration(self.baseEjection) <= duration(self.maxEjection)")
)).message("must not be shorter than baseEjection").field_path(".maxEjection"))]
pub struct Ejection {
    /// Failures in a row after which it is left out. One that was comes back on trial: the first
    /// failure is enough then.
    #[serde(default = "three")]
    #[schemars(schema_with = "crate::schema::threshold")]
    pub consecutive_failures: u32,

    /// How long it is left out the first time, 1ms-1h; twice as long each further time, and half as long
    /// again for each time that it was well for as long as it was out.
    #[serde(default = "ten_seconds")]
    #[x_kube(validation = rules::wait())]
    pub base_ejection: Duration,

    /// How long at most, 1ms-1h.
    #[serde(default = "five_minutes")]
    #[x_kube(validation = rules::wait())]
    pub max_ejection: Duration,

    /// How many of the upstream's servers may be left out at a time, in percent, rounded down; 0: none
    /// ever is.
    #[serde(default = "half")]
    #[schemars(schema_with = "crate::schema::share")]
    pub max_ejected_percent: u8,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive_failures: three(),
            base_ejection: ten_seconds(),
            max_ejection: five_minutes(),
            max_ejected_percent: half(),
        }
    }
}

/// How many handshakes that a server fails are tried on another one, within handshakeTimeout: those that
/// are refused, reset, not answered in time, or answered with 502, 503 or 504. To go on from a server that
/// takes no connection to one that is well is always allowed.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// How many of a hundred handshakes of the last ten seconds, by each gateway.
    #[serde(default = "fifth")]
    #[schemars(schema_with = "crate::schema::share")]
    pub budget_percent: u8,

    /// How many in each second whatever budgetPercent is, by each gateway.
    #[serde(default = "ten")]
    #[schemars(schema_with = "crate::schema::retries")]
    pub min_per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            budget_percent: fifth(),
            min_per_second: ten(),
        }
    }
}

/// Whether servers in the zone of the gateway are preferred.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.minSharePercent) || self.mode == 'SameZone'"
).message("has no meaning unless mode is SameZone: remove it or set mode to SameZone").field_path(".minSharePercent"))]
pub struct ZonePreference {
    /// Disabled: they are not. SameZone: they alone get new sessions, while they are enough; otherwise
    /// all servers do. A gateway's zone is the label topology.kubernetes.io/zone of its Node, a server's
    /// stands in its EndpointSlice or beside its address.
    #[serde(default)]
    pub mode: ZonePreferenceMode,

    /// Which part of all usable servers those of the zone must be to be enough, in percent, by weight;
    /// 20 if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::percent")]
    pub min_share_percent: Option<u8>,
}

/// Whether servers in the zone of the gateway are preferred.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum ZonePreferenceMode {
    #[default]
    Disabled,
    SameZone,
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn five_seconds() -> Duration {
    Duration::from_secs(5)
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn five_minutes() -> Duration {
    Duration::from_secs(300)
}

fn two() -> u32 {
    2
}

fn three() -> u32 {
    3
}

fn ten() -> u32 {
    10
}

fn half() -> u8 {
    50
}

fn fifth() -> u8 {
    20
}

fn root() -> String {
    "/".to_owned()
}
