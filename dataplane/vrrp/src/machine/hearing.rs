//! What an advertisement does.

use std::{cmp::Ordering, net::IpAddr};

use super::{
    Cause, Effect, Peer, Preemption, VirtualRouter, election,
    phase::{Expects, Heard, LastWord, Phase, Quiet},
};
use crate::{
    Advertisement, Centiseconds, Discard, Instant, Priority, active_down_interval, skew_time,
    wire::AddressList,
};

impl VirtualRouter {
    pub(super) fn on_advertisement(
        &mut self,
        now: Instant,
        source: IpAddr,
        advertisement: &Advertisement<'_>,
    ) {
        let checked = election::check(&self.config, source, advertisement);
        self.note_addresses(source, advertisement, checked);
        self.note_interval(source, advertisement, checked);
        if let Err(discard) = checked {
            self.effects.push(Effect::Discarded(discard));
            return;
        }
        let peer = Peer {
            source,
            priority: advertisement.priority,
            heard_at: now,
        };
        self.last_heard = Some(peer);
        if peer.priority == self.priority() && !may_be_farewell(&peer) {
            self.twin = Some(peer);
        } else if self.twin.is_some_and(|twin| twin.source == source) && !peer.priority.is_release()
        {
            self.twin = None;
        }
        let learned = advertisement.interval;
        self.last_interval = Some(learned);
        let release = advertisement.priority.is_release();
        match &mut self.phase {
            Phase::Initialize { quiet, .. } if !release => {
                *quiet = Some(Quiet {
                    since: now,
                    learned: Some(learned),
                });
            }
            Phase::Leaving { .. } if !release => {
                self.finish_leaving(now, Some(learned), LastWord::OwedTo(peer));
            }
            Phase::Initialize { .. } | Phase::Leaving { .. } => {}
            Phase::Backup(_) => self.backup_hears(now, peer, learned),
            Phase::Active(_) => self.active_hears(now, peer, learned),
        }
    }

    /// RFC 9568 section 6.4.2; RFC 3768 section 6.4.2.
    pub(super) fn backup_hears(&mut self, now: Instant, peer: Peer, learned: Centiseconds) {
        let own = self.priority();
        let version = self.config.settings.version;
        let own_interval = self.config.settings.interval;
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        if peer.priority.is_release() {
            // A repeated priority 0 must not put off what the first one started.
            let soon = now + skew_time(version, own, backup.learned);
            backup.active_down_at = backup.active_down_at.min(soon);
            backup.expects = Expects::Successor(peer.source);
            return;
        }
        let is_known = match backup.expects {
            Expects::Advertisements(known) | Expects::ToPreempt(known) => {
                known.source == peer.source
            }
            Expects::Nobody | Expects::Successor(_) => false,
        };
        let is_farewell = may_be_farewell(&peer) && !is_known;
        self.weigh(now, peer, learned, !is_farewell);
        if is_farewell {
            return;
        }
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        let interval = learned.min(own_interval).as_duration();
        let heard = backup.farewell.as_mut().map(|it| it.hear(now, interval));
        match heard {
            Some(Heard::Speak) => self.say_farewell(&peer),
            Some(Heard::Answer) => backup.farewell = None,
            Some(Heard::Nothing) | None => {}
        }
    }

    /// Whether the Active router `peer` is accepted or about to be preempted: sets the timer. What may be
    /// a farewell begins no preemption delay: some routers hear it before the new Active and some after,
    /// and their delays would not end together.
    fn weigh(&mut self, now: Instant, peer: Peer, learned: Centiseconds, begins_delay: bool) {
        let own = self.priority();
        let version = self.config.settings.version;
        let preemption = self.config.settings.preemption;
        let hold_until = self.hold_until;
        let Phase::Backup(backup) = &mut self.phase else {
            return;
        };
        let preempt_at = match preemption {
            _ if peer.priority >= own => {
                backup.preempt_at = None;
                None
            }
            // RFC 9568 section 6.1, Preempt_Mode: the owner preempts whatever the mode.
            _ if own.is_owner() => Some(now),
            Preemption::Disabled => None,
            Preemption::Enabled { delay } if begins_delay || delay.is_zero() => {
                Some(*backup.preempt_at.get_or_insert(now + delay))
            }
            Preemption::Enabled { .. } => backup.preempt_at,
        };
        if preempt_at.is_some_and(|at| at.max(hold_until) <= now) {
            // The timer runs on: not restarted, or a lower router could never be replaced.
            backup.expects = Expects::ToPreempt(peer);
            return;
        }
        backup.learned = learned;
        backup.active_down_at = now + active_down_interval(version, own, learned);
        backup.expects = Expects::Advertisements(peer);
        // The end of a delay, which all routers count from the same advertisement, is followed by
        // the skew time and not by the next advertisement that would be ignored: that one reaches
        // some before and some after their delay's end, and a worse router would rise first.
        let rise_at = preempt_at
            .filter(|at| *at > now && *at >= hold_until)
            .map(|at| at + skew_time(version, own, learned));
        if let Some(rise_at) = rise_at
            && rise_at <= backup.active_down_at
        {
            backup.active_down_at = rise_at;
            backup.expects = Expects::ToPreempt(peer);
        }
    }

    /// What decides about preemption changed: a Backup about to preempt must not go on with it if it
    /// no longer may, as with a priority that has just become the lower one.
    pub(super) fn reconsider(&mut self, now: Instant) {
        if let Phase::Backup(backup) = &self.phase
            && let Expects::ToPreempt(peer) = backup.expects
        {
            let learned = backup.learned;
            self.weigh(now, peer, learned, true);
        }
    }

    /// RFC 9568 section 6.4.3; RFC 3768 section 6.4.3.
    pub(super) fn active_hears(&mut self, now: Instant, peer: Peer, learned: Centiseconds) {
        if peer.priority.is_release() {
            self.advertise_out_of_turn(now);
            self.announce_again(now);
            return;
        }
        let own = (self.priority(), self.config.settings.source);
        if election::compare((peer.priority, peer.source), own) == Ordering::Less {
            if !self.has_advertised() {
                // The one that is about to be preempted.
                return;
            }
            // RFC 9568: assert the role at once. The announcement repairs what it claimed.
            self.advertise_out_of_turn(now);
            self.announce_again(now);
            return;
        }
        let (source, priority) = (peer.source, peer.priority);
        let cause = if priority > own.0 {
            Cause::HigherPriority { source, priority }
        } else {
            Cause::GreaterAddress { source, priority }
        };
        self.let_go(now, cause);
        if let Phase::Backup(backup) = &mut self.phase {
            backup.learned = learned;
            backup.active_down_at =
                now + active_down_interval(self.config.settings.version, own.0, learned);
            backup.expects = Expects::Advertisements(peer);
        }
    }

    /// Keeps what [`Self::differing_addresses_from`] tells.
    pub(super) fn note_addresses(
        &mut self,
        source: IpAddr,
        advertisement: &Advertisement<'_>,
        checked: Result<(), Discard>,
    ) {
        if !matches!(checked, Ok(()) | Err(Discard::OtherAddresses)) {
            return;
        }
        let own = AddressList::from_slice(&self.config.addresses);
        if !advertisement.addresses.same_set(&own) {
            self.stranger = Some(source);
        } else if self.stranger == Some(source) {
            self.stranger = None;
        }
    }

    /// Keeps what [`Self::differing_interval_from`] tells.
    fn note_interval(
        &mut self,
        source: IpAddr,
        advertisement: &Advertisement<'_>,
        checked: Result<(), Discard>,
    ) {
        if !matches!(checked, Ok(()) | Err(Discard::OtherInterval)) {
            return;
        }
        let stated = advertisement.interval;
        if stated != self.config.settings.interval {
            self.other_interval = Some((source, stated));
        } else if self.other_interval.is_some_and(|(of, _)| of == source) {
            self.other_interval = None;
        }
    }

    pub(super) fn say_farewell(&mut self, winner: &Peer) {
        let own = (self.priority(), self.config.settings.source);
        self.send(election::farewell(own, winner));
    }
}

/// A farewell says 1 whatever its sender's priority is (see [`election::farewell`]). From somebody
/// new that is no reason for a farewell of ours, which would have to say 0: it would call off the
/// true Active for all others.
pub(super) fn may_be_farewell(peer: &Peer) -> bool {
    peer.priority == Priority::new(1)
}
