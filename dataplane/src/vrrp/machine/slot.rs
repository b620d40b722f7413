//! One virtual router on the machine thread: the only place that knows the interface of the core.

use std::sync::Arc;

use ::vrrp::{
    Advertisement, Config, ConfigError, Discard, Effect, Input, Instant, Peering, Priority, State,
    VirtualRouter,
    wire::{self, ChecksumReading, Mac, Received, resolution},
};

use super::{io::Io, now, punctuality::Punctuality, segment::SegmentId};
use crate::{
    sys::pages::RouterRow,
    vrrp::{
        asking::Heard,
        messages::{FromMachine, LeaseCommand, Observed, PairingNumber, RouterId, Term},
    },
};

/// A virtual router with its trace and its counters.
#[derive(Debug)]
pub(in crate::vrrp) struct Slot {
    pub(in crate::vrrp) id: RouterId,
    /// Its interface.
    pub(in crate::vrrp) segment: SegmentId,
    pub(super) router: VirtualRouter,
    /// Its own hardware address, if it has one.
    mac: Option<Mac>,
    row: &'static RouterRow,
    /// When a router was heard, while Active, that has to yield to this one.
    pub(in crate::vrrp) contested: Arc<Heard>,
    /// The pairing under which it takes part; `None`: it does not.
    pub(super) pairing: Option<PairingNumber>,
    /// A planned stop that control waits for.
    pub(super) stopping: bool,
    /// Control wants it back.
    pub(super) is_destroyed: bool,
    /// Counts how often the addresses were asked for.
    pub(super) term: Term,
    identification: u16,
    sent: u64,
    /// How many did not leave the host, and why the newest did not, if it did not.
    failed: u64,
    failure: Option<i32>,
    received: u64,
    punctuality: Punctuality,
}

impl Slot {
    /// A virtual router that does not take part yet.
    pub(in crate::vrrp) fn new(
        id: RouterId,
        segment: SegmentId,
        config: Config,
        mac: Option<Mac>,
        row: &'static RouterRow,
    ) -> Result<Self, ConfigError> {
        Ok(Self {
            id,
            segment,
            router: VirtualRouter::new(config)?,
            mac,
            row,
            contested: Heard::new(),
            pairing: None,
            stopping: false,
            is_destroyed: false,
            term: 0,
            identification: 0,
            sent: 0,
            failed: 0,
            failure: None,
            received: 0,
            punctuality: Punctuality::default(),
        })
    }

    /// Hands in an input and carries out what follows from it.
    pub(super) fn handle(&mut self, io: &mut Io, now: Instant, input: Input<'_>) {
        self.router.handle(now, input);
        self.carry_out(io, now);
    }

    /// Hands in an advertisement and counts it, if it is accepted.
    pub(super) fn hear(&mut self, io: &mut Io, now: Instant, received: &Received<'_>) {
        let peering = &self.router.config().settings.peering;
        if !peering.is_for(received.destination) {
            io.discarded(Discard::Destination);
            return;
        }
        let input = Input::Advertisement {
            source: received.source,
            advertisement: &received.advertisement,
        };
        self.router.handle(now, input);
        if !self.carry_out(io, now) {
            self.received += 1;
            // To all others it would have yielded itself, or it takes the addresses yet.
            if self.router.has_advertised() {
                self.contested.note(now);
            }
        }
    }

    /// Carries out all effects, in order: the order is protocol. Tells whether an advertisement was
    /// discarded.
    pub(super) fn carry_out(&mut self, io: &mut Io, now: Instant) -> bool {
        let mut is_discarded = false;
        while let Some(effect) = self.router.poll_effect() {
            match effect {
                Effect::SendAdvertisement { priority } => self.send(io, now, priority),
                Effect::AddAddresses => {
                    self.term = self.term.wrapping_add(1);
                    if !self.router.has_advertised() {
                        self.row.advertised(now.as_nanos());
                    }
                    io.lease(LeaseCommand::Hold(self.id, self.term));
                }
                Effect::RemoveAddresses => {
                    // Whoever looks at the trace must not take it for a permit any more.
                    self.row.not_active();
                    io.lease(LeaseCommand::Remove(self.id, self.term));
                }
                Effect::AnnounceAddresses => self.announce(io),
                Effect::Transition(transition) => {
                    if transition.to != State::Active {
                        self.row.not_active();
                        self.punctuality.ceased();
                    }
                    io.tell(FromMachine::Transition(self.id, transition));
                }
                Effect::Discarded(discard) => {
                    is_discarded = true;
                    io.discarded(discard);
                }
            }
        }
        is_discarded
    }

    /// Tells control once that a planned stop is through. Repeated while control's queue is full.
    pub(super) fn tell_if_stopped(&mut self, io: &mut Io) {
        if self.stopping
            && self.router.state() == State::Initialize
            && !self.router.is_leaving()
            && io.tell(FromMachine::Stopped(self.id))
        {
            self.stopping = false;
        }
    }

    /// Whether an advertisement is for this virtual router.
    pub(super) fn is_addressed(
        &self,
        segment: SegmentId,
        advertisement: &Advertisement<'_>,
    ) -> bool {
        self.segment == segment && self.router.config().vrid == advertisement.vrid
    }

    /// For reports.
    pub(super) fn observe(&self) -> Observed {
        Observed {
            id: self.id,
            state: self.router.state(),
            priority: self.router.priority(),
            last_heard: self.router.last_heard(),
            equal_priority: self.router.equal_priority_peer(),
            differing: self.router.differing_addresses_from(),
            differing_interval: (self.router.differing_interval_from())
                .map(|(source, stated)| (source, stated.as_duration())),
            sent: self.sent,
            failed: self.failed,
            failure: self.failure,
            received: self.received,
            late: self.punctuality.late(),
        }
    }

    /// Sends an advertisement. Only one that left the host as Active counts as a permit: a host that
    /// cannot speak loses its addresses with their lease.
    fn send(&mut self, io: &mut Io, now: Instant, priority: Priority) {
        self.identification = self.identification.wrapping_add(1);
        let advertisement = self.router.advertisement(priority);
        let (number, reading) = (self.identification, ChecksumReading::WithPseudoHeader);
        // The last word of one that is Active no more comes from the interface's own: a switch would
        // look for the virtual router here. So do those to peers, each at an address of its own.
        let settings = &self.router.config().settings;
        let is_multicast = matches!(settings.peering, Peering::Multicast);
        let is_active = self.router.state() == State::Active;
        let mac = self.mac.filter(|_| is_active && is_multicast);
        let (mut has_left, mut failure) = (false, None);
        for ends in settings.ends() {
            // Each peer has its own: the checksum covers the destination.
            let buffer = &mut io.packet;
            let sent = match mac {
                None => wire::emit(buffer, ends, number, &advertisement, reading)
                    .map(|length| io.send(self.segment, ends.destination(), length)),
                Some(mac) => wire::emit_frame(buffer, mac, ends, number, &advertisement, reading)
                    .map(|length| io.send_from_own_mac(self.segment, length)),
            };
            match sent {
                Ok(Ok(())) => has_left = true,
                Ok(Err(error)) => failure = Some(error),
                Err(_) => return,
            }
        }
        self.failure = failure;
        // One that goes to nobody is lost to nobody.
        if has_left || failure.is_none() {
            self.sent += 1;
            if !priority.is_release() && self.router.state() == State::Active {
                self.row.advertised(now.as_nanos());
                let interval = self.router.config().settings.interval;
                // Not when the turn began: packets that were read before it count, too.
                self.punctuality.left(self::now(), interval.as_duration());
            }
        } else {
            self.failed += 1;
        }
    }

    /// One gratuitous ARP or unsolicited neighbour advertisement for each address (RFC 9568 section
    /// 6.4.2).
    fn announce(&self, io: &mut Io) {
        let Some(mac) = self.mac.or_else(|| io.mac(self.segment)) else {
            return;
        };
        for address in &self.router.config().addresses {
            let mut frame = [0; resolution::FRAME_LEN];
            let written = resolution::announcement(&mut frame, mac, *address);
            if let Ok(length) = written {
                io.send_frame(self.segment, frame.get(..length).unwrap_or(&[]));
            }
        }
    }
}
