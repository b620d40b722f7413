//! The controller: what it runs as, what it may do, who may reach it.

use anyhow::{Context, Result, ensure};
use e2e::chart::{Objects, rights};
use serde_json::{Value, json};

use crate::{ALL, container, render, strings};

fn with(test: &str, sets: &[&str], body: impl FnOnce(&Objects) -> Result<()>) -> Result<()> {
    render(test, sets)?.map_or(Ok(()), |objects| body(&objects))
}

#[test]
fn its_pods_have_no_rights_and_are_spread() -> Result<()> {
    with("its_pods_have_no_rights_and_are_spread", &[], |objects| {
        let deployment = objects.get("Deployment", "wsha-controller")?;
        ensure!(deployment["spec"]["replicas"] == 2);
        let rolling = json!({"maxSurge": 1, "maxUnavailable": 0});
        ensure!(deployment["spec"]["strategy"]["rollingUpdate"] == rolling);
        let pod = objects.pod("Deployment", "wsha-controller")?;
        unprivileged(pod, container(pod, "controller")?)?;
        let spread = pod["topologySpreadConstraints"]
            .as_array()
            .context("spread")?;
        let keys: Vec<_> = spread.iter().map(|it| &it["topologyKey"]).collect();
        ensure!(keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]);
        let labels = &deployment["spec"]["selector"]["matchLabels"];
        let disruption = objects.get("PodDisruptionBudget", "wsha-controller")?;
        ensure!(disruption["spec"]["selector"]["matchLabels"] == *labels);
        ensure!(disruption["spec"]["maxUnavailable"] == 1);
        ensure!(
            spread
                .iter()
                .all(|it| it["labelSelector"]["matchLabels"] == *labels)
        );
        Ok(())
    })
}

/// What a container that needs nothing must have.
pub(crate) fn unprivileged(pod: &Value, container: &Value) -> Result<()> {
    let context = &container["securityContext"];
    let user = context["runAsUser"].as_u64();
    let user = user.or_else(|| pod["securityContext"]["runAsUser"].as_u64());
    ensure!(user.is_some_and(|user| user > 0), "runs as {user:?}");
    for (field, value) in [
        ("runAsNonRoot", true),
        ("readOnlyRootFilesystem", true),
        ("allowPrivilegeEscalation", false),
        ("privileged", false),
    ] {
        ensure!(context[field] == value, "{field} is {}", context[field]);
    }
    ensure!(
        context["capabilities"] == json!({"drop": ["ALL"]}),
        "{context}"
    );
    let seccomp = &pod["securityContext"]["seccompProfile"]["type"];
    ensure!(*seccomp == "RuntimeDefault", "{seccomp}");
    ensure!(!container["resources"]["limits"]["memory"].is_null());
    Ok(())
}

#[test]
fn gateways_find_it_by_the_name_in_its_certificate() -> Result<()> {
    with(
        "gateways_find_it_by_the_name_in_its_certificate",
        &[],
        |objects| {
            let stream = objects.get("Service", "wsha-controller")?;
            ensure!(
                stream["spec"]["clusterIP"] == "None",
                "one address for all replicas"
            );
            ensure!(stream["spec"]["ports"][0]["port"] == 8443);
            let controller = objects.pod("Deployment", "wsha-controller")?;
            let controller = strings(&container(controller, "controller")?["args"]).join(" ");
            let agent = objects.pod("DaemonSet", "wsha-dataplane")?;
            let agent = strings(&container(agent, "agent")?["args"]).join(" ");
            ensure!(
                controller.contains("--server-name=wsha-controller.net.svc "),
                "{controller}"
            );
            ensure!(
                agent.contains("--controller=wsha-controller.net.svc:8443 "),
                "{agent}"
            );
            for name in ["wsha-controller-metrics", "wsha-dataplane-metrics"] {
                ensure!(objects.get("Service", name)?["spec"]["clusterIP"] == "None");
            }
            Ok(())
        },
    )
}

#[test]
fn what_it_may_change_is_named() -> Result<()> {
    with("what_it_may_change_is_named", &[], |objects| {
        let mut all = rights(objects.get("ClusterRole", "wsha-controller")?);
        all.extend(rights(objects.get("Role", "wsha-controller")?));
        for right in &all {
            let words = [&right.group, &right.resource, &right.verb];
            ensure!(words.iter().all(|word| !word.contains('*')), "{right:?}");
            let reads = ["list", "watch"].contains(&right.verb.as_str());
            let names = right.names.as_str();
            match (right.resource.as_str(), right.verb.as_str()) {
                ("secrets", "get" | "update") => ensure!(names == "wsha-ca", "{right:?}"),
                ("leases", "get" | "update") => ensure!(names == "wsha-controller", "{right:?}"),
                ("configmaps", _) => ensure!(names.starts_with("wsha-"), "{right:?}"),
                ("websockethapools/status", "patch") | ("events" | "tokenreviews", "create") => {}
                (resource, _) => ensure!(reads && resource != "secrets", "{right:?}"),
            }
        }
        // Nothing else is bound to anything.
        let bindings = objects.0.iter().filter(|it| {
            it["kind"]
                .as_str()
                .is_some_and(|kind| kind.ends_with("Binding"))
        });
        for binding in bindings {
            let subjects = json!([
                {"kind": "ServiceAccount", "name": "wsha-controller", "namespace": "net"}
            ]);
            ensure!(binding["subjects"] == subjects, "{binding}");
        }
        Ok(())
    })
}

#[test]
fn what_it_keeps_is_made_for_it() -> Result<()> {
    with("what_it_keeps_is_made_for_it", &[], |objects| {
        for (kind, name) in [
            ("Secret", "wsha-ca"),
            ("Lease", "wsha-controller"),
            ("ConfigMap", "wsha-ledger"),
        ] {
            let object = objects.get(kind, name)?;
            ensure!(
                object["data"].is_null(),
                "an upgrade would undo what it wrote: {object}"
            );
        }
        // The kubelet waits for it, so a new gateway begins with it.
        ensure!(objects.find("ConfigMap", "wsha-ca").is_none());
        Ok(())
    })
}

#[test]
fn only_nodes_reach_it_where_that_is_asked_for() -> Result<()> {
    const TEST: &str = "only_nodes_reach_it_where_that_is_asked_for";
    with(TEST, &[], |objects| {
        ensure!(objects.find("NetworkPolicy", "wsha-controller").is_none());
        Ok(())
    })?;
    with(TEST, &ALL, |objects| {
        let policy = &objects.get("NetworkPolicy", "wsha-controller")?["spec"];
        let nodes =
            json!([{"ipBlock": {"cidr": "10.0.0.0/24"}}, {"ipBlock": {"cidr": "fd00::/64"}}]);
        ensure!(
            policy["ingress"].as_array().is_some_and(|it| it.len() == 1),
            "{policy}"
        );
        ensure!(policy["ingress"][0]["from"] == nodes, "{policy}");
        ensure!(policy["egress"][0]["to"] == json!([{"ipBlock": {"cidr": "10.0.0.10/32"}}]));
        ensure!(strings(&policy["policyTypes"]) == ["Ingress", "Egress"]);
        Ok(())
    })
}

#[test]
fn hooks_run_its_program_as_it_does() -> Result<()> {
    const TEST: &str = "hooks_run_its_program_as_it_does";
    with(TEST, &["retire.timeout=90s"], |objects| {
        let deployment = objects.pod("Deployment", "wsha-controller")?;
        let image = &container(deployment, "controller")?["image"];
        let retire = objects.get("Job", "wsha-retire")?;
        ensure!(retire["metadata"]["annotations"]["helm.sh/hook"] == "pre-delete");
        let check = objects.get("Pod", "wsha-check")?;
        ensure!(check["metadata"]["annotations"]["helm.sh/hook"] == "test");
        for (pod, name, words) in [
            (
                &retire["spec"]["template"]["spec"],
                "retire",
                "retire --namespace=net --timeout=90s",
            ),
            (
                &check["spec"],
                "check",
                "check --namespace=net --timeout=60s",
            ),
        ] {
            let container = container(pod, name)?;
            ensure!(
                strings(&container["args"]).join(" ") == words,
                "{container}"
            );
            ensure!(container["image"] == *image);
            ensure!(pod["serviceAccountName"] == "wsha-controller");
            ensure!(pod["restartPolicy"] == "Never");
            unprivileged(pod, container)?;
        }
        Ok(())
    })?;
    with(TEST, &["retire.enabled=false"], |objects| {
        ensure!(objects.find("Job", "wsha-retire").is_none());
        Ok(())
    })
}

#[test]
fn the_policy_is_a_file() -> Result<()> {
    let sets = [
        "policy.virtualIPRanges={192.168.1.0/24,192.168.2.5-192.168.2.9}",
        "policy.namespaces.team.portRanges={8000-8999}",
    ];
    with("the_policy_is_a_file", &sets, |objects| {
        let file = &objects.get("ConfigMap", "wsha-policy")?["data"]["policy.yaml"];
        let policy: Value = serde_saphyr::from_str(file.as_str().context("a file")?)?;
        let ranges = ["192.168.1.0/24", "192.168.2.5-192.168.2.9"];
        ensure!(strings(&policy["virtualIPRanges"]) == ranges, "{policy}");
        ensure!(
            policy["namespaces"]["team"] == json!({"portRanges": ["8000-8999"]}),
            "{policy}"
        );
        let pod = objects.pod("Deployment", "wsha-controller")?;
        let container = container(pod, "controller")?;
        ensure!(strings(&container["args"]).contains(&"--policy=/etc/wsha/policy/policy.yaml"));
        ensure!(container["volumeMounts"][0]["mountPath"] == "/etc/wsha/policy");
        Ok(())
    })
}

#[test]
fn its_certificate_may_be_another_s() -> Result<()> {
    const TEST: &str = "its_certificate_may_be_another_s";
    let rights_on_secrets = |objects: &Objects| -> Result<Vec<String>> {
        let all = rights(objects.get("Role", "wsha-controller")?);
        let secrets = all.iter().filter(|right| right.resource == "secrets");
        let shown = secrets.map(|right| format!("{} {}", right.verb, right.names));
        Ok(shown.collect())
    };
    let arguments = |objects: &Objects| -> Result<String> {
        let pod = objects.pod("Deployment", "wsha-controller")?;
        Ok(strings(&container(pod, "controller")?["args"]).join(" "))
    };
    with(TEST, &[], |objects| {
        ensure!(!arguments(objects)?.contains("--tls-secret"));
        ensure!(rights_on_secrets(objects)? == ["get wsha-ca", "update wsha-ca"]);
        ensure!(objects.find("Certificate", "wsha-controller").is_none());
        Ok(())
    })?;
    with(TEST, &["tls.secretName=theirs"], |objects| {
        ensure!(arguments(objects)?.contains("--tls-secret=theirs"));
        ensure!(rights_on_secrets(objects)? == ["get theirs"]);
        ensure!(objects.find("Secret", "wsha-ca").is_none());
        ensure!(objects.find("Certificate", "wsha-controller").is_none());
        Ok(())
    })?;
    let issuer = ["tls.certManager.issuerRef.name=site"];
    with(TEST, &issuer, |objects| {
        ensure!(rights_on_secrets(objects)? == ["get wsha-controller-tls"]);
        let certificate = &objects.get("Certificate", "wsha-controller")?["spec"];
        ensure!(certificate["secretName"] == "wsha-controller-tls");
        ensure!(certificate["issuerRef"] == json!({"name": "site"}));
        // The name by which gateways dial.
        ensure!(strings(&certificate["dnsNames"]) == ["wsha-controller.net.svc"]);
        Ok(())
    })
}
