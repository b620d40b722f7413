//! What one gateway takes over all its pools: what its administrator allows, and what it has memory for.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU32, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use super::{Limit, Rate, Ticket, Turns};

/// What a gateway allows over all its pools; `None`: as much as there is.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct GatewayLimits {
    /// Live sessions, handshakes under way included; 1 at least.
    pub sessions: Option<u32>,
    /// Handshakes that are brought to endpoints in a second; 1 at least.
    pub handshakes_per_second: Option<u32>,
}

/// What it has of that.
#[derive(Debug, Default)]
pub(crate) struct Gateway {
    limits: GatewayLimits,
    sessions: AtomicU32,
    /// Connections on their way to their request, where that costs much.
    arriving: AtomicU32,
    turns: Arc<Turns>,
    lacks_memory: AtomicBool,
}

impl Gateway {
    pub(crate) fn new(limits: GatewayLimits) -> Arc<Self> {
        let limited = Self {
            limits,
            ..Self::default()
        };
        Arc::new(limited)
    }

    /// Whether there is memory left for more sessions.
    pub(crate) fn lacks_memory(&self, lacks: bool) {
        self.lacks_memory.store(lacks, Relaxed);
    }

    /// Whether there would be a place for one that asked for it now, those on their way counted.
    pub(crate) fn arrive(self: &Arc<Self>) -> Result<GatewayArriving, Limit> {
        let taken = self
            .sessions
            .load(Relaxed)
            .saturating_add(self.arriving.load(Relaxed));
        self.has_room(taken)?;
        self.arriving.fetch_add(1, Relaxed);
        Ok(GatewayArriving(Arc::clone(self)))
    }

    /// A place for a session, if there is one.
    pub(crate) fn enter(self: &Arc<Self>) -> Result<GatewayPlace, Limit> {
        // Taken before it is looked, so that of two that come together one finds the other.
        let place = GatewayPlace(Arc::clone(self));
        self.has_room(self.sessions.fetch_add(1, Relaxed))?;
        Ok(place)
    }

    fn has_room(&self, taken: u32) -> Result<(), Limit> {
        if self.lacks_memory.load(Relaxed) {
            Err(Limit::GatewayMemory)
        } else if self.limits.sessions.is_some_and(|most| taken >= most) {
            Err(Limit::GatewaySessions)
        } else {
            Ok(())
        }
    }

    /// As [`super::Admission::queue`].
    pub(crate) fn queue(&self, patience: Duration) -> Result<Option<Ticket>, Limit> {
        let Some(per_second) = self.limits.handshakes_per_second else {
            return Ok(None);
        };
        let rate = Rate::of_handshakes(per_second);
        let ticket = self.turns.enter(rate, patience, Instant::now());
        ticket.map(Some).ok_or(Limit::GatewayHandshakesPerSecond)
    }
}

/// A connection on its way to its request, until it is dropped.
#[derive(Debug)]
pub(crate) struct GatewayArriving(Arc<Gateway>);

/// One session among those that are counted, until it is dropped.
#[derive(Debug)]
pub(crate) struct GatewayPlace(Arc<Gateway>);

impl Drop for GatewayArriving {
    fn drop(&mut self) {
        self.0.arriving.fetch_sub(1, Relaxed);
    }
}

impl Drop for GatewayPlace {
    fn drop(&mut self) {
        self.0.sessions.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_given_back_and_those_on_their_way_count_for_those_behind() {
        let gateway = Gateway::new(GatewayLimits {
            sessions: Some(2),
            handshakes_per_second: None,
        });
        let (first, second) = (gateway.enter().unwrap(), gateway.enter().unwrap());
        assert_eq!(gateway.enter().err(), Some(Limit::GatewaySessions));
        drop(first);
        let arriving = gateway.arrive().unwrap();
        assert_eq!(gateway.arrive().err(), Some(Limit::GatewaySessions));
        let third = gateway.enter().unwrap();
        drop((arriving, second, third));
        let counts = [&gateway.sessions, &gateway.arriving].map(|count| count.load(Relaxed));
        assert_eq!(counts, [0, 0]);
        assert_eq!(gateway.queue(Duration::ZERO).unwrap().map(drop), None);
    }

    #[test]
    fn without_memory_nobody_enters_and_with_it_all_do() {
        let gateway = Gateway::new(GatewayLimits::default());
        let _there = gateway.enter().unwrap();
        gateway.lacks_memory(true);
        assert_eq!(gateway.enter().err(), Some(Limit::GatewayMemory));
        assert_eq!(gateway.arrive().err(), Some(Limit::GatewayMemory));
        gateway.lacks_memory(false);
        assert!(gateway.enter().is_ok() && gateway.arrive().is_ok());
    }
}
