//! What the chart lets the controller do: all of it is used, and nothing else is asked for.

use std::collections::BTreeSet;
use std::fs;

use anyhow::{Result, ensure};
use e2e::testing::Gateway;
use serde_json::Value;

use crate::serving;
use crate::stage::{AsWhom, Stage, on_stage_with};

const ACCOUNT: &str = "system:serviceaccount:wsha:wsha-controller";

/// A right: verb, resource with its group, namespace, name; the last two empty where it is for all.
type Right = (String, String, String, String);

/// What the chart's roles grant.
fn granted(stage: &Stage<'_>) -> Result<BTreeSet<Right>> {
    let mut rights = BTreeSet::new();
    for (words, namespace) in [
        (
            &["get", "clusterrole", "wsha-controller", "-o", "json"][..],
            "",
        ),
        (
            &["get", "role", "wsha-controller", "-n", "wsha", "-o", "json"][..],
            "wsha",
        ),
        (
            &[
                "get",
                "role",
                "wsha-controller-secrets",
                "-n",
                "default",
                "-o",
                "json",
            ][..],
            "default",
        ),
    ] {
        let role: Value = serde_json::from_str(&stage.kubectl(words)?)?;
        for right in e2e::chart::rights(&role) {
            let resource = format!("{}.{}", right.resource, right.group);
            // No names: one empty one.
            for name in right.names.split(',') {
                let (verb, namespace) = (right.verb.clone(), namespace.to_owned());
                rights.insert((verb, resource.clone(), namespace, name.to_owned()));
            }
        }
    }
    Ok(rights)
}

/// A request as the API server recorded it, as far as rights go.
struct Request {
    verb: String,
    resource: String,
    namespace: String,
    name: String,
    is_allowed: bool,
    /// An apply that made its object, for which the right to create is needed too.
    has_created: bool,
}

fn recorded(stage: &Stage<'_>) -> Result<Vec<Request>> {
    let log = stage.control_plane.site().dir().join("audit.log");
    let mut requests = Vec::new();
    for line in fs::read_to_string(&log)?.lines() {
        // The last one may not be written to its end.
        let Ok(event) = serde_json::from_str::<Value>(line) else {
            continue;
        };
        let reference = &event["objectRef"];
        if event["user"]["username"] != ACCOUNT || reference.is_null() {
            continue;
        }
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let mut resource = text(&reference["resource"]);
        if let Some(sub) = reference["subresource"].as_str() {
            resource = format!("{resource}/{sub}");
        }
        let annotations = &event["annotations"];
        let verb = text(&event["verb"]);
        requests.push(Request {
            has_created: verb == "patch" && event["responseStatus"]["code"] == 201,
            verb,
            resource: format!("{resource}.{}", text(&reference["apiGroup"])),
            namespace: text(&reference["namespace"]),
            name: text(&reference["name"]),
            is_allowed: annotations["authorization.k8s.io/decision"] == "allow",
        });
    }
    Ok(requests)
}

impl Request {
    fn uses(&self, right: &Right) -> bool {
        let (verb, resource, namespace, name) = right;
        let is_verb = self.verb == *verb || (self.has_created && verb == "create");
        // A list or watch of one object by a field selector is recorded with the object's name.
        is_verb
            && self.resource == *resource
            && (namespace.is_empty() || self.namespace == *namespace)
            && (name.is_empty() || self.name == *name)
    }
}

#[test]
fn the_chart_grants_what_the_controller_does_and_nothing_else() -> Result<()> {
    let name = "the_chart_grants_what_the_controller_does_and_nothing_else";
    let words = ["--tls-namespaces=default"];
    on_stage_with(name, 2, &words, AsWhom::Account, |stage| {
        // Everything that it does in its life: commits, status, events, tokens, leadership, ends.
        serving(stage)?;
        let leader = stage.leader()?;
        stage.kill_controller(&leader)?;
        stage.wait("another leads", |stage| {
            Ok((stage.leader()? != leader).then_some(()))
        })?;
        stage.cluster.stop(Gateway::One)?;
        stage.start_gateway(Gateway::One)?;
        stage.wait_condition("chat", "Programmed", "True")?;
        stage.kubectl(&["delete", "wshap", "chat"])?;
        stage.wait("nothing is left to be given up", |stage| {
            let ledger = stage.ledger()?;
            Ok(ledger.contains("\"retirements\":[]").then_some(()))
        })?;
        stage.retire(&["--timeout=30s", "--strict"])?.success()?;

        let granted = granted(stage)?;
        ensure!(granted.len() > 10, "{granted:?}");
        let requests = recorded(stage)?;
        let refused = requests.iter().filter(|request| !request.is_allowed);
        let refused: BTreeSet<_> = refused
            .map(|it| format!("{} {} {}/{}", it.verb, it.resource, it.namespace, it.name))
            .collect();
        ensure!(refused.is_empty(), "asked for and not granted: {refused:?}");
        let idle = granted
            .iter()
            .filter(|right| !requests.iter().any(|request| request.uses(right)));
        let idle: Vec<_> = idle.collect();
        ensure!(idle.is_empty(), "granted and not used: {idle:?}");
        // What lies beyond is refused.
        for words in [
            ["get", "secrets", "-n", "default"],
            ["list", "secrets", "-n", "kube-system"],
            ["list", "secrets", "-n", "wsha"],
            ["get", "secrets", "-n", "wsha"],
            ["delete", "pods", "-n", "wsha"],
            ["get", "configmaps", "-n", "default"],
            ["create", "websockethapools.wsha.dev", "-n", "default"],
        ] {
            let mut all = vec!["auth", "can-i", "--as", ACCOUNT];
            all.extend(words);
            let answer = stage.control_plane.kubectl(&all)?;
            ensure!(answer.stdout.trim() == "no", "{words:?}: {}", answer.stdout);
        }
        Ok(())
    })
}
