//! `spec.gateways`.

use std::collections::BTreeMap;

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// The nodes that may hold the addresses.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateways {
    /// Which nodes. Nodes labelled node.kubernetes.io/exclude-from-external-load-balancers never
    /// take part, and cordoned nodes come last.
    pub node_selector: NodeSelector,

    /// Interface that holds the addresses. When left out, the one on whose subnet an address lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::interface")]
    pub interface: Option<String>,
}

/// Chooses nodes by label.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeSelector {
    /// Labels that a node must carry, all of them; with none, every node is chosen.
    #[serde(default)]
    #[schemars(schema_with = "crate::schema::match_labels")]
    pub match_labels: BTreeMap<String, String>,
}
