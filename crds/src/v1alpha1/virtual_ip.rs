//! `spec.virtualIPs`.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

/// A virtual address and who holds it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!(has(self.preferredNodeName) && has(self.nodePriorities) && size(self.nodePriorities) > 0)"
).message("preferredNodeName and nodePriorities exclude each other: keep one"))]
// A node without a usable endpoint advertises its rank from the bottom.
#[x_kube(validation = Rule::new(
    "!has(self.nodePriorities) || self.nodePriorities.all(n, n.priority > size(self.nodePriorities))"
).message("each priority must be above the number of nodes listed: lower ones are for nodes without a usable endpoint").field_path(".nodePriorities"))]
#[x_kube(validation = Rule::new(
    "!has(self.nodePriorities) || self.nodePriorities.all(n, self.nodePriorities.exists_one(m, m.priority == n.priority))"
).message("two nodes have the same priority: give each its own").field_path(".nodePriorities"))]
// With the field's own rule: neither changed nor removed. Without it in spec the committed one goes
// on, but it must not depend on status (which a restored backup lacks) which VRID that is.
#[x_kube(validation = Rule::new(
    "!has(oldSelf.virtualRouterID) || has(self.virtualRouterID)"
).message("cannot be removed once set: nodes would choose another one by one, and two would hold the address").field_path(".virtualRouterID"))]
#[x_kube(validation = Rule::new(
    "!has(self.additionalAddresses) || !isIP(self.address) || self.additionalAddresses.all(a, !isIP(a) || ip(a).family() == ip(self.address).family())"
).message("must be of the family of address: a virtual router has one family").field_path(".additionalAddresses"))]
// Peers that do not list the same addresses may be another virtual router (RFC 9568 section 7.1, and
// keepalived drops what they say).
#[x_kube(validation = Rule::new(
    "has(self.additionalAddresses) ? (has(oldSelf.additionalAddresses) ? self.additionalAddresses == oldSelf.additionalAddresses : size(self.additionalAddresses) == 0) : (!has(oldSelf.additionalAddresses) || size(oldSelf.additionalAddresses) == 0)"
).message("are immutable: to change them, remove the address, wait until status no longer lists it, and add it again").field_path(".additionalAddresses"))]
pub struct VirtualIP {
    /// The address, IPv4 or IPv6, in its canonical form and without prefix length. No host may own
    /// it; it is expected in the subnet of the gateway nodes' interface.
    #[schemars(schema_with = "crate::schema::address")]
    pub address: String,

    /// Further addresses of the same virtual router and family, which move with the first: clients
    /// are accepted on each. One of IPv6 may be link-local; it is advertised first, as RFC 9568 asks,
    /// and no client is accepted there. All routers of a group must list the same. Immutable.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::additional_addresses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub additional_addresses: Vec<String>,

    /// Virtual router identifier (VRID), 1-255, unique among all VRRP routers of the network
    /// segment. Chosen from the last byte of the address when left out; that in status
    /// may be written here. Immutable once set.
    #[serde(
        default,
        rename = "virtualRouterID",
        skip_serializing_if = "Option::is_none"
    )]
    #[schemars(schema_with = "crate::schema::virtual_router_id")]
    pub virtual_router_id: Option<u8>,

    /// Interface that holds the address. When left out, that of gateways.interface, else the one on
    /// whose subnet the address lies.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::interface")]
    pub interface: Option<String>,

    /// The node that holds the address whenever it can. Excludes nodePriorities.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::object_name")]
    pub preferred_node_name: Option<String>,

    /// VRRP priorities by node, for groups that are shared with keepalived or other routers. The
    /// nodes listed are the only candidates, and the planner leaves their order alone. Each priority
    /// must lie above the number of nodes listed. Excludes preferredNodeName.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 10))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["nodeName".into()]))]
    pub node_priorities: Vec<NodePriority>,
}

/// The priority of one node.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct NodePriority {
    /// Name of a node.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub node_name: String,

    /// What the node advertises, 1-255; the highest living one holds the address. 255 is the owner's (RFC
    /// 9568 section 5.2.4), who asks nobody: it takes the address at its start, and preempts whatever the
    /// mode.
    #[schemars(schema_with = "crate::schema::priority")]
    pub priority: u8,
}
