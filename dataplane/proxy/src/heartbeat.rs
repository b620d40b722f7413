//! When a quiet side is pinged, and when it counts as dead. No clock of its own.

use std::time::{Duration, Instant};

use crate::config::Heartbeat;

/// What is known of one side.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pulse {
    /// When something was last received from it.
    pub(crate) heard: Instant,
    /// When our Ping was sent, if nothing was received since.
    pub(crate) pinged: Option<Instant>,
    /// Pings sent whose Pongs were not seen; these Pongs are ours to swallow.
    pub(crate) unanswered: u8,
}

/// What to do about a side now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Verdict {
    /// Nothing until then.
    Wait(Instant),
    /// Send it a Ping.
    Ping,
    /// It is dead.
    Silent,
}

impl Pulse {
    pub(crate) fn new(now: Instant) -> Self {
        Self {
            heard: now,
            pinged: None,
            unanswered: 0,
        }
    }

    /// How long after our Ping something came, where it is the first thing that did.
    pub(crate) fn hear(&mut self, now: Instant) -> Option<Duration> {
        self.heard = now;
        let pinged = self.pinged.take();
        pinged.map(|pinged| now.saturating_duration_since(pinged))
    }

    pub(crate) fn ping_sent(&mut self, now: Instant) {
        self.pinged = Some(now);
        self.unanswered = self.unanswered.saturating_add(1);
    }

    /// `None`: heartbeats are off.
    pub(crate) fn verdict(&self, now: Instant, heartbeat: Heartbeat) -> Option<Verdict> {
        if heartbeat.interval.is_zero() {
            return None;
        }
        let (since, limit, then) = match self.pinged {
            Some(pinged) => (pinged, timeout(heartbeat), Verdict::Silent),
            None => (self.heard, heartbeat.interval, Verdict::Ping),
        };
        let at = since + limit;
        Some(if at <= now { then } else { Verdict::Wait(at) })
    }
}

/// The heartbeat time-out, which also says how long the sessions of a lost address are kept.
pub(crate) fn timeout(heartbeat: Heartbeat) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(10);
    if heartbeat.timeout.is_zero() {
        DEFAULT
    } else {
        heartbeat.timeout
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quiet_side_is_pinged_then_given_its_time() {
        let heartbeat = Heartbeat {
            interval: Duration::from_secs(20),
            timeout: Duration::from_secs(10),
        };
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let verdict = |pulse: &Pulse, seconds| pulse.verdict(at(seconds), heartbeat).unwrap();
        let mut pulse = Pulse::new(start);
        assert_eq!(verdict(&pulse, 19), Verdict::Wait(at(20)));
        assert_eq!(verdict(&pulse, 20), Verdict::Ping);
        pulse.ping_sent(at(21));
        assert_eq!(verdict(&pulse, 30), Verdict::Wait(at(31)));
        assert_eq!(verdict(&pulse, 31), Verdict::Silent);
        pulse.hear(at(31));
        assert_eq!(verdict(&pulse, 31), Verdict::Wait(at(51)));
        let off = Heartbeat {
            interval: Duration::ZERO,
            ..heartbeat
        };
        assert_eq!(pulse.verdict(at(500), off), None);
    }
}
