//! The cluster itself, without the product.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use e2e::cluster::local::pod_reference;
use e2e::testing::Session;

use crate::stage::Stage;

/// The article's servers as a Deployment, and their Service.
pub(crate) fn servers(replicas: usize) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: ws-echo, namespace: default}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: ws-echo}}}}
  template:
    metadata: {{labels: {{app: ws-echo}}}}
    spec:
      containers:
      - name: server
        image: {}
        imagePullPolicy: Never
        args: [echo, \"8010\"]
        ports: [{{containerPort: 8010}}]
        readinessProbe: {{tcpSocket: {{port: 8010}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: ws-echo, namespace: default}}
spec: {{selector: {{app: ws-echo}}, ports: [{{name: ws, port: 8010}}]}}
",
        pod_reference()
    )
}

/// Addresses of the servers that are ready.
pub(crate) fn ready(stage: &Stage) -> Result<Vec<Ipv4Addr>> {
    let slices = stage.get(&[
        "endpointslices",
        "--selector=kubernetes.io/service-name=ws-echo",
    ])?;
    let slices = slices["items"].as_array().into_iter().flatten();
    let endpoints = slices.flat_map(|slice| slice["endpoints"].as_array().into_iter().flatten());
    let ready = endpoints.filter(|endpoint| endpoint["conditions"]["ready"] == true);
    let addresses = ready.filter_map(|endpoint| endpoint["addresses"][0].as_str());
    addresses.map(|address| Ok(address.parse()?)).collect()
}

pub(crate) fn pods_run_and_services_answer(stage: &mut Stage) -> Result<()> {
    stage.apply(&servers(2))?;
    let servers = stage.wait("two servers to be ready", |stage| {
        let ready = ready(stage)?;
        Ok((ready.len() == 2).then_some(ready))
    })?;
    let address = stage.kubectl(&[
        "get",
        "service",
        "ws-echo",
        "--output=jsonpath={.spec.clusterIP}",
    ])?;
    let address: Ipv4Addr = address.parse()?;
    for node in stage.local.nodes() {
        // kube-proxy learns of the endpoints a moment later.
        let mut session = stage.wait("the Service to answer", |_| {
            Ok(Session::open_at(node.host(), address, 8010).ok())
        })?;
        let server = session.say("hello")?;
        ensure!(servers.contains(&server), "{server} is none of {servers:?}");
        let ranges = stage.kubectl(&["get", "node", node.name(), "-o=jsonpath={.spec.podCIDR}"])?;
        ensure!(ranges == node.pod_range(), "{} has {ranges:?}", node.name());
    }
    stage.kubectl(&["delete", "deployment/ws-echo", "service/ws-echo", "--wait"])?;
    stage.wait("the servers to go", |stage| {
        let left = stage.kubectl(&["get", "pods", "-o=name"])?;
        Ok(left.is_empty().then_some(()))
    })
}
