//! Addresses that went to the other gateway or were given up, as the gateways themselves tell: what the soak did brings
//! some about, and a machine with too much to do others.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use node_api::{NodeReport, RouterState};

use super::deed::{Deed, Deeds};
use super::ledger::{address, home};
use crate::testing::{Cluster, Gateway};

/// A gateway became Active for an address that is the other's while all is well.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Takeover {
    at_unix_ms: u64,
    gateway: Gateway,
    address: Ipv4Addr,
    cause: String,
}

/// A gateway that was Active for an address gave it up: its own, or the other's that came back to that one.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
struct Loss {
    at_unix_ms: u64,
    gateway: Gateway,
    address: Ipv4Addr,
    cause: String,
}

/// An address is lost first, and taken this much later at most, if it is.
const TAKEN_WITHIN_MS: u64 = 5000;

/// All that were seen.
#[derive(Debug)]
pub(super) struct Takeovers {
    seen: BTreeSet<Takeover>,
    lost: BTreeSet<Loss>,
    /// The first client came later.
    begun: Instant,
}

impl Takeovers {
    /// Those since `begun`: before it gateways find their places.
    pub(super) fn since(begun: Instant) -> Self {
        Self {
            seen: BTreeSet::new(),
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
                let (at_unix_ms, cause) = (transition.at_unix_ms, transition.cause.clone());
                if transition.from == RouterState::Active {
                    self.lost.insert(Loss {
                        at_unix_ms,
                        gateway,
                        address,
                        cause,
                    });
                } else if transition.to == RouterState::Active
                    && home(address) != self::address(gateway)
                {
                    self.seen.insert(Takeover {
                        at_unix_ms,
                        gateway,
                        address,
                        cause,
                    });
                }
            }
        }
    }

    /// Notes as deeds those that nothing explains which was done, since they end sessions all the same. Tells them, too.
    pub(super) fn unasked(&self, deeds: &mut Deeds) -> Vec<String> {
        let now = (Instant::now(), SystemTime::now());
        let mut told = Vec::new();
        for takeover in &self.seen {
            let home = home(takeover.address);
            let at = instant(takeover.at_unix_ms, now);
            let Some(at) = at.filter(|at| *at >= self.begun) else {
                continue;
            };
            if deeds.explain((at, at), |deed| is_asked(deed, home)) {
                continue;
            }
            deeds.happened(Deed::AddressMoved(home), at);
            told.push(format!(
                "{} took {} at {} ms: {}",
                takeover.gateway.name(),
                takeover.address,
                takeover.at_unix_ms,
                takeover.cause
            ));
        }
        self.losses(deeds, now, &mut told);
        told
    }

    /// Notes as deeds what ended sessions at a gateway that had to give their address up, whoever has it then: its own
    /// that nobody took, or the other's, of which that one takes it back when it may. Only the former is told.
    fn losses(&self, deeds: &mut Deeds, now: (Instant, SystemTime), told: &mut Vec<String>) {
        for loss in &self.lost {
            let home = home(loss.address);
            let at = instant(loss.at_unix_ms, now);
            let Some(at) = at.filter(|at| *at >= self.begun) else {
                continue;
            };
            if deeds.explain((at, at), |deed| is_asked(deed, home)) {
                continue;
            }
            deeds.happened(Deed::AddressMoved(home), at);
            let times = loss.at_unix_ms..=loss.at_unix_ms + TAKEN_WITHIN_MS;
            let mut taken = self.seen.iter();
            let is_taken =
                taken.any(|it| it.address == loss.address && times.contains(&it.at_unix_ms));
            if address(loss.gateway) == home && !is_taken {
                told.push(format!(
                    "{} gave {} up at {} ms: {}",
                    loss.gateway.name(),
                    loss.address,
                    loss.at_unix_ms,
                    loss.cause
                ));
            }
        }
    }
}

/// Whether that was done to the gateway of an address, which then has to give it up.
fn is_asked(deed: Deed, home: Ipv4Addr) -> bool {
    deed == Deed::ProxyKilled(home) || deed == Deed::GatewayStopped(home)
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
        takeovers.seen.insert(Takeover {
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
        let taken_at = takeovers.seen.first().unwrap().at_unix_ms;
        let loss = |gateway, address, at_unix_ms| Loss {
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
        assert!(told[1].contains("gave 192.168.1.112 up"), "{told:?}");
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
