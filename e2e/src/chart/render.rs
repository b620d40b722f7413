//! What Helm makes of the chart.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::folder;
use crate::cluster::{Program, Programs};

/// Runs `helm WORDS CHART` with values.
pub fn helm(programs: &Programs, words: &[&str], sets: &[&str]) -> Result<Output> {
    let mut command = programs.command(Program::Helm)?;
    command.args(words).arg(folder());
    for set in sets {
        // A plain --set cannot tell null from a word.
        let is_json = set.ends_with("=null");
        command.args([if is_json { "--set-json" } else { "--set" }, set]);
    }
    command.output().context("cannot run helm")
}

/// The objects of a release.
#[derive(Clone, Debug)]
pub struct Objects(pub Vec<Value>);

/// The objects of release `wsha` in a namespace.
pub fn render(programs: &Programs, namespace: &str, sets: &[&str]) -> Result<Objects> {
    let output = helm(
        programs,
        &["template", "wsha", "--namespace", namespace],
        sets,
    )?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let text = String::from_utf8(output.stdout)?;
    let mut objects = Vec::new();
    for document in format!("\n{text}").split("\n---\n") {
        let object: Value = serde_saphyr::from_str(document)
            .with_context(|| format!("helm renders what is no YAML:\n{document}"))?;
        if !object.is_null() {
            objects.push(object);
        }
    }
    Ok(Objects(objects))
}

impl Objects {
    /// The object of that kind and name, if there is one.
    pub fn find(&self, kind: &str, name: &str) -> Option<&Value> {
        let mut all = self.0.iter();
        all.find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
    }

    /// The object of that kind and name.
    pub fn get(&self, kind: &str, name: &str) -> Result<&Value> {
        self.find(kind, name)
            .with_context(|| format!("there is no {kind} {name}"))
    }

    /// What a Deployment, `DaemonSet` or Job makes pods of.
    pub fn pod(&self, kind: &str, name: &str) -> Result<&Value> {
        Ok(&self.get(kind, name)?["spec"]["template"]["spec"])
    }

    /// All that `kubectl apply` takes at once, as one list, of the objects that `wanted` says yes to.
    pub fn list(&self, wanted: impl Fn(&Value) -> bool) -> Value {
        let items: Vec<_> = self.0.iter().filter(|object| wanted(object)).collect();
        serde_json::json!({"apiVersion": "v1", "kind": "List", "items": items})
    }
}

/// A right: group, resource, names (empty: all) and verb.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Right {
    /// API group; empty for the oldest.
    pub group: String,
    /// Resource, with its subresource.
    pub resource: String,
    /// Names it is bound to, by commas.
    pub names: String,
    /// Verb.
    pub verb: String,
}

/// The rights that a role gives.
pub fn rights(role: &Value) -> Vec<Right> {
    let words = |list: &Value| {
        let list = list.as_array().into_iter().flatten();
        let list = list.filter_map(|word| word.as_str().map(str::to_owned));
        list.collect::<Vec<_>>()
    };
    let mut rights = Vec::new();
    for rule in role["rules"].as_array().into_iter().flatten() {
        for group in words(&rule["apiGroups"]) {
            for resource in words(&rule["resources"]) {
                rights.extend(words(&rule["verbs"]).into_iter().map(|verb| Right {
                    group: group.clone(),
                    resource: resource.clone(),
                    names: words(&rule["resourceNames"]).join(","),
                    verb,
                }));
            }
        }
    }
    rights
}
