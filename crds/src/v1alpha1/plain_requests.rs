//! `plainRequests` of a listener: requests that ask for no session.

use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Duration, rules};

/// What becomes of HTTP requests that ask for no upgrade to WebSocket, as the long polls of libraries that
/// fall back to them, or the pages that clients are loaded from.
#[derive(Clone, Debug, Deserialize, KubeSchema, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PlainRequests {
    /// Refused: they are answered 426. Proxied: they are brought to servers as handshakes are, by the same
    /// routes, checks and limits, each counted as a session for as long as it is under way.
    #[serde(default)]
    pub mode: PlainRequestsMode,

    /// How long a proxied request may stand still, 1ms-1h. Where its client has yet to send content it is
    /// then answered 408, where its server has yet to answer 504; an answer that has begun is cut off. To be
    /// longer than the longest poll.
    #[serde(default = "a_minute")]
    #[x_kube(validation = rules::wait())]
    pub timeout: Duration,
}

/// What becomes of requests that ask for no session.
#[derive(Clone, Copy, Debug, Default, Deserialize, Eq, JsonSchema, PartialEq, Serialize)]
#[expect(
    missing_docs,
    reason = "documented variants would lose their text and order in the schema"
)]
pub enum PlainRequestsMode {
    #[default]
    Refused,
    Proxied,
}

fn a_minute() -> Duration {
    Duration::from_secs(60)
}
