//! Addresses that went to the other gateway, as the gateways themselves tell: what the soak did brings some about,
//! and a machine with too much to do others.

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

/// All that were seen.
#[derive(Debug)]
pub(super) struct Takeovers {
    seen: BTreeSet<Takeover>,
    /// The first client came later.
    begun: Instant,
}

impl Takeovers {
    /// Those since `begun`: before it gateways find their places.
    pub(super) fn since(begun: Instant) -> Self {
        Self {
            seen: BTreeSet::new(),
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
            let foreign = router.addresses.iter().filter_map(|held| match held {
                IpAddr::V4(held) => (home(*held) != address(gateway)).then_some(*held),
                IpAddr::V6(_) => None,
            });
            let Some(address) = foreign.into_iter().next() else {
                continue;
            };
            let transitions = router.transitions.iter();
            let taken = transitions.filter(|transition| transition.to == RouterState::Active);
            self.seen.extend(taken.map(|transition| Takeover {
                at_unix_ms: transition.at_unix_ms,
                gateway,
                address,
                cause: transition.cause.clone(),
            }));
        }
    }

    /// Notes as deeds those that nothing explains which was done, since they end sessions all the same. Tells them, too.
    pub(super) fn unasked(&self, deeds: &mut Deeds) -> Vec<String> {
        let now = (Instant::now(), SystemTime::now());
        let mut told = Vec::new();
        for takeover in &self.seen {
            let home = home(takeover.address);
            let at = instant(takeover.at_unix_ms, now);
            let asked =
                |deed| deed == Deed::ProxyKilled(home) || deed == Deed::GatewayStopped(home);
            let Some(at) = at.filter(|at| *at >= self.begun) else {
                continue;
            };
            if deeds.explain((at, at), asked) {
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
        told
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
    use crate::lab::VIP_SERVER2;

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
