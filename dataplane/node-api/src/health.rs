//! How the endpoints of an upstream are kept an eye on.

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::millis;

/// Checks, ejection and retries of an upstream.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Health {
    /// What each endpoint is asked again and again; `None`: nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<HealthCheck>,
    /// When endpoints that fail clients are left out.
    #[serde(default, skip_serializing_if = "Ejection::is_default")]
    pub ejection: Ejection,
    /// How many handshakes are tried on another endpoint.
    #[serde(default, skip_serializing_if = "Retry::is_default")]
    pub retry: Retry,
}

impl Health {
    /// Whether it is what an upstream has that says nothing of it.
    pub fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A question that each endpoint is asked again and again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct HealthCheck {
    /// What is asked.
    pub probe: HealthProbe,
    /// The port that is asked; `None`: that of the endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// From one question to the next.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Failures in a row after which an endpoint gets no new sessions.
    pub failure_threshold: u32,
    /// Successes in a row after which it gets them again.
    pub success_threshold: u32,
}

/// What a check asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum HealthProbe {
    /// Whether a connection can be opened.
    Tcp,
    /// Whether a GET is answered with an expected status.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Path, and query if any.
        path: String,
        /// The `Host` field; `None`: the address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Statuses that pass; none named: 200-399.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expected_statuses: Vec<u16>,
    },
    /// Whether a session can be opened, and a Ping in it is answered.
    WebSocket {
        /// Path, and query if any.
        path: String,
        /// The `Host` field; `None`: the address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
    },
}

/// When endpoints that fail clients are left out, and for how long.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Ejection {
    /// Handshakes in a row that come to nothing.
    pub consecutive_failures: u32,
    /// How long the first time; twice as long each further time.
    #[serde(with = "millis")]
    pub base: Duration,
    /// How long at most.
    #[serde(with = "millis")]
    pub most: Duration,
    /// How many of the endpoints may be out, in percent; 0: none ever is.
    pub max_percent: u8,
}

impl Default for Ejection {
    /// What the upstreams of a controller that does not know of it have.
    fn default() -> Self {
        Self {
            consecutive_failures: 3,
            base: Duration::from_secs(10),
            most: Duration::from_mins(5),
            max_percent: 50,
        }
    }
}

impl Ejection {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// How many handshakes are tried on another endpoint.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Retry {
    /// Further attempts for each hundred handshakes of the last ten seconds.
    pub budget_percent: u8,
    /// Further attempts that are always allowed in a second.
    pub min_per_second: u32,
}

impl Default for Retry {
    /// What the upstreams of a controller that does not know of it have.
    fn default() -> Self {
        Self {
            budget_percent: 20,
            min_per_second: 10,
        }
    }
}

impl Retry {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A preference for the endpoints of a node's own zone.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ZonePreference {
    /// Which part of all usable endpoints those of the zone must be at least, in percent, by weight.
    pub min_share_percent: u8,
    /// The zones of nodes, by name; one that is in none has no preference.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub nodes: BTreeMap<String, String>,
}
