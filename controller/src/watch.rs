//! The only place that reads from the API server: one reflector a kind.

use std::{fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use crds::WebSocketHAPool;
use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Node, Pod, Service},
        discovery::v1::EndpointSlice,
        networking::v1::ServiceCIDR,
    },
    serde::de::DeserializeOwned,
};
use kube::{
    Api, Client, Resource, ResourceExt,
    api::ListParams,
    runtime::{
        WatchStreamExt,
        reflector::{self, Store},
        watcher,
    },
};
use tokio::{
    sync::watch,
    task::JoinSet,
    time::{Instant, sleep, timeout},
};

use crate::{LEDGER, args::RunArgs, failure::Failure};

/// How long the first lists may take before the log says that they are missing.
const PATIENCE: Duration = Duration::from_secs(30);

/// How often the ranges of Services are looked at: they grow once in years.
const RANGES: Duration = Duration::from_mins(1);
/// Limit for one call.
const CALL: Duration = Duration::from_secs(3);

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

/// Where addresses of Services are taken from, as far as the API server says it (`ServiceCIDR`, from
/// Kubernetes 1.33), looked at now and then, for ever.
pub async fn service_ranges(
    client: Client,
    ranges: watch::Sender<Option<Vec<IpNet>>>,
    changed: Arc<Changed>,
) {
    let api: Api<ServiceCIDR> = Api::all(client);
    let mut is_told = false;
    loop {
        match timeout(CALL, api.list(&ListParams::default())).await {
            Ok(Ok(listed)) => {
                let specs = listed.items.iter().filter_map(|it| it.spec.as_ref());
                let texts = specs.flat_map(|spec| spec.cidrs.iter().flatten());
                let read = Some(texts.filter_map(|text| text.parse().ok()).collect());
                let is_new = ranges.send_if_modified(|stand| {
                    let differs = *stand != read;
                    *stand = read;
                    differs
                });
                if is_new {
                    changed.send_replace(());
                }
            }
            Ok(Err(kube::Error::Api(answer))) if matches!(answer.code, 403 | 404) => {
                if !std::mem::replace(&mut is_told, true) {
                    tracing::info!(
                        code = answer.code,
                        "the API server does not tell the ranges of Services: those of the policy's \
                         serviceCIDRs are kept free"
                    );
                }
                ranges.send_if_modified(|stand| {
                    let differs = stand.is_none();
                    stand.get_or_insert_default();
                    differs
                });
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot list the ranges of Services"),
            Err(_) => tracing::debug!("the ranges of Services are not answered"),
        }
        sleep(RANGES).await;
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
