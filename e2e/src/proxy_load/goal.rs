//! What is to be reached, and whether it was.

use std::fmt;

use super::load::Load;
use super::peer::Peer;
use super::ratio::Median;

/// An upper limit of wsha's cost as a share of a peer's, for a load.
#[derive(Clone, Copy, Debug)]
pub struct Goal {
    /// Under which load.
    pub load: Load,
    /// Beside whom.
    pub peer: Peer,
    /// The limit.
    pub limit: f64,
}

/// Bytes of user memory that an idle session may take.
pub const SESSION_BYTES: u64 = 3 * 1024;

/// By how much wsha's share of a peer's cost may be more with more workers.
pub const SCALING: f64 = 1.10;

/// The limits, one worker each. For small messages nginx stands at the kernel's floor, so that a tie is the goal; by TLS
/// there is room below it.
pub fn goals() -> Vec<Goal> {
    let messages = Load::messages;
    let (nginx, large, haproxy) = (Peer::Nginx, Peer::Nginx64k, Peer::Haproxy);
    let limits = [
        (messages(64, 1), nginx, 1.03),
        (messages(64, 1), haproxy, 0.95),
        (messages(64, 16), nginx, 1.03),
        (messages(64, 16), haproxy, 0.97),
        (messages(1024, 1), nginx, 1.03),
        (messages(1024, 1), haproxy, 0.95),
        (messages(1024, 16), nginx, 0.22),
        (messages(1024, 16), large, 1.03),
        (messages(1024, 16), haproxy, 0.48),
        (messages(65_536, 4), nginx, 0.15),
        (messages(65_536, 4), large, 0.90),
        (messages(65_536, 4), haproxy, 0.45),
        (Load::HANDSHAKES, nginx, 1.00),
        (Load::HANDSHAKES, large, 1.00),
        (Load::HANDSHAKES, haproxy, 1.02),
        (messages(64, 1).over_tls(), nginx, 1.00),
        (messages(1024, 16).over_tls(), nginx, 0.30),
        (messages(65_536, 4).over_tls(), nginx, 0.20),
        (Load::HANDSHAKES.over_tls(), nginx, 0.60),
    ];
    let goal = |(load, peer, limit)| Goal { load, peer, limit };
    limits.map(goal).to_vec()
}

/// How a goal stands.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// The median is within the limit.
    Met,
    /// The median is beyond, and its interval is not: more rounds may tell.
    Unresolved,
    /// The median is beyond, its interval too.
    Missed,
}

impl Verdict {
    /// How `median` stands to `limit`.
    pub fn of(median: Median, limit: f64) -> Self {
        if median.value <= limit {
            Self::Met
        } else if median.interval.is_some_and(|(low, _)| low <= limit) {
            Self::Unresolved
        } else {
            Self::Missed
        }
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Met => "met",
            Self::Unresolved => "unresolved",
            Self::Missed => "MISSED",
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_within_the_interval_is_neither_met_nor_missed() {
        let median = |value, low| Median {
            value,
            interval: Some((low, value + 1.0)),
        };
        assert_eq!(Verdict::of(median(1.0, 0.9), 1.03), Verdict::Met);
        assert_eq!(Verdict::of(median(1.1, 1.0), 1.03), Verdict::Unresolved);
        assert_eq!(Verdict::of(median(1.1, 1.05), 1.03), Verdict::Missed);
    }
}
