//! Addresses that went to the other gateway or were given up, as the gateways themselves tell: what the soak did brings
//! some about, and a machine with too much to do others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use node_api::{NodeReport, RouterState};

use super::deed::{Deed, Deeds};
use super::ledger::{address, home};
use crate::testing::{Cluster, Gateway};

/// A gateway took an address or gave it up.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Move {
    at_unix_ms: u64,
    gateway: Gateway,
    address: Ipv4Addr,
    cause: String,
}

impl Move {
    /// In words: it `did` what it did.
    fn told(&self, did: &str) -> String {
        let Self {
            at_unix_ms,
            gateway,
            address,
            cause,
        } = self;
        let gateway = gateway.name();
        format!("{gateway} {did} {address} at {at_unix_ms} ms: {cause}")
    }
}

/// An address is lost first, and taken this much later at most, if it is.
const TAKEN_WITHIN_MS: u64 = 5000;

/// All that were seen.
#[derive(Debug)]
pub(super) struct Takeovers {
    /// Of an address that is the other's while all is well.
    taken: BTreeSet<Move>,
    /// Of an address by a gateway that was Active for it: its own, or the other's that came back to that one.
    lost: BTreeSet<Move>,
    /// The first client came later.
    begun: Instant,
}

impl Takeovers {
    /// Those since `begun`: before it gateways find their places.
    pub(super) fn since(begun: Instant) -> Self {
        Self {
            taken: BTreeSet::new(),
            lost: BTreeSet::new(),
            begun,
        }
    }

    /// Looks at what both gateways remember. One that is being started or stopped is passed over: the other tells
    /// what it took.
    pub(super) fn look(&mut self, cluster: &Cluster) {
        for gateway in Gateway::BOTH {
            if let Ok(report) = cluster.status(gateway) {
                self.note(gateway, &report);
            }
        }
    }

    fn note(&mut self, gateway: Gateway, report: &NodeReport) {
        for router in &report.virtual_routers {
            let mut addresses = router.addresses.iter().filter_map(|held| match held {
                IpAddr::V4(held) => Some(*held),
                IpAddr::V6(_) => None,
            });
            let Some(address) = addresses.next() else {
                continue;
            };
            for transition in &router.transitions {
                let of = if transition.from == RouterState::Active {
                    &mut self.lost
                } else if transition.to == RouterState::Active
                    && home(address) != self::address(gateway)
                {
                    &mut self.taken
                } else {
                    continue;
                };
                of.insert(Move {
                    at_unix_ms: transition.at_unix_ms,
                    gateway,
                    address,
                    cause: transition.cause.clone(),
                });
            }
        }
    }

    /// Notes as deeds those that nothing explains which was done, since they end sessions all the same. Tells them, too:
    /// addresses that were taken, and those that their own gateway gave up and nobody took.
    pub(super) fn unasked(&self, deeds: &mut Deeds) -> Vec<String> {
        let now = (Instant::now(), SystemTime::now());
        let mut told = Vec::new();
        for taken in &self.taken {
            if self.note_unasked(taken, deeds, now) {
                told.push(taken.told("took"));
            }
        }
        for lost in &self.lost {
            let is_own = address(lost.gateway) == home(lost.address);
            if self.note_unasked(lost, deeds, now) && is_own && !self.is_taken(lost) {
                told.push(lost.told("gave up"));
            }
        }
        told
    }

    /// Notes it as a deed, unless it came before the first client, or what was done explains it; whether it did.
    fn note_unasked(&self, it: &Move, deeds: &mut Deeds, now: (Instant, SystemTime)) -> bool {
        let home = home(it.address);
        let is_asked = |deed| deed == Deed::ProxyKilled(home) || deed == Deed::GatewayStopped(home);
        let at = instant(it.at_unix_ms, now).filter(|at| *at >= self.begun);
        let Some(at) = at.filter(|at| !deeds.explain((*at, *at), is_asked)) else {
            return false;
        };
        deeds.happened(Deed::AddressMoved(home), at);
        true
    }

    /// Whether the other gateway took what was lost.
    fn is_taken(&self, lost: &Move) -> bool {
        let times = lost.at_unix_ms..=lost.at_unix_ms + TAKEN_WITHIN_MS;
        let mut taken = self.taken.iter();
        taken.any(|it| it.address == lost.address && times.contains(&it.at_unix_ms))
    }
}

/// The moment of a time of the clock, if the machine was up then.
fn instant(unix_ms: u64, (now, clock): (Instant, SystemTime)) -> Option<Instant> {
    let at = UNIX_EPOCH + Duration::from_millis(unix_ms);
    now.checked_sub(clock.duration_since(at).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::lab::{VIP_SERVER1, VIP_SERVER2};

    fn before(at: Instant, by: Duration) -> Instant {
        at.checked_sub(by).unwrap()
    }

    fn taken(ago: Duration) -> Takeovers {
        let at = SystemTime::now() - ago;
        let at_unix_ms = at.duration_since(UNIX_EPOCH).unwrap().as_millis();
        let mut takeovers = Takeovers::since(before(Instant::now(), 2 * ago));
        takeovers.taken.insert(Move {
            at_unix_ms: at_unix_ms.try_into().unwrap(),
            gateway: Gateway::One,
            address: VIP_SERVER2,
            cause: "active_silent".to_owned(),
        });
        takeovers
    }

    #[test]
    fn an_address_that_is_given_up_explains_ends_whoever_has_it_then() {
        let of_one = |deed| deed == Deed::AddressMoved(address(Gateway::One));
        let of_two = |deed| deed == Deed::AddressMoved(address(Gateway::Two));
        let mut takeovers = taken(Duration::from_secs(50));
        let taken_at = takeovers.taken.first().unwrap().at_unix_ms;
        let loss = |gateway, address, at_unix_ms| Move {
            at_unix_ms,
            gateway,
            address,
            cause: "proxy".to_owned(),
        };
        // It was lost before it was taken, and went back long after that; the other was lost, and nobody took it.
        takeovers.lost.extend([
            loss(Gateway::Two, VIP_SERVER2, taken_at - 3),
            loss(Gateway::One, VIP_SERVER2, taken_at + 45_000),
            loss(Gateway::One, VIP_SERVER1, taken_at + 45_000),
        ]);
        let mut deeds = Deeds::default();
        let told = takeovers.unasked(&mut deeds);
        assert_eq!(told.len(), 2, "{told:?}");
        assert!(told[1].contains("gave up 192.168.1.112"), "{told:?}");
        let now = Instant::now();
        assert!(deeds.explain((now, now), of_one));
        assert!(deeds.explain((now, now), of_two));
    }

    #[test]
    fn a_takeover_explains_ends_and_is_told_unless_it_was_asked_for() {
        let moved = |deed| deed == Deed::AddressMoved(address(Gateway::Two));
        let mut takeovers = taken(Duration::from_secs(5));
        let mut deeds = Deeds::default();
        assert_eq!(takeovers.unasked(&mut deeds).len(), 1);
        let now = Instant::now();
        assert!(deeds.explain((now, now), moved));
        let sooner = before(now, Duration::from_secs(7));
        assert!(!deeds.explain((sooner, sooner), moved));
        takeovers.begun = now;
        assert_eq!(takeovers.unasked(&mut Deeds::default()), [""; 0]);

        let mut deeds = Deeds::default();
        let stopped = Deed::GatewayStopped(address(Gateway::Two));
        deeds.happened(stopped, before(now, Duration::from_secs(6)));
        let takeovers = taken(Duration::from_secs(5));
        assert_eq!(takeovers.unasked(&mut deeds), [""; 0]);
        assert!(!deeds.explain((now, now), moved));
    }
}
