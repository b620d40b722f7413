//! Alerts look at metrics that exist, with labels that they have.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};

use crate::{ALL, render};

/// Names that begin with `wsha_` in a text.
fn names(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
    let names = words.filter(|word| word.starts_with("wsha_"));
    names.map(str::to_owned).collect()
}

fn file(path: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))
}

#[test]
fn alerts_look_at_metrics_that_exist() -> Result<()> {
    let Some(objects) = render("alerts_look_at_metrics_that_exist", &ALL)? else {
        return Ok(());
    };
    // The table of the data plane's is checked against its code.
    let mut known = names(&file("ARCHITECTURE.md")?);
    ensure!(file("controller/src/admin.rs")?.contains("\"leader\""));
    known.insert("wsha_controller_leader".to_owned());
    let rule = objects.get("PrometheusRule", "wsha")?;
    let rules = rule["spec"]["groups"][0]["rules"]
        .as_array()
        .context("rules")?;
    let mut alerts = BTreeSet::new();
    for rule in rules {
        let name = rule["alert"].as_str().context("a name")?;
        let expr = rule["expr"].as_str().context("an expression")?;
        let unknown: Vec<_> = names(expr).difference(&known).cloned().collect();
        ensure!(unknown.is_empty(), "{name} looks at {unknown:?}");
        ensure!(
            ["critical", "warning"]
                .contains(&rule["labels"]["severity"].as_str().unwrap_or_default())
        );
        for field in ["summary", "description"] {
            let text = rule["annotations"][field].as_str().unwrap_or_default();
            ensure!(
                !text.is_empty() && !text.contains("{{ \""),
                "{name}: {text:?}"
            );
        }
        alerts.insert(name);
    }
    for name in [
        "WshaAddressNotHeld",
        "WshaAddressHeldTwice",
        "WshaAddressInUse",
        "WshaFlapping",
        "WshaAdvertisementsLate",
        "WshaConfigurationStale",
        "WshaNoEndpoints",
        "WshaCheckFailing",
    ] {
        ensure!(alerts.contains(name), "there is no alert {name}");
    }
    ensure!(rule["metadata"]["labels"]["release"] == "prometheus");
    Ok(())
}

#[test]
fn monitors_find_the_services() -> Result<()> {
    let Some(objects) = render("monitors_find_the_services", &ALL)? else {
        return Ok(());
    };
    for component in ["controller", "dataplane"] {
        let monitor = objects.get("ServiceMonitor", &format!("wsha-{component}"))?;
        let service = objects.get("Service", &format!("wsha-{component}-metrics"))?;
        let port = &monitor["spec"]["endpoints"][0]["port"];
        ensure!(service["spec"]["ports"][0]["name"] == *port, "{port}");
        let labels = monitor["spec"]["selector"]["matchLabels"]
            .as_object()
            .context("labels")?;
        for (name, value) in labels {
            ensure!(service["metadata"]["labels"][name] == *value, "{name}");
        }
        // The stream's Service has the same labels, and no port of that name.
    }
    Ok(())
}
