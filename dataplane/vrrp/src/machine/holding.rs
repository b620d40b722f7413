//! What the host tells of the addresses.

use std::time::Duration;

use super::{
    Cause, Effect, VirtualRouter,
    announcements::Announcements,
    hearing::may_be_farewell,
    phase::{Expects, LastWord, Phase},
};
use crate::Instant;

/// How long a router that lost its addresses leaves the role to others: whatever took them would
/// most likely take them again. Doubled with each further loss.
const HOLD_AFTER_LOSS: Duration = Duration::from_secs(5);
const LONGEST_HOLD: Duration = Duration::from_mins(1);
/// With nobody else there it tries again sooner, but not at the pace of the protocol for ever.
const LONGEST_LISTENING: Duration = Duration::from_secs(5);
/// A loss so long ago is forgotten.
const FORGIVEN_AFTER: Duration = Duration::from_mins(5);

/// Losses of the addresses in a row.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Losses {
    count: u32,
    last: Instant,
}

impl Losses {
    /// One more; returns by what it multiplies the waits.
    fn add(&mut self, now: Instant) -> u32 {
        if now.since(self.last) > FORGIVEN_AFTER {
            self.count = 0;
        }
        self.last = now;
        self.count = self.count.saturating_add(1);
        2_u32.saturating_pow(self.count - 1)
    }
}

impl VirtualRouter {
    pub(super) fn on_addresses_added(&mut self, now: Instant) {
        if let Phase::Active(active) = &mut self.phase
            && active.announcements.is_none()
        {
            active.announcements = Some(Announcements::begin(now));
            let spoken = active.spoken;
            self.effects.push(Effect::AnnounceAddresses);
            if !spoken {
                self.advertise_out_of_turn(now);
            }
        }
    }

    pub(super) fn on_addresses_removed(&mut self, now: Instant) {
        if let Phase::Initialize { last_word, .. } = &mut self.phase
            && let LastWord::OwedTo(successor) = *last_word
        {
            *last_word = LastWord::Said;
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
        let winner = winner.filter(|winner| !may_be_farewell(winner));
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
            self.release();
            self.effects.push(Effect::RemoveAddresses);
            let factor = self.losses.add(now);
            let hold = HOLD_AFTER_LOSS.saturating_mul(factor).min(LONGEST_HOLD);
            self.hold_until = self.hold_until.max(now + hold);
            let mut backup = self.listening(now);
            let down = backup.active_down_at.since(now);
            let longest = LONGEST_LISTENING.max(down);
            backup.active_down_at = now + down.saturating_mul(factor).min(longest);
            self.enter(now, Phase::Backup(backup), Cause::AddressesLost);
        }
    }

    pub(super) fn on_peer_took_over(&mut self, now: Instant) {
        match self.phase {
            Phase::Active(_) => self.let_go(now, Cause::PeerTookOver),
            Phase::Leaving { .. } => self.finish_leaving(now, None, LastWord::Said),
            Phase::Initialize { .. } | Phase::Backup(_) => {}
        }
    }
}
