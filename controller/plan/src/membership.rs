//! Which nodes may hold which address.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::core::v1::Node;

use crate::{
    Inputs, NodeFacts,
    model::{PoolIntent, VirtualIpIntent},
};

/// The administrator's word that a node takes no traffic from outside of the cluster.
pub(crate) const EXCLUDE_LABEL: &str = "node.kubernetes.io/exclude-from-external-load-balancers";

/// The nodes, by name.
pub(crate) struct Nodes<'a> {
    by_name: BTreeMap<&'a str, &'a Node>,
    facts: &'a BTreeMap<String, NodeFacts>,
}

impl<'a> Nodes<'a> {
    pub(crate) fn new(inputs: &'a Inputs) -> Self {
        let nodes = inputs.objects.nodes.iter();
        Self {
            by_name: nodes
                .filter_map(|node| Some((node.metadata.name.as_deref()?, node)))
                .collect(),
            facts: &inputs.facts,
        }
    }

    /// All names, sorted.
    pub(crate) fn names(&self) -> Vec<&'a str> {
        self.by_name.keys().copied().collect()
    }

    /// The node that has `address` for itself.
    pub(crate) fn owner(&self, address: std::net::IpAddr) -> Option<&'a str> {
        let text = address.to_string();
        let owns = |node: &Node| {
            let addresses = node
                .status
                .iter()
                .flat_map(|status| status.addresses.iter().flatten());
            addresses.into_iter().any(|own| own.address == text)
        };
        self.by_name
            .iter()
            .find(|(_, node)| owns(node))
            .map(|(name, _)| *name)
    }

    /// Members of the pool: nodes with all its labels that are not excluded.
    pub(crate) fn members(&self, pool: &PoolIntent) -> BTreeSet<&'a str> {
        let members = self.by_name.iter().filter(|(_, node)| {
            let has = |key: &str, value: &str| {
                let labels = node.metadata.labels.as_ref();
                labels
                    .and_then(|labels| labels.get(key))
                    .is_some_and(|found| found == value)
            };
            let excluded = node
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key(EXCLUDE_LABEL));
            !excluded && pool.match_labels.iter().all(|(key, value)| has(key, value))
        });
        members.map(|(name, _)| *name).collect()
    }

    /// Whether `node`'s network has a place for the address; true where nothing is known of it.
    pub(crate) fn reaches(&self, node: &str, virtual_ip: &VirtualIpIntent) -> bool {
        let Some(facts) = self.facts.get(node) else {
            return true;
        };
        match &virtual_ip.interface {
            Some(name) => facts
                .interfaces
                .iter()
                .any(|interface| interface.name == *name),
            None => facts
                .interfaces
                .iter()
                .flat_map(|interface| &interface.prefixes)
                .any(|prefix| prefix.contains(&virtual_ip.address)),
        }
    }

    /// Whether the node is to be emptied.
    pub(crate) fn cordoned(&self, node: &str) -> bool {
        let spec = self.by_name.get(node).and_then(|node| node.spec.as_ref());
        spec.is_some_and(|spec| spec.unschedulable == Some(true))
    }
}
