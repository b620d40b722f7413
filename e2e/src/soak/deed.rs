//! What the soak itself did, and when: the other half of why a session ended.

use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

/// Something done that may end sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Deed {
    /// The server at this address was killed or stopped: connections to it break, new ones are refused.
    ServerDown(Ipv4Addr),
    /// The server's process was stopped where it stood: its kernel goes on and nothing answers.
    ServerFrozen(Ipv4Addr),
    /// The proxy of the gateway at this address was killed.
    ProxyKilled(Ipv4Addr),
    /// The gateway at this address was stopped in order, and later started again.
    GatewayStopped(Ipv4Addr),
    /// The address of this gateway went to the other, and nobody had done anything to it.
    AddressMoved(Ipv4Addr),
    /// An endpoint was taken out of the pool.
    EndpointRemoved(Ipv4Addr),
    /// A listener was taken out of the pool.
    ListenerRemoved(u16),
    /// A limit was set that ends sessions.
    Limited,
    /// Sessions were to be moved to servers with less to do.
    Rebalanced,
}

impl Deed {
    /// Whether it goes on until an edit says otherwise.
    pub(super) fn stays(self) -> bool {
        matches!(self, Self::Limited | Self::Rebalanced)
    }

    /// For how long after it is over it may still end sessions: a drain, a heartbeat that must miss first, an
    /// address that returns.
    fn wake(self) -> Duration {
        match self {
            Self::ServerDown(_) => Duration::from_secs(15),
            Self::Limited
            | Self::Rebalanced
            | Self::EndpointRemoved(_)
            | Self::ListenerRemoved(_) => Duration::from_secs(20),
            Self::ServerFrozen(_)
            | Self::ProxyKilled(_)
            | Self::GatewayStopped(_)
            | Self::AddressMoved(_) => Duration::from_secs(30),
        }
    }
}

/// A deed from its begin until all is again as it was.
#[derive(Clone, Copy, Debug)]
struct Span {
    deed: Deed,
    from: Instant,
    to: Option<Instant>,
}

/// All deeds of a run.
#[derive(Debug, Default)]
pub(super) struct Deeds(Vec<Span>);

impl Deeds {
    /// Notes one that begins now, before it is done.
    pub(super) fn begin(&mut self, deed: Deed) {
        self.0.push(Span {
            deed,
            from: Instant::now(),
            to: None,
        });
    }

    /// Notes one that came about at a time and was over at once.
    pub(super) fn happened(&mut self, deed: Deed, at: Instant) {
        self.0.push(Span {
            deed,
            from: at,
            to: Some(at),
        });
    }

    /// All of that kind are over.
    pub(super) fn end(&mut self, deed: Deed) {
        let open = self.0.iter_mut().filter(|span| span.deed == deed);
        for span in open {
            span.to.get_or_insert_with(Instant::now);
        }
    }

    /// Whether one that `wanted` accepts may have ended a session that ended at a time between `from` and `to`.
    pub(super) fn explain(
        &self,
        (from, to): (Instant, Instant),
        wanted: impl Fn(Deed) -> bool,
    ) -> bool {
        self.0.iter().any(|span| {
            let until = span.to.map(|to| to + span.deed.wake());
            wanted(span.deed) && span.from <= to && until.is_none_or(|until| from <= until)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_deed_explains_what_ends_while_it_lasts_or_soon_after() {
        let server = Ipv4Addr::LOCALHOST;
        let before = Instant::now();
        let mut deeds = Deeds::default();
        deeds.begin(Deed::ServerDown(server));
        let wanted = |deed| deed == Deed::ServerDown(server);
        assert!(!deeds.explain((before, before), wanted));
        let hours = Instant::now() + Duration::from_hours(1);
        assert!(deeds.explain((hours, hours), wanted));
        assert!(!deeds.explain((hours, hours), |deed| deed == Deed::Limited));
        deeds.end(Deed::ServerDown(server));
        assert!(!deeds.explain((hours, hours), wanted));
        assert!(deeds.explain((before, hours), wanted));
    }
}
