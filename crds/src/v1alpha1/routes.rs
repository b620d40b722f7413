//! `spec.listeners[].routes`: which requests go to which upstream.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// Requests by their host and path, and the upstream that they go to. Two routes of a listener must not
/// match the same host and path.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Route {
    /// Hosts that are asked for, without port: `chat.example.com`, or `*.example.com` for all names
    /// below it, however many labels they have. Upper and lower case are the same in requests. All
    /// hosts if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::hostnames")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub hostnames: Vec<String>,

    /// Path that stands for itself and all below it: `/chat` matches /chat, /chat/ and /chat/rooms,
    /// and not /chats. Upper and lower case differ.
    #[serde(default = "root")]
    #[schemars(schema_with = "crate::schema::path_prefix")]
    pub path_prefix: String,

    /// Name of an upstream of the pool.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub upstream_name: String,
}

fn root() -> String {
    "/".to_owned()
}
