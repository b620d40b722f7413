//! The invariants. Each bound counts from the last disturbance that excuses it, so that within calm
//! stretches it is exact whatever went wrong before.

use std::{fmt, time::Duration};

use vrrp::{Instant, Preemption, Priority, State, active_down_interval, skew_time};

use crate::{
    host::{Host, Process},
    world::DELAY,
};

/// DESIGN: nothing leaves an address on a second host for longer than lease + 1 s.
const TWO_HOLD: Duration = Duration::from_secs(3);
/// The kernel's slowest answer here, and some.
const KERNEL: Duration = Duration::from_millis(150);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// Two Active that hear each other.
    TwoActive,
    /// Two kernels answer for the address.
    TwoHold,
    /// Nobody is Active although somebody could be.
    NobodyActive,
    /// An Active whose kernel does not hold the address.
    ActiveWithoutAddress,
    /// A change of state without a cause.
    Flapping,
    /// A worse Backup rose beside a better one.
    RoseOutOfTurn,
    /// A router rose against a living Active that it had no right to replace.
    Usurped,
    /// The client's neighbour entry points to the wrong host.
    StaleNeighbour,
}

#[derive(Clone, Debug)]
pub(crate) struct Violation {
    pub(crate) rule: Rule,
    pub(crate) at: Instant,
    pub(crate) detail: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = Duration::from_nanos(self.at.as_nanos()).as_secs_f64();
        write!(f, "{:?} at {seconds:.4} s: {}", self.rule, self.detail)
    }
}

/// When what was disturbed last.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Calm {
    /// Packets lost or late, links and partitions.
    pub(crate) network: Instant,
    /// Anything at all.
    pub(crate) all: Instant,
    /// Announcements lost.
    pub(crate) announcements: Instant,
    /// Routers that woke and said farewell: who hears one may wait once more.
    pub(crate) wakes: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Record {
    able: bool,
    state: State,
    priority: Priority,
    side: u8,
    /// Since when able, on this side and with this priority.
    same_since: Instant,
    /// Since when in this state.
    state_since: Instant,
    holds_since: Option<Instant>,
}

pub(crate) struct Judge {
    interval: Duration,
    records: Vec<Record>,
    /// Since when no able router of a side is Active.
    nobody_since: [Instant; 2],
    /// Since when the client's entry is wrong.
    stale_since: Option<Instant>,
    pub(crate) found: Option<Violation>,
}

impl Judge {
    pub(crate) fn new(hosts: &[Host]) -> Self {
        let record = |host: &Host| Record {
            able: false,
            state: State::Initialize,
            priority: host.driver.router.priority(),
            side: 0,
            same_since: Instant::ZERO,
            state_since: Instant::ZERO,
            holds_since: None,
        };
        Self {
            interval: hosts[0].config.settings.interval.as_duration(),
            records: hosts.iter().map(record).collect(),
            nobody_since: [Instant::ZERO; 2],
            stale_since: None,
            found: None,
        }
    }

    /// Looks at everything after each event.
    pub(crate) fn look(
        &mut self,
        now: Instant,
        hosts: &[Host],
        calm: Calm,
        neighbour: Option<usize>,
    ) {
        let before = self.records.clone();
        self.update(now, hosts);
        for (at, before) in before.into_iter().enumerate() {
            let changed = before.state != self.records[at].state;
            if changed && before.able && self.records[at].able {
                self.flapping(now, at, calm);
            }
            if changed && self.records[at].state == State::Active && self.records[at].able {
                self.rise(now, at, hosts, calm);
            }
        }
        self.two(now, hosts, calm);
        self.nobody(now, calm);
        self.without_address(now);
        self.neighbour(now, hosts, calm, neighbour);
    }

    fn update(&mut self, now: Instant, hosts: &[Host]) {
        for (record, host) in self.records.iter_mut().zip(hosts) {
            let (able, state) = (host.is_able(), host.state());
            let priority = host.driver.router.priority();
            if (record.able, record.priority, record.side) != (able, priority, host.side) {
                (record.able, record.priority, record.side) = (able, priority, host.side);
                record.same_since = now;
            }
            if record.state != state {
                record.state = state;
                record.state_since = now;
            }
            record.holds_since = host.answers(now).then(|| record.holds_since.unwrap_or(now));
        }
        for side in [0, 1] {
            let active = |record: &Record| {
                record.able && record.side == side && record.state == State::Active
            };
            if self.records.iter().any(active) {
                self.nobody_since[usize::from(side)] = now;
            }
        }
    }

    fn find(&mut self, rule: Rule, at: Instant, detail: String) {
        if self.found.is_none() {
            self.found = Some(Violation { rule, at, detail });
        }
    }

    /// The lower one hears the higher one within an interval.
    fn two(&mut self, now: Instant, hosts: &[Host], calm: Calm) {
        let bound = self.interval + DELAY * 4 + Duration::from_millis(1);
        for one in 0..hosts.len() {
            for other in one + 1..hosts.len() {
                let (a, b) = (self.records[one], self.records[other]);
                if a.side != b.side {
                    continue;
                }
                let active = |record: &Record| record.able && record.state == State::Active;
                if active(&a) && active(&b) {
                    let since = [a.state_since, b.state_since, a.same_since, b.same_since]
                        .into_iter()
                        .fold(calm.network, Instant::max);
                    if now.since(since) > bound {
                        let detail = format!("hosts {one} and {other} since {since:?}");
                        self.find(Rule::TwoActive, now, detail);
                    }
                }
                if let (Some(since_a), Some(since_b)) = (a.holds_since, b.holds_since) {
                    let since = since_a.max(since_b).max(calm.network);
                    if now.since(since) > TWO_HOLD {
                        let detail = format!("hosts {one} and {other} since {since:?}");
                        self.find(Rule::TwoHold, now, detail);
                    }
                }
            }
        }
    }

    /// A Backup waits for less than four intervals.
    fn nobody(&mut self, now: Instant, calm: Calm) {
        for side in [0_u8, 1] {
            let oldest = self
                .records
                .iter()
                .filter(|record| record.able && record.side == side)
                .map(|record| record.same_since)
                .min();
            let Some(oldest) = oldest else { continue };
            let since = oldest
                .max(self.nobody_since[usize::from(side)])
                .max(calm.network)
                .max(calm.wakes);
            if now.since(since) > self.interval * 4 + KERNEL {
                let detail = format!("on side {side} since {since:?}");
                self.find(Rule::NobodyActive, now, detail);
            }
        }
    }

    fn without_address(&mut self, now: Instant) {
        for at in 0..self.records.len() {
            let record = self.records[at];
            let active = record.able && record.state == State::Active;
            let since = record.state_since.max(record.same_since);
            if active && record.holds_since.is_none() && now.since(since) > KERNEL {
                self.find(Rule::ActiveWithoutAddress, now, format!("host {at}"));
            }
        }
    }

    /// Whatever a disturbance sets off is over after the hold, the preemption delay and some rounds.
    fn flapping(&mut self, now: Instant, at: usize, calm: Calm) {
        let settle = Duration::from_secs(4) + self.interval * 12;
        if now.since(calm.all) > settle {
            let detail = format!("host {at} became {:?}", self.records[at].state);
            self.find(Rule::Flapping, now, detail);
        }
    }

    /// `at` became Active: was it its turn?
    fn rise(&mut self, now: Instant, at: usize, hosts: &[Host], calm: Calm) {
        let version = hosts[at].config.settings.version;
        let interval = hosts[at].config.settings.interval;
        let preempts = hosts[at].config.settings.preemption;
        let mine = self.records[at];
        // Longer than any timer that could still run from before.
        let delay = match preempts {
            Preemption::Enabled { delay } => delay,
            Preemption::Disabled => Duration::ZERO,
        };
        let down = active_down_interval(version, Priority::new(1), interval);
        let window = down + self.interval + delay;
        let informed = |record: &Record| {
            record.able && record.side == mine.side && now.since(record.same_since) > window
        };
        // A host that stood still may know less; one that just started must listen.
        if now.since(calm.network.max(hosts[at].woke_at)) <= window {
            return;
        }
        for (other, host) in hosts.iter().enumerate() {
            let theirs = self.records[other];
            if other == at || !informed(&theirs) {
                continue;
            }
            let on_hold = now.since(host.hold_until) <= window;
            let better = theirs.priority > mine.priority;
            if theirs.state == State::Active && now.since(theirs.state_since) > window {
                let may_preempt = matches!(preempts, Preemption::Enabled { .. })
                    && mine.priority > theirs.priority
                    && now >= hosts[at].hold_until;
                if !may_preempt {
                    let detail = format!("host {at} against host {other}");
                    self.find(Rule::Usurped, now, detail);
                }
                continue;
            }
            let gap = skew_time(version, mine.priority, interval).saturating_sub(skew_time(
                version,
                theirs.priority,
                interval,
            ));
            let just_rose =
                theirs.state == State::Active && now.since(theirs.state_since) <= DELAY * 2;
            let waits = theirs.state == State::Backup;
            let both_informed = informed(&mine) && !on_hold;
            if better && both_informed && gap > DELAY * 4 && (waits || just_rose) {
                let detail = format!("host {at} beside host {other}");
                self.find(Rule::RoseOutOfTurn, now, detail);
            }
        }
    }

    /// With one holder on the client's side and all processes running, the client must find it.
    fn neighbour(&mut self, now: Instant, hosts: &[Host], calm: Calm, neighbour: Option<usize>) {
        let mut holders = (0..hosts.len())
            .filter(|&at| hosts[at].side == 0 && self.records[at].holds_since.is_some());
        let stands = |host: &Host| matches!(host.process, Process::Frozen | Process::Suspended);
        let judged = match (holders.next(), holders.next()) {
            (Some(holder), None) if !hosts.iter().any(stands) => Some(holder),
            _ => None,
        };
        match judged {
            Some(holder) if neighbour != Some(holder) => {
                let since = *self.stale_since.get_or_insert(now);
                let since = since.max(calm.all);
                // A router that lives and is heard says farewell. One that died or was cut off
                // after it had answered the client cannot, and announcements may be lost: then the
                // schedule must do.
                let said = neighbour.is_some_and(|at| {
                    let record = &self.records[at];
                    record.able && record.side == 0
                });
                let told = now.since(calm.announcements) > Duration::from_secs(6);
                let bound = if said && told {
                    self.interval * 3 + KERNEL
                } else {
                    Duration::from_secs(5) + KERNEL
                };
                if now.since(since) > bound {
                    let detail = format!("entry {neighbour:?}, holder {holder}");
                    self.find(Rule::StaleNeighbour, now, detail);
                }
            }
            _ => self.stale_since = None,
        }
    }
}
