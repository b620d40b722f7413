//! How long nobody was heard on a segment, and when that is isolation; no I/O.

use std::time::Duration;

use ::vrrp::Instant;

/// So many questions must have been left unanswered: a host that was busy and asked nothing knows nothing.
const UNANSWERED: u32 = 3;
/// Questions within one timeout, and the longest pause between two.
const QUESTIONS: u32 = 4;
const SLOWEST: Duration = Duration::from_secs(1);

/// One virtual router, for as long as it is watched.
#[derive(Clone, Copy, Debug)]
pub(super) struct Silence {
    timeout: Duration,
    heard_at: Instant,
    asked_at: Instant,
    unanswered: u32,
    is_isolated: bool,
}

impl Silence {
    /// It counts from now on.
    pub(super) const fn begin(now: Instant, timeout: Duration) -> Self {
        Self {
            timeout,
            heard_at: now,
            asked_at: now,
            unanswered: 0,
            is_isolated: false,
        }
    }

    fn pace(&self) -> Duration {
        (self.timeout / QUESTIONS).min(SLOWEST)
    }

    /// Somebody was heard then.
    pub(super) fn hear(&mut self, at: Instant) {
        if at > self.heard_at {
            self.heard_at = at;
            self.unanswered = 0;
            self.is_isolated = false;
        }
    }

    /// When [`Self::ask`] or [`Self::is_isolated`] is due.
    pub(super) fn wake_at(&self) -> Instant {
        let question = self.asked_at.max(self.heard_at) + self.pace();
        let end = self.heard_at + self.timeout;
        if self.is_isolated || self.unanswered < UNANSWERED {
            question
        } else {
            question.min(end)
        }
    }

    /// Whether to ask now: nobody has spoken for a while.
    pub(super) fn ask(&mut self, now: Instant) -> bool {
        let is_due = self.asked_at.max(self.heard_at) + self.pace() <= now;
        if is_due {
            self.asked_at = now;
            self.unanswered = self.unanswered.saturating_add(1);
        }
        is_due
    }

    /// Whether nobody was heard for too long. Stays until somebody is.
    pub(super) fn judge(&mut self, now: Instant) -> bool {
        let is_over = now.since(self.heard_at) >= self.timeout;
        self.is_isolated |= is_over && self.unanswered >= UNANSWERED;
        self.is_isolated
    }

    /// Since when nobody is heard.
    pub(super) const fn since(&self) -> Instant {
        self.heard_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMEOUT: Duration = Duration::from_secs(2);
    const BEGIN: Instant = Instant::from_millis(1_000_000);

    /// Turns as the thread does; the milliseconds at which it asked, and when it was isolated.
    fn run(silence: &mut Silence, from: u64, until: u64, answers: bool) -> (Vec<u64>, Option<u64>) {
        let (mut asked, mut isolated) = (Vec::new(), None);
        let mut now = BEGIN + Duration::from_millis(from);
        while now.since(BEGIN) < Duration::from_millis(until) {
            let at = u64::try_from(now.since(BEGIN).as_millis()).unwrap();
            if silence.ask(now) {
                asked.push(at);
                if answers {
                    silence.hear(now);
                }
            }
            if silence.judge(now) && isolated.is_none() {
                isolated = Some(at);
            }
            assert!(silence.wake_at() > now, "it would turn without end");
            now = silence.wake_at();
        }
        (asked, isolated)
    }

    #[test]
    fn nobody_is_asked_while_others_speak() {
        let mut silence = Silence::begin(BEGIN, TIMEOUT);
        for tick in 1..100 {
            let now = BEGIN + Duration::from_millis(100 * tick);
            silence.hear(now);
            assert!(!silence.ask(now) && !silence.judge(now));
        }
    }

    #[test]
    fn who_answers_is_asked_on_and_who_does_not_is_missed_after_the_timeout() {
        let mut silence = Silence::begin(BEGIN, TIMEOUT);
        let (asked, isolated) = run(&mut silence, 0, 10_000, true);
        assert_eq!((asked.len(), isolated), (19, None));
        let mut silence = Silence::begin(BEGIN, TIMEOUT);
        let (asked, isolated) = run(&mut silence, 0, 4_000, false);
        assert_eq!(asked[..4], [500, 1000, 1500, 2000]);
        assert_eq!(isolated, Some(2_000));
        assert!(asked.len() > 6, "it goes on asking: {asked:?}");
    }

    #[test]
    fn one_word_ends_it() {
        let mut silence = Silence::begin(BEGIN, TIMEOUT);
        run(&mut silence, 0, 4_000, false);
        let now = BEGIN + Duration::from_secs(4);
        silence.hear(now);
        assert!(!silence.judge(now));
        assert_eq!(silence.since(), now);
        let (_, isolated) = run(&mut silence, 4_000, 10_000, false);
        assert_eq!(isolated, Some(6_000), "a full timeout again");
    }

    /// A host that slept over the timeout has asked nobody.
    #[test]
    fn who_did_not_ask_judges_nothing() {
        let mut silence = Silence::begin(BEGIN, TIMEOUT);
        let late = BEGIN + Duration::from_mins(1);
        assert!(silence.ask(late) && !silence.judge(late));
    }
}
