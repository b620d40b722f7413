//! When an address may be held: rules without system calls.
//!
//! An address is a lease that the kernel ends by itself. It is renewed only on a permit, an
//! advertisement that is younger than one interval; and since a renewal re-creates an address that
//! had ended, one that comes so late that it may have ended is not made (DESIGN section 4, Fencing).

use std::{net::IpAddr, time::Duration};

use crate::{
    sys::pages::RouterRow,
    vrrp::messages::{Registration, RouterId},
};

/// Lifetime that the kernel is given, whole seconds.
pub(super) const LIFETIME_SECONDS: u32 = 2;
/// How often it is set anew.
pub(super) const RENEW_EVERY: Duration = Duration::from_millis(500);
/// Renewals that are due this soon are made together.
const SLACK: Duration = Duration::from_millis(25);
/// How soon it is tried again where the permit was too old.
pub(super) const RETRY_AFTER: Duration = Duration::from_millis(50);
/// Age of the newest success from which on the address may have ended.
const TOO_LATE_AFTER: Duration = Duration::from_millis(1500);
/// How often in [`GUARD_WINDOW`] an address is put back that somebody else removed.
const MOST_RESTORES: u32 = 3;
const GUARD_WINDOW: Duration = Duration::from_secs(10);

/// The addresses of one virtual router.
#[derive(Debug)]
pub(super) struct Lease {
    pub(super) id: RouterId,
    pub(super) index: u32,
    pub(super) addresses: Vec<IpAddr>,
    row: &'static RouterRow,
    interval: Duration,
    phase: Phase,
    restores: u32,
    restores_since: u64,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Phase {
    /// Not asked for.
    Absent,
    /// Asked for, waits for a permit.
    Wanted,
    /// In place; set last in a call that began at this time.
    Held { set_at: u64, due: u64 },
}

/// What is to be done for a lease now.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Todo {
    Nothing,
    /// Set the addresses' lifetime, then call [`Lease::set`].
    Set,
    /// Remove them and say that they are lost.
    Lose,
}

impl Lease {
    pub(super) fn new(registration: Registration) -> Self {
        Self {
            id: registration.id,
            index: registration.index,
            addresses: registration.addresses,
            row: registration.row,
            interval: registration.interval,
            phase: Phase::Absent,
            restores: 0,
            restores_since: 0,
        }
    }

    pub(super) fn set_interval(&mut self, interval: Duration) {
        self.interval = interval;
    }

    /// The state machine asks for the addresses.
    pub(super) fn want(&mut self) {
        if self.phase == Phase::Absent {
            self.phase = Phase::Wanted;
        }
    }

    /// They are gone, or to go. Tells whether they were held.
    pub(super) fn end(&mut self) -> bool {
        let was_held = self.is_held();
        self.phase = Phase::Absent;
        was_held
    }

    pub(super) fn is_held(&self) -> bool {
        matches!(self.phase, Phase::Held { .. })
    }

    /// What is to be done at `now`.
    pub(super) fn todo(&self, now: u64) -> Todo {
        match self.phase {
            Phase::Held { set_at, .. } if is_late(set_at, now) => Todo::Lose,
            Phase::Wanted if self.has_permit(now) => Todo::Set,
            Phase::Held { due, .. } if due <= now + nanos(SLACK) && self.has_permit(now) => {
                Todo::Set
            }
            Phase::Absent | Phase::Wanted | Phase::Held { .. } => Todo::Nothing,
        }
    }

    /// The lifetime was set in calls that began at `began` and ended at `now`. `false`: they took
    /// so long that the addresses may have ended in between; lose them.
    pub(super) fn set(&mut self, began: u64, now: u64) -> bool {
        if let Phase::Held { set_at, .. } = self.phase
            && is_late(set_at, now)
        {
            return false;
        }
        self.phase = Phase::Held {
            set_at: began,
            due: began + nanos(RENEW_EVERY),
        };
        !is_late(began, now)
    }

    /// Somebody else removed an address: whether to put it back.
    pub(super) fn may_restore(&mut self, now: u64) -> bool {
        let Phase::Held { set_at, .. } = self.phase else {
            return false;
        };
        if is_late(set_at, now) || !self.has_permit(now) {
            return false;
        }
        if now.saturating_sub(self.restores_since) > nanos(GUARD_WINDOW) {
            self.restores = 0;
            self.restores_since = now;
        }
        self.restores += 1;
        self.restores <= MOST_RESTORES
    }

    /// When to look again.
    pub(super) fn wake_at(&self, now: u64) -> Option<u64> {
        match self.phase {
            Phase::Absent => None,
            Phase::Wanted => Some(now + nanos(RETRY_AFTER)),
            Phase::Held { due, .. } if due <= now => Some(now + nanos(RETRY_AFTER)),
            Phase::Held { due, .. } => Some(due),
        }
    }

    fn has_permit(&self, now: u64) -> bool {
        self.row
            .last_advertisement()
            .is_some_and(|at| now.saturating_sub(at) < nanos(self.interval))
    }
}

fn is_late(set_at: u64, now: u64) -> bool {
    now.saturating_sub(set_at) >= nanos(TOO_LATE_AFTER)
}

pub(super) fn nanos(span: Duration) -> u64 {
    u64::try_from(span.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::pages::{RouterKey, RouterTable};

    const MS: u64 = 1_000_000;

    fn lease() -> Lease {
        let table = RouterTable::create().unwrap().leak();
        let row = table.row(RouterKey::new(1, 4, 51)).unwrap();
        let mut lease = Lease::new(Registration {
            id: 1,
            index: 1,
            addresses: vec![IpAddr::from([192, 168, 1, 110])],
            row,
            interval: Duration::from_millis(100),
        });
        row.advertised(1000 * MS);
        lease.want();
        lease
    }

    #[test]
    fn held_on_a_permit_only() {
        let lease = lease();
        assert_eq!(lease.todo(1099 * MS), Todo::Set);
        assert_eq!(
            lease.todo(1100 * MS),
            Todo::Nothing,
            "the permit is too old"
        );
        lease.row.advertised(1150 * MS);
        assert_eq!(lease.todo(1200 * MS), Todo::Set);
        lease.row.not_active();
        assert_eq!(lease.todo(1200 * MS), Todo::Nothing);
    }

    #[test]
    fn renewed_in_time_or_lost() {
        let mut lease = lease();
        assert!(lease.set(1000 * MS, 1001 * MS));
        assert_eq!(lease.wake_at(1001 * MS), Some(1500 * MS));
        lease.row.advertised(1490 * MS);
        assert_eq!(lease.todo(1474 * MS), Todo::Nothing);
        assert_eq!(lease.todo(1500 * MS), Todo::Set);
        assert_eq!(lease.todo(1600 * MS), Todo::Nothing, "no permit");
        assert_eq!(lease.wake_at(1600 * MS), Some(1650 * MS));
        lease.row.advertised(2600 * MS);
        assert_eq!(
            lease.todo(2600 * MS),
            Todo::Lose,
            "a fresh permit does not bring back what may have ended"
        );
    }

    #[test]
    fn a_renewal_that_was_paused_in_the_call_is_lost() {
        let mut lease = lease();
        assert!(lease.set(1000 * MS, 1001 * MS));
        assert!(!lease.set(1500 * MS, 3700 * MS));
    }

    #[test]
    fn what_others_remove_is_put_back_a_few_times() {
        let mut lease = lease();
        assert!(lease.set(1000 * MS, 1001 * MS));
        for _ in 0..3 {
            assert!(lease.may_restore(1010 * MS));
        }
        assert!(!lease.may_restore(1010 * MS));
        assert!(!lease.may_restore(1110 * MS), "no permit");
    }
}
