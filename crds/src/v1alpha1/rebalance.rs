//! `rebalance` of an upstream: sessions that are moved.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Whether sessions are moved away from servers that have more than their share, as after servers were
/// added. Such a session gets a Close frame with code 1012, and its client comes again and goes where
/// new sessions go. Nothing is moved while a server is not ready, fails or is removed.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Rebalance {
    /// Enabled: sessions are moved. Disabled: they stay where they began.
    #[serde(default)]
    pub mode: RebalanceMode,

    /// Of a hundred live sessions of the upstream, how many each gateway moves in a minute at most.
    #[serde(default = "five")]
    #[schemars(schema_with = "crate::schema::percent")]
    pub percent_per_minute: u8,

    /// How much more than its share, by weight, a server may have, in percent of it.
    #[serde(default = "ten")]
    #[schemars(schema_with = "crate::schema::percent")]
    pub tolerance_percent: u8,
}

/// Whether sessions are moved.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum RebalanceMode {
    #[default]
    Disabled,
    Enabled,
}

fn five() -> u8 {
    5
}

fn ten() -> u8 {
    10
}
