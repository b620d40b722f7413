//! Every value is described, has a form, and is told of in the README as it is.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};
use e2e::chart;
use serde_json::Value;

/// Paths of everything that is no object, or an empty one.
fn leaves(value: &Value, path: &str, into: &mut BTreeSet<String>) {
    match value.as_object().filter(|fields| !fields.is_empty()) {
        Some(fields) => {
            for (name, value) in fields {
                let path = if path.is_empty() {
                    name.clone()
                } else {
                    format!("{path}.{name}")
                };
                leaves(value, &path, into);
            }
        }
        None => drop(into.insert(path.to_owned())),
    }
}

#[test]
fn every_value_is_described_and_has_a_form() -> Result<()> {
    let text = chart::read("values.yaml")?;
    let values: Value = serde_saphyr::from_str(&text)?;
    let schema: Value = serde_json::from_str(&chart::read("values.schema.json")?)?;
    let entries = chart::entries(&text)?;
    let mut all = BTreeSet::new();
    leaves(&values, "", &mut all);
    for leaf in &all {
        let described = entries.iter().any(|entry| {
            leaf.strip_prefix(&entry.path)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        });
        ensure!(described, "{leaf} is not described");
    }
    for entry in &entries {
        let mut form = &schema;
        for name in entry.path.split('.') {
            form = &form["properties"][name];
        }
        ensure!(
            form.is_object(),
            "{} has no form in values.schema.json",
            entry.path
        );
        ensure!(
            entry.meaning.ends_with(['.', '`']),
            "{}: {}",
            entry.path,
            entry.meaning
        );
    }
    let mut forms = BTreeSet::new();
    described(&schema, "", &mut forms);
    let known: BTreeSet<_> = entries.iter().map(|entry| entry.path.clone()).collect();
    forms.remove("global");
    ensure!(forms == known, "{:?}", forms.symmetric_difference(&known));
    Ok(())
}

/// Paths of the schema's properties that have no further ones.
fn described(schema: &Value, path: &str, into: &mut BTreeSet<String>) {
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        let path = if path.is_empty() {
            name.clone()
        } else {
            format!("{path}.{name}")
        };
        if property["properties"].is_object() {
            described(property, &path, into);
        } else {
            into.insert(path);
        }
    }
}

#[test]
fn the_readme_tells_of_the_values_as_they_are() -> Result<()> {
    ensure!(
        chart::read("README.md")? == chart::readme()?,
        "values.yaml changed: run `make chart` and commit the README"
    );
    Ok(())
}

#[test]
fn it_installs_the_version_that_it_lies_beside() -> Result<()> {
    let about: Value = serde_saphyr::from_str(&chart::read("Chart.yaml")?)?;
    for field in ["version", "appVersion"] {
        let version = about[field].as_str().context("a version")?;
        ensure!(version == env!("CARGO_PKG_VERSION"), "{field} is {version}");
    }
    Ok(())
}
