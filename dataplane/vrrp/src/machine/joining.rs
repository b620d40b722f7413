//! Taking part and ceasing to: start, restart, planned leave, the link.

use super::{
    Cause, Effect, VirtualRouter,
    phase::{Expects, Farewell, LastWord, Phase, Quiet},
};
use crate::{Centiseconds, Instant, Priority};

impl VirtualRouter {
    /// RFC 9568 section 6.4.1; RFC 3768 section 6.4.1.
    pub(super) fn start(&mut self, now: Instant) {
        if self.started {
            return;
        }
        self.started = true;
        if std::mem::take(&mut self.was_deaf) {
            self.on_pause(now);
        }
        if self.link_up {
            self.listen_or_own(now, Cause::Started);
        }
    }

    /// Becomes Active as owner that nothing holds back, else Backup that listens.
    pub(super) fn listen_or_own(&mut self, now: Instant, cause: Cause) {
        // Addresses that were still in place, or on their way out, drew neighbours to this host
        // after its last word.
        let (quiet, last_word) = match self.phase {
            Phase::Initialize { quiet, last_word } => (quiet, last_word),
            Phase::Leaving { .. } => (None, LastWord::Unheard),
            Phase::Backup(_) | Phase::Active(_) => return,
        };
        if matches!(last_word, LastWord::Unheard) {
            // It is said once they are gone, which may have been confirmed already.
            self.effects.push(Effect::RemoveAddresses);
        }
        if self.priority().is_owner() && self.hold_until <= now {
            self.become_active(now, Cause::OwnerStarted);
            return;
        }
        let mut backup = self.listening(now);
        if let Some(quiet) = quiet {
            backup.learned = quiet.learned.unwrap_or(backup.learned);
            let armed = quiet.since + self.active_down(backup.learned);
            backup.active_down_at = armed.max(now);
        }
        backup.farewell = (!matches!(last_word, LastWord::Said)).then(Farewell::owed);
        self.enter(now, Phase::Backup(backup), cause);
    }

    /// Within two intervals no Backup can have risen: the quickest waits for three.
    pub(super) fn resume(&mut self, now: Instant, last_advertisement_at: Instant) {
        if self.started {
            return;
        }
        let limit = self.config.settings.interval.as_duration() * 2;
        let in_time = last_advertisement_at <= now && now.since(last_advertisement_at) <= limit;
        if in_time && self.link_up {
            self.started = true;
            self.become_active(now, Cause::Resumed);
            return;
        }
        self.effects.push(Effect::RemoveAddresses);
        self.started = true;
        if self.link_up {
            let mut backup = self.listening(now);
            backup.farewell = Some(Farewell::owed());
            self.enter(now, Phase::Backup(backup), Cause::ResumedLate);
        }
    }

    /// RFC 9568 sections 6.4.2 and 6.4.3, Shutdown, with the linger described above.
    pub(super) fn leave(&mut self, now: Instant, cause: Cause) {
        self.started = false;
        match &self.phase {
            Phase::Initialize { .. } | Phase::Leaving { .. } => {}
            Phase::Backup(backup) => {
                let quiet = match backup.expects {
                    Expects::Advertisements(peer) => Some(Quiet {
                        since: peer.heard_at.max(backup.since),
                        learned: Some(backup.learned),
                    }),
                    // Its interval was not learned, but its silence is measured by it.
                    Expects::ToPreempt(peer) => Some(Quiet {
                        since: peer.heard_at.max(backup.since),
                        learned: self.last_interval.max(Some(backup.learned)),
                    }),
                    Expects::Nobody | Expects::Successor(_) => Some(Quiet {
                        since: now,
                        learned: None,
                    }),
                };
                self.enter(now, Phase::idle(quiet), cause);
            }
            Phase::Active(active) if !active.spoken => {
                // Nobody let go for this one.
                self.effects.push(Effect::RemoveAddresses);
                let last_word = self.last_heard.map_or(LastWord::Said, LastWord::OwedTo);
                let quiet = None;
                self.enter(now, Phase::Initialize { quiet, last_word }, cause);
            }
            Phase::Active(_) => {
                self.send(Priority::RELEASE);
                let until = now + self.config.settings.linger;
                self.enter(now, Phase::Leaving { until }, cause);
            }
        }
    }

    pub(super) fn finish_leaving(
        &mut self,
        now: Instant,
        learned: Option<Centiseconds>,
        last_word: LastWord,
    ) {
        self.effects.push(Effect::RemoveAddresses);
        // Both ends of it are Initialize: no transition to tell of.
        self.phase = Phase::Initialize {
            quiet: Some(Quiet {
                since: now,
                learned,
            }),
            last_word,
        };
    }

    /// The virtual router ends here: a last word while there is a socket for it, and no linger, since
    /// the host cannot keep the addresses.
    pub(super) fn on_interface_lost(&mut self, now: Instant) {
        self.started = false;
        match self.phase {
            Phase::Initialize { .. } => {}
            Phase::Leaving { .. } => self.finish_leaving(now, None, LastWord::Unheard),
            Phase::Backup(_) => self.enter(now, Phase::IDLE, Cause::InterfaceLost),
            Phase::Active(_) => {
                self.release();
                self.effects.push(Effect::RemoveAddresses);
                self.enter(now, Phase::IDLE, Cause::InterfaceLost);
            }
        }
    }

    /// What was owed before is owed still: who is cut off like that tells nobody.
    pub(super) fn on_link_down(&mut self, now: Instant) {
        self.link_up = false;
        match self.phase {
            Phase::Initialize {
                last_word: LastWord::Said,
                ..
            } => self.phase = Phase::IDLE,
            Phase::Initialize { .. } => self.phase = Phase::UNHEARD,
            Phase::Leaving { .. } => {
                self.effects.push(Effect::RemoveAddresses);
                self.phase = Phase::UNHEARD;
            }
            Phase::Backup(_) => {
                self.enter(now, Phase::IDLE, Cause::LinkDown);
            }
            Phase::Active(_) => {
                self.effects.push(Effect::RemoveAddresses);
                self.enter(now, Phase::UNHEARD, Cause::LinkDown);
            }
        }
    }

    pub(super) fn on_link_up(&mut self, now: Instant) {
        self.link_up = true;
        if self.started {
            self.listen_or_own(now, Cause::LinkUp);
        }
    }
}
