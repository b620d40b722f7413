//! The chart as Helm renders it: what it installs, what it refuses, and that nothing said of it elsewhere is untrue.

mod alerts;
mod api;
mod controller;
mod dataplane;
mod promtool;
mod refusals;
mod tls;
mod values;

use std::process::Output;

use anyhow::{Context, Result, ensure};
use e2e::chart::{self, Objects};
use e2e::cluster::{Program, Programs, tools};
use e2e::testing::skipped;
use serde_json::Value;

/// With everything switched on that is off by default.
const ALL: [&str; 7] = [
    "networkPolicy.enabled=true",
    "networkPolicy.nodeCIDRs={10.0.0.0/24,fd00::/64}",
    "networkPolicy.apiServerCIDRs={10.0.0.10/32}",
    "tls.namespaces={shop,chat}",
    "serviceMonitor.enabled=true",
    "prometheusRule.enabled=true",
    "prometheusRule.labels.release=prometheus",
];

/// Helm; where it cannot be had, the test is skipped.
fn programs(test: &str) -> Result<Option<Programs>> {
    let wanted = [Program::Helm];
    if let Some(why) = tools::cannot_get(&wanted) {
        skipped(test, &why);
        return Ok(None);
    }
    Programs::get(&wanted).map(Some)
}

/// What `helm WORDS CHART` says with these values.
fn helm(test: &str, words: &[&str], sets: &[&str]) -> Result<Option<Output>> {
    let programs = programs(test)?;
    let output = programs.map(|programs| chart::helm(&programs, words, sets));
    output.transpose()
}

/// The objects in namespace `net` for these values.
fn render(test: &str, sets: &[&str]) -> Result<Option<Objects>> {
    let programs = programs(test)?;
    let objects = programs.map(|programs| chart::render(&programs, "net", sets));
    objects.transpose()
}

/// The container of that name.
fn container<'a>(pod: &'a Value, name: &str) -> Result<&'a Value> {
    let mut containers = pod["containers"].as_array().into_iter().flatten();
    containers
        .find(|container| container["name"] == name)
        .with_context(|| format!("there is no container {name} in {pod}"))
}

fn strings(list: &Value) -> Vec<&str> {
    let list = list.as_array().into_iter().flatten();
    list.filter_map(Value::as_str).collect()
}

#[test]
fn helm_finds_nothing_to_remark() -> Result<()> {
    for sets in [
        &[][..],
        &ALL,
        &["crds.install=false", "retire.enabled=false"],
    ] {
        let words = ["lint", "--strict", "--quiet"];
        let Some(output) = helm("helm_finds_nothing_to_remark", &words, sets)? else {
            return Ok(());
        };
        let said = String::from_utf8_lossy(&output.stdout);
        ensure!(output.status.success(), "{sets:?}: {said}");
    }
    Ok(())
}

#[test]
fn every_object_is_told_apart() -> Result<()> {
    let Some(objects) = render("every_object_is_told_apart", &ALL)? else {
        return Ok(());
    };
    let mut names = Vec::new();
    for object in &objects.0 {
        let name = object["metadata"]["name"].as_str().context("a name")?;
        let labels = &object["metadata"]["labels"];
        ensure!(
            labels["app.kubernetes.io/name"] == "wsha",
            "{name}: {labels}"
        );
        let kind = object["kind"].as_str().context("a kind")?;
        let of_cluster = kind.starts_with("Cluster") || kind == "CustomResourceDefinition";
        let namespace = object["metadata"]["namespace"].as_str();
        let expected: &[_] = match name {
            _ if of_cluster => &[None],
            "wsha-controller-secrets" => &[Some("shop"), Some("chat")],
            _ => &[Some("net")],
        };
        ensure!(
            expected.contains(&namespace),
            "{kind} {name} is in namespace {namespace:?}"
        );
        names.push((kind, name, namespace));
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    ensure!(
        names.len() == count,
        "two objects have the same name: {names:?}"
    );
    Ok(())
}

#[test]
fn the_definition_comes_stays_or_is_left_out() -> Result<()> {
    const TEST: &str = "the_definition_comes_stays_or_is_left_out";
    let find = |sets: &[&str]| {
        let objects = render(TEST, sets)?;
        Ok::<_, anyhow::Error>(objects.map(|objects| {
            let found = objects.find("CustomResourceDefinition", "websockethapools.wsha.dev");
            found.cloned()
        }))
    };
    let Some(Some(kept)) = find(&[])? else {
        return Ok(());
    };
    let policy = "/metadata/annotations/helm.sh~1resource-policy";
    ensure!(
        kept.pointer(policy) == Some(&"keep".into()),
        "{}",
        kept["metadata"]
    );
    let generated: Value = serde_saphyr::from_str(&crds::definition_yaml()?)?;
    ensure!(
        kept["spec"] == generated["spec"],
        "Helm renders another definition"
    );
    let lost = find(&["crds.keep=false"])?
        .flatten()
        .context("it is there")?;
    ensure!(
        lost["metadata"]["annotations"].is_null(),
        "{}",
        lost["metadata"]
    );
    ensure!(find(&["crds.install=false"])? == Some(None));
    Ok(())
}
