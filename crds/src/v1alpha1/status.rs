//! `status`: what the controller made of the object, and what the nodes report.
//!
//! Names and counts are observed. Only [`Committed`] is read again: what all nodes must agree on is
//! written there first and carried out from there, by every replica of the controller.

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    schemars::JsonSchema as _,
};
use kube::KubeSchema;
use schemars::{Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};

use super::NodePriority;
use crate::Duration;

/// What the controller made of the object.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketHAPoolStatus {
    /// The metadata.generation that this status speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::count")]
    pub observed_generation: Option<i64>,

    /// The virtual addresses; one that was removed stays until every node has given it up.
    #[serde(
        default,
        rename = "virtualIPs",
        skip_serializing_if = "Vec::is_empty"
    )]
    #[schemars(length(max = 64))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    pub virtual_ips: Vec<VirtualIPStatus>,

    /// The listeners.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub listeners: Vec<ListenerStatus>,

    /// Servers behind the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tally")]
    pub endpoints: Option<Tally>,

    /// Gateway nodes of the pool.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Tally")]
    pub gateways: Option<Tally>,

    /// Live sessions on all gateways; written once a minute at most when nothing else changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::count")]
    pub sessions: Option<i64>,

    /// Accepted: the object is valid and permitted. Programmed: every gateway carries it out. Ready:
    /// every address has a holder that accepts clients. Degraded: something needs attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), schema_with = "conditions")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// One virtual address.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The address.
    #[schemars(length(max = 45))]
    pub address: String,

    /// Its virtual router identifier (VRID).
    #[serde(
        default,
        rename = "virtualRouterID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "crate::schema::observed_virtual_router_id")]
    pub virtual_router_id: Option<u8>,

    /// What all nodes agree on. Written by the controller before any node is told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Committed")]
    pub committed: Option<Committed>,

    /// Set once the address was removed from spec: the nodes that still have to give it up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Retiring")]
    pub retiring: Option<Retiring>,

    /// The node that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub active_node_name: Option<String>,

    /// Nodes that would take it over, the next one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backup_node_names: Vec<String>,

    /// Since when activeNodeName holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "time")]
    pub active_since: Option<Time>,
}

/// What all nodes of a virtual router agree on.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    /// Grows with each commit of the controller over all pools; nodes ignore an older one.
    #[schemars(schema_with = "crate::schema::count")]
    pub sequence: i64,

    /// Its nodes, best first.
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub nodes: Vec<NodePriority>,

    /// VRRP version.
    #[schemars(schema_with = "crate::schema::version")]
    pub version: u8,

    /// Advertisement interval.
    pub advertisement_interval: Duration,
}

/// An address on its way out.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retiring {
    /// Nodes that have not acknowledged the removal.
    #[schemars(length(max = 1024), inner(length(max = 253)))]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub node_names: Vec<String>,
}

/// One listener.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerStatus {
    /// Its name.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub name: String,

    /// Accepting: every holder of an address accepts clients on its port.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), schema_with = "conditions")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// How many of how many.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tally {
    /// Those that work.
    #[schemars(schema_with = "crate::schema::count")]
    pub ready: i64,
    /// All.
    #[schemars(schema_with = "crate::schema::count")]
    pub total: i64,
}
