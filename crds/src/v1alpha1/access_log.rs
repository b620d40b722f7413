//! `spec.accessLog`: records of connections.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Records of connections, which each gateway's proxy writes to its standard output: a line of JSON for
/// each session at its end, and for each handshake that leads to none.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AccessLog {
    /// Enabled: records are written. Disabled: none are.
    #[serde(default)]
    pub mode: AccessLogMode,

    /// Of how many connections in a hundred, taken at random, a record is written.
    #[serde(default = "all")]
    #[schemars(schema_with = "crate::schema::percent")]
    pub sample_percent: u8,
}

/// Whether records are written.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum AccessLogMode {
    #[default]
    Disabled,
    Enabled,
}

fn all() -> u8 {
    100
}
