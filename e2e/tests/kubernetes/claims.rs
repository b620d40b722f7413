//! What pools may claim, and what becomes of those that claim more.

use anyhow::{Result, ensure};
use e2e::testing::Session;
use serde_json::{Value, json};

use crate::stage::{Stage, VIP1, VIP2, on_stage};
use crate::{POOL, serving};

/// The pool of the other tests under another name, with this address and port.
fn claim(name: &str, address: &str, port: u16) -> String {
    POOL.replace("name: chat", &format!("name: {name}"))
        .replace(
            "[{address: 192.168.1.110}, {address: 192.168.1.112}]",
            &format!("[{{address: {address}}}]"),
        )
        .replace("port: 8020", &format!("port: {port}"))
}

/// Waits until the pool is refused for `reason` by a sentence with `part`, and an event says the same.
fn refused(stage: &Stage<'_>, pool: &str, reason: &str, part: &str) -> Result<()> {
    stage.wait_condition(pool, "Accepted", "False")?;
    let condition = "jsonpath={.status.conditions[?(@.type=='Accepted')]['reason','message']}";
    let told = stage.wait("the reason of the refusal", |stage| {
        let told = stage.kubectl(&["get", "wshap", pool, "-o", condition])?;
        Ok(told.starts_with(reason).then_some(told))
    })?;
    ensure!(told.contains(part), "{told}");
    let selector = format!("--field-selector=regarding.name={pool},reason={reason}");
    let notes = [
        "get",
        "events.events.k8s.io",
        &selector,
        "--output=jsonpath={.items[*].note}",
    ];
    stage.wait("an event about the refusal", |stage| {
        Ok(stage.kubectl(&notes)?.contains(part).then_some(()))
    })
}

#[test]
fn a_claim_that_is_not_permitted_is_refused_and_told() -> Result<()> {
    on_stage(
        "a_claim_that_is_not_permitted_is_refused_and_told",
        1,
        |stage| {
            serving(stage)?;
            for (name, address, port, reason, part) in [
                (
                    "late",
                    "192.168.1.110",
                    8020,
                    "AddressConflict",
                    "default/chat",
                ),
                (
                    "far",
                    "10.7.7.7",
                    8020,
                    "AddressNotPermitted",
                    "which are 192.168.1.0/24",
                ),
                (
                    "service",
                    "10.96.7.7",
                    8020,
                    "AddressNotPermitted",
                    "addresses of Services",
                ),
                (
                    "port",
                    "192.168.1.114",
                    30080,
                    "PortConflict",
                    "30000-32767",
                ),
            ] {
                stage.apply(&claim(name, address, port))?;
                refused(stage, name, reason, part)?;
                stage.kubectl(&["delete", "wshap", name])?;
            }

            // What a Service has already is not a pool's; once it is free, it is.
            stage.apply(
                "
apiVersion: v1
kind: Service
metadata: {name: other, namespace: default}
spec: {externalIPs: [192.168.1.114], ports: [{port: 80}]}
",
            )?;
            stage.apply(&claim("beside", "192.168.1.114", 8021))?;
            refused(stage, "beside", "AddressConflict", "Service default/other")?;
            stage.kubectl(&["delete", "service", "other"])?;
            stage.wait_condition("beside", "Ready", "True")
        },
    )
}

#[test]
fn what_is_programmed_outlives_a_narrower_policy_and_a_kubelet_s_mistake() -> Result<()> {
    let name = "what_is_programmed_outlives_a_narrower_policy_and_a_kubelet_s_mistake";
    on_stage(name, 1, |stage| {
        serving(stage)?;
        let client = stage.cluster.lab.client();
        let mut session = Session::open(client, VIP1)?;
        let holder = stage.holder(VIP1)?;

        // A kubelet without --node-ip takes the address that it finds for its node's.
        let take = |addresses: Value| {
            let status = json!({"status": {"addresses": addresses}});
            stage.patch("node", &holder, &["--subresource=status"], &status)
        };
        take(json!([{"type": "InternalIP", "address": VIP1.to_string()}]))?;
        stage.wait_condition("chat", "Degraded", "True")?;
        let message = "jsonpath={.status.conditions[?(@.type=='Degraded')].message}";
        let message = stage.kubectl(&["get", "wshap", "chat", "-o", message])?;
        ensure!(
            message.contains("start the kubelet with --node-ip"),
            "{message}"
        );
        session.say("with a node that calls it its own")?;
        take(Value::Null)?;
        stage.wait_condition("chat", "Degraded", "False")?;

        // The administrator permits less than before: new claims are held to it at once.
        stage.policy("virtualIPRanges: [192.168.1.112, 192.168.1.115]\n")?;
        refused(
            stage,
            "chat",
            "AddressNotPermitted",
            "permits 192.168.1.112, 192.168.1.115",
        )?;
        session.say("after that")?;
        let holder_now = stage.holder(VIP1)?;
        ensure!(
            holder_now == holder,
            "{VIP1} went from {holder} to {holder_now}"
        );
        Session::open(stage.cluster.lab.client(), VIP2)?.say("on the other")?;
        stage.apply(&claim("fits", "192.168.1.115", 8021))?;
        stage.wait_condition("fits", "Ready", "True")?;

        // A policy that is not in order changes nothing.
        stage.policy("virtualIPRanges: 7\n")?;
        stage.apply(&claim("third", "192.168.1.116", 8022))?;
        refused(
            stage,
            "third",
            "AddressNotPermitted",
            "permits 192.168.1.112",
        )?;
        stage.policy("")?;
        stage.wait_condition("chat", "Accepted", "True")?;
        stage.wait_condition("third", "Ready", "True")?;
        session.undisturbed()
    })
}
