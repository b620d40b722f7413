//! Finds processes that hang, and ends them.

use std::time::{Duration, Instant};

use crate::{
    agent::{app::App, desired},
    ipc::ToProxy,
    sys::{clock::monotonic_ns, pages::Beat},
};

/// A vrrp whose threads do not turn for this many advertisement intervals hangs.
const INTERVALS: u32 = 5;
/// But not sooner: a host under load pauses a process for a while.
const SHORTEST: Duration = Duration::from_millis(500);
/// And not later: its kernel leases have long run out.
const LONGEST: Duration = Duration::from_secs(2);
/// The netlink thread waits for the kernel, which may be busy with the interfaces of others. Its
/// leases run out by themselves meanwhile, and one that woke late lets go of its addresses first.
const NETLINK: Duration = Duration::from_secs(5);
/// A proxy whose worker does not turn for so long hangs; vrrp has withdrawn the host before.
const PROXY: Duration = Duration::from_secs(10);
/// From the start of a process, or the end of its connection, to a word or the end of it.
const WITHOUT_CONNECTION: Duration = Duration::from_secs(15);
/// If this loop itself did not turn for so long, the host paused, and beats are old everywhere.
const OWN_PAUSE: Duration = Duration::from_millis(300);

/// A question to a process that has no other way to show that it turns.
#[derive(Debug, Default)]
struct Asked(Option<Instant>);

impl Asked {
    /// Whether it is time to ask.
    fn is_due(&mut self, now: Instant) -> bool {
        let is_due = self.0.is_none();
        self.0.get_or_insert(now);
        is_due
    }

    fn is_overdue(&self, now: Instant) -> bool {
        self.0.is_some_and(|at| now.duration_since(at) > PROXY)
    }
}

/// What was seen before.
#[derive(Debug)]
pub(super) struct Watchdog {
    looked: Instant,
    vrrp_was_late: bool,
    /// It was ended for that: its addresses may still be there.
    pub(super) vrrp_hung: bool,
    proxy_was_late: bool,
    /// The beats of a proxy are on the page that it shares with vrrp; without one it is asked.
    proxy_asked: Asked,
    vrrp_alone_since: Option<Instant>,
    proxy_alone_since: Option<Instant>,
}

impl Default for Watchdog {
    fn default() -> Self {
        Self {
            looked: Instant::now(),
            vrrp_was_late: false,
            vrrp_hung: false,
            proxy_was_late: false,
            proxy_asked: Asked::default(),
            vrrp_alone_since: None,
            proxy_alone_since: None,
        }
    }
}

impl App {
    /// Ends what hangs. A process must be late twice in a row, so that one pause of the whole host
    /// ends nobody.
    pub(super) fn look_for_hangs(&mut self) {
        let now = Instant::now();
        let paused = now.duration_since(self.watchdog.looked) > OWN_PAUSE;
        self.watchdog.looked = now;
        if paused {
            return;
        }
        let late = self.vrrp_is_late();
        if late && self.watchdog.vrrp_was_late {
            tracing::error!(process = "vrrp", "the vrrp process hangs; it is ended");
            self.watchdog.vrrp_hung = true;
            self.vrrp.kill();
        }
        self.watchdog.vrrp_was_late = late;

        let late = self.proxy_is_late(now);
        if late && self.watchdog.proxy_was_late {
            tracing::error!(process = "proxy", "the proxy process hangs; it is ended");
            self.proxy.kill();
        }
        self.watchdog.proxy_was_late = late;
        self.look_for_silent(now);
    }

    fn vrrp_is_late(&self) -> bool {
        if self.vrrp.link.is_none() || self.vrrp.applied == 0 {
            return false;
        }
        let interval = desired::shortest_interval(self.rollout.for_vrrp()).unwrap_or(SHORTEST);
        let limit = (interval * INTERVALS).clamp(SHORTEST, LONGEST);
        let is_late = |beat: &Beat, limit| {
            // Zero: the thread has not said yet that it beats.
            let last = beat.last();
            last != 0 && age(last).min(self.vrrp.linked.elapsed()) > limit
        };
        is_late(&self.table.machine_beat, limit) || is_late(&self.table.netlink_beat, NETLINK)
    }

    /// The proxy said something.
    pub(super) fn proxy_turns(&mut self) {
        self.watchdog.proxy_asked = Asked::default();
    }

    fn proxy_is_late(&mut self, now: Instant) -> bool {
        let Some(pairing) = &self.pairing else {
            if self.proxy.link.is_none() {
                self.watchdog.proxy_asked = Asked::default();
            } else if self.watchdog.proxy_asked.is_due(now) {
                self.proxy.send(ToProxy::Report);
            }
            return self.watchdog.proxy_asked.is_overdue(now);
        };
        self.watchdog.proxy_asked = Asked::default();
        let oldest = pairing.page.oldest_beat();
        oldest != 0 && age(oldest).min(self.proxy.linked.elapsed()) > PROXY
    }

    /// A process without a connection is starting or ending; both take moments.
    fn look_for_silent(&mut self, now: Instant) {
        let alone = self.vrrp.runs() && self.vrrp.link.is_none();
        if overdue(&mut self.watchdog.vrrp_alone_since, alone, now) {
            tracing::error!(
                process = "vrrp",
                "the vrrp process says nothing; it is ended"
            );
            self.vrrp.kill();
        }
        let alone = self.proxy.runs() && self.proxy.link.is_none();
        if overdue(&mut self.watchdog.proxy_alone_since, alone, now) {
            tracing::error!(
                process = "proxy",
                "the proxy process says nothing; it is ended"
            );
            self.proxy.kill();
        }
    }
}

fn age(beat: u64) -> Duration {
    Duration::from_nanos(monotonic_ns().saturating_sub(beat))
}

fn overdue(since: &mut Option<Instant>, alone: bool, now: Instant) -> bool {
    if !alone {
        *since = None;
        return false;
    }
    let begin = *since.get_or_insert(now);
    let overdue = now.duration_since(begin) > WITHOUT_CONNECTION;
    if overdue {
        *since = None;
    }
    overdue
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_proxy_that_does_not_answer_is_late() {
        let now = Instant::now();
        let mut asked = Asked::default();
        assert!(!asked.is_overdue(now));
        assert!(asked.is_due(now) && !asked.is_due(now), "once");
        assert!(!asked.is_overdue(now + PROXY));
        assert!(asked.is_overdue(now + PROXY * 2));
    }
}
