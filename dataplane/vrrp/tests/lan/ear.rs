//! What each host has heard, and what follows from that by the standards' own arithmetic, so that an
//! error of the product's formulas is none of the judge's.

use std::time::Duration;

use vrrp::{Config, Instant, Preemption, Priority, Version};

/// RFC 9568 section 6.1 (`Skew_Time`), RFC 3768 section 6.1.
pub(crate) fn skew(version: Version, priority: Priority, interval: Duration) -> Duration {
    let unit = match version {
        Version::V2 => Duration::from_secs(1),
        Version::V3 => interval,
    };
    let parts = u64::from(256 - u32::from(priority.get()));
    Duration::from_nanos(u64::try_from(unit.as_nanos()).unwrap() * parts / 256)
}

/// RFC 9568 section 6.1 (`Active_Down_Interval`), RFC 3768 section 6.1.
pub(crate) fn down(version: Version, priority: Priority, interval: Duration) -> Duration {
    Duration::from_nanos(3 * u64::try_from(interval.as_nanos()).unwrap())
        + skew(version, priority, interval)
}

/// An advertisement as it was heard.
#[derive(Clone, Copy, Debug)]
struct Word {
    at: Instant,
    interval: Duration,
}

/// One host's ears.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ear {
    /// Since when it listens without having been Active, deaf or away.
    pub(crate) since: Instant,
    /// The newest that was not priority 0.
    last: Option<Word>,
    /// The one before it.
    previous: Option<Word>,
    /// The newest of its own priority or above.
    accepted: Option<Word>,
    /// The first of those below its priority since the last that was not.
    lower_since: Option<Instant>,
    /// The first priority 0 since.
    released: Option<Instant>,
}

impl Ear {
    pub(crate) fn hear(
        &mut self,
        at: Instant,
        own: Priority,
        priority: Priority,
        interval: Duration,
    ) {
        let word = Word { at, interval };
        if priority.is_release() {
            // A repeated one starts nothing anew, nor do those of a lower priority in between.
            let runs = |released: &Instant| self.accepted.is_none_or(|word| word.at <= *released);
            self.released = self.released.filter(runs).or(Some(at));
            return;
        }
        self.previous = self.last;
        self.last = Some(word);
        if priority < own {
            self.lower_since = self.lower_since.or(Some(at));
        } else {
            self.accepted = Some(word);
            self.lower_since = None;
        }
    }

    /// Nothing heard before `now` counts: it was Active, or could not hear.
    pub(crate) fn begin(&mut self, now: Instant) {
        let is_now = |word: &Word| word.at == now;
        *self = Self {
            since: now,
            last: self.last.filter(is_now),
            previous: self.previous.filter(is_now),
            accepted: self.accepted.filter(is_now),
            lower_since: self.lower_since.filter(|at| *at == now),
            released: self.released.filter(|at| *at == now),
        };
    }

    /// It listens from `now` on, and waits by the interval that it heard last, as if that had been now.
    pub(crate) fn listen_anew(&mut self, now: Instant) {
        *self = Self {
            since: now,
            last: self.last,
            accepted: self.last.map(|word| Word { at: now, ..word }),
            ..Self::default()
        };
    }

    pub(crate) fn is_released(&self) -> Option<Instant> {
        self.released
            .filter(|released| self.last.is_none_or(|last| last.at <= *released))
    }

    fn interval(&self, config: &Config) -> Duration {
        let own = config.settings.interval.as_duration();
        match config.settings.version {
            Version::V2 => own,
            Version::V3 => self.last.map_or(own, |word| word.interval),
        }
    }

    /// Since when there is silence.
    pub(crate) fn silence(&self) -> Instant {
        self.last.map_or(self.since, |word| word.at.max(self.since))
    }

    /// Whether it may rise at `now` with `own` priority: not before its timer by any reading of what
    /// it heard.
    pub(crate) fn may_rise(
        &self,
        now: Instant,
        config: &Config,
        own: Priority,
        hold_until: Instant,
        woke_at: Instant,
    ) -> bool {
        let version = config.settings.version;
        let interval = self.interval(config);
        if now.since(self.silence()) >= down(version, own, interval) {
            return true;
        }
        // Those of a lower priority that follow a priority 0 are ignored.
        let is_last = |released: &Instant| self.accepted.is_none_or(|word| word.at <= *released);
        let least = self.accepted.map_or(interval, |word| word.interval);
        let least = least.min(interval);
        let least = least.min(config.settings.interval.as_duration());
        if let Some(released) = self.released.filter(is_last)
            && now.since(released) >= skew(version, own, least)
        {
            return true;
        }
        let Some(lower_since) = self.lower_since else {
            return false;
        };
        let Preemption::Enabled { delay } = config.settings.preemption else {
            return false;
        };
        let armed = self.accepted.map_or(self.since, |word| word.at);
        // What was accepted may have had a longer interval, and of two that it may preempt either arms it.
        let least = interval.min(self.accepted.map_or(interval, |word| word.interval));
        let least = least.min(self.previous.map_or(interval, |word| word.interval));
        let least = least.min(config.settings.interval.as_duration());
        let waited = if delay.is_zero() {
            now.since(armed) >= down(version, own, least)
        } else {
            // At the end of the delay, or when the timer fires that was set during it and that no
            // word after its end set anew.
            let fires = |word: Word| now.since(word.at) >= down(version, own, least);
            let after = now.since(lower_since);
            // Or when it wakes up after all of these.
            after >= delay + skew(version, own, least)
                || (after >= delay && (self.previous.is_some_and(fires) || woke_at == now))
        };
        waited && now >= hold_until
    }

    /// When it must have risen, if nobody is Active and nothing that it heard since `calm` was lost.
    pub(crate) fn must_rise(&self, config: &Config, own: Priority, calm: Instant) -> Instant {
        let version = config.settings.version;
        // One of a lower priority that was heard last does not set the timer anew.
        let armed = self.accepted.map_or(Duration::ZERO, |word| word.interval);
        let interval = self
            .interval(config)
            .max(armed)
            .max(config.settings.interval.as_duration());
        let silent = self.silence().max(calm) + down(version, own, interval);
        match self.is_released().filter(|released| *released > calm) {
            Some(released) => silent.min(released + skew(version, own, interval)),
            None => silent,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The figures of RFC 9568 section 6.1 and RFC 3768 section 6.1, worked out by hand.
    #[test]
    fn arithmetic_is_that_of_the_standards() {
        let second = Duration::from_secs(1);
        let hundred = Priority::new(100);
        assert_eq!(
            down(Version::V3, hundred, second),
            Duration::from_micros(3_609_375)
        );
        assert_eq!(
            skew(Version::V3, Priority::new(50), second / 10),
            Duration::from_nanos(80_468_750)
        );
        assert_eq!(
            down(Version::V2, hundred, second * 10),
            Duration::from_micros(30_609_375)
        );
    }
}
