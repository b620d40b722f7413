//! TLS of listeners and upstreams, and the key material for it, which travels apart from what refers to
//! it and is never shown.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
};

use serde::{Deserialize, Serialize};

use crate::config::{Pool, PoolRef};

/// TLS of a listener.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ListenerTls {
    /// Secrets with a certificate and its key, each `namespace/name`; the first one is for clients that
    /// ask for a name that none is for.
    pub certificates: Vec<String>,
    /// Oldest version that clients may speak.
    #[serde(default, skip_serializing_if = "TlsVersion::is_default")]
    pub minimum_version: TlsVersion,
    /// Whether clients that offer HTTP/2 get it.
    #[serde(default, skip_serializing_if = "Http2::is_default")]
    pub http2: Http2,
}

/// HTTP/2 with clients (RFC 8441).
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum Http2 {
    /// For those that offer it.
    #[default]
    Enabled,
    /// For none.
    Disabled,
}

impl Http2 {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
pub enum TlsVersion {
    /// RFC 5246.
    #[default]
    V12,
    /// RFC 8446.
    V13,
}

impl TlsVersion {
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde asks for it")]
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// TLS of an upstream.
#[derive(Clone, Debug, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct UpstreamTls {
    /// Name that endpoints are asked for, and that their certificates must be for.
    pub hostname: String,
    /// Secret with the authorities that their certificates come from, `namespace/name`.
    pub ca: String,
    /// Secret with the certificate that endpoints get to see, `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub client_certificate: Option<String>,
}

/// What a Secret holds, each part in PEM (RFC 7468); what is not there is left out.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    /// A certificate and those between it and its authority (`tls.crt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub certificate: Option<String>,
    /// Its private key (`tls.key`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Certificates of authorities (`ca.crt`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca: Option<String>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Keys that session tickets of a pool are sealed with (RFC 5077 section 4), each 32 bytes in base64
/// with padding (RFC 4648 section 4). The first one seals, all of them open. The same ones on all nodes
/// of the pool, so that a client that comes to another one resumes.
#[derive(Clone, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(transparent)]
pub struct TicketKeys(pub Vec<String>);

impl fmt::Debug for TicketKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TicketKeys(..)")
    }
}

/// The key material of a node.
#[derive(Clone, Debug, Default, Deserialize, Eq, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Keys {
    /// Secrets by `namespace/name`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub secrets: BTreeMap<String, Secret>,
    /// Of each pool that has any; the others' tickets are good for one process alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub tickets: Vec<(PoolRef, TicketKeys)>,
}

impl Keys {
    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// Those for the tickets of a pool.
    pub fn tickets_of(&self, pool: &PoolRef) -> Option<&TicketKeys> {
        let mut tickets = self.tickets.iter();
        tickets.find_map(|(name, keys)| (name == pool).then_some(keys))
    }
}

impl Pool {
    /// The Secrets that it refers to.
    pub fn secrets(&self) -> BTreeSet<&str> {
        let listeners = self.listeners.iter().filter_map(|one| one.tls.as_ref());
        let certificates = listeners.flat_map(|tls| &tls.certificates);
        let upstreams = self.upstreams.iter().filter_map(|one| one.tls.as_ref());
        let others =
            upstreams.flat_map(|tls| std::iter::once(&tls.ca).chain(&tls.client_certificate));
        certificates.chain(others).map(String::as_str).collect()
    }

    /// Whether clients may get session tickets.
    pub fn has_tickets(&self) -> bool {
        self.listeners.iter().any(|one| one.tls.is_some())
    }
}
