//! What the host tells of the addresses.

use std::time::Duration;

use super::{
    Cause, Effect, VirtualRouter,
    announcements::Announcements,
    phase::{Expects, Phase},
};
use crate::{Instant, Priority};

/// How long a router that lost its addresses leaves the role to others: whatever took them would
/// most likely take them again.
const HOLD_AFTER_LOSS: Duration = Duration::from_secs(5);

impl VirtualRouter {
    pub(super) fn on_addresses_added(&mut self, now: Instant) {
        if let Phase::Active(active) = &mut self.phase
            && active.announcements.is_none()
        {
            active.announcements = Some(Announcements::begin(now));
            self.effects.push(Effect::AnnounceAddresses);
        }
    }

    pub(super) fn on_addresses_removed(&mut self, now: Instant) {
        if let Phase::Initialize { successor, .. } = &mut self.phase
            && let Some(successor) = successor.take()
        {
            self.say_farewell(&successor);
            return;
        }
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        let winner = match backup.expects {
            Expects::Advertisements(peer) | Expects::ToPreempt(peer) => Some(peer),
            Expects::Nobody | Expects::Successor(_) => None,
        };
        let speak = backup
            .farewell
            .as_mut()
            .is_some_and(|farewell| farewell.confirm(now, winner.is_some()));
        if let Some(winner) = winner.filter(|_| speak) {
            self.say_farewell(&winner);
        }
    }

    pub(super) fn on_addresses_lost(&mut self, now: Instant) {
        if matches!(self.phase, Phase::Active(_)) {
            self.send(Priority::RELEASE);
            self.effects.push(Effect::RemoveAddresses);
            self.hold_until = self.hold_until.max(now + HOLD_AFTER_LOSS);
            let backup = self.listening(now);
            self.enter(now, Phase::Backup(backup), Cause::AddressesLost);
        }
    }

    pub(super) fn on_peer_took_over(&mut self, now: Instant) {
        match self.phase {
            Phase::Active(_) => self.let_go(now, Cause::PeerTookOver),
            Phase::Leaving { .. } => self.finish_leaving(now, None, None),
            Phase::Initialize { .. } | Phase::Backup(_) => {}
        }
    }
}
