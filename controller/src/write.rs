//! All that is written to the API server by the replica that leads.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use crds::{WebSocketHAPool, WebSocketHAPoolStatus};
use k8s_openapi::{
    api::{core::v1::ConfigMap, events::v1::Event},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use node_api::PoolRef;
use serde_json::json;
use tokio::time::timeout;

use crate::{
    LEDGER,
    failure::Failure,
    recompute::{self, LEDGER_KEY},
    snapshot::Ledger,
    status::{self, News},
};

/// Owner of the fields that are written.
pub const MANAGER: &str = "wsha-controller";
/// Limit for one call.
const CALL: Duration = Duration::from_secs(3);

/// So many events of a pool may come at once,
const BURST: u32 = 10;
/// and then one in so long.
const REFILL: Duration = Duration::from_secs(30);

/// Writes.
pub struct Writer {
    client: Client,
    namespace: String,
    replica: String,
    budgets: Mutex<BTreeMap<PoolRef, Budget>>,
}

/// How many events of a pool may be written.
#[derive(Clone, Copy, Debug)]
struct Budget {
    left: u32,
    since: Instant,
}

impl Budget {
    fn new(now: Instant) -> Self {
        Self {
            left: BURST,
            since: now,
        }
    }

    /// Whether one more may be written now.
    fn take(&mut self, now: Instant) -> bool {
        while self.left < BURST && now.duration_since(self.since) >= REFILL {
            self.left += 1;
            self.since += REFILL;
        }
        if self.left == BURST {
            self.since = now;
        }
        let may = self.left > 0;
        self.left = self.left.saturating_sub(1);
        may
    }
}

impl std::fmt::Debug for Writer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Writer").finish_non_exhaustive()
    }
}

impl Writer {
    /// As `replica` in `namespace`.
    pub fn new(client: Client, namespace: &str, replica: &str) -> Self {
        Self {
            client,
            namespace: namespace.to_owned(),
            replica: replica.to_owned(),
            budgets: Mutex::default(),
        }
    }

    /// The ledger. Gives the version of the object that has it.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn ledger(&self, ledger: &Ledger) -> Result<Option<String>, Failure> {
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
        let what = format!("write ConfigMap {}/{LEDGER}", self.namespace);
        let written = call(&what, api.patch(LEDGER, &params, &Patch::Apply(&object))).await?;
        Ok(written.metadata.resource_version)
    }

    /// The ledger as the API server has it now, whatever was watched.
    ///
    /// # Errors
    /// If the API server refuses or does not answer, or the ledger cannot be read.
    pub async fn newest_ledger(&self) -> Result<Ledger, Failure> {
        let api: Api<ConfigMap> = Api::namespaced(self.client.clone(), &self.namespace);
        // Without a version the answer is as new as any that was ever given.
        let params = ListParams::default().fields(&format!("metadata.name={LEDGER}"));
        let what = format!("read ConfigMap {}/{LEDGER}", self.namespace);
        let listed = call(&what, api.list(&params)).await?;
        recompute::ledger(listed.items.first())
    }

    /// The status of a pool, as a whole. Gives the version of the object that has it; `None`: the pool is
    /// gone.
    ///
    /// # Errors
    /// If the API server refuses or does not answer.
    pub async fn status(
        &self,
        pool: &WebSocketHAPool,
        status: &WebSocketHAPoolStatus,
    ) -> Result<Option<String>, Failure> {
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
            Ok(Ok(object)) => Ok(object.metadata.resource_version),
            // Deleted meanwhile: what it had comes to the ledger.
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 404 | 409) => {
                tracing::debug!(namespace, name, "the pool is gone");
                Ok(None)
            }
            Ok(Err(error)) => Err(Failure::new(action(), error)),
            Err(error) => Err(Failure::new(action(), error)),
        }
    }

    /// An event for each change that a user should hear of. Best effort: an event that is lost is no
    /// harm, the status says the same.
    pub async fn tell(
        &self,
        pool: &WebSocketHAPool,
        before: &WebSocketHAPoolStatus,
        after: &WebSocketHAPoolStatus,
    ) {
        for news in status::news(before, after) {
            if !self.may_tell(pool) {
                tracing::info!(news.note, "too many events of this pool: not written");
                continue;
            }
            match timeout(CALL, self.event(pool, news)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "an event was not taken"),
                Err(_) => tracing::debug!("an event was not taken in time"),
            }
        }
    }

    fn may_tell(&self, pool: &WebSocketHAPool) -> bool {
        let now = Instant::now();
        let budgets = self.budgets.lock();
        let mut budgets = budgets.unwrap_or_else(PoisonError::into_inner);
        // A whole budget is what a pool without one has.
        budgets.retain(|_, it| now.duration_since(it.since) < BURST * REFILL);
        budgets
            .entry(plan::model::pool_ref(pool))
            .or_insert_with(|| Budget::new(now))
            .take(now)
    }

    async fn event(&self, pool: &WebSocketHAPool, news: News) -> Result<(), kube::Error> {
        let namespace = pool.namespace().unwrap_or_default();
        let event = Event {
            metadata: ObjectMeta {
                generate_name: Some(format!("{}-", pool.name_any())),
                namespace: Some(namespace.clone()),
                ..ObjectMeta::default()
            },
            action: Some(news.action.to_owned()),
            event_time: Some(MicroTime(Timestamp::now())),
            note: Some(news.note),
            reason: Some(news.reason),
            regarding: Some(pool.object_ref(&())),
            reporting_controller: Some(MANAGER.to_owned()),
            reporting_instance: Some(self.replica.clone()),
            type_: Some(if news.warns { "Warning" } else { "Normal" }.to_owned()),
            ..Event::default()
        };
        let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
        api.create(&PostParams::default(), &event).await.map(drop)
    }
}

/// A call with a limit; `what` says what cannot be done if it fails.
pub(crate) async fn call<T>(
    what: &str,
    call: impl Future<Output = Result<T, kube::Error>>,
) -> Result<T, Failure> {
    match timeout(CALL, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failure::new(format!("cannot {what}"), error)),
        Err(error) => Err(Failure::new(format!("cannot {what}"), error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_come_in_bursts_and_then_slowly() {
        let begun = Instant::now();
        let mut budget = Budget::new(begun);
        let many = (0..100).filter(|_| budget.take(begun)).count();
        assert_eq!(many, BURST as usize);
        let later = begun + REFILL;
        assert!(budget.take(later));
        assert!(!budget.take(later));
        let much_later = begun + 100 * REFILL;
        let many = (0..100).filter(|_| budget.take(much_later)).count();
        assert_eq!(many, BURST as usize);
    }
}
