//! `spec.limits`: what clients may do.

use kube::KubeSchema;
use serde::{Deserialize, Serialize};

use crate::{
    Duration,
    rules::{self, duration_rule},
};

/// What clients may do. Gateways do not tell each other what they have: each keeps to the limits for
/// itself, over all listeners and addresses of the pool that it holds. An edit applies to sessions
/// that are open, too; it ends those that are older than a new maxSessionAge, and no others.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new(
    "!has(self.messageBurst) || has(self.messagesPerSecond)"
).message("has no meaning without messagesPerSecond: remove it or set messagesPerSecond").field_path(".messageBurst"))]
#[x_kube(validation = Rule::new(
    "!has(self.maxBufferedBytes) || duration(self.slowReaderTimeout) > duration('0s')"
).message("has no meaning with slowReaderTimeout 0s, as it ends nothing at once: remove it or set slowReaderTimeout").field_path(".maxBufferedBytes"))]
pub struct Limits {
    /// Sessions of the pool, those whose handshake is under way included. Further clients are answered
    /// 503, with a Retry-After of 1-10 seconds at random. As many as there are file descriptors for if
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::session_limit")]
    pub max_sessions: Option<u32>,

    /// Sessions from one address; of IPv6 from one /64, all of which a host may use. Further clients
    /// from there are answered 429, with a Retry-After. Unlimited if left out: many users may share an
    /// address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::session_limit")]
    pub max_sessions_per_source: Option<u32>,

    /// Sessions of web pages of one origin. Further ones are answered 503, with a Retry-After. Clients
    /// that send no Origin are not counted. Unlimited if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::session_limit")]
    pub max_sessions_per_origin: Option<u32>,

    /// Handshakes in a second that are brought to servers, evenly: a tenth of them at once. Further
    /// clients wait for their turn, for half of handshakeTimeout at most, and move up when one before
    /// them leaves; those for whom that would not be enough are answered 503 at once, with a Retry-After. Unlimited if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::rate")]
    pub handshakes_per_second: Option<u32>,

    /// Payload of a frame in bytes, from clients and servers alike, 125 at least. A session with a
    /// larger one ends before any of it is passed on: with a Close 1009 for the side that sent it,
    /// 1001 for a server and 1014 for a client whose peer did. Unlimited if left out: the gateway
    /// never holds a frame as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::frame_size")]
    pub max_frame_size: Option<u64>,

    /// Payload of a message in bytes, over all its frames, as it is on the wire: compressed where both
    /// sides agreed to that. As maxFrameSize otherwise; fragments before the one that is too much have
    /// been passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::message_size")]
    pub max_message_size: Option<u64>,

    /// Messages in a second that a client may send in the long run. Pings, pongs and empty fragments
    /// count as messages. A session with more ends with Close 1008, 1001 for the server. Unlimited if
    /// left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::rate")]
    pub messages_per_second: Option<u32>,

    /// Messages that a client which was quiet may send at once; as messagesPerSecond if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::rate")]
    pub message_burst: Option<u32>,

    /// How long a session lasts, 1s-8760h. It then ends with Close 1001; each at a moment of its own in
    /// the last tenth of that time, so that clients do not all return at once. Unlimited if left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Duration")]
    #[x_kube(validation = Rule::new(duration_rule(
        "self",
        "duration(self) >= duration('1s') && duration(self) <= duration('8760h')"
    )).message("must be 1s to 8760h"))]
    pub max_session_age: Option<Duration>,

    /// How long a side may take nothing at all while something waits for it, 1h at most; 0s switches
    /// this off. Its connection is then reset, as it would not read a Close either; the other side gets
    /// Close 1001 if it is the server, 1013 if it is the client.
    #[serde(default = "one_minute")]
    #[x_kube(validation = rules::at_most_an_hour())]
    pub slow_reader_timeout: Duration,

    /// Bytes that may wait on the gateway for a side that reads more slowly than the other sends, 65536 at
    /// least. Nobody loses anything by being slow for a moment: whoever sends is held back, so that the
    /// proxy holds one read at most, 257 KiB, and 17 KiB once it is found slow, and the kernel as much as a
    /// socket may have (net.ipv4.tcp_wmem, 4 MiB as a rule). A session in which more has waited for as long
    /// as slowReaderTimeout, each time it was looked, ends with Close 1013, 1001 for the server. Unlimited
    /// if left out: right where much is transferred at the pace of whoever reads.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "crate::schema::buffered_bytes")]
    pub max_buffered_bytes: Option<u64>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_sessions: None,
            max_sessions_per_source: None,
            max_sessions_per_origin: None,
            handshakes_per_second: None,
            max_frame_size: None,
            max_message_size: None,
            messages_per_second: None,
            message_burst: None,
            max_session_age: None,
            slow_reader_timeout: one_minute(),
            max_buffered_bytes: None,
        }
    }
}

fn one_minute() -> Duration {
    Duration::from_secs(60)
}
