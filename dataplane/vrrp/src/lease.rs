//! When an address may be held: rules without system calls.
//!
//! An address is a lease that the kernel ends by itself. It is renewed only on a permit, an
//! advertisement that is younger than one interval; and since a renewal re-creates an address that
//! had ended, one that comes so late that it may have ended is not made.
//!
//! The driver keeps one [`Lease`] per virtual router on a thread that may wait for the kernel. What
//! it must know of the state machine is the time of its newest advertisement as Active, which it
//! reads anew for each question.

use std::time::Duration;

use crate::Instant;

/// Lifetime that the kernel is given, whole seconds.
pub const LIFETIME_SECONDS: u32 = 2;
/// How often it is set anew.
pub const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Renewals that are due this soon are made together.
const SLACK: Duration = Duration::from_millis(25);
/// How soon it is tried again where the permit was too old.
const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Age of the newest success from which on the address may have ended.
const TOO_LATE_AFTER: Duration = Duration::from_millis(1500);
/// How often in [`GUARD_WINDOW`] an address is put back that somebody else removed.
const MOST_RESTORES: u32 = 3;
const GUARD_WINDOW: Duration = Duration::from_secs(10);

/// The addresses of one virtual router.
#[derive(Clone, Debug)]
pub struct Lease {
    interval: Duration,
    phase: Phase,
    restores: u32,
    restores_since: Instant,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Not asked for.
    Absent,
    /// Asked for, waits for a permit.
    Wanted,
    /// In place; set last in a call that began at this time.
    Held { set_at: Instant, due: Instant },
}

/// What is to be done for a lease now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Todo {
    /// Nothing.
    Nothing,
    /// Set the addresses' lifetime, then call [`Lease::set`].
    Set,
    /// Remove them, call [`Lease::end`], and say that they are lost.
    Lose,
}

/// What is to be done about an address that somebody else removed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Missing {
    /// Put it back: as [`Todo::Set`].
    Restore,
    /// The permit has just run out: as soon as there is one again, it is set.
    Wait,
    /// Give all up: as [`Todo::Lose`].
    Lose,
}

impl Lease {
    /// Nothing is held yet. A permit is good for `interval`.
    pub const fn new(interval: Duration) -> Self {
        Self {
            interval,
            phase: Phase::Absent,
            restores: 0,
            restores_since: Instant::ZERO,
        }
    }

    /// A permit is good for this long from now on.
    pub const fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The state machine asks for the addresses.
    pub fn want(&mut self) {
        if self.phase == Phase::Absent {
            self.phase = Phase::Wanted;
        }
    }

    /// They are gone, or to go. Tells whether they were held.
    pub fn end(&mut self) -> bool {
        let was_held = self.is_held();
        self.phase = Phase::Absent;
        was_held
    }

    /// Whether they are in place.
    pub const fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// Whether they are in place, or will be as soon as there is a permit.
    pub fn is_wanted(&self) -> bool {
        self.phase != Phase::Absent
    }

    /// What is to be done at `now`; `advertised_at` is when the router last advertised as Active.
    pub fn todo(&self, now: Instant, advertised_at: Option<Instant>) -> Todo {
        let may = self.has_permit(now, advertised_at);
        match self.phase {
            Phase::Held { set_at, .. } if is_late(set_at, now) => Todo::Lose,
            Phase::Wanted if may => Todo::Set,
            Phase::Held { due, .. } if due <= now + SLACK && may => Todo::Set,
            Phase::Absent | Phase::Wanted | Phase::Held { .. } => Todo::Nothing,
        }
    }

    /// The lifetime was set in calls that began at `began`, the time of the question, and ended at
    /// `now`. `false`: they took so long that the addresses may have ended in between; lose them.
    pub fn set(&mut self, began: Instant, now: Instant) -> bool {
        if let Phase::Held { set_at, .. } = self.phase
            && is_late(set_at, now)
        {
            return false;
        }
        self.phase = Phase::Held {
            set_at: began,
            due: began + RENEW_EVERY,
        };
        !is_late(began, now)
    }

    /// Somebody else removed an address: what to do about it.
    pub fn missing(&mut self, now: Instant, advertised_at: Option<Instant>) -> Missing {
        let Phase::Held { set_at, .. } = self.phase else {
            return Missing::Wait;
        };
        if is_late(set_at, now) {
            return Missing::Lose;
        }
        if now.since(self.restores_since) > GUARD_WINDOW {
            self.restores = 0;
            self.restores_since = now;
        }
        self.restores += 1;
        if self.restores > MOST_RESTORES {
            return Missing::Lose;
        }
        if self.has_permit(now, advertised_at) {
            return Missing::Restore;
        }
        self.phase = Phase::Wanted;
        Missing::Wait
    }

    /// When to look again.
    pub fn wake_at(&self, now: Instant) -> Option<Instant> {
        match self.phase {
            Phase::Absent => None,
            Phase::Wanted => Some(now + RETRY_AFTER),
            Phase::Held { due, .. } if due <= now => Some(now + RETRY_AFTER),
            Phase::Held { due, .. } => Some(due),
        }
    }

    fn has_permit(&self, now: Instant, advertised_at: Option<Instant>) -> bool {
        advertised_at.is_some_and(|at| now.since(at) < self.interval)
    }
}

fn is_late(set_at: Instant, now: Instant) -> bool {
    now.since(set_at) >= TOO_LATE_AFTER
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(millis: u64) -> Instant {
        Instant::from_millis(millis)
    }

    fn lease() -> Lease {
        let mut lease = Lease::new(Duration::from_millis(100));
        lease.want();
        lease
    }

    #[test]
    fn held_on_a_permit_only() {
        let lease = lease();
        assert_eq!(lease.todo(ms(1099), Some(ms(1000))), Todo::Set);
        let too_old = lease.todo(ms(1100), Some(ms(1000)));
        assert_eq!(too_old, Todo::Nothing);
        assert_eq!(lease.todo(ms(1200), Some(ms(1150))), Todo::Set);
        assert_eq!(lease.todo(ms(1200), None), Todo::Nothing);
    }

    #[test]
    fn renewed_in_time_or_lost() {
        let mut lease = lease();
        assert!(lease.set(ms(1000), ms(1001)));
        assert_eq!(lease.wake_at(ms(1001)), Some(ms(1500)));
        let permit = Some(ms(1490));
        assert_eq!(lease.todo(ms(1474), permit), Todo::Nothing);
        assert_eq!(lease.todo(ms(1500), permit), Todo::Set);
        assert_eq!(lease.todo(ms(1600), permit), Todo::Nothing, "no permit");
        assert_eq!(lease.wake_at(ms(1600)), Some(ms(1650)));
        assert_eq!(
            lease.todo(ms(2600), Some(ms(2600))),
            Todo::Lose,
            "a fresh permit does not bring back what may have ended"
        );
    }

    #[test]
    fn a_renewal_that_was_paused_in_the_call_is_lost() {
        let mut lease = lease();
        assert!(lease.set(ms(1000), ms(1001)));
        assert!(!lease.set(ms(1500), ms(3700)));
    }

    #[test]
    fn a_first_call_that_was_paused_is_lost() {
        assert!(!lease().set(ms(1000), ms(2500)));
    }

    #[test]
    fn what_others_remove_is_put_back_a_few_times() {
        let mut lease = lease();
        assert!(lease.set(ms(1000), ms(1001)));
        for _ in 0..3 {
            assert_eq!(lease.missing(ms(1010), Some(ms(1000))), Missing::Restore);
        }
        assert_eq!(lease.missing(ms(1010), Some(ms(1000))), Missing::Lose);
    }

    /// The next advertisement is a moment away: no reason to give up the role.
    #[test]
    fn what_others_remove_between_two_permits_waits_for_the_next() {
        let mut lease = lease();
        assert!(lease.set(ms(1000), ms(1001)));
        assert_eq!(lease.missing(ms(1105), Some(ms(1000))), Missing::Wait);
        assert!(!lease.is_held() && lease.is_wanted());
        assert_eq!(lease.todo(ms(1106), Some(ms(1105))), Todo::Set);
    }
}
