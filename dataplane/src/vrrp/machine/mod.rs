//! The machine thread: packets, timers and commands into the state machines, effects out.
//!
//! It never waits but for its descriptors, takes no lock, makes no netlink call, and allocates
//! nothing per packet or timer.

pub(super) mod io;
mod punctuality;
pub(super) mod segment;
pub(super) mod slot;
#[cfg(test)]
mod tests;

use std::{
    os::fd::AsFd,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use ::vrrp::{
    Input, Instant, State,
    wire::{self, Destination},
};
use io::{Io, Outputs};
use segment::SegmentId;
use slot::Slot;

use super::messages::{FromMachine, LeaseAnswer, PairingNumber, RouterId, Snapshot, ToMachine};
use crate::sys::{
    clock,
    packet::FrameSocket,
    pages::{Beat, PairPage},
    raw::BUFFER,
    ring::Consumer,
    wait::{Waiter, Wake},
};

/// The beat of the shared page comes at least this often.
const LONGEST_WAIT: Duration = Duration::from_millis(50);
/// A proxy whose oldest beat is older than this hangs.
const PROXY_HANGS_AFTER: Duration = Duration::from_millis(600);
/// Whoever did not run this long cannot judge the beats of others.
const BLIND_AFTER: Duration = Duration::from_millis(300);
/// Packets taken from one socket in one turn: a flood must not keep the commands waiting.
const PACKETS_PER_TURN: usize = 64;
/// The same with a timer due, which must not fire before what waited longer than it: more than
/// fits into a socket's buffer, so that only a flood reaches it.
const PACKETS_BEFORE_TIMERS: usize = 4096;

/// What other threads signal to the machine thread without a queue.
#[derive(Debug)]
pub(super) struct Bell {
    /// Wakes it.
    pub(super) wake: Wake,
    /// The newest pairing whose proxy is known to be dead.
    dead: AtomicU64,
}

impl Bell {
    pub(super) fn new() -> std::io::Result<Self> {
        Ok(Self {
            wake: Wake::new()?,
            dead: AtomicU64::new(0),
        })
    }

    /// The proxy of this pairing, and of all before it, is dead.
    pub(super) fn proxy_died(&self, pairing: PairingNumber) {
        self.dead.fetch_max(pairing, Ordering::AcqRel);
        self.wake.wake();
    }
}

/// The ends of the queues that the machine thread reads, and what it is woken by.
#[derive(Debug)]
pub(super) struct Inputs {
    pub(super) commands: Consumer<ToMachine>,
    pub(super) answers: Consumer<LeaseAnswer>,
    pub(super) bell: Arc<Bell>,
}

/// The thread's state.
#[derive(Debug)]
pub(super) struct Machine {
    inputs: Inputs,
    io: Io,
    waiter: Waiter,
    #[expect(
        clippy::vec_box,
        reason = "boxes are handed back as they came, without an allocation"
    )]
    slots: Vec<Box<Slot>>,
    beat: &'static Beat,
    pairing: Option<Pairing>,
    dead: PairingNumber,
    turned_at: Instant,
    /// Since when it has turned without a pause.
    awake_since: Instant,
    latest_timer: Duration,
    buffer: [u8; BUFFER],
}

#[derive(Debug)]
struct Pairing {
    number: PairingNumber,
    page: &'static PairPage,
    beats: bool,
}

impl Machine {
    /// Makes the thread's state, with room for `capacity` virtual routers.
    pub(super) fn new(
        inputs: Inputs,
        outputs: Outputs,
        frames: FrameSocket,
        beat: &'static Beat,
        capacity: usize,
    ) -> Self {
        let mut waiter = Waiter::new();
        waiter.watch(inputs.bell.wake.as_fd());
        Self {
            inputs,
            io: Io::new(frames, outputs),
            waiter,
            slots: Vec::with_capacity(capacity),
            beat,
            pairing: None,
            dead: 0,
            turned_at: now(),
            awake_since: now(),
            latest_timer: Duration::ZERO,
            buffer: [0; BUFFER],
        }
    }

    /// Runs until told to quit.
    pub(super) fn run(mut self) -> std::io::Result<()> {
        while let Some(timeout) = self.turn() {
            self.waiter.wait(Some(timeout))?;
        }
        Ok(())
    }

    /// One turn of the loop; returns for how long nothing is to be done, `None` at the end.
    fn turn(&mut self) -> Option<Duration> {
        self.beat.beat();
        if self.waiter.is_ready(self.inputs.bell.wake.as_fd()) {
            self.inputs.bell.wake.clear();
        }
        self.watch_proxy();
        self.watch_links();
        while let Some(answer) = self.inputs.answers.pop() {
            self.on_answer(answer);
        }
        while let Some(command) = self.inputs.commands.pop() {
            if matches!(command, ToMachine::Quit) {
                return None;
            }
            self.on_command(command);
        }
        // Packets before timers: what was there all the time is not silence.
        let now = now();
        let is_due = |slot: &Slot| slot.router.poll_timeout().is_some_and(|due| due <= now);
        let is_any_due = self.slots.iter().any(|slot| is_due(slot));
        self.receive(is_any_due);
        self.timers();
        for slot in &mut self.slots {
            slot.tell_if_stopped(&mut self.io);
        }
        self.hand_back();
        self.io.wake_others();
        Some(self.timeout())
    }

    /// Gives control what it wanted back. Tried again while its queue is full.
    fn hand_back(&mut self) {
        while let Some(at) = self.slots.iter().position(|slot| slot.is_destroyed) {
            let slot = self.slots.swap_remove(at);
            if let Err(FromMachine::Returned(slot)) = self.io.try_tell(FromMachine::Returned(slot))
            {
                self.slots.push(slot);
                return;
            }
        }
    }

    // Waiting.

    fn timeout(&self) -> Duration {
        let next = self
            .slots
            .iter()
            .filter_map(|slot| slot.router.poll_timeout())
            .min();
        let wait = next.map_or(LONGEST_WAIT, |next| next.since(now()));
        wait.min(LONGEST_WAIT)
    }

    fn timers(&mut self) {
        let now = now();
        for slot in &mut self.slots {
            let Some(due) = slot.router.poll_timeout().filter(|due| *due <= now) else {
                continue;
            };
            self.latest_timer = self.latest_timer.max(now.since(due));
            slot.handle(&mut self.io, now, Input::Timer);
        }
    }

    /// Takes what waits. With a timer due, looks at every socket again: a packet may have come since
    /// the wait ended, and this thread may have been stopped in between.
    fn receive(&mut self, from_all: bool) {
        let most = if from_all {
            PACKETS_BEFORE_TIMERS
        } else {
            PACKETS_PER_TURN
        };
        for at in 0..self.io.segments.len() {
            for _ in 0..most {
                let Some(segment) = self.io.segments.get(at) else {
                    break;
                };
                if !from_all && !self.waiter.is_ready(segment.socket.as_fd()) {
                    break;
                }
                let id = segment.id;
                // An error belongs to the socket's past (interface down) and is cleared by this.
                let Ok(Some(packet)) = segment.socket.receive(&mut self.buffer) else {
                    break;
                };
                deliver(&mut self.slots, &mut self.io, id, packet);
            }
        }
    }

    // Links.

    /// Tells virtual routers of links that went or came back.
    fn watch_links(&mut self) {
        for at in 0..self.io.segments.len() {
            let Some(segment) = self.io.segments.get_mut(at) else {
                break;
            };
            let (id, is_up) = (segment.id, segment.has_link());
            if std::mem::replace(&mut segment.is_up, is_up) == is_up {
                continue;
            }
            let now = now();
            for slot in self.slots.iter_mut().filter(|slot| slot.segment == id) {
                let input = if is_up {
                    Input::LinkUp
                } else {
                    Input::LinkDown
                };
                slot.handle(&mut self.io, now, input);
            }
        }
    }

    // Proxy.

    /// Withdraws everything when the proxy is dead or hangs (DESIGN section 4, Tracking).
    fn watch_proxy(&mut self) {
        let now = now();
        if now.since(self.turned_at) > BLIND_AFTER {
            self.awake_since = now;
            for slot in &mut self.slots {
                slot.handle(&mut self.io, now, Input::Paused);
            }
        }
        self.turned_at = now;
        let dead = self.inputs.bell.dead.load(Ordering::Acquire);
        if dead > self.dead {
            self.dead = dead;
            self.pairing = self.pairing.take().filter(|pairing| pairing.number > dead);
            self.withdraw_all(now, dead);
        }
        let Some(pairing) = &mut self.pairing else {
            return;
        };
        let last_beat = Instant::from_nanos(pairing.page.oldest_beat());
        let mut silence = now.since(last_beat);
        if pairing.beats {
            // After a pause of the host the proxy gets its time to beat anew.
            silence = silence.min(now.since(self.awake_since));
        }
        let beats = silence <= PROXY_HANGS_AFTER;
        if beats == pairing.beats {
            return;
        }
        pairing.beats = beats;
        let number = pairing.number;
        self.io.tell(FromMachine::Beats(number, beats));
        if !beats {
            self.withdraw_all(now, number);
        }
    }

    fn withdraw_all(&mut self, now: Instant, up_to: PairingNumber) {
        for slot in &mut self.slots {
            if slot.pairing.is_some_and(|pairing| pairing <= up_to) {
                slot.pairing = None;
                slot.handle(&mut self.io, now, Input::Withdraw);
            }
        }
    }

    // Commands.

    fn on_answer(&mut self, answer: LeaseAnswer) {
        let (id, term, input) = match answer {
            LeaseAnswer::Held(id, term) => (id, term, Input::AddressesAdded),
            LeaseAnswer::Removed(id, term) => (id, term, Input::AddressesRemoved),
            LeaseAnswer::Lost(id, term) => (id, term, Input::AddressesLost),
        };
        // What became of addresses that were asked for before says nothing of those of now.
        let is_known = |slot: &&mut Box<Slot>| slot.id == id && slot.term == term;
        if let Some(slot) = self.slots.iter_mut().find(is_known) {
            slot.handle(&mut self.io, now(), input);
        }
    }

    fn on_command(&mut self, command: ToMachine) {
        match command {
            ToMachine::Pairing(number, page) => self.pair(number, page),
            ToMachine::Open(segment) => self.io.add(segment, &mut self.waiter),
            ToMachine::Close(id) => self.io.remove(id, &mut self.waiter),
            ToMachine::Link(id, is_up, mac) => {
                let mut is_other_mac = false;
                for segment in self.io.segments.iter_mut().filter(|s| s.id == id) {
                    is_other_mac |= std::mem::replace(&mut segment.mac, mac) != mac;
                    segment.is_told_up = is_up;
                }
                self.watch_links();
                let now = now();
                for slot in self.slots.iter_mut().filter(|slot| slot.segment == id) {
                    if is_other_mac {
                        slot.handle(&mut self.io, now, Input::Reannounce);
                    }
                }
            }
            ToMachine::Create(mut slot) => {
                // The state machine believes in a link until told otherwise.
                if !self.io.has_link(slot.segment) {
                    slot.handle(&mut self.io, now(), Input::LinkDown);
                }
                self.slots.push(slot);
            }
            ToMachine::Destroy(id) => {
                self.hand_in(id, Input::InterfaceLost);
                self.destroy(id);
            }
            ToMachine::HandOver(id) => self.destroy(id),
            ToMachine::Participate {
                id,
                pairing,
                hold_until,
                resume,
            } => self.participate(id, pairing, hold_until, resume),
            ToMachine::Withdraw(id) => {
                self.leave(id, Input::Withdraw);
            }
            ToMachine::Isolate(id) => {
                self.leave(id, Input::Isolated);
            }
            ToMachine::Stop(id) => {
                self.leave(id, Input::Stop);
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
                    slot.stopping = true;
                }
            }
            ToMachine::Update(id, settings) => {
                let now = now();
                if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
                    // Checked by control with the same rules; a refusal changes nothing.
                    slot.router.update(now, &settings).ok();
                    slot.carry_out(&mut self.io, now);
                }
                self.io.tell(FromMachine::Spent(settings));
            }
            ToMachine::EndpointUsable(id, usable) => {
                self.hand_in(id, Input::EndpointUsable(usable));
            }
            ToMachine::Snapshot(snapshot) => self.snapshot(snapshot),
            ToMachine::Quit => {}
        }
    }

    fn pair(&mut self, number: PairingNumber, page: &'static PairPage) {
        if number > self.dead {
            self.pairing = Some(Pairing {
                number,
                page,
                beats: false,
            });
            self.watch_proxy();
        }
    }

    fn participate(
        &mut self,
        id: RouterId,
        pairing: PairingNumber,
        hold_until: Instant,
        resume: Option<Instant>,
    ) {
        // The proxy may have died after control decided.
        let serves = |own: &Pairing| own.number == pairing && own.beats;
        if !self.pairing.as_ref().is_some_and(serves) {
            return;
        }
        let now = now();
        let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) else {
            return;
        };
        slot.pairing = Some(pairing);
        slot.handle(
            &mut self.io,
            now,
            Input::HoldPreemption { until: hold_until },
        );
        let input = match resume {
            Some(last_advertisement_at) => Input::Resume {
                last_advertisement_at,
            },
            None => Input::Start,
        };
        slot.handle(&mut self.io, now, input);
    }

    fn destroy(&mut self, id: RouterId) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
            slot.is_destroyed = true;
        }
    }

    fn leave(&mut self, id: RouterId, input: Input<'_>) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
            slot.pairing = None;
            slot.handle(&mut self.io, now(), input);
        }
    }

    fn hand_in(&mut self, id: RouterId, input: Input<'_>) {
        if let Some(slot) = self.slots.iter_mut().find(|slot| slot.id == id) {
            slot.handle(&mut self.io, now(), input);
        }
    }

    /// Fills what control made room for.
    fn snapshot(&mut self, mut snapshot: Box<Snapshot>) {
        snapshot.routers.clear();
        for slot in &self.slots {
            if snapshot.routers.len() < snapshot.routers.capacity() {
                snapshot.routers.push(slot.observe());
            }
        }
        snapshot.discards = self.io.discards;
        snapshot.strangers = self.io.strangers;
        snapshot.latest_timer = std::mem::take(&mut self.latest_timer);
        self.io.tell(FromMachine::Snapshot(snapshot));
    }
}

/// Parses a packet and hands it to its virtual router.
fn deliver(slots: &mut [Box<Slot>], io: &mut Io, segment: SegmentId, packet: &[u8]) {
    let received = match wire::parse(packet, segment.family, Destination::Any) {
        Ok(received) => received,
        Err(discard) => {
            io.discarded(discard);
            return;
        }
    };
    let now = now();
    // Of whatever VRID: it tells that the network is there. Another interface of this host does not.
    let is_own = |slot: &Slot| slot.router.config().settings.source == received.source;
    if !slots.iter().any(|slot| is_own(slot))
        && let Some(segment) = io.segments.iter().find(|it| it.id == segment)
    {
        segment.heard.note(now);
    }
    let Some(slot) = slots
        .iter_mut()
        .find(|slot| slot.is_addressed(segment, &received.advertisement))
    else {
        io.strangers += 1;
        return;
    };
    slot.hear(io, now, &received);
}

/// The clock of the process, of the shared pages and of the state machines.
pub(super) fn now() -> Instant {
    Instant::from_nanos(clock::monotonic_ns())
}

/// The word for a state in reports.
pub(super) const fn state(state: State) -> node_api::RouterState {
    match state {
        State::Initialize => node_api::RouterState::Initialize,
        State::Backup => node_api::RouterState::Backup,
        State::Active => node_api::RouterState::Active,
    }
}
