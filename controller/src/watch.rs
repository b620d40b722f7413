//! The only place that reads from the API server: one reflector a kind.

mod secrets;

use std::{error::Error, fmt::Debug, hash::Hash, sync::Arc, time::Duration};

use crds::WebSocketHAPool;
use futures_util::{StreamExt, TryStreamExt};
use ipnet::IpNet;
use k8s_openapi::{
    api::{
        core::v1::{ConfigMap, Node, NodeStatus, ObjectReference, Pod, PodSpec, Secret, Service},
        discovery::v1::{Endpoint, EndpointSlice},
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

use crate::{LEDGER, args::RunArgs, failure::Failure, tls, wait::put};

pub use self::secrets::Secrets;

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
    /// Secrets, as far as they may be read.
    pub secrets: Secrets,
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
        pools: reflect(
            Api::all(client.clone()),
            all(),
            without_annotations,
            changed,
            tasks,
        ),
        nodes: reflect(Api::all(client.clone()), all(), lean_node, changed, tasks),
        services: reflect(
            Api::all(client.clone()),
            all(),
            without_annotations,
            changed,
            tasks,
        ),
        endpoint_slices: reflect(Api::all(client.clone()), all(), lean_slice, changed, tasks),
        pods: reflect(
            Api::namespaced(client.clone(), namespace),
            all().labels(&args.data_plane_labels),
            lean_pod,
            changed,
            tasks,
        ),
        own: reflect(
            Api::namespaced(client.clone(), namespace),
            all().fields(&format!("metadata.name={LEDGER}")),
            |_| {},
            changed,
            tasks,
        ),
        secrets: Secrets::start(client, args, changed, tasks),
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
                if put(&ranges, read) {
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
                if ranges.borrow().is_none() {
                    put(&ranges, Some(Vec::new()));
                }
            }
            Ok(Err(error)) => tracing::debug!(%error, "cannot list the ranges of Services"),
            Err(_) => tracing::debug!("the ranges of Services are not answered"),
        }
        sleep(RANGES).await;
    }
}

/// Nobody looks at them, and they repeat whole objects.
fn without_annotations(object: &mut impl ResourceExt) {
    object.annotations_mut().clear();
}

/// Of what a kubelet says of its node, addresses.
fn lean_node(node: &mut Node) {
    without_annotations(node);
    if let Some(status) = &mut node.status {
        *status = NodeStatus {
            addresses: status.addresses.take(),
            ..NodeStatus::default()
        };
    }
}

/// Of a pod, where it is.
fn lean_pod(pod: &mut Pod) {
    without_annotations(pod);
    pod.status = None;
    if let Some(spec) = &mut pod.spec {
        *spec = PodSpec {
            node_name: spec.node_name.take(),
            ..PodSpec::default()
        };
    }
}

/// Of endpoints, what is told to gateways and which pod each is.
fn lean_slice(slice: &mut EndpointSlice) {
    without_annotations(slice);
    for endpoint in &mut slice.endpoints {
        let target = endpoint.target_ref.take();
        *endpoint = Endpoint {
            addresses: std::mem::take(&mut endpoint.addresses),
            conditions: endpoint.conditions.take(),
            zone: endpoint.zone.take(),
            target_ref: target.map(|target| ObjectReference {
                uid: target.uid,
                ..ObjectReference::default()
            }),
            ..Endpoint::default()
        };
    }
}

/// Nothing of them is needed but what pools use.
fn lean_secret(secret: &mut Secret) {
    without_annotations(secret);
    tls::lean(secret);
}

/// Keeps what is watched; `lean` takes from each object what nobody looks at.
fn reflect<K>(
    api: Api<K>,
    config: watcher::Config,
    lean: impl Fn(&mut K) + Send + 'static,
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
            .modify(move |object| {
                object.managed_fields_mut().clear();
                lean(object);
            });
        let stored = reflector::reflector(writer, events);
        let mut stored = std::pin::pin!(stored.into_stream());
        while let Some(event) = stored.next().await {
            match event {
                Ok(_) => changed.send_replace(()),
                Err(error) => {
                    // It goes on by itself; what is stored stays.
                    let error = shown(&error);
                    tracing::warn!(kind, error, "cannot watch; it is tried again");
                }
            }
        }
        Failure::plain(format!("the watch of {kind} has ended"))
    });
    store
}

/// An error without what was read: it may be of a Secret.
fn shown(error: &watcher::Error) -> String {
    let mut cause: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(one) = cause {
        if one.is::<serde_json::Error>() {
            return "an object cannot be read".to_owned();
        }
        cause = one.source();
    }
    error.to_string()
}
