//! Which advertisements are takeovers, and whether the Active router had given reason for them.

use std::net::Ipv4Addr;
use std::time::Duration;

/// A Backup router that became Active while nothing was broken.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Takeover {
    /// When its first advertisement was on the wire, by the capture's clock.
    pub at: Duration,
    /// The silence of the Active router on the wire before it.
    pub silence: Duration,
    /// The Active router had left with priority 0.
    pub released: bool,
    /// The Active router's advertisements were on the wire in time: nothing but a late ear can be the reason.
    pub in_time: bool,
}

/// Follows the advertisements of one virtual router.
#[derive(Clone, Debug)]
pub struct Judge {
    owner: Ipv4Addr,
    interval: Duration,
    /// After so long a silence a Backup router takes over (RFC 9568 section 6.1).
    active_down: Duration,
    owner_at: Option<Duration>,
    /// The owner's last silence that was too long: how long, and when it ended.
    too_long: Option<(Duration, Duration)>,
    owner_left: bool,
    heir_at: Option<Duration>,
    heard: u64,
    longest: Duration,
    takeovers: Vec<Takeover>,
}

impl Judge {
    /// Of the virtual router that `owner` is Active for, with a Backup router of this priority.
    pub fn new(owner: Ipv4Addr, interval: Duration, backup: u8) -> Self {
        let skew = interval * u32::from(u8::MAX - backup).saturating_add(1) / 256;
        Self {
            owner,
            interval,
            active_down: 3 * interval + skew,
            owner_at: None,
            too_long: None,
            owner_left: false,
            heir_at: None,
            heard: 0,
            longest: Duration::ZERO,
            takeovers: Vec::new(),
        }
    }

    /// Takes an advertisement, in the order of time.
    pub fn note(&mut self, at: Duration, source: Ipv4Addr, priority: u8) {
        if source == self.owner {
            self.owner(at, priority);
        } else if priority > 0 {
            self.heir(at);
        }
    }

    fn owner(&mut self, at: Duration, priority: u8) {
        self.heard += 1;
        let silence = self.silence(at);
        self.longest = self.longest.max(silence);
        if silence >= self.active_down {
            self.too_long = Some((silence, at));
        }
        self.owner_left = priority == 0;
        self.owner_at = Some(at);
    }

    fn heir(&mut self, at: Duration) {
        let before = self.heir_at.replace(at);
        let since = |earlier: Duration| at.saturating_sub(earlier);
        if before.is_some_and(|before| since(before) <= 3 * self.interval) {
            return;
        }
        // Before the first advertisement of the owner nobody has taken anything over.
        if self.owner_at.is_none() {
            return;
        }
        // An advertisement that crosses the takeover came too late for it.
        let crossed = self
            .too_long
            .filter(|(_, end)| since(*end) <= self.interval);
        let silence = crossed.map_or_else(|| self.silence(at), |(silence, _)| silence);
        self.takeovers.push(Takeover {
            at,
            silence,
            released: self.owner_left,
            in_time: !self.owner_left && silence < self.active_down,
        });
    }

    fn silence(&self, at: Duration) -> Duration {
        self.owner_at
            .map_or(Duration::ZERO, |last| at.saturating_sub(last))
    }

    /// All takeovers so far.
    pub fn takeovers(&self) -> &[Takeover] {
        &self.takeovers
    }

    /// How many advertisements of the owner were on the wire.
    pub fn heard(&self) -> u64 {
        self.heard
    }

    /// The owner's longest silence on the wire.
    pub fn longest(&self) -> Duration {
        self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 14);
    const HEIR: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 15);

    fn judged(heard: &[(u64, Ipv4Addr, u8)]) -> Vec<(u64, bool, bool)> {
        let ms = Duration::from_millis;
        let mut judge = Judge::new(OWNER, ms(10), 235);
        for (at, source, priority) in heard {
            judge.note(ms(*at), *source, *priority);
        }
        let takeovers = judge.takeovers().iter();
        takeovers
            .map(|it| {
                let silence = u64::try_from(it.silence.as_millis()).unwrap();
                (silence, it.in_time, it.released)
            })
            .collect()
    }

    #[test]
    fn a_takeover_is_judged_by_what_was_on_the_wire() {
        let steady = [(0, OWNER, 250), (10, OWNER, 250), (20, OWNER, 250)];
        let then = |more: &[(u64, Ipv4Addr, u8)]| judged(&[&steady, more].concat());
        assert!(then(&[]).is_empty());
        // The owner spoke 5 ms ago; or was silent for too long; or spoke again as the other had already decided.
        assert_eq!(then(&[(25, HEIR, 235)]), [(5, true, false)]);
        assert_eq!(then(&[(55, HEIR, 235)]), [(35, false, false)]);
        assert_eq!(
            then(&[(60, OWNER, 250), (61, HEIR, 235)]),
            [(40, false, false)]
        );
        // Long enough ago, it was heard.
        assert_eq!(
            then(&[(60, OWNER, 250), (75, HEIR, 235)]),
            [(15, true, false)]
        );
        assert_eq!(then(&[(22, OWNER, 0), (23, HEIR, 235)]), [(1, false, true)]);
    }

    #[test]
    fn one_takeover_counts_once() {
        let heard = [
            (0, OWNER, 250),
            (5, HEIR, 235),
            (6, OWNER, 250),
            (15, HEIR, 235),
            (16, OWNER, 250),
            // Yields, and says so.
            (17, HEIR, 0),
            (100, OWNER, 250),
            (101, HEIR, 235),
        ];
        assert_eq!(judged(&heard).len(), 2);
        assert!(judged(&[(0, HEIR, 235), (40, OWNER, 250)]).is_empty());
    }
}
