//! `spec.listeners`, `spec.heartbeat`, `spec.drain`: how sessions begin, live and end.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use super::{ListenerTls, PlainRequests, ProxyProtocol, Route};
use crate::{
    Duration,
    rules::{self, duration_rule},
};

/// A port on which clients are accepted.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.proxyProtocol) || self.proxyProtocol.mode != 'Required' || (has(self.trustedProxies) && size(self.trustedProxies) > 0)"
).message("is needed with proxyProtocol.mode Required, or nobody could connect: name the proxies that send the header").field_path(".trustedProxies"))]
pub struct Listener {
    /// Name of the listener, unique in the pool; status and metrics refer to it.
    #[schemars(schema_with = "crate::schema::section_name")]
    pub name: String,

    /// TCP port, on each virtual address.
    #[schemars(schema_with = "crate::schema::port")]
    pub port: u16,

    /// Origins of the web pages that may connect, as browsers send them: `https://chat.example.com`,
    /// with `*.` at the start of the host for any names before it. Handshakes from other pages are
    /// answered 403, so that no page can use the sessions of users who look at it. Clients that send no
    /// Origin are no browsers, and are let in. All if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::origins")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub allowed_origins: Vec<String>,

    /// Networks of the proxies before the gateways that are believed about who the client is:
    /// `192.0.2.0/24`, a single address with /32 or /128. What they say in X-Forwarded-For, Forwarded
    /// and the other X-Forwarded fields is kept and added to, and the client is the last one they name
    /// that is no such proxy itself. Of all others these fields are replaced. None if left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(schema_with = "crate::schema::networks")]
    #[x_kube(merge_strategy = ListMerge::Set)]
    pub trusted_proxies: Vec<String>,

    /// Whether connections begin with a header of the PROXY protocol. Disabled if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ProxyProtocol")]
    pub proxy_protocol: Option<ProxyProtocol>,

    /// Which upstream a request goes to. Of the routes that match it, the one with the most specific
    /// hostname is taken: a whole one before one with `*.`, a longer one of these before a shorter, then
    /// those for all hosts; of these the one with the longest pathPrefix. Their order does not matter.
    /// Requests that no route matches are answered 404; those with a path that servers read in
    /// different ways, so that it may be another route's, 400. May be left out where the pool has one
    /// upstream. Edits are for new sessions.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    // Routes have no key, and server-side apply knows no sets of objects.
    #[x_kube(merge_strategy = ListMerge::Atomic)]
    #[x_kube(validation = Rule::new(
        "self.all(r, (has(r.hostnames) && size(r.hostnames) > 0) || self.exists_one(s, (!has(s.hostnames) || size(s.hostnames) == 0) && s.pathPrefix == r.pathPrefix))"
    ).message("two routes for all hosts have the same pathPrefix: remove one of them"))]
    pub routes: Vec<Route>,
    /// TLS with clients, who then connect by wss://. None if left out: by ws://.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "ListenerTls")]
    pub tls: Option<ListenerTls>,

    /// What becomes of requests that ask for no session. They are refused if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "PlainRequests")]
    pub plain_requests: Option<PlainRequests>,
}

/// Pings to sides that have been quiet.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(duration_rule(
    "self.timeout",
    &duration_rule(
        "self.interval",
        "duration(self.interval) == duration('0s') || duration(self.timeout) > duration('0s')"
    )
)).message("must be at least 1ms unless interval is 0s").field_path(".timeout"))]
pub struct Heartbeat {
    /// Silence after which a side is pinged, 1h at most; 0s switches heartbeats off.
    #[serde(default = "twenty_seconds")]
    #[x_kube(validation = rules::at_most_an_hour())]
    pub interval: Duration,

    /// How long a pinged side may stay silent before its session is ended, 1ms-1h.
    #[serde(default = "ten_seconds")]
    #[x_kube(validation = rules::at_most_an_hour())]
    pub timeout: Duration,
}

impl Default for Heartbeat {
    fn default() -> Self {
        Self {
            interval: twenty_seconds(),
            timeout: ten_seconds(),
        }
    }
}

/// How sessions end when they must.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// By when the sessions of a removed server are closed at the latest, evenly over this time, so that
    /// clients do not all return at once, 1h at most; 0s closes them at once.
    #[serde(default = "thirty_seconds")]
    #[x_kube(validation = rules::at_most_an_hour())]
    pub timeout: Duration,

    /// How many sessions each gateway closes in a second, if timeout leaves the time for that; more
    /// otherwise. Few sessions are then closed in less time than timeout. All of it is used if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::rate")]
    pub sessions_per_second: Option<u32>,

    /// Code of the Close frame that clients then get (1001: going away).
    #[serde(default = "going_away")]
    #[schemars(schema_with = "crate::schema::close_code")]
    pub close_code: u16,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: thirty_seconds(),
            sessions_per_second: None,
            close_code: going_away(),
        }
    }
}

fn ten_seconds() -> Duration {
    Duration::from_secs(10)
}

fn twenty_seconds() -> Duration {
    Duration::from_secs(20)
}

fn thirty_seconds() -> Duration {
    Duration::from_secs(30)
}

fn going_away() -> u16 {
    1001
}
