//! `spec.vrrp.macAddress`.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The hardware (MAC) address at which clients on the link find the virtual addresses.
#[derive(Clone, Debug, Default, Deserialize, Eq, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MacAddress {
    /// Interface: that of the holding node's interface; a takeover is announced, and neighbours learn
    /// the new one. VirtualRouter: the virtual router's own (RFC 9568 section 7.3), 00-00-5E-00-01- and
    /// the VRID, for IPv6 00-00-5E-00-02- and the VRID, which stays the same when another node takes
    /// over; for groups that are shared with routers that use it, and for neighbours that ignore
    /// announcements. The network must let nodes send from it, which many hypervisors and clouds do
    /// not. Changes only in an edit that replaces every address.
    #[serde(default)]
    pub mode: MacAddressMode,
}

/// Whose hardware address it is.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum MacAddressMode {
    #[default]
    Interface,
    VirtualRouter,
}
