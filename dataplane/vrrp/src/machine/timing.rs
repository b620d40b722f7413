//! What the passing of time does.

use std::time::Duration;

use super::{
    Cause, Effect, VirtualRouter,
    phase::{Expects, LastWord, Phase},
};
use crate::{Instant, Priority, active_down_interval};

impl VirtualRouter {
    pub(super) fn on_timer(&mut self, now: Instant) {
        match &mut self.phase {
            Phase::Initialize { .. } => {}
            Phase::Leaving { until } => {
                if now >= *until {
                    self.send(Priority::RELEASE);
                    self.finish_leaving(now, None, LastWord::Unheard);
                }
            }
            Phase::Backup(backup) => {
                if now < backup.active_down_at {
                    return;
                }
                let (learned, late_by) = (backup.learned, now.since(backup.active_down_at));
                let expects = backup.expects;
                let down = self.active_down(learned);
                if late_by > down {
                    self.listen_anew(now, down);
                } else {
                    self.become_active(now, cause_of(expects));
                }
            }
            Phase::Active(active) => {
                let advertise = now >= active.advertise_at;
                let announce = active
                    .announcements
                    .as_mut()
                    .is_some_and(|announcements| announcements.take_due(now));
                if advertise {
                    self.advertise_in_turn(now);
                }
                if announce {
                    self.effects.push(Effect::AnnounceAddresses);
                }
            }
        }
    }

    /// Silence while not running is no evidence.
    pub(super) fn listen_anew(&mut self, now: Instant, down: Duration) {
        if let Phase::Backup(backup) = &mut self.phase {
            backup.since = now;
            backup.active_down_at = now + down;
            backup.preempt_at = None;
            if let Expects::ToPreempt(peer) = backup.expects {
                backup.expects = Expects::Advertisements(peer);
            }
        }
    }

    /// What was not heard in another version of the protocol is no silence in this one.
    pub(super) fn forget_silence(&mut self, now: Instant) {
        let learned = self.config.settings.interval;
        let down = self.active_down(learned);
        match &mut self.phase {
            Phase::Initialize { quiet, .. } => *quiet = None,
            Phase::Backup(backup) => {
                backup.learned = learned;
                self.listen_anew(now, down);
            }
            Phase::Leaving { .. } | Phase::Active(_) => {}
        }
    }

    /// Silence while the process did not run counts for nothing at the next start either.
    pub(super) fn on_pause(&mut self, now: Instant) {
        if let Phase::Initialize {
            quiet: Some(quiet), ..
        } = &mut self.phase
        {
            quiet.since = now;
        }
    }

    /// See *Woke late* above.
    pub(super) fn let_go_if_late(&mut self, now: Instant) {
        if let Phase::Active(active) = &self.phase {
            let settings = &self.config.settings;
            let quickest = Priority::new(254);
            let limit =
                active_down_interval(self.config.settings.version, quickest, settings.interval);
            if now.since(active.sent_at) > limit {
                self.let_go(now, Cause::WokeLate);
            }
        }
    }
}

const fn cause_of(expects: Expects) -> Cause {
    match expects {
        Expects::Nobody => Cause::NoActiveHeard,
        Expects::Advertisements(peer) => Cause::ActiveSilent {
            source: peer.source,
        },
        Expects::Successor(source) => Cause::ActiveReleased { source },
        Expects::ToPreempt(peer) => Cause::Preempted {
            source: peer.source,
            priority: peer.priority,
        },
    }
}
