//! Nodes that stop and start being gateways.

use std::time::Instant;

use anyhow::{Result, ensure};

use crate::stage::{NAMESPACE, Stage};

/// Both gateways, that of the first address first.
fn gateways(stage: &Stage) -> Result<(&'static str, &'static str)> {
    let [vip1, vip2] = stage.vips();
    stage.settle()?;
    Ok((stage.holder(vip1)?.name(), stage.holder(vip2)?.name()))
}

pub(crate) fn a_cordoned_and_drained_node_comes_last(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    let (node, other) = gateways(stage)?;
    let watch = stage.watch()?;
    let since = Instant::now();
    stage.kubectl(&["cordon", node])?;
    stage.wait_holders(vip1, &[other])?;
    watch.serves(vip1, Instant::now())?;
    // It goes on as the last resort: its pod stays, and the servers on it go elsewhere.
    let words = [
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--timeout=240s",
    ];
    stage.kubectl(&[&["drain", node], &words[..]].concat())?;
    ensure!(
        stage.gateway_pod(node)?.is_some(),
        "the gateway's pod is gone"
    );
    stage.wait("the servers to be back elsewhere", |stage| {
        let pods = stage.get(&["pods", "--selector=app=ws-echo"])?;
        let pods = pods["items"].as_array().cloned().unwrap_or_default();
        let ready = pods.iter().filter(|pod| {
            let conditions = pod["status"]["conditions"].as_array();
            let ready = |one: &serde_json::Value| one["type"] == "Ready" && one["status"] == "True";
            pod["spec"]["nodeName"] != node && conditions.into_iter().flatten().any(ready)
        });
        Ok((ready.count() == 3).then_some(()))
    })?;
    stage.tell(&watch, vip1, since)?;
    stage.tell(&watch, vip2, since)?;
    stage.kubectl(&["uncordon", node])?;
    stage.settle()?;
    watch.never_split()
}

pub(crate) fn a_relabelled_node_leaves_and_another_joins(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    let (node, other) = gateways(stage)?;
    let watch = stage.watch()?;
    let since = Instant::now();
    stage.kubectl(&["label", "node", node, "wsha.dev/gateway-"])?;
    stage.wait_holders(vip1, &[other])?;
    watch.undisturbed(vip2, since)?;
    stage.tell(&watch, vip1, since)?;
    // One that never was a gateway takes its place.
    let since = Instant::now();
    stage.kubectl(&["label", "node", "node3", "wsha.dev/gateway=true"])?;
    stage.settle()?;
    ensure!(
        stage
            .vips()
            .iter()
            .any(|vip| stage.holders(*vip).is_ok_and(|all| all == ["node3"])),
        "node3 holds nothing"
    );
    for address in stage.vips() {
        watch.serves(address, Instant::now())?;
        stage.tell(&watch, address, since)?;
    }
    stage.kubectl(&["label", "node", node, "wsha.dev/gateway=true"])?;
    stage.kubectl(&["label", "node", "node3", "wsha.dev/gateway-"])?;
    for address in stage.vips() {
        stage.wait("node3 to hold nothing", |stage| {
            Ok((!stage.holders(address)?.contains(&"node3")).then_some(()))
        })?;
    }
    stage.settle()?;
    watch.never_split()
}

pub(crate) fn a_removed_node_leaves_and_returns(stage: &mut Stage) -> Result<()> {
    let [vip1, vip2] = stage.vips();
    let (node, other) = gateways(stage)?;
    let watch = stage.watch()?;
    let since = Instant::now();
    stage.kubectl(&["delete", "node", node])?;
    stage.wait_holders(vip1, &[other])?;
    watch.undisturbed(vip2, since)?;
    stage.tell(&watch, vip1, since)?;
    // A kubelet makes its Node when it starts.
    let kubelet = stage.local_mut()?.node_mut(node)?;
    kubelet.kill_kubelet()?;
    kubelet.start_kubelet()?;
    stage.local()?.welcome(node)?;
    stage.wait("its pod to be ready", |stage| {
        let pods = stage.get(&["daemonset/wsha-dataplane", "--namespace", NAMESPACE])?;
        Ok((pods["status"]["numberReady"] == 3).then_some(()))
    })?;
    stage.settle()?;
    watch.never_split()
}
