//! From text to values.

use serde_json::{Map, Value};

use super::{strict, yaml};

/// What is wrong with a file before its objects are looked at.
pub(super) struct Fault {
    /// The object, where it is one that is wrong.
    pub(super) object: Option<String>,
    pub(super) path: Option<String>,
    pub(super) message: String,
}

impl From<String> for Fault {
    fn from(message: String) -> Self {
        Self {
            object: None,
            path: None,
            message,
        }
    }
}

/// The objects of a file; lists as `kubectl get` writes them are taken apart.
pub(super) fn values(text: &str) -> Result<Vec<Value>, Fault> {
    let mut values = Vec::new();
    for document in yaml::documents(text)? {
        match document {
            Value::Null => {}
            Value::Object(fields) if fields.get("kind").is_some_and(|kind| kind == "List") => {
                values.extend(items(fields)?);
            }
            other => values.push(other),
        }
    }
    // An editor or a full disk may truncate a file: nothing must not mean "drop what was here".
    if values.is_empty() {
        return Err("holds no object; delete the file if that is meant"
            .to_owned()
            .into());
    }
    Ok(values)
}

/// The objects of a list. It has no schema to be held to: what it must be is said here.
fn items(mut list: Map<String, Value>) -> Result<Vec<Value>, Fault> {
    const FIELDS: [&str; 4] = ["apiVersion", "items", "kind", "metadata"];
    let fault = |path: &str, message: String| Fault {
        object: Some("List".to_owned()),
        path: Some(path.to_owned()),
        message,
    };
    if let Some(other) = list.keys().find(|name| !FIELDS.contains(&name.as_str())) {
        let remedy = strict::nearest(other, FIELDS.into_iter()).map_or_else(
            || format!("remove it or use one of {}", FIELDS.join(", ")),
            |near| format!("did you mean {near}?"),
        );
        let name = strict::show_name(other);
        return Err(fault(&name, format!("is not a known field; {remedy}")));
    }
    let version = list.get("apiVersion").unwrap_or(&Value::Null);
    if version != "v1" {
        let message = format!("is {}; write v1", strict::show(version));
        return Err(fault("apiVersion", message));
    }
    match list.remove("items") {
        Some(Value::Array(items)) => Ok(items),
        other => Err(fault(
            "items",
            format!(
                "is {}; write the objects as a list, each behind a dash",
                strict::show(&other.unwrap_or_default())
            ),
        )),
    }
}
