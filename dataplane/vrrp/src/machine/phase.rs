//! The states with what is meaningful in each: no timer can be armed in the wrong one.

use std::{net::IpAddr, time::Duration};

use super::{Peer, State, announcements::Announcements};
use crate::{Centiseconds, Instant};

#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Takes no part.
    Initialize {
        /// Since when nobody was heard, where that is known: counts as listening at the next start.
        quiet: Option<Quiet>,
        last_word: LastWord,
    },
    /// Was Active and left in order: silent, but the addresses are still in place.
    Leaving {
        /// When they go at the latest.
        until: Instant,
    },
    Backup(Backup),
    Active(Active),
}

impl Phase {
    /// Initialize, with nothing known.
    pub(super) const IDLE: Self = Self::idle(None);

    /// Initialize, having been Active until a moment ago, with nobody told.
    pub(super) const UNHEARD: Self = Self::Initialize {
        quiet: None,
        last_word: LastWord::Unheard,
    };

    /// Initialize, with the silence observed so far.
    pub(super) const fn idle(quiet: Option<Quiet>) -> Self {
        Self::Initialize {
            quiet,
            last_word: LastWord::Said,
        }
    }

    pub(super) const fn state(&self) -> State {
        match self {
            Self::Initialize { .. } | Self::Leaving { .. } => State::Initialize,
            Self::Backup(_) => State::Backup,
            Self::Active(_) => State::Active,
        }
    }
}

/// What a router that left may still have to say, so that another one announces itself.
#[derive(Clone, Copy, Debug)]
pub(super) enum LastWord {
    /// Nothing.
    Said,
    /// Once the addresses are gone, to this one, who was heard when it left.
    OwedTo(Peer),
    /// Nobody was heard, so that its leaving may have gone unheard too: to whoever is Active when it takes
    /// part again.
    Unheard,
}

/// Silence observed while taking no part.
#[derive(Clone, Copy, Debug)]
pub(super) struct Quiet {
    pub(super) since: Instant,
    /// Interval of whoever was heard last.
    pub(super) learned: Option<Centiseconds>,
}

#[derive(Clone, Debug)]
pub(super) struct Backup {
    /// Since when whoever spoke was heard: the process ran, and understood.
    pub(super) since: Instant,
    /// `Active_Down_Timer` of RFC 9568 section 6.2.
    pub(super) active_down_at: Instant,
    /// `Active_Adver_Interval` of RFC 9568 section 6.1: that of the Active router, ours until heard.
    pub(super) learned: Centiseconds,
    /// What it would mean if the timer ran out now.
    pub(super) expects: Expects,
    /// End of the preemption delay, from the first advertisement of lower priority on.
    pub(super) preempt_at: Option<Instant>,
    /// A last word that is still owed to the winner.
    pub(super) farewell: Option<Farewell>,
}

/// Why a Backup would become Active.
#[derive(Clone, Copy, Debug)]
pub(super) enum Expects {
    /// Nobody heard so far.
    Nobody,
    /// An Active router that is accepted.
    Advertisements(Peer),
    /// It left.
    Successor(IpAddr),
    /// An Active router of lower priority, whose advertisements are ignored.
    ToPreempt(Peer),
}

/// Farewells that follow the winner's advertisements, and how many more follow at [`SLOW_PACE`]: on a
/// network that loses half of all packets for a moment, five in a row are lost now and then, and the
/// clients would be stuck. A winner that never answers is left alone after all of these.
const QUICK: u8 = 5;
const SLOW: u8 = 10;
const SLOW_PACE: Duration = Duration::from_secs(1);

/// A router that ceased to be Active without priority 0 may have left neighbours with its hardware
/// address, and the winner may never have heard of it. Once its addresses are gone it says so, until
/// the winner answers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Farewell {
    /// The host confirmed that the addresses are gone.
    removed: bool,
    /// How many were sent.
    sent: u8,
    /// When the newest was sent.
    sent_at: Option<Instant>,
    /// The newest was sent right after an advertisement of the winner: the next that comes before
    /// half an interval has passed is its answer. One sent at any other moment cannot tell.
    in_phase: bool,
}

impl Farewell {
    pub(super) const fn owed() -> Self {
        Self {
            removed: false,
            sent: 0,
            sent_at: None,
            in_phase: false,
        }
    }

    /// The addresses are gone: whether to speak now, where the winner is known already.
    pub(super) fn confirm(&mut self, now: Instant, winner_known: bool) -> bool {
        let first = !self.removed;
        self.removed = true;
        let speak = first && winner_known;
        if speak {
            self.speak(now);
        }
        speak
    }

    /// The winner was heard: whether to speak now, and whether this was its answer.
    pub(super) fn hear(&mut self, now: Instant, interval: Duration) -> Heard {
        if !self.removed {
            return Heard::Nothing;
        }
        let since = self.sent_at.map(|sent_at| now.since(sent_at));
        let soon = since.is_some_and(|since| since < interval / 2);
        if soon {
            return if self.in_phase {
                Heard::Answer
            } else {
                Heard::Nothing
            };
        }
        if self.sent >= QUICK + SLOW {
            return Heard::Answer;
        }
        if self.sent >= QUICK && since.is_some_and(|since| since < SLOW_PACE) {
            return Heard::Nothing;
        }
        self.in_phase = true;
        self.speak(now);
        Heard::Speak
    }

    fn speak(&mut self, now: Instant) {
        self.sent = self.sent.saturating_add(1);
        self.sent_at = Some(now);
    }
}

/// What an advertisement of the winner means for a farewell.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Heard {
    /// Wait.
    Nothing,
    /// Say farewell.
    Speak,
    /// It is said and heard.
    Answer,
}

#[derive(Clone, Debug)]
pub(super) struct Active {
    /// When the newest own advertisement was sent, or the state was entered.
    pub(super) sent_at: Instant,
    /// Whether any was sent.
    pub(super) spoken: bool,
    /// `Adver_Timer` of RFC 9568 section 6.2.
    pub(super) advertise_at: Instant,
    /// `None` until the host holds the addresses.
    pub(super) announcements: Option<Announcements>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// After each of five advertisements, then once a second; half of all packets lost for a second
    /// are not the end of it.
    #[test]
    fn farewells_without_an_answer_slow_down() {
        let interval = Duration::from_millis(100);
        let mut farewell = Farewell::owed();
        let mut now = Instant::from_millis(1000);
        farewell.confirm(now, false);
        let mut said = Vec::new();
        let heard = loop {
            now = now + interval;
            match farewell.hear(now, interval) {
                Heard::Speak => said.push(now),
                Heard::Nothing => {}
                Heard::Answer => break now,
            }
        };
        let gaps: Vec<_> = said.windows(2).map(|two| two[1].since(two[0])).collect();
        assert_eq!(gaps[..4], [interval; 4]);
        assert_eq!(gaps[4..], [Duration::from_secs(1); 10]);
        assert!(heard > said[14], "then it lets the matter rest");
    }
}
