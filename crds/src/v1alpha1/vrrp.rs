//! `spec.vrrp`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Duration;

/// How nodes agree on who holds an address.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.version != 2 || !has(self.advertisementInterval) || duration(self.advertisementInterval).getMilliseconds() % 1000 == 0"
).message("advertisementInterval must be whole seconds with version 2"))]
pub struct Vrrp {
    /// VRRP version on the wire: 3 (RFC 9568), or 2 (RFC 3768) for groups that are shared with older
    /// routers.
    #[serde(default = "three")]
    #[schemars(schema_with = "crate::schema::version")]
    pub version: u8,

    /// How often the node that holds an address says so; the others take over after about three of
    /// these. 10ms-40s950ms in steps of 10ms for version 3, 100ms when left out; 1s-255s in whole
    /// seconds for version 2, 1s when left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub advertisement_interval: Option<Duration>,

    /// Whether a better node takes an address over from a living one.
    #[serde(default)]
    pub preemption: Preemption,
}

impl Default for Vrrp {
    fn default() -> Self {
        Self {
            version: three(),
            advertisement_interval: None,
            preemption: Preemption::default(),
        }
    }
}

/// Whether a better node takes over from a living one.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.mode == 'Enabled' || duration(self.delay) == duration('0s')"
).message("delay has no meaning unless mode is Enabled"))]
pub struct Preemption {
    /// Enabled: the best living node holds the address. Disabled: a node that holds the address
    /// keeps it for as long as it lives.
    #[serde(default)]
    pub mode: PreemptionMode,

    /// How long a better node must hear the lesser one before it takes over.
    #[serde(default)]
    pub delay: Duration,
}

/// Whether a better node takes over.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum PreemptionMode {
    #[default]
    Enabled,
    Disabled,
}

fn three() -> u8 {
    3
}
