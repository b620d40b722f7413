//! `spec.vrrp`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{Authentication, MacAddress, Peering};
use crate::{Duration, rules::duration_rule};

/// How nodes agree on who holds an address.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
// 12 bits of centiseconds (RFC 9568 section 5.2.7), and 8 bits of seconds (RFC 3768 section 5.3.7).
#[x_kube(validation = Rule::new(interval_rule(3, "10ms", "40950ms", 10))
    .message("must be 10ms to 40s950ms with version 3, in steps of 10ms")
    .field_path(".advertisementInterval"))]
#[x_kube(validation = Rule::new(interval_rule(2, "1s", "255s", 1000))
    .message("must be 1s to 255s with version 2, in whole seconds")
    .field_path(".advertisementInterval"))]
#[x_kube(validation = Rule::new(isolation_rule())
    .message("must be at least three times advertisementInterval, or 0s for never")
    .field_path(".isolation.timeout"))]
// RFC 5798 section 9 took the field out.
#[x_kube(validation = Rule::new("self.version == 2 || self.authentication.mode == 'None'")
    .message("version 3 has no passwords: set mode to None, or use version 2")
    .field_path(".authentication.mode"))]
pub struct Vrrp {
    /// VRRP version on the wire: 3 (RFC 9568), or 2 (RFC 3768) for groups that are shared with older
    /// routers. Changes only in an edit that replaces every address.
    #[serde(default = "three")]
    #[schemars(schema_with = "crate::schema::version")]
    pub version: u8,

    /// How often the node that holds an address says so; the others take over after about three of
    /// these. 10ms-40s950ms in steps of 10ms for version 3, 100ms when left out; 1s-255s in whole
    /// seconds for version 2, 1s when left out, and then it changes only in an edit that replaces
    /// every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    pub advertisement_interval: Option<Duration>,

    /// Whether a better node takes an address over from a living one.
    #[serde(default)]
    pub preemption: Preemption,

    /// When a node that holds an address gives it up because it seems to be cut off.
    #[serde(default)]
    pub isolation: Isolation,

    /// How nodes reach each other.
    #[serde(default)]
    pub peering: Peering,

    /// What nodes ask of each other's advertisements. Only with version 2.
    #[serde(default)]
    pub authentication: Authentication,

    /// The hardware address at which clients find the addresses.
    #[serde(default)]
    pub mac_address: MacAddress,
}

impl Default for Vrrp {
    fn default() -> Self {
        Self {
            version: three(),
            advertisement_interval: None,
            preemption: Preemption::default(),
            isolation: Isolation::default(),
            mac_address: MacAddress::default(),
            peering: Peering::default(),
            authentication: Authentication::default(),
        }
    }
}

/// When a node that holds an address gives it up because it seems to be cut off.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Isolation {
    /// How long such a node must hear neither another router nor its default gateway, which it asks
    /// by ARP or neighbour solicitation while nobody speaks; it takes part again once it hears either.
    /// 1s-1h and at least three advertisement intervals; 0s: it keeps the address. Without a default
    /// gateway on the address's interface and of its family it keeps it too, and says so.
    #[serde(default)]
    #[x_kube(validation = Rule::new(duration_rule(
        "self",
        "duration(self) == duration('0s') || (duration(self) >= duration('1s') && duration(self) <= duration('1h'))"
    )).message("must be 1s to 1h, or 0s for never"))]
    pub timeout: Duration,
}

/// Whether a better node takes over from a living one.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(duration_rule(
    "self.delay",
    "self.mode == 'Enabled' || duration(self.delay) == duration('0s')"
)).message("has no meaning unless mode is Enabled: remove it or set mode to Enabled").field_path(".delay"))]
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

/// Bounds of the interval, and milliseconds of which it is a multiple.
fn interval_rule(version: u8, least: &str, most: &str, step: u16) -> String {
    let interval = "self.advertisementInterval";
    let bounds = duration_rule(
        interval,
        &format!(
            "duration({interval}) >= duration('{least}') && duration({interval}) <= duration('{most}') && duration({interval}).getMilliseconds() % {step} == 0"
        ),
    );
    format!("self.version != {version} || !has({interval}) || {bounds}")
}

/// Shorter, it would end before a Backup has noticed that the Active router is gone. A text that is no
/// duration is the pattern's business.
fn isolation_rule() -> String {
    let timeout = "self.isolation.timeout";
    let interval =
        "duration(self.?advertisementInterval.orValue(self.version == 2 ? '1s' : '100ms'))";
    let rule = duration_rule(
        timeout,
        &format!(
            "duration({timeout}) == duration('0s') || duration({timeout}) >= {interval} + {interval} + {interval}"
        ),
    );
    format!(
        "(has(self.advertisementInterval) && !self.advertisementInterval.matches('{}')) || {rule}",
        crate::duration::PATTERN
    )
}

fn three() -> u8 {
    3
}
