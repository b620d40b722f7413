//! The committed definitions are the generated ones.
#![expect(clippy::unwrap_used, reason = "helpers of tests")]

use std::{fs, path::Path};

use crds::{WebSocketHAPoolSpec, WebSocketHAPoolStatus};
use serde_json::{Value, json};

#[test]
fn committed_definitions_are_up_to_date() {
    for (file, generated) in [
        (crds::DEFINITION_FILE, crds::definition_yaml()),
        (crds::TEMPLATE_FILE, crds::definition_template()),
    ] {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert_eq!(
            fs::read_to_string(path).unwrap(),
            generated.unwrap(),
            "the types changed: run `cargo run -p crds --bin crdgen` and commit the result"
        );
    }
}

/// The schema of `spec` or `status`.
fn schema(part: &str) -> Value {
    let definition = serde_json::to_value(crds::definition()).unwrap();
    definition["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"][part].clone()
}

fn visit(schema: &Value, path: &str, check: &mut impl FnMut(&str, &Value)) {
    check(path, schema);
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        visit(property, &format!("{path}.{name}"), check);
    }
    if schema["items"].is_object() {
        visit(&schema["items"], &format!("{path}[]"), check);
    }
}

#[test]
fn every_field_is_described_and_bounded() {
    for part in ["spec", "status"] {
        visit(&schema(part), part, &mut |path, schema| {
            assert!(
                schema["description"].is_string(),
                "{path} has no description"
            );
            assert_eq!(schema["nullable"], Value::Null, "{path}");
            // One that Kubernetes checks, and one that says what is not to be shown.
            let time = schema["format"] == "date-time";
            let known = time || schema["format"] == "password";
            assert!(known || schema["format"].is_null(), "{path}: {schema}");
            match schema["type"].as_str() {
                Some("array") => {
                    assert!(schema["maxItems"].is_u64(), "{path} has no end");
                    let list_type = schema["x-kubernetes-list-type"].as_str();
                    // Rules compare old and new entries of spec, which takes a map or a set; not routes,
                    // which have no key.
                    let fits = match part {
                        "status" => list_type.is_some(),
                        _ if path == "spec.listeners[].routes" => list_type == Some("atomic"),
                        _ => matches!(list_type, Some("map" | "set")),
                    };
                    assert!(fits, "{path}: {list_type:?}");
                }
                Some("string") => assert!(
                    schema["maxLength"].is_u64() || schema["enum"].is_array() || time,
                    "{path} has no end"
                ),
                Some("integer") => assert!(
                    schema["maximum"].is_number() || schema["enum"].is_array(),
                    "{path} has no end"
                ),
                _ => {}
            }
        });
    }
}

/// What the API server does to an object that is created.
fn fill(schema: &Value, value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, property) in schema["properties"].as_object().into_iter().flatten() {
                if !fields.contains_key(name) && !property["default"].is_null() {
                    fields.insert(name.clone(), property["default"].clone());
                }
                if let Some(field) = fields.get_mut(name) {
                    fill(property, field);
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| fill(&schema["items"], item)),
        _ => {}
    }
}

/// An object from a file gets the same defaults from the types as one that was applied gets from
/// the schema: whole sections left out, and sections with one field.
#[test]
fn defaults_of_types_and_schema_are_the_same() {
    let least = json!({
        "virtualIPs": [{"address": "192.168.1.110"}],
        "gateways": {"nodeSelector": {}},
        "listeners": [{"name": "ws", "port": 8020}],
        "upstreams": [{"name": "echo", "endpoints": [{"address": "192.168.1.16", "port": 8010}]}],
    });
    let mut sections = least.clone();
    sections["vrrp"] = json!({"preemption": {}});
    sections["heartbeat"] = json!({"interval": "5s"});
    sections["drain"] = json!({"closeCode": 1012});
    sections["upstreams"][0]["loadBalancing"] = json!({});
    sections["upstreams"][0]["rebalance"] = json!({});
    for written in [least, sections] {
        let typed: WebSocketHAPoolSpec = serde_json::from_value(written.clone()).unwrap();
        let mut filled = written;
        fill(&schema("spec"), &mut filled);
        assert_eq!(serde_json::to_value(typed).unwrap(), filled);
    }
}

#[test]
fn the_names_are_those_that_users_type() {
    let definition = crds::definition();
    assert_eq!(
        definition.metadata.name.as_deref(),
        Some("websockethapools.wsha.dev")
    );
    assert_eq!(
        definition.spec.names.short_names,
        Some(vec!["wshap".to_owned()])
    );
    assert_eq!(definition.spec.names.kind, "WebSocketHAPool");
    assert_eq!(definition.spec.scope, "Namespaced");
}

#[test]
fn status_is_written_apart_from_spec() {
    let definition = serde_json::to_value(crds::definition()).unwrap();
    let version = &definition["spec"]["versions"][0];
    assert_eq!(version["subresources"], json!({"status": {}}));
    assert_eq!(
        serde_json::to_value(WebSocketHAPoolStatus::default()).unwrap(),
        json!({}),
        "server-side apply owns what is written: nothing unasked"
    );
}
