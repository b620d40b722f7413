//! Observed state of one node, as `wsha-dataplane status --output json` prints it.

use std::{
    fmt,
    net::{IpAddr, SocketAddr},
};

use serde::{Deserialize, Serialize};

use crate::config::{PoolRef, is_zero};

/// What a node knows of itself.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodeReport {
    /// The node.
    pub node_name: String,
    /// Version of the data plane.
    pub version: String,
    /// Why the newest configuration is not the one in use; `None` when it is.
    pub stale_reason: Option<String>,
    /// Things an administrator should look at, each a sentence with its remedy.
    pub warnings: Vec<String>,
    /// Virtual routers, in the order of pools and addresses.
    pub virtual_routers: Vec<RouterReport>,
    /// Pools with their listeners and endpoints.
    pub pools: Vec<PoolReport>,
}

/// One virtual router on this node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RouterReport {
    /// The pool it belongs to.
    pub pool: PoolRef,
    /// VRID.
    pub virtual_router_id: u8,
    /// [`crate::VirtualRouter::sequence`] of the settings in force.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub sequence: i64,
    /// Virtual addresses.
    pub addresses: Vec<IpAddr>,
    /// Interface in use; `None` while none was found.
    pub interface: Option<String>,
    /// State now.
    pub state: RouterState,
    /// Since when, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
    /// Why it is in that state, in words.
    pub reason: String,
    /// What it advertises, or would.
    pub priority: u8,
    /// The router last heard for this VRID: source address, priority, milliseconds since.
    pub peers: Vec<PeerReport>,
    /// The newest transitions, newest last, 16 at most.
    pub transitions: Vec<Transition>,
    /// Who else answers for the addresses while this node holds them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conflicts: Vec<AddressConflict>,
    /// What lowers the priority now.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub lowered_by: Vec<Lowering>,
    /// Since when the node hears neither another router nor its default gateway and holds no address
    /// for that, milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub isolated_since_unix_ms: Option<u64>,
}

/// Something tracked that is not as it should be.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Lowering {
    /// What kind of thing it is.
    pub kind: Tracked,
    /// Its name.
    pub name: String,
    /// By how much it lowers the priority.
    pub weight: u8,
    /// What is wrong with it, in words.
    pub problem: String,
    /// Since when, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
}

/// What can be tracked.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum Tracked {
    /// An interface.
    Interface,
    /// A check.
    Check,
    /// An upstream.
    Upstream,
}

impl fmt::Display for Tracked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interface => "interface",
            Self::Check => "check",
            Self::Upstream => "upstream",
        })
    }
}

/// Somebody else who answers for an address that the node holds (RFC 5227 section 2.4).
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AddressConflict {
    /// The address.
    pub address: IpAddr,
    /// Where the other one says that it is: `02:00:00:00:00:07`.
    pub hardware_address: String,
    /// The interface of this very node that has this hardware address, where one has.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub own_interface: Option<String>,
    /// Since when, milliseconds since the Unix epoch.
    pub since_unix_ms: u64,
}

/// A router that was heard on the VRID.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PeerReport {
    /// Source address of its advertisements.
    pub address: IpAddr,
    /// Its priority in the last one.
    pub priority: u8,
    /// Age of the last one, milliseconds.
    pub last_heard_ms: u64,
}

/// RFC 9568 section 6.3.
#[derive(Clone, Copy, Debug, Deserialize, Eq, PartialEq, Serialize)]
pub enum RouterState {
    /// Waits for its interface, its proxy or its start.
    Initialize,
    /// Watches the Active router.
    Backup,
    /// Holds the addresses (called master in older texts).
    Active,
}

/// A change of state.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Transition {
    /// When, milliseconds since the Unix epoch.
    pub at_unix_ms: u64,
    /// State left.
    pub from: RouterState,
    /// State entered.
    pub to: RouterState,
    /// Why, in words.
    pub cause: String,
}

/// One pool on this node.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PoolReport {
    /// The pool.
    pub pool: PoolRef,
    /// Its listeners, one entry per address.
    pub listeners: Vec<ListenerReport>,
    /// Its endpoints.
    pub endpoints: Vec<EndpointReport>,
}

/// One listener on one address.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerReport {
    /// Name in the pool.
    pub name: String,
    /// Where it is bound.
    pub address: SocketAddr,
    /// Whether it accepts.
    pub accepting: bool,
    /// Why not, with the remedy.
    pub problem: Option<String>,
    /// Live sessions.
    pub sessions: u64,
}

/// One endpoint as this node sees it.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointReport {
    /// Upstream it belongs to.
    pub upstream: String,
    /// Where it listens.
    pub address: SocketAddr,
    /// Whether new sessions are sent to it.
    pub usable: bool,
    /// Why not.
    pub problem: Option<String>,
    /// Live sessions.
    pub sessions: u64,
    /// While these are told to go, since it was removed or is terminating: when the last one is,
    /// milliseconds since the Unix epoch.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drained_at_unix_ms: Option<u64>,
}
