//! Fields without a value.

use serde_json::Value;

/// Takes out the fields without a value that `schema` names: as the API has it they are left out.
///
/// What stays is refused later: an entry of a map (a label without a value would otherwise be a
/// label less, and a selector choose more nodes), a map as a whole, an entry of a list, a field that
/// nobody knows.
pub(super) fn leave_out(value: &mut Value, schema: &Value) {
    match value {
        Value::Array(items) => {
            for item in items {
                leave_out(item, &schema["items"]);
            }
        }
        Value::Object(fields) => {
            let properties = schema["properties"].as_object();
            let is_required = |name: &str| {
                let mut required = schema["required"].as_array().into_iter().flatten();
                required.any(|required| required == name)
            };
            if let Some(properties) = properties {
                fields.retain(|name, value| {
                    let Some(schema) = properties.get(name).filter(|_| value.is_null()) else {
                        return true;
                    };
                    // `kubectl get` writes an empty list so.
                    if schema["type"] == "array" && is_required(name) {
                        *value = Value::Array(Vec::new());
                        return true;
                    }
                    is_map(schema)
                });
            }
            for (name, value) in fields {
                let property = properties.and_then(|properties| properties.get(name));
                leave_out(
                    value,
                    property.unwrap_or_else(|| &schema["additionalProperties"]),
                );
            }
        }
        _ => {}
    }
}

/// Whether names are the user's own.
pub(super) fn is_map(schema: &Value) -> bool {
    schema["additionalProperties"].is_object()
}
