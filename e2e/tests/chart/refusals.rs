//! Values that are refused, and with which sentence.

use anyhow::{Result, ensure};

use crate::helm;

/// What is set, and words of the answer.
const REFUSED: &[(&[&str], &str)] = &[
    (
        &["controller.replica=3"],
        "at '/controller': additional properties 'replica' not allowed",
    ),
    (
        &["controller.replicas=0"],
        "at '/controller/replicas': minimum: got 0, want 1",
    ),
    (
        &["controller.logLevel=loud"],
        "at '/controller/logLevel': value must be one of 'error', 'warn'",
    ),
    (
        &["controller.virtualRouterIDs=all"],
        "at '/controller/virtualRouterIDs': 'all' does not match pattern",
    ),
    (
        &["image.pullPolicy=Sometimes"],
        "at '/image/pullPolicy': value must be one of 'IfNotPresent'",
    ),
    (
        &["dataplane.stateDir=/"],
        "at '/dataplane/stateDir': '/' does not match pattern",
    ),
    (
        &["dataplane.stateDir=var/lib"],
        "at '/dataplane/stateDir': 'var/lib' does not match pattern",
    ),
    (
        &["dataplane.metrics.port=70000"],
        "at '/dataplane/metrics/port': maximum: got 70,000, want 65,535",
    ),
    (
        &["dataplane.proxy.user=0"],
        "at '/dataplane/proxy/user': minimum: got 0, want 1",
    ),
    (
        &["dataplane.proxy.workers=65"],
        "at '/dataplane/proxy/workers': maximum: got 65, want 64",
    ),
    (
        &["dataplane.proxy.io=uring"],
        "at '/dataplane/proxy/io': value must be one of 'epoll', 'io_uring'",
    ),
    (
        &["dataplane.proxy.seccompProfile.type=None"],
        "at '/dataplane/proxy/seccompProfile/type': value must be one of 'RuntimeDefault', 'Localhost', 'Unconfined'",
    ),
    (
        &["dataplane.limits.maxSessions=-1"],
        "at '/dataplane/limits/maxSessions': minimum: got -1, want 0",
    ),
    (
        &["dataplane.limits.handshakesPerSecond=-1"],
        "at '/dataplane/limits/handshakesPerSecond': minimum: got -1, want 0",
    ),
    (
        &["policy.virtualIPRanges={here}"],
        "at '/policy/virtualIPRanges/0': 'here' does not match pattern",
    ),
    (
        &["policy.portRanges={http}"],
        "at '/policy/portRanges/0': 'http' does not match pattern",
    ),
    (
        &["policy.portRanges={70000}"],
        "at '/policy/portRanges/0': maximum: got 70,000, want 65,535",
    ),
    (
        &["policy.namespaces.Team.portRanges={80}"],
        "'Team' does not match pattern",
    ),
    (
        &["policy.serviceCIDRs={10.96.0.0}"],
        "at '/policy/serviceCIDRs/0': '10.96.0.0' does not match pattern",
    ),
    (
        &["tls.namespaces={Shop}"],
        "at '/tls/namespaces/0': 'Shop' does not match pattern",
    ),
    (
        &["tls.namespaces={shop,shop}"],
        "at '/tls/namespaces': items at 0 and 1 are equal",
    ),
    (
        &["tls.secretName=Theirs"],
        "at '/tls/secretName': 'Theirs' does not match pattern",
    ),
    (
        &["retire.timeout=soon"],
        "at '/retire/timeout': 'soon' does not match pattern",
    ),
    (
        &["crds.keep=maybe"],
        "at '/crds/keep': got string, want boolean",
    ),
    (
        &["dataplane.agent.resources.limits.cpu=1"],
        "dataplane.agent.resources.limits.cpu: a CPU limit stops VRRP in mid-interval",
    ),
    (
        &["dataplane.proxy.resources.limits=null"],
        "dataplane.proxy.resources.limits.memory: without a limit of its own the proxy can take the node's memory",
    ),
    (
        &["networkPolicy.enabled=true"],
        "networkPolicy.nodeCIDRs: gateways are on the host network, so nobody would reach the controller",
    ),
];

#[test]
fn what_makes_no_sense_is_refused_with_a_sentence() -> Result<()> {
    for (sets, words) in REFUSED {
        let test = "what_makes_no_sense_is_refused_with_a_sentence";
        let Some(output) = helm(test, &["template", "wsha"], sets)? else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(!output.status.success(), "{sets:?} is accepted");
        ensure!(said.contains(words), "{sets:?}: {said}");
    }
    Ok(())
}

#[test]
fn a_cluster_that_is_too_old_is_refused() -> Result<()> {
    for (version, is_new) in [
        ("1.31.9", false),
        ("1.32.0", true),
        ("1.34.1-gke.100", true),
    ] {
        let words = ["template", "wsha", "--kube-version", version];
        let Some(output) = helm("a_cluster_that_is_too_old_is_refused", &words, &[])? else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success() == is_new, "{version}: {said}");
        ensure!(
            is_new || said.contains("requires kubeVersion: >=1.32.0-0"),
            "{said}"
        );
    }
    Ok(())
}
