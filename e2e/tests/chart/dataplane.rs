//! The gateways: two containers, and no more rights than each needs.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::controller::unprivileged;
use crate::{container, render, strings};

fn pod(test: &str, sets: &[&str]) -> Result<Option<Value>> {
    let objects = render(test, sets)?;
    let pod = objects.map(|it| it.pod("DaemonSet", "wsha-dataplane").cloned());
    pod.transpose()
}

#[test]
fn the_agent_has_five_rights_and_the_proxy_none() -> Result<()> {
    let Some(pod) = pod("the_agent_has_five_rights_and_the_proxy_none", &[])? else {
        return Ok(());
    };
    ensure!(pod["hostNetwork"] == true && pod["hostPID"].is_null() && pod["hostIPC"].is_null());
    ensure!(
        pod["dnsPolicy"] == "ClusterFirstWithHostNet",
        "it could not find the controller"
    );
    ensure!(pod["priorityClassName"] == "system-node-critical");
    ensure!(
        pod["containers"]
            .as_array()
            .is_some_and(|all| all.len() == 2)
    );
    let agent = container(&pod, "agent")?;
    let context = &agent["securityContext"];
    ensure!(context["runAsUser"] == 0);
    let expected = json!({
        "drop": ["ALL"],
        "add": ["NET_ADMIN", "NET_RAW", "NET_BIND_SERVICE", "IPC_LOCK", "SYS_NICE"],
    });
    ensure!(context["capabilities"] == expected, "{context}");
    for (field, value) in [
        ("readOnlyRootFilesystem", true),
        ("allowPrivilegeEscalation", false),
        ("privileged", false),
    ] {
        ensure!(context[field] == value, "{field}");
    }
    ensure!(
        agent["resources"]["limits"]["cpu"].is_null(),
        "VRRP would be throttled"
    );
    let proxy = container(&pod, "proxy")?;
    unprivileged(&pod, proxy)?;
    // Without a right to give files away the agent lets the proxy in by its group.
    ensure!(context["runAsGroup"] == proxy["securityContext"]["runAsGroup"]);
    Ok(())
}

#[test]
fn the_proxy_is_told_what_it_may_take_over_all_pools() -> Result<()> {
    const TEST: &str = "the_proxy_is_told_what_it_may_take_over_all_pools";
    let sets = [
        "dataplane.limits.maxSessions=1000000",
        "dataplane.limits.handshakesPerSecond=500",
    ];
    let options = ["--max-sessions=1000000", "--handshakes-per-second=500"];
    for (sets, told) in [(&sets[..], &options[..]), (&[], &[])] {
        let Some(pod) = pod(TEST, sets)? else {
            return Ok(());
        };
        for (name, told) in [("proxy", told), ("agent", &[])] {
            let words = strings(&container(&pod, name)?["args"]);
            let is_limit = |word: &&str| {
                ["--max-sessions", "--handshakes-per-second"]
                    .iter()
                    .any(|option| word.starts_with(option))
            };
            let given: Vec<_> = words.into_iter().filter(is_limit).collect();
            ensure!(given == *told, "{name}: {given:?}");
        }
    }
    Ok(())
}

#[test]
fn the_proxy_may_use_io_uring_where_that_is_asked_for() -> Result<()> {
    const TEST: &str = "the_proxy_may_use_io_uring_where_that_is_asked_for";
    for (sets, argument, profile) in [
        (&[][..], "--io=epoll", "RuntimeDefault"),
        (
            &[
                "dataplane.proxy.io=io_uring",
                "dataplane.proxy.seccompProfile.type=Unconfined",
            ],
            "--io=io_uring",
            "Unconfined",
        ),
    ] {
        let Some(pod) = pod(TEST, sets)? else {
            return Ok(());
        };
        let proxy = container(&pod, "proxy")?;
        let args = strings(&proxy["args"]);
        ensure!(args.contains(&argument), "{args:?}");
        let given = &proxy["securityContext"]["seccompProfile"]["type"];
        ensure!(given == profile, "{given}");
        let whole = &pod["securityContext"]["seccompProfile"]["type"];
        ensure!(whole == "RuntimeDefault", "{whole}");
    }
    Ok(())
}

#[test]
fn a_new_pod_fits_beside_the_old_one_and_follows_it() -> Result<()> {
    const TEST: &str = "a_new_pod_fits_beside_the_old_one_and_follows_it";
    let Some(objects) = render(TEST, &[])? else {
        return Ok(());
    };
    let set = objects.get("DaemonSet", "wsha-dataplane")?;
    let strategy = json!({
        "type": "RollingUpdate",
        "rollingUpdate": {"maxSurge": 1, "maxUnavailable": 0},
    });
    ensure!(set["spec"]["updateStrategy"] == strategy);
    let pod = objects.pod("DaemonSet", "wsha-dataplane")?;
    for name in ["agent", "proxy"] {
        let container = container(pod, name)?;
        ensure!(
            container["ports"].is_null(),
            "a port of the host keeps the new pod away"
        );
        let args = strings(&container["args"]);
        ensure!(args.contains(&"--stay"), "{name}: {args:?}");
        ensure!(
            args.contains(&"--run-dir=/run/wsha/agent"),
            "{name}: {args:?}"
        );
    }
    let args = strings(&container(pod, "agent")?["args"]);
    for word in [
        "--take-over",
        "--proxy=external",
        "--pod-created-at=/run/wsha-pod",
    ] {
        ensure!(args.contains(&word), "{args:?}");
    }
    Ok(())
}

#[test]
fn probes_ask_the_pod_itself() -> Result<()> {
    let Some(pod) = pod("probes_ask_the_pod_itself", &[])? else {
        return Ok(());
    };
    let agent = container(&pod, "agent")?;
    for (probe, what) in [
        ("startupProbe", "live"),
        ("livenessProbe", "live"),
        ("readinessProbe", "ready"),
    ] {
        // On the host's network a port would answer for the pod that was followed too.
        let words = strings(&agent[probe]["exec"]["command"]);
        ensure!(
            words
                == [
                    "/wsha-dataplane",
                    "probe",
                    what,
                    "--run-dir=/run/wsha/agent"
                ],
            "{probe}"
        );
    }
    Ok(())
}

#[test]
fn each_container_sees_what_it_needs() -> Result<()> {
    let sets = ["dataplane.stateDir=/srv/wsha/state"];
    let Some(pod) = pod("each_container_sees_what_it_needs", &sets)? else {
        return Ok(());
    };
    let mounts = |name: &str| -> Result<BTreeSet<(String, String, bool)>> {
        let mounts = container(&pod, name)?["volumeMounts"]
            .as_array()
            .context("mounts")?;
        let mount = |it: &Value| {
            let text = |field: &str| it[field].as_str().unwrap_or_default().to_owned();
            (text("name"), text("mountPath"), it["readOnly"] == true)
        };
        Ok(mounts.iter().map(mount).collect())
    };
    let set = |all: &[(&str, &str, bool)]| {
        let all = all
            .iter()
            .map(|(name, path, ro)| ((*name).to_owned(), (*path).to_owned(), *ro));
        all.collect::<BTreeSet<_>>()
    };
    let agent = set(&[
        ("state", "/srv/wsha/state", false),
        ("run", "/run/wsha", false),
        ("pod", "/run/wsha-pod", false),
        ("ca", "/etc/wsha/ca", true),
        ("token", "/var/run/secrets/wsha.dev", true),
    ]);
    ensure!(mounts("agent")? == agent, "{:?}", mounts("agent")?);
    // It could put a socket of its own in the agent's place.
    ensure!(mounts("proxy")? == set(&[("run", "/run/wsha", true)]));
    ensure!(pod["automountServiceAccountToken"] == false);
    let volumes = pod["volumes"].as_array().context("volumes")?;
    let volume = |name: &str| {
        let found = volumes.iter().find(|volume| volume["name"] == name);
        found.with_context(|| format!("there is no volume {name}"))
    };
    let host: Vec<_> = volumes
        .iter()
        .filter(|it| !it["hostPath"].is_null())
        .collect();
    ensure!(
        host.len() == 1 && host[0]["hostPath"]["path"] == "/srv/wsha/state",
        "{host:?}"
    );
    ensure!(
        volume("run")?["emptyDir"]["medium"] == "Memory",
        "keys would reach the disk"
    );
    ensure!(
        volume("pod")?["emptyDir"]["medium"].is_null(),
        "it must outlast a reboot"
    );
    ensure!(volume("ca")?["configMap"]["name"] == "wsha-ca");
    let token = &volume("token")?["projected"]["sources"][0]["serviceAccountToken"];
    ensure!(token["audience"] == node_api::stream::AUDIENCE, "{token}");
    let args = strings(&container(&pod, "agent")?["args"]).join(" ");
    for word in [
        "--state-dir=/srv/wsha/state ",
        "--controller-ca=/etc/wsha/ca/ca.crt ",
        "--token-file=/var/run/secrets/wsha.dev/token ",
    ] {
        ensure!(args.contains(word), "{word}: {args}");
    }
    Ok(())
}

#[test]
fn metrics_are_where_the_service_says() -> Result<()> {
    const TEST: &str = "metrics_are_where_the_service_says";
    let sets = [
        "dataplane.metrics.port=9200",
        "dataplane.metrics.host=[$(HOST_IP)]",
    ];
    let Some(objects) = render(TEST, &sets)? else {
        return Ok(());
    };
    let pod = objects.pod("DaemonSet", "wsha-dataplane")?;
    let args = strings(&container(pod, "agent")?["args"]);
    ensure!(args.contains(&"--admin=[$(HOST_IP)]:9200"), "{args:?}");
    let port = &objects.get("Service", "wsha-dataplane-metrics")?["spec"]["ports"][0];
    ensure!(
        *port == json!({"name": "metrics", "port": 9200, "targetPort": 9200}),
        "{port}"
    );
    Ok(())
}
