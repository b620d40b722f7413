//! In which zones the nodes of a pool are, where one of its upstreams asks for that.

use std::collections::BTreeMap;

use k8s_openapi::api::core::v1::Node;

use crate::{Shared, membership::is_chosen, model::PoolIntent};

/// The label that names the zone of a node.
const ZONE_LABEL: &str = "topology.kubernetes.io/zone";

/// Zones of nodes, by name.
pub(crate) type Zones = BTreeMap<String, String>;

/// The zones of the nodes that the pool chooses.
pub(crate) fn of_nodes(nodes: &[Shared<Node>], intent: &PoolIntent) -> Zones {
    let mut upstreams = intent.upstreams.iter();
    if !upstreams.any(|upstream| upstream.zone_preference.is_some()) {
        return Zones::new();
    }
    let zones = nodes.iter().filter_map(|node| {
        let zone = node.metadata.labels.as_ref()?.get(ZONE_LABEL)?;
        let name = node.metadata.name.clone()?;
        is_chosen(node, &intent.match_labels).then(|| (name, zone.clone()))
    });
    zones.collect()
}
