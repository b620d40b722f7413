//! The invariants. Each bound counts from the last disturbance that excuses it, so that within calm
//! stretches it is exact whatever went wrong before.

use std::{fmt, time::Duration};

use vrrp::{Centiseconds, Instant, Preemption, Priority, State};

use crate::{
    ear::{Ear, down, skew},
    host::{Host, Process},
    world::DELAY,
};

/// A kernel lifetime ends after this.
const LEASE: Duration = Duration::from_millis(2_500);
/// The kernel's slowest answers here, and some.
const KERNEL: Duration = Duration::from_millis(150);
/// The longest that a router that left keeps its addresses (`default_linger`).
const LINGER: Duration = Duration::from_millis(120);
/// How late a timer fires, and a packet comes.
const LATE: Duration = Duration::from_millis(2);

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Rule {
    /// Two Active that hear each other.
    TwoActive,
    /// Two kernels answer for the address.
    TwoHold,
    /// Nobody is Active although somebody could be.
    NobodyActive,
    /// Nobody is Active soon after the Active left in order.
    SlowHandOver,
    /// A router rose before what it had heard allowed it.
    RoseEarly,
    /// A host that is not Active holds the address.
    HoldsWithoutRole,
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
    /// A host gave up as if it were cut off, although it had heard somebody.
    GaveUpThoughHeard,
    /// A host kept the address although it was cut off.
    KeptThoughCutOff,
    /// A host that had given up for that stayed away although it heard somebody.
    StayedAway,
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
    priority_seen: Priority,
    priority_since: Instant,
}

pub(crate) struct Judge {
    /// The longest of all hosts.
    interval: Duration,
    records: Vec<Record>,
    ears: Vec<Ear>,
    /// When the Active of a side left in order, until there is another one.
    left_at: [Option<(Instant, usize)>; 2],
    /// Since when the client's entry is wrong.
    stale_since: Option<Instant>,
    isolation: Option<Duration>,
    pub(crate) found: Option<Violation>,
}

impl Judge {
    pub(crate) fn new(hosts: &[Host], isolation: Option<Duration>) -> Self {
        let record = |host: &Host| Record {
            able: false,
            state: State::Initialize,
            priority: host.driver.router.priority(),
            side: 0,
            same_since: Instant::ZERO,
            state_since: Instant::ZERO,
            holds_since: None,
            priority_seen: host.driver.router.priority(),
            priority_since: Instant::ZERO,
        };
        Self {
            interval: hosts
                .iter()
                .map(|host| host.config.settings.interval.as_duration())
                .max()
                .unwrap(),
            records: hosts.iter().map(record).collect(),
            ears: vec![Ear::default(); hosts.len()],
            left_at: [None; 2],
            stale_since: None,
            isolation,
            found: None,
        }
    }

    /// A host hears an advertisement, before its machine does.
    pub(crate) fn hear(
        &mut self,
        now: Instant,
        host: usize,
        it: &Host,
        (priority, interval): (Priority, Centiseconds),
    ) {
        let own = it.driver.router.priority();
        self.ears[host].hear(now, own, priority, interval.as_duration());
    }

    /// A new process.
    pub(crate) fn begin(&mut self, now: Instant, host: usize, priority: Priority) {
        self.ears[host].begin(now);
        let record = &mut self.records[host];
        (record.priority_seen, record.priority_since) = (priority, now);
    }

    /// A host could not hear until now.
    pub(crate) fn deafened(&mut self, now: Instant, host: usize) {
        self.ears[host].begin(now);
    }

    /// A host that was cut off takes part again.
    pub(crate) fn listens_anew(&mut self, now: Instant, host: usize) {
        self.ears[host].listen_anew(now);
    }

    /// An Active leaves in order, as it was told.
    pub(crate) fn left(&mut self, now: Instant, host: usize, it: &Host) {
        self.left_at[usize::from(it.side)] = Some((now, host));
    }

    /// A host gives up because it is cut off, as it believes.
    pub(crate) fn gave_up(&mut self, now: Instant, at: usize, host: &Host) {
        let silence = now.since(host.reached_at.max(host.born_at));
        if self.isolation.is_none_or(|timeout| silence < timeout) {
            let detail = format!("host {at} was reached {silence:?} before");
            self.find(Rule::GaveUpThoughHeard, now, detail);
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
                self.early(now, at, &hosts[at]);
            }
        }
        self.two(now, hosts, calm);
        self.nobody(now, hosts, calm);
        self.hand_over(now, hosts, calm);
        self.without_address(now);
        self.without_role(now, hosts);
        self.neighbour(now, hosts, calm, neighbour);
        self.isolation(now, hosts);
        self.forget(now, hosts);
    }

    fn update(&mut self, now: Instant, hosts: &[Host]) {
        let ears = self.ears.iter_mut();
        for ((record, host), ear) in self.records.iter_mut().zip(hosts).zip(ears) {
            let (able, state) = (host.is_able(), host.state());
            let priority = host.driver.router.priority();
            if (record.able, record.priority, record.side) != (able, priority, host.side) {
                (record.able, record.priority, record.side) = (able, priority, host.side);
                record.same_since = now;
            }
            if record.priority_seen != priority {
                (record.priority_seen, record.priority_since) = (priority, now);
            }
            if record.state != state {
                if record.state == State::Active {
                    ear.begin(now);
                }
                record.state = state;
                record.state_since = now;
            }
            record.holds_since = host.answers(now).then(|| record.holds_since.unwrap_or(now));
        }
        for side in [0, 1] {
            if self.is_active(side) {
                self.left_at[usize::from(side)] = None;
            }
        }
    }

    /// An Active does not listen, nor one that waits for its successor or has no link.
    /// After the other rules, which look at what was heard before.
    fn forget(&mut self, now: Instant, hosts: &[Host]) {
        for (ear, host) in self.ears.iter_mut().zip(hosts) {
            let is_active = host.state() == State::Active;
            if is_active || host.driver.router.is_leaving() || !host.link {
                ear.begin(now);
            }
        }
    }

    fn is_active(&self, side: u8) -> bool {
        let active =
            |record: &Record| record.able && record.side == side && record.state == State::Active;
        self.records.iter().any(active)
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
                    let both_run = a.able && b.able;
                    let (since, bound) = if both_run {
                        // The loser hears of the winner within an interval, and its kernel answers.
                        let since = since.max(a.same_since).max(b.same_since);
                        (since.max(calm.wakes), self.interval + KERNEL)
                    } else {
                        // Nobody renews it without a permit younger than an interval.
                        (since, LEASE + KERNEL)
                    };
                    if now.since(since) > bound {
                        let detail = format!("hosts {one} and {other} since {since:?}");
                        self.find(Rule::TwoHold, now, detail);
                    }
                }
            }
        }
    }

    /// Whoever could rises when its timer says so by the standard's arithmetic.
    fn nobody(&mut self, now: Instant, hosts: &[Host], calm: Calm) {
        for side in [0_u8, 1] {
            if self.is_active(side) {
                continue;
            }
            let calm = calm.network.max(calm.wakes);
            let due = |at: usize| {
                let record = self.records[at];
                // Alone, it waits for up to 5 s after it had lost its addresses again.
                let patience = match hosts[at].losses {
                    0 | 1 => Instant::ZERO,
                    _ => hosts[at].lost_at + Duration::from_secs(5),
                };
                let since = calm.max(record.same_since).max(patience);
                // Its timer may have been set by the priority of before.
                let is_new = record.priority_since >= self.ears[at].silence();
                let priority = if is_new {
                    Priority::new(1)
                } else {
                    record.priority
                };
                self.ears[at].must_rise(&hosts[at].config, priority, since)
            };
            let able = |at: &usize| self.records[*at].able && self.records[*at].side == side;
            let first = (0..hosts.len()).filter(able).map(due).min();
            if let Some(first) = first.filter(|first| now > *first + LATE) {
                let detail = format!("on side {side}, one was due at {first:?}");
                self.find(Rule::NobodyActive, now, detail);
            }
        }
    }

    /// After a leave in order the others wait for their skew time only, whatever they were told.
    fn hand_over(&mut self, now: Instant, hosts: &[Host], calm: Calm) {
        for side in [0_u8, 1] {
            let Some((left_at, who)) = self.left_at[usize::from(side)] else {
                continue;
            };
            let settled = self.interval * 4;
            let is_calm = calm.network + settled < left_at && calm.wakes + settled < left_at;
            let able = |at: &usize| {
                let record = self.records[*at];
                let is_there = *at != who && record.able && record.side == side;
                is_there && record.same_since + settled < left_at
            };
            let wait = |at: usize| {
                let version = hosts[at].config.settings.version;
                skew(version, self.records[at].priority, self.interval)
            };
            let quickest = (0..hosts.len()).filter(able).map(wait).min();
            if let Some(quickest) = quickest.filter(|_| is_calm)
                && now.since(left_at) > quickest + LATE
            {
                self.find(Rule::SlowHandOver, now, format!("on side {side}"));
            }
        }
    }

    /// A host that runs lets go as soon as its kernel answers, after the linger of a leave.
    fn without_role(&mut self, now: Instant, hosts: &[Host]) {
        for (at, host) in hosts.iter().enumerate() {
            let record = self.records[at];
            let Some(holds_since) = record.holds_since else {
                continue;
            };
            if !host.runs() || record.state == State::Active {
                continue;
            }
            let since = holds_since
                .max(record.state_since)
                .max(host.woke_at)
                .max(host.born_at);
            let linger = match record.state {
                State::Initialize => LINGER,
                State::Backup | State::Active => Duration::ZERO,
            };
            if now.since(since) > KERNEL + linger {
                let detail = format!("host {at} in {:?}", record.state);
                self.find(Rule::HoldsWithoutRole, now, detail);
            }
        }
    }

    /// What it heard, or the time for which it listened, must allow a rise.
    fn early(&mut self, now: Instant, at: usize, host: &Host) {
        let record = self.records[at];
        let version = host.config.settings.version;
        let window = down(version, Priority::new(1), self.interval) + self.interval;
        // A timer may still run by a priority of before.
        if host.resumed || now.since(record.priority_since) <= window {
            return;
        }
        let mut ear = self.ears[at];
        // Silence while it stood still is none: it listens anew, if that was longer than its timer.
        let stood_long = host.stood_for > window * 2;
        if stood_long && host.woke_at > ear.since {
            ear.since = host.woke_at;
        }
        let (hold_until, woke_at) = (host.hold_until, host.woke_at);
        if !ear.may_rise(now, &host.config, record.priority, hold_until, woke_at) {
            self.find(Rule::RoseEarly, now, format!("host {at}: {ear:?}"));
        }
    }

    /// A host that hears nobody for the timeout gives up, and takes part again at its next question after it
    /// is reached.
    fn isolation(&mut self, now: Instant, hosts: &[Host]) {
        let Some(timeout) = self.isolation else {
            return;
        };
        for (at, host) in hosts.iter().enumerate().filter(|(_, host)| host.runs()) {
            let ran_since = host.woke_at.max(host.born_at);
            if host.state() == State::Active {
                let since = self.records[at].state_since.max(host.reached_at);
                if now.since(since.max(ran_since)) > timeout + LATE {
                    let detail = format!("host {at}, not reached since {since:?}");
                    self.find(Rule::KeptThoughCutOff, now, detail);
                }
            } else if let Some(since) = host.back_since.filter(|_| host.is_isolated) {
                let pause = (timeout / 4).min(Duration::from_secs(1));
                if now.since(since.max(ran_since)) > pause + LATE {
                    let detail = format!("host {at}, reached at {since:?}");
                    self.find(Rule::StayedAway, now, detail);
                }
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
        let interval = self.interval;
        let preempts = hosts[at].config.settings.preemption;
        let mine = self.records[at];
        // Longer than any timer that could still run from before.
        let delay = match preempts {
            Preemption::Enabled { delay } => delay,
            Preemption::Disabled => Duration::ZERO,
        };
        let window = down(version, Priority::new(1), interval) + interval + delay;
        let informed = |record: &Record| {
            record.able && record.side == mine.side && now.since(record.same_since) > window
        };
        // A host that stood still may know less, and its last word may reach some before the others; one
        // that just started must listen.
        let calm = calm.network.max(calm.wakes);
        if now.since(calm.max(hosts[at].woke_at)) <= window {
            return;
        }
        for (other, host) in hosts.iter().enumerate() {
            let theirs = self.records[other];
            if other == at || !informed(&theirs) {
                continue;
            }
            let on_hold = now.since(host.hold_until.max(host.timid_until)) <= window;
            let better = theirs.priority > mine.priority;
            if theirs.state == State::Active && now.since(theirs.state_since) > window {
                // One that resumes had just risen.
                let may_preempt = matches!(preempts, Preemption::Enabled { .. })
                    && mine.priority > theirs.priority
                    && now >= hosts[at].hold_until;
                // By the standard a priority 0 of anybody sets the timer, and the answer of the Active
                // to it may be lost.
                let was_released = self.ears[at].is_released().is_some();
                if !may_preempt && !was_released {
                    let detail = format!("host {at} against host {other}");
                    self.find(Rule::Usurped, now, detail);
                }
                continue;
            }
            let gap = skew(version, mine.priority, interval).saturating_sub(skew(
                version,
                theirs.priority,
                interval,
            ));
            let just_rose =
                theirs.state == State::Active && now.since(theirs.state_since) <= DELAY * 2;
            // One that rose, too, and yielded to a better one just now, did not wait.
            let waits = theirs.state == State::Backup && now.since(theirs.state_since) > DELAY * 2;
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
                let since = since.max(calm.all).max(calm.network);
                // A router that lives and is heard says farewell. One that died or was cut off
                // after it had answered the client, or is another process by now, cannot, and announcements may be lost: then the
                // schedule must do.
                let said = neighbour.is_some_and(|at| {
                    let record = &self.records[at];
                    let is_same = hosts[at].born_at < self.stale_since.unwrap_or(now);
                    record.able && record.side == 0 && is_same
                });
                let told = now.since(calm.announcements) > Duration::from_secs(6);
                // The quick farewells may all have been lost; another one follows within a second.
                let slow = if self.stale_since.is_some_and(|since| since <= calm.network) {
                    Duration::from_secs(1)
                } else {
                    Duration::ZERO
                };
                let bound = if said && told {
                    self.interval * 3 + KERNEL + slow
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
