//! What is known of others that answer for one address which this host holds; no I/O.
//!
//! This host does not give the address up: the virtual router is configured to have it, and RFC 5227
//! section 2.4 (c) has such a host defend its address for good, with no more than one announcement each
//! [`DEFEND_EVERY`]. Letting go would leave the address to whoever answers for it, and a peer that died
//! with its address in place would end the service. So the answers decide what people are told.

use std::time::Duration;

use ::vrrp::{Instant, wire::Mac};

/// `DEFEND_INTERVAL` of RFC 5227 section 1.1.
const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// Probes at the pace of [`QUICK`] when the host takes the address.
const FIRST: u32 = 3;
const QUICK: Duration = Duration::from_secs(1);
/// While it is held, and while somebody is known who answers for it.
const SLOW: Duration = Duration::from_secs(10);
const KNOWN: Duration = Duration::from_secs(5);
/// The host that had the address before answers until its lease ends, 3 s at most.
const SETTLED: Duration = Duration::from_secs(4);
/// Whoever is silent to so many probes has ceased to answer.
const SILENT: u32 = 3;

/// One address, from the time on when the host takes it.
#[derive(Debug)]
pub(super) struct Claim {
    asked: u32,
    ask_at: Instant,
    rival: Option<Rival>,
}

/// Somebody else who answers.
#[derive(Clone, Copy, Debug)]
struct Rival {
    mac: Mac,
    since: Instant,
    last: Instant,
    /// Probes since it was heard.
    unanswered: u32,
    defended_at: Option<Instant>,
}

impl Rival {
    /// Whether it is none that is about to let go.
    fn stays(&self) -> bool {
        self.last.since(self.since) >= SETTLED
    }
}

impl Claim {
    pub(super) const fn begin(now: Instant) -> Self {
        Self {
            asked: 0,
            ask_at: now,
            rival: None,
        }
    }

    /// When [`Self::ask`] is due.
    pub(super) const fn wake_at(&self) -> Instant {
        self.ask_at
    }

    /// Whether to send a probe now.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        if now < self.ask_at {
            return false;
        }
        self.asked = self.asked.saturating_add(1);
        self.rival = self.rival.filter(|rival| rival.unanswered < SILENT);
        if let Some(rival) = &mut self.rival {
            rival.unanswered += 1;
        }
        let pace = match &self.rival {
            Some(rival) if rival.stays() => KNOWN,
            Some(_) => QUICK,
            None if self.asked < FIRST => QUICK,
            None => SLOW,
        };
        self.ask_at = now + pace;
        true
    }

    /// Somebody says that the address is at `mac`: whether to announce now that it is here. A third one
    /// waits until the first is silent.
    pub(super) fn hear(&mut self, now: Instant, mac: Mac) -> bool {
        let rival = self.rival.get_or_insert(Rival {
            mac,
            since: now,
            last: now,
            unanswered: 0,
            defended_at: None,
        });
        if rival.mac != mac {
            return false;
        }
        rival.last = now;
        rival.unanswered = 0;
        if !rival.stays() {
            self.ask_at = self.ask_at.min(now + QUICK);
        }
        let is_due = |at: Instant| now.since(at) >= DEFEND_EVERY;
        let defends = rival.defended_at.is_none_or(is_due);
        if defends {
            rival.defended_at = Some(now);
        }
        defends
    }

    /// Who else answers, and since when, once that is more than the end of a lease.
    pub(super) fn rival(&self) -> Option<(Mac, Instant)> {
        self.rival
            .filter(Rival::stays)
            .map(|rival| (rival.mac, rival.since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OTHER: Mac = Mac([2, 0, 0, 0, 0, 7]);
    const SECOND: Duration = Duration::from_secs(1);

    /// One address and a clock; `answers` tells whether the other host does.
    struct Bench {
        claim: Claim,
        now: Instant,
        asked: Vec<u64>,
        announced: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            let now = Instant::from_millis(1_000_000);
            Self {
                claim: Claim::begin(now),
                now,
                asked: Vec::new(),
                announced: Vec::new(),
            }
        }

        fn seconds(&self) -> u64 {
            self.now.since(Instant::from_millis(1_000_000)).as_secs()
        }

        fn run(&mut self, seconds: u64, answers: bool) {
            for _ in 0..seconds {
                if self.claim.ask(self.now) {
                    self.asked.push(self.seconds());
                    if answers && self.claim.hear(self.now, OTHER) {
                        self.announced.push(self.seconds());
                    }
                }
                self.now = self.now + SECOND;
            }
        }
    }

    #[test]
    fn probes_are_quick_at_first_and_slow_later() {
        let mut bench = Bench::new();
        bench.run(30, false);
        assert_eq!(bench.asked, [0, 1, 2, 12, 22]);
        assert_eq!(bench.claim.rival(), None);
    }

    #[test]
    fn the_host_before_is_no_rival_while_its_lease_ends() {
        let mut bench = Bench::new();
        bench.run(4, true);
        bench.run(10, false);
        assert_eq!(bench.claim.rival(), None);
        assert_eq!(bench.announced, [0]);
    }

    /// RFC 5227 section 2.4 (c).
    #[test]
    fn who_stays_is_told_of_and_defended_against_at_most_every_ten_seconds() {
        let mut bench = Bench::new();
        bench.run(40, true);
        let (mac, since) = bench.claim.rival().unwrap();
        assert_eq!((mac, since), (OTHER, Instant::from_millis(1_000_000)));
        let gaps = bench.announced.windows(2).map(|two| two[1] - two[0]);
        assert!(gaps.min().unwrap() >= 10, "{:?}", bench.announced);
        assert_eq!(bench.asked[..7], [0, 1, 2, 3, 4, 5, 10]);
    }

    #[test]
    fn who_comes_later_is_noticed_and_who_goes_is_forgotten() {
        let mut bench = Bench::new();
        bench.run(60, false);
        bench.run(20, true);
        assert!(bench.claim.rival().is_some());
        bench.run(25, false);
        assert_eq!(bench.claim.rival(), None);
    }

    #[test]
    fn a_single_word_of_somebody_else_is_looked_into() {
        let mut bench = Bench::new();
        bench.run(15, false);
        assert!(bench.claim.hear(bench.now, OTHER));
        bench.run(2, false);
        assert_eq!(bench.asked.last(), Some(&16));
    }
}
