//! From a value to an object of a kind.

use std::{fmt, sync::LazyLock};

use crds::WebSocketHAPool;
use k8s_openapi::{
    api::{
        core::v1::{Node, Service},
        discovery::v1::EndpointSlice,
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use node_api::PoolRef;
use schemars::{JsonSchema, generate::SchemaSettings};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Refusal, nulls, strict};

/// An object of one of the kinds.
pub(super) enum Object {
    Pool(Box<WebSocketHAPool>),
    Node(Box<Node>),
    Service(Box<Service>),
    EndpointSlice(Box<EndpointSlice>),
}

/// The kinds, with their version of the API.
const KINDS: [(&str, &str); 4] = [
    ("WebSocketHAPool", "wsha.dev/v1alpha1"),
    ("Node", "v1"),
    ("Service", "v1"),
    ("EndpointSlice", "discovery.k8s.io/v1"),
];

/// Which object it is.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Identity {
    kind: &'static str,
    /// `None`: of the cluster.
    namespace: Option<String>,
    name: String,
}

impl Identity {
    pub(super) fn pool(pool: &PoolRef) -> Self {
        Self {
            kind: "WebSocketHAPool",
            namespace: Some(pool.namespace.clone()),
            name: pool.name.clone(),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
            None => write!(f, "{} {}", self.kind, self.name),
        }
    }
}

/// Reads the `number`th object of `file`.
pub(super) fn object(
    file: &str,
    number: usize,
    mut value: Value,
) -> Result<(Identity, Object), Vec<Refusal>> {
    let refuse = |path: Option<&str>, message: String| {
        vec![Refusal {
            file: file.to_owned(),
            object: Some(format!("object {number}")),
            path: path.map(str::to_owned),
            message,
        }]
    };
    if !value.is_object() {
        return Err(refuse(
            None,
            "is no object; start it with apiVersion, kind and metadata".to_owned(),
        ));
    }
    let (kind, version) = kind(&value).map_err(|(path, message)| refuse(Some(path), message))?;
    let namespaced = kind != "Node";
    let metadata = |field: &str| value["metadata"][field].as_str().map(str::to_owned);
    let Some(name) = metadata("name") else {
        let message = match &value["metadata"]["name"] {
            Value::Null => format!("is missing; name the {kind}"),
            other => strict::wrong_type(other, &json!({"type": "string"})),
        };
        return Err(refuse(Some("metadata.name"), message));
    };
    let namespace = metadata("namespace").unwrap_or_else(|| "default".to_owned());
    // One of another type stays, to be refused below.
    if namespaced
        && value["metadata"]["namespace"].is_null()
        && let Some(metadata) = value["metadata"].as_object_mut()
    {
        metadata.insert("namespace".to_owned(), json!(namespace));
    }
    let identity = Identity {
        kind,
        namespace: namespaced.then_some(namespace),
        name: name.chars().take(253).collect(),
    };

    let mut problems = Vec::new();
    if value["apiVersion"] != version {
        problems.push(crate::Problem::new(
            "apiVersion",
            format!("is {}; write {version}", strict::show(&value["apiVersion"])),
        ));
    }
    for field in ["name", "namespace"] {
        if let Some(text) = value["metadata"][field].as_str()
            && let Some(problem) = strict::name_problem(text)
        {
            problems.push(crate::Problem::new(format!("metadata.{field}"), problem));
        }
    }
    let schemas = &*SCHEMAS;
    let schema = match kind {
        "Node" => &schemas.node,
        "Service" => &schemas.service,
        "EndpointSlice" => &schemas.endpoint_slice,
        _ => &schemas.pool,
    };
    nulls::leave_out(&mut value, schema);
    strict::check(&value, schema, "", &mut problems);
    let object = if problems.is_empty() {
        typed(kind, value)
            .map_err(|error| crate::Problem::new("", format!("cannot be read: {error}")))
    } else {
        Err(crate::Problem::new("", ""))
    };
    match object {
        Ok(object) => Ok((identity, object)),
        Err(last) => {
            if problems.is_empty() {
                problems.push(last);
            }
            let refusals = problems.into_iter().map(|problem| Refusal {
                file: file.to_owned(),
                object: Some(identity.to_string()),
                path: (!problem.path.is_empty()).then_some(problem.path),
                message: problem.message,
            });
            Err(refusals.collect())
        }
    }
}

/// The kind and the version it ought to have; else the field and what is wrong with it.
fn kind(value: &Value) -> Result<(&'static str, &'static str), (&'static str, String)> {
    let kinds = || KINDS.iter().map(|(kind, _)| *kind);
    let Some(kind) = value.get("kind").filter(|kind| !kind.is_null()) else {
        return Err((
            "kind",
            format!("is missing; write one of {}", list(kinds())),
        ));
    };
    let known = KINDS.iter().find(|(known, _)| kind == known);
    known.copied().ok_or_else(|| {
        let near = kind
            .as_str()
            .and_then(|kind| strict::nearest(kind, kinds()));
        let remedy = near.map_or_else(
            || format!("use one of {} or remove the object", list(kinds())),
            |near| format!("did you mean {near}?"),
        );
        (
            "kind",
            format!("{} is not known; {remedy}", strict::show(kind)),
        )
    })
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<Vec<_>>().join(", ")
}

fn typed(kind: &str, value: Value) -> Result<Object, serde_json::Error> {
    fn read<T: DeserializeOwned>(value: Value) -> Result<Box<T>, serde_json::Error> {
        serde_json::from_value(value).map(Box::new)
    }
    Ok(match kind {
        "Node" => Object::Node(read(value)?),
        "Service" => Object::Service(read(value)?),
        "EndpointSlice" => Object::EndpointSlice(read(value)?),
        _ => Object::Pool(read(value)?),
    })
}

/// What each kind may hold.
struct Schemas {
    pool: Value,
    node: Value,
    service: Value,
    endpoint_slice: Value,
}

static SCHEMAS: LazyLock<Schemas> = LazyLock::new(|| {
    // The definition says nothing of what every object has.
    let mut pool = pool_schema();
    pool["properties"]["apiVersion"] = json!({"type": "string"});
    pool["properties"]["kind"] = json!({"type": "string"});
    pool["properties"]["metadata"] = schema::<ObjectMeta>();
    pool["properties"]["status"] = json!({"type": "object", "additionalProperties": true});
    Schemas {
        pool,
        node: schema::<Node>(),
        service: schema::<Service>(),
        endpoint_slice: schema::<EndpointSlice>(),
    }
});

/// The schema in the definition of our kind.
pub(super) fn pool_schema() -> Value {
    let versions = crds::definition().spec.versions.into_iter();
    let mut schemas = versions.filter_map(|version| version.schema?.open_api_v3_schema);
    serde_json::to_value(schemas.next()).unwrap_or_default()
}

fn schema<T: JsonSchema>() -> Value {
    let mut settings = SchemaSettings::openapi3();
    settings.inline_subschemas = true;
    let schema = settings.into_generator().into_root_schema_for::<T>();
    serde_json::to_value(schema).unwrap_or_default()
}
