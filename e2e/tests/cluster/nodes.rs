//! The cluster itself, without the product.

use std::net::Ipv4Addr;

use anyhow::{Result, ensure};
use e2e::cluster::local::pod_reference;
use e2e::testing::Session;

use crate::stage::Stage;

/// The article's servers as a Deployment, and their Service.
pub(crate) fn servers(stage: &Stage, replicas: usize) -> String {
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
        imagePullPolicy: IfNotPresent
        args: [echo, \"8010\"]
        ports: [{{containerPort: 8010}}]
        readinessProbe: {{tcpSocket: {{port: 8010}}, periodSeconds: 1}}
---
apiVersion: v1
kind: Service
metadata: {{name: ws-echo, namespace: default}}
spec: {{selector: {{app: ws-echo}}, ports: [{{name: ws, port: 8010}}]}}
",
        image(stage)
    )
}

/// The image of pods that are not the product's.
fn image(stage: &Stage) -> String {
    let reference = pod_reference();
    let name = reference.split_once('/').map_or("", |(_, name)| name);
    let registry = stage.cluster.registry();
    registry.map_or_else(
        || reference.clone(),
        |registry| format!("{registry}/{name}"),
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
    stage.apply(&servers(stage, 2))?;
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
    for node in stage.local()?.nodes() {
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

pub(crate) fn a_node_without_power_returns(stage: &mut Stage) -> Result<()> {
    let pod = |name: &str| {
        format!(
            "
apiVersion: v1
kind: Pod
metadata: {{name: {name}, namespace: default}}
spec:
  nodeName: node3
  containers: [{{name: idle, image: {}, imagePullPolicy: Never}}]
",
            pod_reference()
        )
    };
    let wait = |stage: &Stage, name: &str| {
        stage.kubectl(&["wait", "--for=condition=Ready", "--timeout=240s", name])
    };
    stage.apply(&pod("before"))?;
    wait(stage, "pod/before")?;
    stage.local_mut()?.node_mut("node3")?.power_off()?;
    ensure!(stage.local()?.node("node3")?.host().processes().is_empty());
    stage.local_mut()?.power_on("node3")?;
    stage.apply(&pod("after"))?;
    wait(stage, "pod/after")?;
    // The kubelet knows of the other one, too.
    stage.wait("the pod of before to run again", |stage| {
        let pod = stage.get(&["pod", "before"])?;
        let status = &pod["status"]["containerStatuses"][0];
        Ok((status["restartCount"] == 1 && status["ready"] == true).then_some(()))
    })?;
    stage
        .kubectl(&["delete", "pod", "before", "after", "--grace-period=1"])
        .map(drop)
}
