//! `spec.tracking`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, rules};

/// What lowers the priority of a node that can hold the addresses.
///
/// While something named here is not as it should be on a node, what that node advertises is lowered
/// by its weight, all weights together, for every address of the pool. It stays above the nodes that
/// have no usable endpoint. The planner gives nodes 250, 244, 229, 214 and so on: a weight of 20 lets the
/// next one take over, with preemption enabled.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracking {
    /// Interfaces of the node that must be there and have their link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub interfaces: Vec<TrackedInterface>,

    /// Questions that every gateway node asks again and again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub checks: Vec<Check>,

    /// Upstreams of which the node must reach enough servers. A node that reaches none at all, of any
    /// upstream that routes lead to, ranks below all that reach one, whatever stands here.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub upstreams: Vec<TrackedUpstream>,
}

/// An interface that must be there and have its link.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackedInterface {
    /// Name of the interface.
    #[schemars(schema_with = "crate::schema::interface")]
    pub name: String,

    /// By how much the priority is lowered while it is not, 1-253.
    #[schemars(schema_with = "crate::schema::priority_weight")]
    pub weight: u8,
}

/// An upstream of which the node must reach enough servers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackedUpstream {
    /// Name of an upstream of the pool.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub name: String,

    /// How many servers must take new sessions of the node: from 1 where there are several upstreams,
    /// else from 2.
    #[schemars(schema_with = "crate::schema::least_endpoints")]
    pub min_usable_endpoints: u32,

    /// By how much the priority is lowered while fewer do, 1-253.
    #[schemars(schema_with = "crate::schema::priority_weight")]
    pub weight: u8,
}

/// A question that every gateway node asks again and again, whether it holds an address or not.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "[has(self.tcp), has(self.http), has(self.command)].exists_one(it, it)"
).message("exactly one of tcp and http is needed: say what is asked"))]
// Whoever may edit a pool would run it as root on every gateway.
#[x_kube(validation = Rule::new("!has(self.command)")
    .message("is for the files of plain hosts alone: in a cluster use tcp or http")
    .field_path(".command"))]
#[x_kube(validation = rules::answered_before_the_next())]
pub struct Check {
    /// Name of the check, unique in the pool; status and metrics refer to it.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub name: String,

    /// By how much the priority is lowered while the check fails, 1-253.
    #[schemars(schema_with = "crate::schema::priority_weight")]
    pub weight: u8,

    /// From one question to the next, 100ms-1h.
    #[serde(default = "two_seconds")]
    #[x_kube(validation = rules::pace())]
    pub interval: Duration,

    /// How long an answer may take, 1ms-1h and no longer than interval.
    #[serde(default = "one_second")]
    #[x_kube(validation = rules::wait())]
    pub timeout: Duration,

    /// Failures in a row after which the check fails. The first answer after the start of a node
    /// counts at once.
    #[serde(default = "three")]
    #[schemars(schema_with = "crate::schema::threshold")]
    pub failure_threshold: u32,

    /// Successes in a row after which it passes again.
    #[serde(default = "two")]
    #[schemars(schema_with = "crate::schema::threshold")]
    pub success_threshold: u32,

    /// Whether a connection can be opened. Excludes http and command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "TcpCheck")]
    pub tcp: Option<TcpCheck>,

    /// Whether a GET is answered with an expected status. Excludes tcp and command.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "HttpCheck")]
    pub http: Option<HttpCheck>,

    /// Whether a program of the host ends with 0, in the files of plain hosts alone. Excludes tcp and
    /// http.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CommandCheck")]
    pub command: Option<CommandCheck>,
}

/// Whether a connection can be opened.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TcpCheck {
    /// Address to connect to. What is refused as an endpoint is refused here.
    #[schemars(schema_with = "crate::schema::address")]
    pub address: String,

    /// TCP port.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,
}

/// Whether a GET is answered with an expected status.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HttpCheck {
    /// Address to ask. What is refused as an endpoint is refused here.
    #[schemars(schema_with = "crate::schema::address")]
    pub address: String,

    /// TCP port.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,

    /// Path to ask for, with its query if any.
    #[serde(default = "root")]
    #[schemars(schema_with = "crate::schema::request_target")]
    pub path: String,

    /// Name to ask for (the Host field); the address when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub host: Option<String>,

    /// Statuses that pass; 200-399 when none is listed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::statuses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub expected_statuses: Vec<u16>,
}

/// Whether a program of the host ends with 0.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommandCheck {
    /// Name of a file in the directory that the agent was given as --check-dir.
    #[schemars(schema_with = "crate::schema::file_name")]
    pub name: String,
}

fn two_seconds() -> Duration {
    Duration::from_secs(2)
}

fn one_second() -> Duration {
    Duration::from_secs(1)
}

fn three() -> u32 {
    3
}

fn two() -> u32 {
    2
}

fn root() -> String {
    "/".to_owned()
}
