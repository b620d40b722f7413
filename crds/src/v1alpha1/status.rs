//! `status`: what the controller made of the object, and what the nodes report.
//!
//! Names and counts are observed. Only [`Committed`] is read again: what all nodes must agree on is
//! written there first and carried out from there, by every replica of the controller.

use std::fmt;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{MacAddress, NodePriority, PeeringMode};
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
    #[serde(default, rename = "virtualIPs", skip_serializing_if = "Vec::is_empty")]
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

    /// Texts for `kubectl get`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Summary")]
    pub summary: Option<Summary>,

    /// Accepted: the object is valid and permitted. Programmed: every gateway carries it out. Ready:
    /// every address has a holder that accepts clients. Degraded: something needs attention.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::conditions")]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["type".into()]))]
    pub conditions: Vec<Condition>,
}

/// Texts for the columns of kubectl get, which can neither join the entries of a list nor write two
/// numbers as one.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Summary {
    /// The virtual addresses in spec's order; three of them where there are more.
    #[serde(
        default,
        rename = "virtualIPs",
        skip_serializing_if = "String::is_empty"
    )]
    #[schemars(length(max = 256))]
    pub virtual_ips: String,

    /// The nodes that hold them, in the same order.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 1024))]
    pub active_node_names: String,

    /// Gateway nodes that are ready, of all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub gateways: String,

    /// Servers that are ready, of all.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    #[schemars(length(max = 64))]
    pub endpoints: String,
}

/// One virtual address.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct VirtualIPStatus {
    /// The address.
    #[schemars(schema_with = "crate::schema::observed_address")]
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

    /// Nodes that have to give the address up and have not said that they did: all of them once it was
    /// removed from spec, else those that no longer belong to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Retiring")]
    pub retiring: Option<Retiring>,

    /// The node that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub active_node_name: Option<String>,

    /// Nodes that would take it over, the next one first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::node_names::<10>")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub backup_node_names: Vec<String>,

    /// Since when activeNodeName holds it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::time")]
    pub active_since: Option<Time>,
}

/// What all nodes of a virtual router agree on.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Committed {
    /// Grows with each commit of the controller over all pools; nodes ignore an older one.
    #[schemars(schema_with = "crate::schema::count")]
    pub sequence: i64,

    /// Its other addresses.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::observed_addresses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub additional_addresses: Vec<String>,

    /// Its nodes, best first.
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub nodes: Vec<NodePriority>,

    /// VRRP version.
    #[schemars(schema_with = "crate::schema::version")]
    pub version: u8,

    /// Advertisement interval.
    pub advertisement_interval: Duration,

    /// Hardware address.
    #[serde(default)]
    pub mac_address: MacAddress,

    /// How the nodes reach each other; by multicast when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "CommittedPeering")]
    pub peering: Option<CommittedPeering>,
}

/// How the nodes of a virtual router reach each other.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct CommittedPeering {
    /// Where advertisements go.
    #[serde(default)]
    pub mode: PeeringMode,

    /// With Unicast, all its routers: those that nodes send to and hear. Longer than spec says while
    /// it changes.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::observed_peers")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    pub addresses: Vec<String>,
}

/// An address on its way out.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retiring {
    /// Nodes that have not acknowledged the removal.
    #[schemars(schema_with = "crate::schema::node_names::<1024>")]
    #[x_kube(merge_strategy = ListMerge::Atomic)]
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
    #[schemars(schema_with = "crate::schema::conditions")]
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

/// Most entries that a column of `kubectl get` lists, as for the endpoints of a Service.
const LISTED: usize = 3;

impl VirtualIPStatus {
    /// Whether any node is to hold it: an address on its way out has none.
    fn has_nodes(&self) -> bool {
        let committed = self.committed.as_ref();
        committed.is_some_and(|committed| !committed.nodes.is_empty())
    }
}

impl WebSocketHAPoolStatus {
    /// Fills in `summary` from the other fields: the last thing before a status is written.
    pub fn summarize(&mut self) {
        let living = self
            .virtual_ips
            .iter()
            .filter(|virtual_ip| virtual_ip.retiring.is_none() || virtual_ip.has_nodes());
        let tally = |tally: Option<Tally>| tally.as_ref().map(Tally::to_string).unwrap_or_default();
        self.summary = Some(Summary {
            virtual_ips: list(living.clone().map(|virtual_ip| virtual_ip.address.as_str())),
            active_node_names: list(
                living.map(|virtual_ip| virtual_ip.active_node_name.as_deref().unwrap_or("<none>")),
            ),
            gateways: tally(self.gateways),
            endpoints: tally(self.endpoints),
        });
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.ready, self.total)
    }
}

fn list<'a>(entries: impl Iterator<Item = &'a str>) -> String {
    let entries: Vec<_> = entries.collect();
    let (shown, others) = entries.split_at(entries.len().min(LISTED));
    let shown = shown.join(",");
    match others.len() {
        0 => shown,
        more => format!("{shown} + {more} more..."),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn virtual_ip(last: u8, active: Option<&str>) -> VirtualIPStatus {
        VirtualIPStatus {
            address: format!("10.0.0.{last}"),
            active_node_name: active.map(str::to_owned),
            ..VirtualIPStatus::default()
        }
    }

    fn summary(virtual_ips: Vec<VirtualIPStatus>) -> Summary {
        let mut status = WebSocketHAPoolStatus {
            virtual_ips,
            gateways: Some(Tally { ready: 1, total: 2 }),
            ..WebSocketHAPoolStatus::default()
        };
        status.summarize();
        status.summary.unwrap()
    }

    #[test]
    fn columns_name_addresses_and_holders_in_the_same_order() {
        let mut gone = virtual_ip(3, Some("b"));
        gone.retiring = Some(Retiring::default());
        assert_eq!(
            summary(vec![gone, virtual_ip(1, Some("a")), virtual_ip(2, None)]),
            Summary {
                virtual_ips: "10.0.0.1,10.0.0.2".to_owned(),
                active_node_names: "a,<none>".to_owned(),
                gateways: "1/2".to_owned(),
                endpoints: String::new(),
            }
        );
    }

    #[test]
    fn columns_are_bounded() {
        let name = "n".repeat(253);
        let most = summary((0..64).map(|last| virtual_ip(last, Some(&name))).collect());
        assert_eq!(most.virtual_ips, "10.0.0.0,10.0.0.1,10.0.0.2 + 61 more...");
        assert!(most.active_node_names.len() <= 1024);
        assert_eq!(summary(Vec::new()).virtual_ips, "");
    }
}
