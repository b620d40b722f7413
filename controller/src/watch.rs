//! The only place that reads from the API server: one reflector a kind.

use std::{fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use crds::WebSocketHAPool;
use futures_util::{StreamExt, TryStreamExt};
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Node, Pod, Service},
        discovery::v1::EndpointSlice,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, timeout},
};

use crate::{LEDGER, args::RunArgs, failure::Failure};

/// How long the first lists may take before the log says that they are missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// Everything that is watched.
#[derive(Clone, Debug)]
pub struct Stores {
    /// Pools of all namespaces.
    pub pools: Store<WebSocketHAPool>,
    /// Nodes.
    pub nodes: Store<Node>,
    /// Services of all namespaces.
    pub services: Store<Service>,
    /// EndpointSlices of all namespaces.
    pub endpoint_slices: Store<EndpointSlice>,
    /// Data-plane pods.
    pub pods: Store<Pod>,
    /// The controller's own objects.
    pub own: Store<ConfigMap>,
}

/// Raised by every change of what is watched.
pub type Changed = watch::Sender<()>;

/// Starts to watch. The tasks end only by failure.
pub fn start(
    client: &Client,
    args: &RunArgs,
    changed: &Arc<Changed>,
    tasks: &mut JoinSet<Failure>,
) -> Stores {
    let all = watcher::Config::default;
    let namespace = &args.namespace;
    Stores {
        pools: reflect(Api::all(client.clone()), all(), changed, tasks),
        nodes: reflect(Api::all(client.clone()), all(), changed, tasks),
        services: reflect(Api::all(client.clone()), all(), changed, tasks),
        endpoint_slices: reflect(Api::all(client.clone()), all(), changed, tasks),
        pods: reflect(
            Api::namespaced(client.clone(), namespace),
            all().labels(&args.data_plane_labels),
            changed,
            tasks,
        ),
        own: reflect(
            Api::namespaced(client.clone(), namespace),
            all().fields(&format!("metadata.name={LEDGER}")),
            changed,
            tasks,
        ),
    }
}

impl Stores {
    /// Waits until everything has been listed once; before that, what is absent means nothing.
    ///
    /// # Errors
    /// If a watch has ended.
    pub async fn synced(&self) -> Result<(), Failure> {
        let ready = async {
            self.pools.wait_until_ready().await?;
            self.nodes.wait_until_ready().await?;
            self.services.wait_until_ready().await?;
            self.endpoint_slices.wait_until_ready().await?;
            self.pods.wait_until_ready().await?;
            self.own.wait_until_ready().await
        };
        tokio::pin!(ready);
        let begun = Instant::now();
        loop {
            if let Ok(ready) = timeout(PATIENCE, &mut ready).await {
                return ready.map_err(|error| Failure::new("a watch has ended", error));
            }
            tracing::warn!(
                seconds = begun.elapsed().as_secs(),
                "the API server has not answered the first lists; nothing is pushed before"
            );
        }
    }
}

fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    changed: &Arc<Changed>,
    tasks: &mut JoinSet<Failure>,
) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let changed = Arc::clone(changed);
    let kind = K::kind(&K::DynamicType::default()).into_owned();
    tasks.spawn(async move {
        let events = watcher(api, config)
            .default_backoff()
            .modify(|object| object.managed_fields_mut().clear());
        let stored = reflector::reflector(writer, events);
        let mut stored = std::pin::pin!(stored.into_stream());
        while let Some(event) = stored.next().await {
            match event {
                Ok(_) => changed.send_replace(()),
                Err(error) => {
                    // It goes on by itself; what is stored stays.
                    tracing::warn!(kind, %error, "cannot watch; it is tried again");
                }
            }
        }
        Failure::plain(format!("the watch of {kind} has ended"))
    });
    store
}
