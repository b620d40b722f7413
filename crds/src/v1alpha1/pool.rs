//! The object itself.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{Drain, Gateways, Heartbeat, Listener, Upstream, VirtualIP, Vrrp};

/// What a user asks for: addresses, the nodes that may hold them, ports, and where sessions go.
#[derive(Clone, CustomResource, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[kube(
    group = "wsha.dev",
    version = "v1alpha1",
    kind = "WebSocketHAPool",
    plural = "websockethapools",
    shortname = "wshap",
    category = "wsha",
    namespaced,
    derive = "PartialEq",
    doc = "A highly available entry point for WebSocket clients: virtual addresses that move between gateway nodes within milliseconds, and the servers behind them.",
    printcolumn(
        name = "Addresses",
        type_ = "string",
        json_path = ".spec.virtualIPs[*].address",
        description = "Virtual addresses"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct WebSocketHAPoolSpec {
    /// Virtual addresses that clients connect to. Each is a virtual router of its own, and the
    /// planner spreads them over the gateway nodes.
    #[serde(rename = "virtualIPs")]
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["address".into()]))]
    pub virtual_ips: Vec<VirtualIP>,

    /// The nodes that may hold the addresses.
    pub gateways: Gateways,

    /// Ports on which clients are accepted, on each address.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub listeners: Vec<Listener>,

    /// Where sessions go; exactly one in this version.
    #[schemars(length(min = 1, max = 1))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub upstreams: Vec<Upstream>,

    /// How nodes agree on who holds an address.
    #[serde(default)]
    pub vrrp: Vrrp,

    /// Pings to clients and servers that have been quiet, so that dead sessions are found and live
    /// ones are not cut by a middle box.
    #[serde(default)]
    pub heartbeat: Heartbeat,

    /// How sessions end whose server, listener, address or pool is removed.
    #[serde(default)]
    pub drain: Drain,
}
