//! What a client sees, and what a span of time costs it.

use std::collections::BTreeMap;
use std::fmt;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// How an established connection ended, as the client saw it.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Loss {
    /// A Close frame.
    Close(Option<u16>, String),
    /// The stream ended without a Close frame.
    Fin,
    /// The connection was reset.
    Reset,
    /// An echo did not come in time.
    Silence,
    /// Something that is no WebSocket.
    Garbled(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Close(Some(code), reason) if reason.is_empty() => write!(f, "Close {code}"),
            Self::Close(Some(code), reason) => write!(f, "Close {code} \"{reason}\""),
            Self::Close(None, _) => f.write_str("Close without code"),
            Self::Fin => f.write_str("FIN"),
            Self::Reset => f.write_str("RST"),
            Self::Silence => f.write_str("no echo"),
            Self::Garbled(what) => write!(f, "garbled: {what}"),
        }
    }
}

/// Why an attempt to connect failed.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum DialFailure {
    /// Refused.
    Refused,
    /// No answer in time.
    TimedOut,
    /// No route, or no neighbour.
    Unreachable,
    /// Connected, but no answer to the upgrade in time.
    UpgradeTimedOut,
    /// Connected, and ended before the upgrade was answered.
    UpgradeCut,
    /// The upgrade was refused; its status line.
    Answered(String),
    /// Something else.
    Other(String),
}

impl fmt::Display for DialFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refused => "refused",
            Self::TimedOut => "connect time-out",
            Self::Unreachable => "unreachable",
            Self::UpgradeTimedOut => "upgrade time-out",
            Self::UpgradeCut => "cut before the upgrade",
            Self::Answered(what) | Self::Other(what) => what,
        })
    }
}

/// One thing the probe saw.
#[derive(Clone, Debug)]
pub enum Seen {
    /// A connection was upgraded.
    Open,
    /// An echo came back; with the backend's address as the article's server tells it.
    Echo(Option<Ipv4Addr>),
    /// The connection was lost.
    Lost(Loss),
    /// An attempt to connect failed.
    DialFailed(DialFailure),
}

/// What a span of time cost the client.
#[derive(Clone, Debug)]
pub struct Outage {
    /// The longest time between two echoes that overlaps the span.
    pub longest: Duration,
    /// When it began and ended.
    pub between: (Instant, Instant),
    /// All time beyond the loss limit that passed without an echo.
    pub total: Duration,
    /// How connections ended, in order.
    pub losses: Vec<Loss>,
    /// Failed attempts to connect, by kind.
    pub failures: BTreeMap<DialFailure, u32>,
}

impl Outage {
    /// What the client saw, in a few words.
    pub fn saw(&self) -> String {
        let mut parts: Vec<String> = Vec::new();
        let mut losses: BTreeMap<String, u32> = BTreeMap::new();
        for loss in &self.losses {
            *losses.entry(loss.to_string()).or_default() += 1;
        }
        let counted = |what: String, count: u32| {
            if count == 1 {
                what
            } else {
                format!("{what} x{count}")
            }
        };
        parts.extend(losses.into_iter().map(|(what, count)| counted(what, count)));
        parts.extend(
            self.failures
                .iter()
                .map(|(what, count)| counted(what.to_string(), *count)),
        );
        if parts.is_empty() {
            "nothing".into()
        } else {
            parts.join(", ")
        }
    }
}

impl Outage {
    pub(super) fn silence(
        &mut self,
        begin: Instant,
        end: Instant,
        from: Instant,
        to: Instant,
        limit: Duration,
    ) {
        if end < from || begin > to {
            return;
        }
        let length = end - begin;
        if length > limit {
            self.total += length;
        }
        if length > self.longest {
            self.longest = length;
            self.between = (begin, end);
        }
    }
}
