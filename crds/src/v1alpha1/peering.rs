//! `spec.vrrp.peering` and `spec.vrrp.authentication`.

use std::fmt;

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Where advertisements go.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.mode == 'Unicast' || !has(self.addresses) || size(self.addresses) == 0"
).message("has no meaning unless mode is Unicast: remove it or set mode to Unicast").field_path(".addresses"))]
pub struct Peering {
    /// Multicast: to the group of the standard, 224.0.0.18 or ff02::12. Unicast: to each of the others
    /// by itself, for networks that carry no multicast; nodes accept what comes from the others, with a TTL
    /// of 255, and nothing else. Changes only in an edit that replaces every address.
    #[serde(default)]
    pub mode: PeeringMode,

    /// With Unicast, all routers of the group by their addresses: each node finds its own among them,
    /// from which it sends, and sends to the others. When left out, the addresses that the
    /// candidates have on the link of the virtual address, else the InternalIP of their Node. To be listed
    /// where other routers than the nodes take part; they must list the nodes' addresses, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::peer_addresses")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub addresses: Vec<String>,
}

/// Where advertisements go.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum PeeringMode {
    #[default]
    Multicast,
    Unicast,
}

/// What version 2 asks of each packet.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "self.mode == 'SimplePassword' ? has(self.password) : !has(self.password)"
).message("is for mode SimplePassword, which needs one").field_path(".password"))]
pub struct Authentication {
    /// SimplePassword: nodes send the password with each advertisement of version 2 and drop those that
    /// have another or none, as keepalived does with auth_type PASS. It crosses the wire in clear, and so
    /// protects from nothing but mistakes. Changes only in an edit that replaces every address.
    #[serde(default)]
    pub mode: AuthenticationMode,

    /// 1 to 8 printable ASCII characters. Changes only in an edit that replaces every address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::password")]
    pub password: Option<Password>,
}

/// What version 2 asks of each packet.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum AuthenticationMode {
    #[default]
    None,
    SimplePassword,
}

/// A password, which is never shown.
#[derive(Clone, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct Password(pub String);

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(..)")
    }
}
