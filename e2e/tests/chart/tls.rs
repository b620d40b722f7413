//! Rights on Secrets of users: none where there is no TLS, and otherwise those of the namespaces that are named.

use anyhow::{Result, ensure};
use e2e::chart::{Objects, rights};
use serde_json::json;

use crate::{ALL, container, helm, render, strings};

/// Rights on Secrets, each with the namespace it is for and the names it is bound to.
fn on_secrets(objects: &Objects) -> Vec<String> {
    let mut shown = Vec::new();
    for object in &objects.0 {
        if object["kind"] != "Role" && object["kind"] != "ClusterRole" {
            continue;
        }
        let namespace = object["metadata"]["namespace"].as_str().unwrap_or("*");
        for right in rights(object) {
            if right.resource == "secrets" || right.resource == "*" {
                shown.push(format!("{namespace} {} {}", right.verb, right.names));
            }
        }
    }
    shown.sort();
    shown
}

#[test]
fn without_tls_no_secret_of_users_is_within_reach() -> Result<()> {
    const TEST: &str = "without_tls_no_secret_of_users_is_within_reach";
    let Some(objects) = render(TEST, &[])? else {
        return Ok(());
    };
    let rights = on_secrets(&objects);
    ensure!(
        rights == ["net get wsha-ca", "net update wsha-ca"],
        "{rights:?}"
    );
    ensure!(objects.find("Secret", "wsha-ticket-keys").is_none());
    let pod = objects.pod("Deployment", "wsha-controller")?;
    let arguments = strings(&container(pod, "controller")?["args"]).join(" ");
    ensure!(!arguments.contains("--tls-namespaces"), "{arguments}");
    Ok(())
}

#[test]
fn secrets_of_the_named_namespaces_are_read_and_nothing_more() -> Result<()> {
    const TEST: &str = "secrets_of_the_named_namespaces_are_read_and_nothing_more";
    let Some(objects) = render(TEST, &ALL)? else {
        return Ok(());
    };
    let expected = [
        "chat list ",
        "chat watch ",
        "net get wsha-ca",
        "net list wsha-ticket-keys",
        "net patch wsha-ticket-keys",
        "net update wsha-ca",
        "net watch wsha-ticket-keys",
        "shop list ",
        "shop watch ",
    ];
    let rights = on_secrets(&objects);
    ensure!(rights == expected, "{rights:?}");
    let bindings = objects.0.iter().filter(|object| {
        object["kind"] == "RoleBinding" && object["metadata"]["name"] == "wsha-controller-secrets"
    });
    for binding in bindings {
        let role = json!({
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "Role",
            "name": "wsha-controller-secrets",
        });
        let account = json!([
            {"kind": "ServiceAccount", "name": "wsha-controller", "namespace": "net"}
        ]);
        ensure!(
            binding["roleRef"] == role && binding["subjects"] == account,
            "{binding}"
        );
    }
    let keys = objects.get("Secret", "wsha-ticket-keys")?;
    ensure!(
        keys["data"].is_null() && keys["stringData"].is_null(),
        "an upgrade would undo what the controller wrote: {keys}"
    );
    let pod = objects.pod("Deployment", "wsha-controller")?;
    let arguments = strings(&container(pod, "controller")?["args"]).join(" ");
    ensure!(
        arguments.contains("--tls-namespaces=shop,chat"),
        "{arguments}"
    );
    // Whoever keeps the API server to its egress keeps it to the same.
    let policy = |objects: &Objects| objects.get("NetworkPolicy", "wsha-controller").cloned();
    let without: Vec<_> = ALL
        .into_iter()
        .filter(|set| !set.starts_with("tls."))
        .collect();
    let Some(others) = render(TEST, &without)? else {
        return Ok(());
    };
    ensure!(policy(&objects)? == policy(&others)?);
    Ok(())
}

#[test]
fn notes_say_whether_pools_may_have_tls() -> Result<()> {
    const TEST: &str = "notes_say_whether_pools_may_have_tls";
    let words = ["install", "wsha", "--dry-run=client", "--namespace=net"];
    for (sets, sentence) in [
        (&[][..], "tls.namespaces is empty: no pool has TLS"),
        (
            &["tls.namespaces={shop,chat}"],
            "list all Secrets of shop, chat: pools there",
        ),
    ] {
        let Some(output) = helm(TEST, &words, sets)? else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(said.contains(sentence), "{said}");
    }
    Ok(())
}

#[test]
fn keys_are_on_the_disk_of_nodes_only_where_that_is_asked_for() -> Result<()> {
    const TEST: &str = "keys_are_on_the_disk_of_nodes_only_where_that_is_asked_for";
    for (sets, expected) in [
        (&ALL[..], false),
        (&["dataplane.keysOnDisk=false"], false),
        (&["dataplane.keysOnDisk=true"], true),
    ] {
        let Some(objects) = render(TEST, sets)? else {
            return Ok(());
        };
        let pod = objects.pod("DaemonSet", "wsha-dataplane")?;
        let arguments = strings(&container(pod, "agent")?["args"]);
        let is_asked = arguments.contains(&"--keys-on-disk");
        ensure!(is_asked == expected, "{sets:?}: {arguments:?}");
    }
    Ok(())
}
