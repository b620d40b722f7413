//! What is known of others that answer for one address which this host holds; no I/O.
//!
//! This host does not give the address up: the virtual router is configured to have it, and RFC 5227
//! section 2.4 (c) has such a host defend its address for good, with no more than one announcement each
//! [`DEFEND_EVERY`]. Letting go would leave the address to whoever answers for it, and a peer that died
//! with its address in place would end the service. So the answers decide what people are told.
//!
//! Another router of the same virtual router that does not hear this one is no stranger, and claims the
//! address several times while it rises: it is contradicted each time. That cannot go on for ever: of two
//! routers that hear each other's advertisements one yields, and the other one's are what [`Defence::AtOnce`]
//! asks for.

use std::time::Duration;

use ::vrrp::{Instant, wire::Mac};

/// `DEFEND_INTERVAL` of RFC 5227 section 1.1.
pub(super) const DEFEND_EVERY: Duration = Duration::from_secs(10);
/// The shortest pause between two announcements: less than between two of a router that rises.
const SHORTEST_PAUSE: Duration = Duration::from_millis(5);
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
    defend_at: Option<Instant>,
    defended_at: Option<Instant>,
}

/// When to announce that the address is here, after somebody else has claimed it.
#[derive(Clone, Copy, Debug)]
pub(super) enum Defence {
    /// Now, each time: a router that has to yield claims it.
    AtOnce,
    /// Then, unless there is a reason not to until then; at most each [`DEFEND_EVERY`].
    After(Duration),
}

/// Somebody else who answers.
#[derive(Clone, Copy, Debug)]
struct Rival {
    mac: Mac,
    since: Instant,
    last: Instant,
    /// Probes since it was heard.
    unanswered: u32,
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
            defend_at: None,
            defended_at: None,
        }
    }

    /// When [`Self::ask`] or [`Self::defends`] is due.
    pub(super) fn wake_at(&self) -> Instant {
        self.defend_at.map_or(self.ask_at, |at| at.min(self.ask_at))
    }

    /// Whether to send a probe now.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        if now < self.ask_at {
            return false;
        }
        self.asked = self.asked.saturating_add(1);
        self.rival = self.rival.filter(|rival| rival.unanswered < SILENT);
        match &mut self.rival {
            Some(rival) => rival.unanswered += 1,
            None => self.defend_at = None,
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

    /// Somebody says that the address is at `mac`. A third one waits until the first is silent.
    pub(super) fn hear(&mut self, now: Instant, mac: Mac, defence: Defence) {
        let rival = self.rival.get_or_insert(Rival {
            mac,
            since: now,
            last: now,
            unanswered: 0,
        });
        let is_known = rival.mac == mac;
        if is_known {
            rival.last = now;
            rival.unanswered = 0;
            if !rival.stays() {
                self.ask_at = self.ask_at.min(now + QUICK);
            }
        }
        let (wait, pause) = match defence {
            Defence::AtOnce => (Duration::ZERO, SHORTEST_PAUSE),
            Defence::After(wait) if is_known => (wait, DEFEND_EVERY),
            Defence::After(_) => return,
        };
        let allowed = self.defended_at.map_or(now, |at| at + pause);
        let at = allowed.max(now + wait);
        self.defend_at = Some(self.defend_at.map_or(at, |planned| planned.min(at)));
    }

    /// Whether to announce now that the address is here.
    pub(super) fn defends(&mut self, now: Instant) -> bool {
        let is_due = self.defend_at.is_some_and(|at| at <= now);
        if is_due {
            self.defend_at = None;
            self.defended_at = Some(now);
        }
        is_due
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
                    if answers {
                        self.claim.hear(self.now, OTHER, Defence::After(SECOND));
                    }
                }
                if self.claim.defends(self.now) {
                    self.announced.push(self.seconds());
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
        assert_eq!(bench.announced, [1]);
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
        bench.claim.hear(bench.now, OTHER, Defence::After(SECOND));
        bench.run(2, false);
        assert_eq!(bench.asked.last(), Some(&16));
    }

    /// Whoever is better would have been heard until then.
    #[test]
    fn who_may_be_wrong_waits_before_it_contradicts() {
        let mut bench = Bench::new();
        let wait = Duration::from_millis(200);
        bench.claim.hear(bench.now, OTHER, Defence::After(wait));
        assert!(!bench.claim.defends(bench.now));
        assert!(
            !bench
                .claim
                .defends(bench.now + wait - Duration::from_nanos(1))
        );
        // Nor does a second word make it earlier or later.
        let later = bench.now + wait / 2;
        bench.claim.hear(later, OTHER, Defence::After(wait));
        assert!(bench.claim.defends(bench.now + wait));
        assert!(!bench.claim.defends(bench.now + wait * 3));
    }

    /// As a router that rises announces: at once, 10, 50, 200 ms, 1 s and 5 s after. A third host does not
    /// get away with it either.
    #[test]
    fn a_router_that_has_to_yield_is_contradicted_each_time() {
        let third = Mac([2, 0, 0, 0, 0, 8]);
        let mut bench = Bench::new();
        let begin = bench.now;
        for millis in [0, 10, 50, 200, 1000, 5000] {
            let now = begin + Duration::from_millis(millis);
            bench.claim.hear(now, OTHER, Defence::AtOnce);
            assert!(bench.claim.defends(now), "after {millis} ms");
            assert!(!bench.claim.defends(now));
        }
        let now = begin + SECOND * 6;
        bench.claim.hear(now, third, Defence::AtOnce);
        assert!(bench.claim.defends(now));
        // A flood is not answered by one.
        let mut announced = 0;
        for millis in 0..1000 {
            let now = now + Duration::from_millis(millis);
            bench.claim.hear(now, OTHER, Defence::AtOnce);
            announced += u32::from(bench.claim.defends(now));
        }
        assert!(announced <= 200, "{announced} announcements in a second");
        // Without a router that has to yield it is a stranger again.
        let now = now + SECOND;
        assert!(bench.claim.defends(now), "the last word of the flood");
        bench.claim.hear(now, OTHER, Defence::After(SECOND));
        assert!(!bench.claim.defends(now + SECOND * 8));
        assert!(bench.claim.defends(now + SECOND * 10));
    }
}
