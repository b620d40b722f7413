//! The definition on a real API server, with the real command line: what is accepted, what is refused and
//! with which sentence, and what users see.

mod changes;
mod refusals;
mod status;

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use e2e::testing::{Api, on_api_server};
use serde_json::{Value, json};

/// A pool with what must be written and no more.
fn pool() -> Value {
    json!({
        "apiVersion": "wsha.dev/v1alpha1",
        "kind": "WebSocketHAPool",
        "metadata": {"name": "chat"},
        "spec": {
            "virtualIPs": [{"address": "192.168.1.110"}, {"address": "192.168.1.112"}],
            "gateways": {"nodeSelector": {"matchLabels": {"wsha.dev/gateway": "true"}}},
            "listeners": [{"name": "ws", "port": 8020}],
            "upstreams": [{"name": "echo", "service": {"name": "ws-echo", "port": 8010}}],
        },
    })
}

/// `pool` with other values at some paths below `spec` (RFC 6901); null removes.
fn edited(pool: &Value, edits: &Value) -> Result<Value> {
    let mut pool = pool.clone();
    for (path, value) in edits.as_object().context("edits are an object")? {
        let (parent, name) = path.rsplit_once('/').context("a path has a slash")?;
        let parent = pool.pointer_mut(&format!("/spec{parent}"));
        match (parent.with_context(|| format!("no {path}"))?, value) {
            (Value::Object(fields), Value::Null) => drop(fields.remove(name)),
            (Value::Object(fields), value) => drop(fields.insert(name.to_owned(), value.clone())),
            (Value::Array(items), value) => {
                let item = items.get_mut(name.parse::<usize>()?);
                *item.with_context(|| format!("no {path}"))? = value.clone();
            }
            _ => bail!("{path} leads nowhere"),
        }
    }
    Ok(pool)
}

/// Applies `pool`, which must be accepted without a warning.
fn accepted(api: &Api, pool: &Value) -> Result<()> {
    let answer = api.kubectl_file(&["apply"], &pool.to_string())?;
    ensure!(answer.stderr.is_empty(), "kubectl says {}", answer.stderr);
    answer.success().map(drop)
}

/// Applies each edit to `pool`; none is refused.
fn may_become(api: &Api, pool: &Value, edits: &[Value]) -> Result<()> {
    for edit in edits {
        let edited = edited(pool, edit)?.to_string();
        let answer = api.kubectl_file(&["apply", "--dry-run=server"], &edited)?;
        answer.success().with_context(|| edit.to_string())?;
    }
    Ok(())
}

#[test]
fn the_definition_is_established_without_warnings() -> Result<()> {
    on_api_server("the_definition_is_established_without_warnings", |api| {
        ensure!(
            api.defined().stderr.is_empty(),
            "warned: {}",
            api.defined().stderr
        );
        // And this API server would warn.
        let mut definition = serde_json::to_value(crds::definition())?;
        let status = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
        let address = format!("{status}/virtualIPs/items/properties/address");
        let address = definition.pointer_mut(&address);
        address.context("no such field")?["format"] = json!("ip");
        let definition = definition.to_string();
        let answer = api.kubectl_file(&["replace", "--dry-run=server"], &definition)?;
        ensure!(
            answer.stderr.contains("unrecognized format"),
            "did not warn: {answer:?}"
        );
        Ok(())
    })
}

#[test]
fn explain_describes_every_field() -> Result<()> {
    on_api_server("explain_describes_every_field", |api| {
        let text = api
            .kubectl(&["explain", "wshap.spec.virtualIPs.virtualRouterID"])?
            .success()?;
        ensure!(
            text.contains("Virtual router identifier (VRID), 1-255"),
            "{text}"
        );
        for part in [
            "spec",
            "spec.virtualIPs",
            "spec.vrrp.preemption",
            "spec.upstreams.endpoints",
            "status",
            "status.virtualIPs.committed",
        ] {
            let text = api
                .kubectl(&["explain", &format!("wshap.{part}")])?
                .success()?;
            ensure!(!text.contains("<no description>"), "{text}");
        }
        Ok(())
    })
}

#[test]
fn the_sample_manifests_are_accepted() -> Result<()> {
    on_api_server("the_sample_manifests_are_accepted", |api| {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("manifests");
        let mut files: Vec<_> = fs::read_dir(&dir)?
            .map(|entry| Ok(entry?.path()))
            .collect::<Result<_>>()?;
        files.sort();
        ensure!(!files.is_empty(), "no manifests in {}", dir.display());
        for file in files {
            // They say `namespace: default`; dry, as they are variants of one pool.
            let file = file.to_string_lossy();
            let answer =
                api.control_plane()
                    .kubectl(&["apply", "--dry-run=server", "-f", &file])?;
            ensure!(answer.stderr.is_empty(), "{file}: {}", answer.stderr);
            let told = answer.success()?;
            ensure!(
                told.contains("websockethapool.wsha.dev/chat created"),
                "{file}: {told}"
            );
        }
        Ok(())
    })
}

#[test]
fn misspelt_fields_are_refused() -> Result<()> {
    on_api_server("misspelt_fields_are_refused", |api| {
        let misspelt = edited(&pool(), &json!({"/virtualIPs/0/virtualRouterId": 51}))?;
        let answer = api.kubectl_file(&["apply"], &misspelt.to_string())?;
        let told = answer.refusal()?;
        let sentence =
            r#"strict decoding error: unknown field "spec.virtualIPs[0].virtualRouterId""#;
        ensure!(told.contains(sentence), "{told}");
        Ok(())
    })
}
