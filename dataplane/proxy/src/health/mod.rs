//! Which endpoints are well enough to be given sessions.
//!
//! Three things tell, each by itself. Connection attempts (`endpoint`): one that is refused or not
//! answered takes an endpoint out at once, until it accepts again. Handshakes of clients (`outlier`):
//! several in a row that came to nothing eject it for a while. Checks (`watch`, `probe`, `verdict`),
//! where a pool wants them: questions of our own, asked beside the sessions. Sessions that an endpoint
//! has are left alone by all three.
//!
//! Nobody is turned away for what is known of endpoints: those that are not well come last, not never
//! (`balance`). `outlier` and `verdict` have no clock and do no I/O.

mod condition;
mod outlier;
mod probe;
mod verdict;
mod watch;

use std::{fmt, time::Duration};

pub(crate) use condition::{Condition, checked, failed};
pub(crate) use watch::Watches;

/// How the endpoints of an upstream are kept an eye on.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Health {
    /// What each of them is asked again and again; `None`: nothing.
    pub check: Option<HealthCheck>,
    /// When clients' handshakes that come to nothing leave one out.
    pub ejection: Ejection,
    /// How many handshakes are tried again on another one.
    pub retry: Retry,
}

/// A question that is asked again and again.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HealthCheck {
    /// What is asked.
    pub probe: Probe,
    /// The port that is asked; `None`: that of the endpoint.
    pub port: Option<u16>,
    /// From one question to the next.
    pub interval: Duration,
    /// How long an answer may take.
    pub timeout: Duration,
    /// Failures in a row after which the check fails; the first answer decides alone.
    pub failure_threshold: u32,
    /// Successes in a row after which it passes again.
    pub success_threshold: u32,
}

/// What a check asks.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Probe {
    /// Whether a connection can be opened.
    Tcp,
    /// Whether a GET is answered with an expected status.
    Http {
        /// Path, and query if any.
        path: String,
        /// The `Host` field; `None`: the endpoint's address and port.
        host: Option<String>,
        /// Statuses that pass; none named: 200-399.
        expected_statuses: Vec<u16>,
    },
    /// Whether a session can be opened, and a Ping in it is answered.
    WebSocket {
        /// Path, and query if any.
        path: String,
        /// The `Host` field; `None`: the endpoint's address and port.
        host: Option<String>,
    },
}

/// When endpoints that fail clients are left out, and for how long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ejection {
    /// Handshakes in a row that come to nothing.
    pub consecutive_failures: u32,
    /// How long the first time; twice as long each further time.
    pub base: Duration,
    /// How long at most.
    pub most: Duration,
    /// How many of an upstream's endpoints may be out, in percent, rounded down; zero: none ever is.
    pub max_percent: u8,
}

impl Default for Ejection {
    fn default() -> Self {
        Self {
            consecutive_failures: 3,
            base: Duration::from_secs(10),
            most: Duration::from_mins(5),
            max_percent: 50,
        }
    }
}

/// How many handshakes may be tried again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Retry {
    /// Further attempts for each hundred handshakes of the last ten seconds.
    pub budget_percent: u8,
    /// Further attempts that are always allowed in a second.
    pub min_per_second: u32,
}

impl Default for Retry {
    fn default() -> Self {
        Self {
            budget_percent: 20,
            min_per_second: 10,
        }
    }
}

/// What became of the endpoints of an upstream since it was first served.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct HealthCounts {
    /// Checks that endpoints passed.
    pub checks_passed: u64,
    /// Checks that endpoints failed.
    pub checks_failed: u64,
    /// Times that an endpoint was left out since it failed clients.
    pub ejections: u64,
    /// Handshakes that were not tried on another endpoint, as the budget was spent.
    pub retries_refused: u64,
}

/// How an endpoint failed a check.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum CheckFailure {
    /// It refuses connections.
    Refused,
    /// It takes no connection in time.
    ConnectTimeout,
    /// There is no way to it.
    Unreachable,
    /// It takes connections and does not answer in time.
    Timeout,
    /// It closes the connection without an answer.
    Closed,
    /// What it answers is not what was asked for: no HTTP/1.1, no WebSocket.
    Malformed,
    /// TLS with it fails.
    Tls,
    /// It answers with this status.
    Status(u16),
}

impl CheckFailure {
    /// Whether this host did not get through to it. One that answers, however wrongly, is within
    /// reach: no other host would do better.
    pub(crate) const fn is_out_of_reach(self) -> bool {
        matches!(
            self,
            Self::Refused | Self::ConnectTimeout | Self::Unreachable
        )
    }
}

impl fmt::Display for CheckFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "it refuses connections",
            Self::ConnectTimeout => "it takes no connection in time",
            Self::Unreachable => "there is no route to it",
            Self::Timeout => "it does not answer in time",
            Self::Closed => "it closes the connection without an answer",
            Self::Tls => "TLS with it fails",
            Self::Malformed => "its answer is not what was asked for",
            Self::Status(status) => return write!(f, "it answers {status}"),
        })
    }
}
