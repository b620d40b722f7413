//! All that is written to the API server by the replica that leads.

use std::{collections::BTreeMap, time::Duration};

use crds::{WebSocketHAPool, WebSocketHAPoolStatus};
use k8s_openapi::{api::core::v1::ConfigMap, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{Patch, PatchParams},
    runtime::events::{Event, EventType, Recorder, Reporter},
};
use serde_json::json;
use tokio::time::timeout;

use crate::{LEDGER, failure::Failure, recompute::LEDGER_KEY, snapshot::Ledger};

/// Owner of the fields that are written.
pub const MANAGER: &str = "wsha-controller";
/// Limit for one call.
const CALL: Duration = Duration::from_secs(3);

/// Writes.
#[derive(Clone)]
pub struct Writer {
    client: Client,
    namespace: String,
    recorder: Recorder,
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// As `replica` in `namespace`.
    pub fn new(client: Client, namespace: &str, replica: &str) -> Self {
        let reporter = Reporter {
            controller: MANAGER.to_owned(),
            instance: Some(replica.to_owned()),
        };
        Self {
            recorder: Recorder::new(client.clone(), reporter),
            client,
            namespace: namespace.to_owned(),
        }
    }

    /// The ledger.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn ledger(&self, ledger: &Ledger) -> Result<(), Failure> {
        let text = serde_json::to_string(ledger)
            .map_err(|error| Failure::new("the ledger has no form", error))?;
        let object = ConfigMap {
            metadata: ObjectMeta {
                name: Some(LEDGER.to_owned()),
                namespace: Some(self.namespace.clone()),
                ..ObjectMeta::default()
            },
            data: Some(BTreeMap::from([(LEDGER_KEY.to_owned(), text)])),
            ..ConfigMap::default()
        };
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        let params = PatchParams::apply(MANAGER).force();
        let action = || format!("cannot write ConfigMap {}/{LEDGER}", self.namespace);
        match timeout(CALL, api.patch(LEDGER, &params, &Patch::Apply(&object))).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(error)) => Err(Failure::new(action(), error)),
            Err(error) => Err(Failure::new(action(), error)),
        }
    }

    /// The status of a pool, as a whole.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn status(
        &self,
        pool: &WebSocketHAPool,
        status: &WebSocketHAPoolStatus,
    ) -> Result<(), Failure> {
        let namespace = pool.namespace().unwrap_or_default();
        let name = pool.name_any();
        let api: Api<WebSocketHAPool> = Api::namespaced(self.client.clone(), &namespace);
        // With its UID: the status of a pool that was deleted and made again is another one.
        let body = json!({
            "apiVersion": WebSocketHAPool::api_version(&()),
            "kind": WebSocketHAPool::kind(&()),
            "metadata": {"name": name, "namespace": namespace, "uid": pool.metadata.uid},
            "status": status,
        });
        let params = PatchParams::apply(MANAGER).force();
        let action = || format!("cannot write the status of WebSocketHAPool {namespace}/{name}");
        match timeout(CALL, api.patch_status(&name, &params, &Patch::Apply(&body))).await {
            Ok(Ok(_)) => Ok(()),
            // Deleted meanwhile: what it had comes to the ledger.
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => {
                tracing::debug!(namespace, name, "the pool is gone");
                Ok(())
            }
            Ok(Err(error)) => Err(Failure::new(action(), error)),
            Err(error) => Err(Failure::new(action(), error)),
        }
    }

    /// An event for each address that another node holds now. Best effort: an event that is lost is
    /// no harm, the status says the same.
    pub async fn tell_of_moves(
        &self,
        pool: &WebSocketHAPool,
        before: &WebSocketHAPoolStatus,
        after: &WebSocketHAPoolStatus,
    ) {
        for entry in &after.virtual_ips {
            let mut former = before.virtual_ips.iter();
            let former = former.find(|it| it.address == entry.address);
            let former = former.and_then(|it| it.active_node_name.as_deref());
            let now = entry.active_node_name.as_deref();
            if former == now {
                continue;
            }
            let (type_, note) = match (former, now) {
                (Some(former), Some(now)) => (
                    EventType::Normal,
                    format!("{} moved from {former} to {now}", entry.address),
                ),
                (None, Some(now)) => (
                    EventType::Normal,
                    format!("{} is held by {now}", entry.address),
                ),
                (_, None) => (
                    EventType::Warning,
                    format!("no gateway says that it holds {}", entry.address),
                ),
            };
            let event = Event {
                type_,
                reason: "ActiveNodeChanged".to_owned(),
                note: Some(note),
                action: "Failover".to_owned(),
                secondary: None,
            };
            let reference = pool.object_ref(&());
            match timeout(CALL, self.recorder.publish(&event, &reference)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an event was not taken"),
                Err(_) => tracing::debug!("an event was not taken in time"),
            }
        }
    }
}
