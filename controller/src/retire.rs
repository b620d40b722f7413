//! The end of an installation: every node gives up everything before the pods are removed.
//!
//! `wsha-controller retire` writes a request as an annotation of the ledger's object. Every replica
//! then tells its nodes to retire, and nothing else; the lease holder records in the ledger who has
//! answered. The object goes with the installation, so that no request outlives it; and a replica
//! that sees it go obeys on.

use std::{collections::BTreeSet, sync::Arc};

use k8s_openapi::api::core::v1::ConfigMap;
use serde::{Deserialize, Serialize};

use crate::snapshot::Snapshot;

/// Annotation of the ledger's object; its value tells requests apart.
pub const ANNOTATION: &str = "wsha.dev/retire";

/// How far the end has come, in the ledger.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Progress {
    /// The request that is obeyed.
    pub request: String,
    /// Nodes that have given up everything.
    #[serde(default)]
    pub retired: BTreeSet<String>,
    /// Nodes that have not said so.
    #[serde(default)]
    pub waiting: BTreeSet<String>,
}

/// The request to be obeyed: the one that stands in the ledger's object, or, where that is gone, the one
/// that was obeyed `before`: it was the last of the installation.
pub fn request(object: Option<&ConfigMap>, before: Option<Arc<str>>) -> Option<Arc<str>> {
    let Some(object) = object else {
        return before;
    };
    let annotations = object.metadata.annotations.as_ref()?;
    let text = annotations.get(ANNOTATION)?;
    Some(Arc::from(text.as_str()))
}

/// How far the end has come, as of now. `pod_nodes` are the nodes where a data-plane pod is.
pub fn progress(snapshot: &Snapshot, pod_nodes: &BTreeSet<String>, request: &str) -> Progress {
    let before = snapshot.ledger.retire.as_ref();
    let before = before.filter(|it| it.request == request);
    let mut retired = before.map(|it| it.retired.clone()).unwrap_or_default();
    for (name, view) in &snapshot.views {
        if view.retired {
            retired.insert(name.clone());
        }
    }
    let existing = snapshot.node_names();
    let committed = snapshot
        .pools
        .iter()
        .flat_map(|pool| crate::snapshot::entries(pool).into_values())
        .flat_map(crate::snapshot::holders);
    let ledger = snapshot.ledger.retirements.iter();
    let ledger = ledger.flat_map(|retirement| retirement.node_names.iter().cloned());
    let all = pod_nodes.iter().cloned().chain(committed).chain(ledger);
    // A node that left the cluster holds nothing any more.
    let waiting = all.filter(|name| existing.contains(name.as_str()) && !retired.contains(name));
    Progress {
        request: request.to_owned(),
        waiting: waiting.collect(),
        retired,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_outlives_its_object_and_not_its_withdrawal() {
        let object = |annotation: Option<&str>| -> ConfigMap {
            let annotations = annotation.map(|text| serde_json::json!({ANNOTATION: text}));
            serde_json::from_value(serde_json::json!({
                "metadata": {"name": "wsha-ledger", "annotations": annotations},
            }))
            .unwrap()
        };
        assert_eq!(request(Some(&object(None)), None), None);
        assert_eq!(request(None, None), None, "nothing was ever asked");
        let asked = request(Some(&object(Some("1"))), None);
        assert_eq!(asked.as_deref(), Some("1"));
        assert_eq!(request(None, asked.clone()).as_deref(), Some("1"));
        assert_eq!(request(Some(&object(None)), asked), None, "withdrawn");
    }
}
