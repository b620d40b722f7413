//! Proxies before the gateways, and what servers are told of clients: `proxyProtocol` of listeners and
//! upstreams.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// The PROXY protocol of HAProxy, as a load balancer before the gateways speaks it.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ProxyProtocol {
    /// Required: each connection begins with a header of version 1 or 2, which says who the client is
    /// and to which address it has connected; connections without one, or from others than
    /// trustedProxies, are closed without an answer. Disabled: none does.
    #[serde(default)]
    pub mode: ProxyProtocolMode,
}

/// Whether a header is there.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum ProxyProtocolMode {
    #[default]
    Disabled,
    Required,
}

/// A header of the PROXY protocol that servers get before each handshake.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SentProxyProtocol {
    /// Version of the header: 1 (text) or 2 (binary).
    #[schemars(schema_with = "crate::schema::proxy_protocol_version")]
    pub version: u8,
}
