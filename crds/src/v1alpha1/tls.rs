//! TLS with clients and with servers: `tls` of listeners and upstreams.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// TLS with clients (wss://).
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Secrets of type kubernetes.io/tls in the pool's namespace, each with a certificate chain
    /// (tls.crt) and its key (tls.key). A client gets the certificate for the name that it asks for
    /// (SNI), or else the first. A certificate that is replaced serves new connections; those that are
    /// open stay.
    #[schemars(length(min = 1, max = 16))]
    #[x_kube(merge_strategy = ListMerge::Map(vec!["name".into()]))]
    pub certificate_refs: Vec<SecretReference>,

    /// Oldest version of TLS that clients may speak. 1.2 if left out.
    #[serde(default)]
    pub minimum_version: TlsVersion,

    /// Clients that speak HTTP/2.
    #[serde(default)]
    pub http2: Http2,
}

/// HTTP/2 with clients.
#[derive(Clone, Debug, Default, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Http2 {
    /// Enabled: who offers HTTP/2 gets it, and may have many sessions in one connection (RFC 8441).
    /// Disabled: all get HTTP/1.1. Sessions that are open stay.
    #[serde(default)]
    pub mode: Http2Mode,
}

/// Whether clients get HTTP/2.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum Http2Mode {
    #[default]
    Enabled,
    Disabled,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum TlsVersion {
    #[default]
    #[serde(rename = "1.2")]
    V12,
    #[serde(rename = "1.3")]
    V13,
}

/// TLS with servers.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Name that the certificates of the servers must be for, which is also the one that they are asked
    /// for (SNI).
    #[schemars(schema_with = "crate::schema::hostname")]
    pub hostname: String,

    /// Secret in the pool's namespace with the certificates of the authorities that those of the servers
    /// come from (ca.crt).
    pub ca_certificate_ref: SecretReference,

    /// Secret of type kubernetes.io/tls in the pool's namespace with the certificate that servers get
    /// to see. None if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "SecretReference")]
    pub client_certificate_ref: Option<SecretReference>,
}

/// A Secret of the pool's namespace.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretReference {
    /// Name of the Secret.
    #[schemars(schema_with = "crate::schema::object_name")]
    pub name: String,
}
