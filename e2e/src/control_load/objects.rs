//! What is put on the API server.

use std::ops::Range;

use anyhow::Result;
use serde_json::{Value, json};

use super::api::Access;

/// Virtual addresses of one segment: its VRIDs are 255.
const PER_SEGMENT: usize = 200;
/// Nodes of one virtual router, and virtual addresses of one pool, as far as they go.
const NODES_PER_ADDRESS: usize = 10;
const ADDRESSES_PER_POOL: usize = 16;
/// The Service whose endpoints are changed: every gateway serves it.
pub const PROBE: &str = "probe";
/// Connections by which objects are made.
const WRITERS: usize = 8;

/// How much of everything.
#[derive(Clone, Copy, Debug)]
pub struct Size {
    /// Gateway nodes.
    pub gateways: usize,
    /// Pools, besides those of the probe.
    pub pools: usize,
    /// Endpoints of all pools together.
    pub endpoints: usize,
}

impl Size {
    /// Endpoints of each pool.
    fn per_pool(&self) -> usize {
        (self.endpoints / self.pools).max(1)
    }

    fn probe_addresses(&self) -> usize {
        self.gateways.div_ceil(NODES_PER_ADDRESS)
    }

    fn segments(&self) -> usize {
        (self.pools + self.probe_addresses()).div_ceil(PER_SEGMENT)
    }

    /// The networks of every gateway.
    pub fn networks(&self) -> Vec<String> {
        let segments = 0..self.segments();
        segments
            .map(|segment| format!("10.50.{segment}.0/24"))
            .collect()
    }

    /// Names of the gateways.
    pub fn nodes(&self) -> impl Iterator<Item = String> {
        (0..self.gateways).map(node)
    }
}

/// Name of a gateway node.
pub fn node(number: usize) -> String {
    format!("gateway-{number:03}")
}

/// Name of the pod of a gateway node.
pub fn pod(node: &str) -> String {
    format!("dataplane-{node}")
}

fn address(number: usize) -> String {
    format!(
        "10.50.{}.{}",
        number / PER_SEGMENT,
        20 + number % PER_SEGMENT
    )
}

/// The server of that number, of all pools together.
fn server(number: usize) -> String {
    format!(
        "10.{}.{}.{}",
        100 + number / 62_500,
        number / 250 % 250,
        1 + number % 250
    )
}

/// Nodes, pods, Services and their slices, and pools, in the order in which they are made.
pub fn all(size: Size) -> Vec<Vec<(String, Value)>> {
    let nodes = size.nodes().map(|name| {
        let object = json!({
            "metadata": {"name": name, "labels": {"wsha.dev/gateway": "true"}},
        });
        ("/api/v1/nodes".to_owned(), object)
    });
    let pods = size.nodes().map(|name| {
        let object = json!({
            "metadata": {
                "name": pod(&name),
                "labels": {"app.kubernetes.io/name": "wsha", "app.kubernetes.io/component": "dataplane"},
            },
            "spec": {
                "nodeName": name,
                "serviceAccountName": "wsha-dataplane",
                "automountServiceAccountToken": false,
                "containers": [{"name": "agent", "image": "localhost/none"}],
            },
        });
        ("/api/v1/namespaces/wsha/pods".to_owned(), object)
    });
    let mut services = service(PROBE, 0, size.per_pool());
    let mut pools = probes(size);
    for number in 0..size.pools {
        let name = format!("pool-{number:04}");
        services.extend(service(&name, 1 + number, size.per_pool()));
        let virtual_ips = json!([{"address": address(size.probe_addresses() + number)}]);
        pools.push(pool(&name, &virtual_ips, &name));
    }
    vec![nodes.collect(), pods.collect(), services, pools]
}

/// Pools whose addresses have ten gateways each, so that every gateway has one of them.
fn probes(size: Size) -> Vec<(String, Value)> {
    let addresses: Vec<usize> = (0..size.probe_addresses()).collect();
    let pools = addresses.chunks(ADDRESSES_PER_POOL).map(|chunk| {
        let virtual_ips = chunk.iter().map(|&number| {
            let first = number * NODES_PER_ADDRESS;
            let nodes: Range<usize> = first..size.gateways.min(first + NODES_PER_ADDRESS);
            let priorities =
                nodes.map(|it| json!({"nodeName": node(it), "priority": 250 - (it - first)}));
            json!({"address": address(number), "nodePriorities": priorities.collect::<Vec<_>>()})
        });
        let virtual_ips: Value = virtual_ips.collect();
        let number = chunk.first().copied().unwrap_or_default() / ADDRESSES_PER_POOL;
        pool(&format!("{PROBE}-{number}"), &virtual_ips, PROBE)
    });
    pools.collect()
}

fn pool(name: &str, virtual_ips: &Value, service: &str) -> (String, Value) {
    let object = json!({
        "apiVersion": "wsha.dev/v1alpha1",
        "kind": "WebSocketHAPool",
        "metadata": {"name": name},
        "spec": {
            "virtualIPs": virtual_ips,
            "gateways": {"nodeSelector": {"matchLabels": {"wsha.dev/gateway": "true"}}},
            "listeners": [{"name": "ws", "port": 8020}],
            "upstreams": [{"name": "echo", "service": {"name": service, "port": 8010}}],
        },
    });
    (
        "/apis/wsha.dev/v1alpha1/namespaces/default/websockethapools".to_owned(),
        object,
    )
}

/// A Service without an address, and its slices of at most 100 endpoints, as Kubernetes makes them.
fn service(name: &str, number: usize, endpoints: usize) -> Vec<(String, Value)> {
    let service = json!({
        "metadata": {"name": name},
        "spec": {"clusterIP": "None", "ports": [{"name": "ws", "port": 8010}]},
    });
    let mut objects = vec![("/api/v1/namespaces/default/services".to_owned(), service)];
    let servers: Vec<usize> = (0..endpoints).collect();
    for (slice, chunk) in servers.chunks(100).enumerate() {
        let addresses: Vec<_> = chunk
            .iter()
            .map(|it| server(number * endpoints + it))
            .collect();
        let object = json!({
            "metadata": {
                "name": format!("{name}-{slice}"),
                "labels": {"kubernetes.io/service-name": name},
            },
            "addressType": "IPv4",
            "ports": [{"name": "ws", "port": 8010, "protocol": "TCP"}],
            "endpoints": endpoints_of(&addresses, None),
        });
        let path = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices";
        objects.push((path.to_owned(), object));
    }
    objects
}

fn endpoints_of(addresses: &[String], not_ready: Option<usize>) -> Value {
    let endpoints = addresses.iter().enumerate();
    let endpoints = endpoints.map(|(at, address)| {
        json!({"addresses": [address], "conditions": {"ready": Some(at) != not_ready}})
    });
    endpoints.collect()
}

/// Path of the probe's first slice.
pub const PROBE_SLICE: &str = "/apis/discovery.k8s.io/v1/namespaces/default/endpointslices/probe-0";

/// A patch of [`PROBE_SLICE`] by which one endpoint of it changes, another one each time.
pub fn change(size: Size, number: usize) -> Value {
    let servers = size.per_pool().min(100);
    let addresses: Vec<_> = (0..servers).map(server).collect();
    // One becomes ready again where another one becomes not ready, but for the first time and a pool of one.
    let not_ready = number.is_multiple_of(2).then_some(number / 2 % servers);
    json!({"endpoints": endpoints_of(&addresses, not_ready)})
}

/// Makes objects, in any order, by several connections.
pub async fn make(access: &Access, objects: Vec<(String, Value)>) -> Result<()> {
    let mut parts: Vec<Vec<(String, Value)>> = (0..WRITERS).map(|_| Vec::new()).collect();
    for (at, object) in objects.into_iter().enumerate() {
        if let Some(part) = parts.get_mut(at % WRITERS) {
            part.push(object);
        }
    }
    let mut writers = tokio::task::JoinSet::new();
    for part in parts {
        let access = access.clone();
        writers.spawn(async move {
            let mut api = access.connect().await?;
            for (path, object) in part {
                api.post(&path, &object).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = writers.join_next().await {
        done??;
    }
    Ok(())
}
