//! What a node looks at besides VRRP: it lowers its priorities, or makes it give its addresses up.

use std::{net::SocketAddr, time::Duration};

use serde::{Deserialize, Serialize};

use crate::config::millis;

/// What a node looks at for one pool.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Tracking {
    /// Interfaces that must be there and have their link.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub interfaces: Vec<TrackedInterface>,
    /// Questions that must be answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub checks: Vec<Check>,
    /// Upstreams of which the node must reach enough.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub upstreams: Vec<TrackedUpstream>,
    /// A node that holds an address and hears neither another router nor its default gateway for so
    /// long gives it up; zero: never.
    #[serde(default, skip_serializing_if = "Duration::is_zero", with = "millis")]
    pub isolation_timeout: Duration,
}

impl Tracking {
    /// Whether there is nothing to look at.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// An interface that must be there and have its link.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackedInterface {
    /// Its name.
    pub name: String,
    /// By how much the priority is lowered while it is not.
    pub weight: u8,
}

/// An upstream of which a node must reach enough.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct TrackedUpstream {
    /// Its name.
    pub name: String,
    /// How many endpoints must take new sessions of this node.
    pub min_usable_endpoints: u32,
    /// By how much the priority is lowered while fewer do.
    pub weight: u8,
}

/// A question that is asked again and again.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Check {
    /// Name, unique in the pool.
    pub name: String,
    /// By how much the priority is lowered while it fails.
    pub weight: u8,
    /// From one question to the next.
    #[serde(with = "millis")]
    pub interval: Duration,
    /// How long an answer may take.
    #[serde(with = "millis")]
    pub timeout: Duration,
    /// Failures in a row after which it fails.
    pub failure_threshold: u32,
    /// Successes in a row after which it passes again.
    pub success_threshold: u32,
    /// What is asked.
    pub probe: Probe,
}

/// What a check asks.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Probe {
    /// Whether a connection can be opened.
    Tcp {
        /// Where.
        address: SocketAddr,
    },
    /// Whether a GET is answered with an expected status.
    #[serde(rename_all = "camelCase")]
    Http {
        /// Where.
        address: SocketAddr,
        /// Path, and query if any.
        path: String,
        /// The `Host` field; `None`: the address.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        host: Option<String>,
        /// Statuses that pass; none named: 200-399.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        expected_statuses: Vec<u16>,
    },
    /// Whether a program of the host ends with 0. Only files of a plain host name such.
    Command {
        /// File in the directory that the agent was given.
        name: String,
    },
}

/// What an [`Probe::Http`] expects if it names no statuses.
pub const EXPECTED_STATUSES: std::ops::RangeInclusive<u16> = 200..=399;
