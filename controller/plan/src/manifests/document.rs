//! From text to values.

use serde_json::Value;

/// The documents of a file, without those that are empty; lists as `kubectl get` writes them are
/// taken apart. The error says where the text is no YAML.
pub(super) fn values(text: &str) -> Result<Vec<Value>, String> {
    let options = serde_saphyr::options! { with_snippet: false };
    let documents: Vec<Value> =
        serde_saphyr::from_multiple_with_options(text, options).map_err(|error| explain(&error))?;
    let mut values = Vec::new();
    for mut document in documents {
        drop_nulls(&mut document);
        match document {
            Value::Null => {}
            Value::Object(mut fields) if fields.get("kind").is_some_and(|kind| kind == "List") => {
                match fields.remove("items") {
                    Some(Value::Array(items)) => values.extend(items),
                    Some(other) => values.push(other),
                    None => {}
                }
            }
            other => values.push(other),
        }
    }
    Ok(values)
}

fn explain(error: &serde_saphyr::Error) -> String {
    // One line: the rest of a message is a picture of the text.
    let message = error.to_string();
    let message = message.lines().next().unwrap_or_default();
    // The place is said already.
    let message = message
        .split(" at line ")
        .next()
        .unwrap_or_default()
        .trim_end_matches('.');
    match error.location() {
        Some(at) => format!(
            "is no valid YAML at line {} column {}: {message}",
            at.line(),
            at.column()
        ),
        None => format!("is no valid YAML: {message}"),
    }
}

/// A field without a value is a field left out, as the API has it.
fn drop_nulls(value: &mut Value) {
    match value {
        Value::Array(items) => items.iter_mut().for_each(drop_nulls),
        Value::Object(fields) => {
            fields.retain(|_, value| !value.is_null());
            fields.values_mut().for_each(drop_nulls);
        }
        _ => {}
    }
}
