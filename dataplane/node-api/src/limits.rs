//! What clients of a pool may do on one node.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Limits of a pool; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Limits {
    /// Sessions, handshakes under way included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions: Option<u32>,
    /// Of these from one address, of IPv6 from one /64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_per_source: Option<u32>,
    /// Of these of pages of one origin.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sessions_per_origin: Option<u32>,
    /// Handshakes brought to endpoints in a second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub handshakes_per_second: Option<u32>,
    /// Bytes of payload of a frame, from either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub frame_size: Option<u64>,
    /// Bytes of payload of a message, from either side.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub message_size: Option<u64>,
    /// Messages of a client.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub messages: Option<MessageRate>,
    /// How long a session lasts.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional")]
    pub session_age: Option<Duration>,
    /// How long a side may take nothing while something waits for it.
    #[serde(skip_serializing_if = "Option::is_none", with = "optional")]
    pub slow_reader: Option<Duration>,
    /// Bytes that may wait for a side all of that time.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub buffered_bytes: Option<u64>,
}

impl Limits {
    /// Whether nothing is limited.
    pub fn is_none(&self) -> bool {
        *self == Self::default()
    }
}

/// How many messages a client may send.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MessageRate {
    /// In the long run, in each second.
    pub per_second: u32,
    /// At once, after it was quiet.
    pub burst: u32,
}

/// Durations as whole milliseconds, where there are some.
mod optional {
    use std::time::Duration;

    use serde::{Deserialize, Deserializer, Serializer};

    use crate::config::millis;

    #[expect(clippy::ref_option, reason = "serde asks for it")]
    pub(super) fn serialize<S: Serializer>(
        value: &Option<Duration>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        match value {
            Some(value) => millis::serialize(value, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Duration>, D::Error> {
        Ok(Option::deserialize(from)?.map(Duration::from_millis))
    }
}
