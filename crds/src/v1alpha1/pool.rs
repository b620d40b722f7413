//! The object itself.

use kube::{CustomResource, KubeSchema};
use serde::{Deserialize, Serialize};

use super::{
    AccessLog, Drain, Gateways, Heartbeat, Limits, Listener, Tracking, Upstream, VirtualIP, Vrrp,
    WebSocketHAPoolStatus,
};
use crate::duration;

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
    status = "WebSocketHAPoolStatus",
    derive = "PartialEq",
    doc = "A highly available entry point for WebSocket clients: virtual addresses that move between gateway nodes within milliseconds, and the servers behind them.",
    // Nodes learn of a change one by one, and those with different VRIDs do not hear each other. So
    // one that appears in spec must be the one that nodes use already, until all have given it up.
    validation = Rule::new(
        "self.spec.virtualIPs.all(v, !has(v.virtualRouterID) || oldSelf.spec.virtualIPs.exists(o, o.address == v.address && has(o.virtualRouterID)) || !has(self.status) || !has(self.status.virtualIPs) || !self.status.virtualIPs.exists(s, s.address == v.address && has(s.committed) && has(s.virtualRouterID) && s.virtualRouterID != v.virtualRouterID))"
    ).message("virtualRouterID of an address that nodes hold must be the one in status: leave it out, or remove the address, wait until status no longer lists it, and add it again").field_path(".spec.virtualIPs"),
    // An address that was removed and comes back while nodes hold it still.
    validation = Rule::new(
        "self.spec.virtualIPs.all(v, oldSelf.spec.virtualIPs.exists(o, o.address == v.address) || !has(self.status) || !has(self.status.virtualIPs) || !self.status.virtualIPs.exists(s, s.address == v.address && has(s.committed) && (has(v.additionalAddresses) ? (has(s.committed.additionalAddresses) ? v.additionalAddresses != s.committed.additionalAddresses : size(v.additionalAddresses) > 0) : (has(s.committed.additionalAddresses) && size(s.committed.additionalAddresses) > 0))))"
    ).message("additionalAddresses of an address that nodes hold must be those in status: wait until status no longer lists it, and add it again").field_path(".spec.virtualIPs"),
    printcolumn(
        name = "VIPs",
        type_ = "string",
        json_path = ".status.summary.virtualIPs",
        description = "Virtual addresses"
    ),
    printcolumn(
        name = "Active",
        type_ = "string",
        json_path = ".status.summary.activeNodeNames",
        description = "Nodes that hold them, in the same order"
    ),
    printcolumn(
        name = "Gateways",
        type_ = "string",
        json_path = ".status.summary.gateways",
        description = "Gateway nodes that are ready, of all"
    ),
    printcolumn(
        name = "Endpoints",
        type_ = "string",
        json_path = ".status.summary.endpoints",
        description = "Servers that are ready, of all"
    ),
    printcolumn(
        name = "Sessions",
        type_ = "integer",
        json_path = ".status.sessions",
        description = "Live sessions, at most a minute old"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp",
        description = "Time since the pool was created"
    )
)]
#[serde(rename_all = "camelCase")]
// Nodes of different versions do not hear each other, and with version 2 neither do nodes with
// different intervals (RFC 3768 section 7.1): while they learn of a change one by one, two would hold
// an address. A node with version 3 takes the interval from what it hears.
#[x_kube(validation = Rule::new(
    "self.vrrp.version == oldSelf.vrrp.version || !self.virtualIPs.exists(v, oldSelf.virtualIPs.exists(o, o.address == v.address))"
).message("cannot change while an address stays: replace every address in the same edit, or delete the pool and create it again").field_path(".vrrp.version"))]
// Nodes give an address up before they hold it under another hardware address.
#[x_kube(validation = Rule::new(
    "self.vrrp.macAddress.mode == oldSelf.vrrp.macAddress.mode || !self.virtualIPs.exists(v, oldSelf.virtualIPs.exists(o, o.address == v.address))"
).message("cannot change while an address stays: replace every address in the same edit, or delete the pool and create it again").field_path(".vrrp.macAddress.mode"))]
#[x_kube(validation = Rule::new(interval_stays_rule()).message("cannot change with version 2 while an address stays: replace every address in the same edit, or delete the pool and create it again").field_path(".vrrp.advertisementInterval"))]
// The same for nodes that speak to the group and those that speak to each other, and for passwords.
#[x_kube(validation = Rule::new(
    "self.vrrp.peering.mode == oldSelf.vrrp.peering.mode || !self.virtualIPs.exists(v, oldSelf.virtualIPs.exists(o, o.address == v.address))"
).message("cannot change while an address stays: replace every address in the same edit, or delete the pool and create it again").field_path(".vrrp.peering.mode"))]
#[x_kube(validation = Rule::new(
    "(self.vrrp.authentication.mode == oldSelf.vrrp.authentication.mode && has(self.vrrp.authentication.password) == has(oldSelf.vrrp.authentication.password) && (!has(self.vrrp.authentication.password) || self.vrrp.authentication.password == oldSelf.vrrp.authentication.password)) || !self.virtualIPs.exists(v, oldSelf.virtualIPs.exists(o, o.address == v.address))"
).message("cannot change while an address stays: replace every address in the same edit, or delete the pool and create it again").field_path(".vrrp.authentication"))]
#[x_kube(validation = Rule::new(
    "!has(self.vrrp.peering.addresses) || size(self.vrrp.peering.addresses) == 0 || self.virtualIPs.all(v, !isIP(v.address) || self.vrrp.peering.addresses.filter(p, isIP(p) && ip(p).family() == ip(v.address).family()).size() >= 2)"
).message("must list at least two routers of the family of each virtual address, the nodes' own addresses among them").field_path(".vrrp.peering.addresses"))]
#[x_kube(validation = Rule::new(
    "!has(self.vrrp.peering.addresses) || self.vrrp.peering.addresses.all(p, !isIP(p) || self.virtualIPs.exists(v, !isIP(v.address) || ip(v.address).family() == ip(p).family()))"
).message("an address is of a family that no virtual address has: remove it").field_path(".vrrp.peering.addresses"))]
#[x_kube(validation = Rule::new(
    "!has(self.vrrp.peering.addresses) || self.vrrp.peering.addresses.all(p, !self.virtualIPs.exists(v, v.address == p || (has(v.additionalAddresses) && p in v.additionalAddresses)))"
).message("an address is a virtual address of this pool: list the routers' own").field_path(".vrrp.peering.addresses"))]
#[x_kube(validation = Rule::new(
    "self.vrrp.version != 2 || self.virtualIPs.all(v, !isIP(v.address) || ip(v.address).family() == 4)"
).message("version 2 has no IPv6: use version 3, or IPv4 addresses alone").field_path(".vrrp.version"))]
#[x_kube(validation = Rule::new(
    "self.virtualIPs.all(v, !has(v.additionalAddresses) || v.additionalAddresses.all(a, !self.virtualIPs.exists(w, w.address == a || (w.address != v.address && has(w.additionalAddresses) && a in w.additionalAddresses))))"
).message("an additional address stands twice in the pool: list each address once").field_path(".virtualIPs"))]
#[x_kube(validation = Rule::new(
    "self.upstreams.all(u, !has(u.endpoints) || u.endpoints.all(e, !self.virtualIPs.exists(v, v.address == e.address || (has(v.additionalAddresses) && e.address in v.additionalAddresses))))"
).message("an endpoint is a virtual address of this pool, which would be a loop: use the server's own address").field_path(".upstreams"))]
#[x_kube(validation = Rule::new(
    "!has(self.tracking.checks) || self.tracking.checks.all(c, [has(c.tcp) ? c.tcp.address : '', has(c.http) ? c.http.address : ''].all(a, a == '' || !self.virtualIPs.exists(v, v.address == a || (has(v.additionalAddresses) && a in v.additionalAddresses))))"
).message("a check asks a virtual address of this pool, which its holder would always reach: use another address").field_path(".tracking.checks"))]
#[x_kube(validation = Rule::new(
    "!has(self.tracking.upstreams) || self.tracking.upstreams.all(t, self.upstreams.exists(u, u.name == t.name))"
).message("names no upstream of the pool: use the name of one").field_path(".tracking.upstreams"))]
#[x_kube(validation = Rule::new(
    "!has(self.tracking.upstreams) || size(self.upstreams) > 1 || self.tracking.upstreams.all(t, t.minUsableEndpoints > 1)"
).message("minUsableEndpoints must be 2 or more where there is one upstream: a node that reaches none ranks below all others as it is").field_path(".tracking.upstreams"))]
#[x_kube(validation = Rule::new(
    "size(self.upstreams) < 2 || self.listeners.all(l, has(l.routes) && size(l.routes) > 0)"
).message("a listener has no routes, and there are several upstreams: say in routes which requests go to which").field_path(".listeners"))]
#[x_kube(validation = Rule::new(
    "self.listeners.all(l, !has(l.routes) || l.routes.all(r, self.upstreams.exists(u, u.name == r.upstreamName)))"
).message("upstreamName of a route names no upstream of the pool: use the name of one").field_path(".listeners"))]
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
    #[x_kube(validation = Rule::new(
        "self.all(l, self.exists_one(m, m.port == l.port))"
    ).message("two listeners have the same port: give each its own"))]
    pub listeners: Vec<Listener>,

    /// Where sessions go. Where there are several, the routes of listeners say which requests go to
    /// which.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub upstreams: Vec<Upstream>,

    /// How nodes agree on who holds an address.
    #[serde(default)]
    pub vrrp: Vrrp,

    /// What makes a node that can hold the addresses leave them to another.
    #[serde(default)]
    pub tracking: Tracking,

    /// Pings to clients and servers that have been quiet, so that dead sessions are found and live
    /// ones are not cut by a middle box.
    #[serde(default)]
    pub heartbeat: Heartbeat,

    /// How sessions end whose server, listener, address or pool is removed.
    #[serde(default)]
    pub drain: Drain,

    /// Records of connections. None are made if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "AccessLog")]
    pub access_log: Option<AccessLog>,

    /// What clients may do, on each gateway by itself.
    #[serde(default)]
    pub limits: Limits,
}

/// With version 2 the interval stays, or every address goes. A text that is no duration is the
/// pattern's business.
fn interval_stays_rule() -> String {
    let interval =
        |object: &str| format!("duration({object}.vrrp.?advertisementInterval.orValue('1s'))");
    [
        "self.vrrp.version != 2".to_owned(),
        "oldSelf.vrrp.version != 2".to_owned(),
        format!(
            "(has(self.vrrp.advertisementInterval) && !self.vrrp.advertisementInterval.matches('{}'))",
            duration::PATTERN
        ),
        format!("{} == {}", interval("self"), interval("oldSelf")),
        "!self.virtualIPs.exists(v, oldSelf.virtualIPs.exists(o, o.address == v.address))".to_owned(),
    ]
    .join(" || ")
}
