//! The replica that leads keeps the ticket keys: it makes the first ones, and the next ones in time.

use std::{
    fmt,
    time::{Duration, SystemTime},
};

use k8s_openapi::{api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{
    Api, Client,
    api::{Patch, PatchParams, PostParams},
    runtime::reflector::Store,
};
use serde_json::json;
use tokio::{sync::watch, time::sleep};

use super::{Ring, TICKET_KEYS};
use crate::{failure::Failure, write::call};

/// How often what is kept is looked at; nobody is asked for that.
const LOOK: Duration = Duration::from_secs(5);

/// Keeps the ticket keys.
pub struct Keeper {
    /// Client of the API server.
    pub client: Client,
    /// Where the Secret is.
    pub namespace: String,
    /// Whether this replica writes.
    pub leads: watch::Receiver<bool>,
    /// The Secret as it was read.
    pub kept: Store<Secret>,
}

impl fmt::Debug for Keeper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Keeper");
        shown
            .field("namespace", &self.namespace)
            .finish_non_exhaustive()
    }
}

impl Keeper {
    /// Keeps them for ever.
    pub async fn run(mut self) {
        // Before the first list, a Secret that is not there may be there.
        if self.kept.wait_until_ready().await.is_err() {
            return; // the watch has ended, and said so
        }
        let mut problem = None;
        loop {
            match self.turn().await {
                Ok(()) => problem = None,
                Err(failure) => {
                    let text = failure.whole();
                    if problem.as_ref() != Some(&text) {
                        failure.warn("no new keys for session tickets; it is tried again");
                        problem = Some(text);
                    }
                }
            }
            tokio::select! {
                () = sleep(LOOK) => {}
                changed = self.leads.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    async fn turn(&self) -> Result<(), Failure> {
        if !*self.leads.borrow() {
            return Ok(());
        }
        let found = self.kept.state().pop();
        let now = SystemTime::now();
        let turned = match found.as_ref().and_then(|found| Ring::read(found)) {
            Some(ring) => ring.turn(now),
            None => Ring::new(now).map(Some),
        };
        let turned = turned.map_err(|error| Failure::new("cannot make ticket keys", error))?;
        let Some(ring) = turned else {
            return Ok(());
        };
        let version = found.and_then(|found| found.metadata.resource_version.clone());
        self.keep(&ring, version).await?;
        tracing::info!("the keys of session tickets have changed");
        Ok(())
    }

    /// Writes over the version that was read alone: of two that write at once the first stands.
    async fn keep(&self, ring: &Ring, version: Option<String>) -> Result<(), Failure> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!(
            "keep the ticket keys in Secret {}/{TICKET_KEYS}",
            self.namespace
        );
        let Some(version) = version else {
            // The chart makes it: whoever may create Secrets of any name may have any account's token.
            let secret = Secret {
                metadata: ObjectMeta {
                    name: Some(TICKET_KEYS.to_owned()),
                    ..ObjectMeta::default()
                },
                data: Some(ring.data()),
                ..Secret::default()
            };
            return call(&what, api.create(&PostParams::default(), &secret))
                .await
                .map(drop);
        };
        let patch = json!({"metadata": {"resourceVersion": version}, "data": ring.data()});
        let params = PatchParams::default();
        call(
            &what,
            api.patch(TICKET_KEYS, &params, &Patch::Merge(&patch)),
        )
        .await
        .map(drop)
    }
}
