//! A host: the process with the machine, the thread that talks to the kernel, and the kernel.

use std::{collections::VecDeque, net::IpAddr, time::Duration};

use vrrp::{Config, Input, Instant, State, VirtualRouter, lease::Lease, wire::Mac};

use crate::{
    defect::{Defect, Driver},
    silence::Silence,
};

/// What happens to the process.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Process {
    Runs,
    /// Stopped; packets wait in its socket.
    Frozen,
    /// The thread with the machine hangs; packets and answers wait for it.
    Stalled,
    /// The whole machine stands still; packets are lost.
    Suspended,
    Dead,
}

/// What the thread that talks to the kernel is asked to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Op {
    /// For the term of this number.
    Add {
        term: u32,
    },
    Remove,
}

pub(crate) struct Host {
    pub(crate) config: Config,
    pub(crate) driver: Driver,
    pub(crate) process: Process,
    /// Counts processes: what an earlier one ordered is void.
    pub(crate) incarnation: u32,
    /// Packets that wait in the socket of a process that does not run.
    pub(crate) inbox: VecDeque<Vec<u8>>,
    /// What the thread that talks to the kernel answered meanwhile.
    pub(crate) answers: VecDeque<(u32, Input<'static>)>,
    pub(crate) powered: bool,
    pub(crate) link: bool,
    /// Hosts of one side hear each other; the client is on side 0.
    pub(crate) side: u8,
    /// It hears nobody.
    pub(crate) deaf: bool,
    /// A fault of the process or the machine is under way.
    pub(crate) busy: bool,
    /// It was withdrawn or stopped and has not come back.
    pub(crate) away: bool,
    /// Since when this process runs.
    pub(crate) born_at: Instant,
    /// The kernel holds the address until then.
    pub(crate) held_until: Option<Instant>,
    /// What the thread that talks to the kernel knows: the product's own rules.
    pub(crate) lease: Lease,
    /// Counts how often the machine asked for the address; and what that thread knows of it.
    pub(crate) term: u32,
    pub(crate) lease_term: u32,
    /// Counts its looks at the lease: an earlier one that was planned is void.
    pub(crate) looks: u64,
    /// It waits for the kernel.
    pub(crate) sets: bool,
    /// When that thread is done with what it was asked.
    pub(crate) netlink_free_at: Instant,
    /// `last_advertisement` on the shared page; survives the process.
    pub(crate) last_advertisement: Option<Instant>,
    /// Holds off preemption until then.
    pub(crate) hold_until: Instant,
    /// How often it lost its addresses, and when last.
    pub(crate) losses: u32,
    pub(crate) lost_at: Instant,
    /// It may hold off preemption until then, or listen for longer than others.
    pub(crate) timid_until: Instant,
    /// When it last woke from standing still.
    pub(crate) woke_at: Instant,
    /// For how long it had stood still then.
    pub(crate) stood_for: Duration,
    /// How it last became Active: not by its timer.
    pub(crate) resumed: bool,
    /// How late its timers fire.
    pub(crate) lag: Duration,
    /// While the thread looks whether the host is cut off.
    pub(crate) silence: Option<Silence>,
    /// It gave up because it is.
    pub(crate) is_isolated: bool,
    /// When it was first reached since then.
    pub(crate) back_since: Option<Instant>,
    /// Counts that thread's turns: an earlier one that was planned is void.
    pub(crate) turns: u64,
    /// When another router was heard, and which it was.
    pub(crate) heard_at: Instant,
    pub(crate) peer: Option<usize>,
    /// When anything came that shows that the network is there.
    pub(crate) reached_at: Instant,
}

impl Host {
    pub(crate) fn new(config: Config, defect: Defect, lag: Duration) -> Self {
        Self {
            lease: Lease::new(config.settings.interval.as_duration()),
            driver: Driver::new(VirtualRouter::new(config.clone()).unwrap(), defect),
            config,
            process: Process::Runs,
            incarnation: 0,
            inbox: VecDeque::new(),
            answers: VecDeque::new(),
            powered: true,
            link: true,
            side: 0,
            deaf: false,
            busy: false,
            away: false,
            born_at: Instant::ZERO,
            held_until: None,
            term: 0,
            lease_term: 0,
            looks: 0,
            sets: false,
            netlink_free_at: Instant::ZERO,
            last_advertisement: None,
            hold_until: Instant::ZERO,
            timid_until: Instant::ZERO,
            losses: 0,
            lost_at: Instant::ZERO,
            woke_at: Instant::ZERO,
            stood_for: Duration::ZERO,
            resumed: false,
            lag,
            silence: None,
            is_isolated: false,
            back_since: None,
            turns: 0,
            heard_at: Instant::ZERO,
            peer: None,
            reached_at: Instant::ZERO,
        }
    }

    pub(crate) fn mac(&self) -> Mac {
        let last = match self.config.settings.source {
            IpAddr::V4(source) => source.octets()[3],
            IpAddr::V6(source) => source.octets()[15],
        };
        Mac([2, 0, 0, 0, 0, last])
    }

    pub(crate) fn runs(&self) -> bool {
        self.powered && self.process == Process::Runs
    }

    /// The thread that talks to the kernel runs.
    pub(crate) fn netlink_runs(&self) -> bool {
        self.powered && matches!(self.process, Process::Runs | Process::Stalled)
    }

    /// A new process with a machine that knows nothing.
    pub(crate) fn new_process(&mut self, now: Instant, defect: Defect) {
        self.driver = Driver::new(VirtualRouter::new(self.config.clone()).unwrap(), defect);
        self.process = Process::Runs;
        self.incarnation += 1;
        self.inbox.clear();
        self.answers.clear();
        (self.term, self.lease_term, self.losses) = (0, 0, 0);
        self.lease = Lease::new(self.config.settings.interval.as_duration());
        self.sets = false;
        (self.silence, self.is_isolated, self.peer) = (None, false, None);
        self.born_at = now;
        self.hold_until = Instant::ZERO;
    }

    /// Something came that shows that the network is there.
    pub(crate) fn reached(&mut self, now: Instant) {
        self.reached_at = now;
        if self.is_isolated {
            self.back_since.get_or_insert(now);
        }
    }

    /// That of a dead process is none.
    pub(crate) fn state(&self) -> State {
        if self.powered && self.process != Process::Dead {
            self.driver.router.state()
        } else {
            State::Initialize
        }
    }

    /// Takes part and can hear and speak.
    pub(crate) fn is_able(&self) -> bool {
        self.runs() && self.link && self.state() != State::Initialize
    }

    /// The kernel answers for the address on the segment.
    pub(crate) fn answers(&self, now: Instant) -> bool {
        self.powered
            && self.link
            && self.process != Process::Suspended
            && self.held_until.is_some_and(|until| until > now)
    }
}
