//! What effects act on: sockets, queues and counters of the machine thread. Nothing here waits or
//! allocates.

use std::{net::IpAddr, os::fd::AsFd, sync::Arc};

use ::vrrp::{Discard, wire::Mac};

use super::segment::{Segment, SegmentId};
use crate::{
    sys::{
        packet::FrameSocket,
        raw::BUFFER,
        ring::Producer,
        wait::{Waiter, Wake},
    },
    vrrp::messages::{FromMachine, LeaseCommand},
};

/// Interfaces that there is room for without an allocation.
const SEGMENTS: usize = 64;

/// Everything that the machine thread writes to.
#[derive(Debug)]
pub(super) struct Io {
    #[expect(
        clippy::vec_box,
        reason = "boxes are handed back as they came, without an allocation"
    )]
    pub(super) segments: Vec<Box<Segment>>,
    frames: FrameSocket,
    /// The advertisement about to be sent.
    pub(super) packet: [u8; BUFFER],
    leases: Producer<LeaseCommand>,
    leases_wake: Arc<Wake>,
    has_lease_command: bool,
    control: Producer<FromMachine>,
    control_wake: Arc<Wake>,
    has_news: bool,
    pub(super) discards: [u64; Discard::ALL.len()],
    pub(super) strangers: u64,
}

/// The ends of the queues that the machine thread writes to.
#[derive(Debug)]
pub(in crate::vrrp) struct Outputs {
    pub(in crate::vrrp) leases: Producer<LeaseCommand>,
    pub(in crate::vrrp) leases_wake: Arc<Wake>,
    pub(in crate::vrrp) control: Producer<FromMachine>,
    pub(in crate::vrrp) control_wake: Arc<Wake>,
}

impl Io {
    pub(super) fn new(frames: FrameSocket, outputs: Outputs) -> Self {
        Self {
            segments: Vec::with_capacity(SEGMENTS),
            frames,
            packet: [0; BUFFER],
            leases: outputs.leases,
            leases_wake: outputs.leases_wake,
            has_lease_command: false,
            control: outputs.control,
            control_wake: outputs.control_wake,
            has_news: false,
            discards: [0; Discard::ALL.len()],
            strangers: 0,
        }
    }

    /// Sends the first bytes of [`Self::packet`]; the error's number, where they did not leave.
    pub(super) fn send(&self, segment: SegmentId, to: IpAddr, length: usize) -> Result<(), i32> {
        let packet = self.packet.get(..length).unwrap_or(&[]);
        let entry = self.segments.iter().find(|entry| entry.id == segment);
        let entry = entry.ok_or(libc::ENODEV)?;
        entry
            .socket
            .send(packet, to)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    /// As [`Self::send`], but the packet is a frame from the virtual router's own hardware address: it
    /// leaves by the interface beneath, whatever becomes of the link that carries the addresses.
    pub(super) fn send_from_own_mac(&self, segment: SegmentId, length: usize) -> Result<(), i32> {
        let frame = self.packet.get(..length).unwrap_or(&[]);
        self.frames
            .send(segment.index, frame)
            .map_err(|error| error.raw_os_error().unwrap_or(libc::EIO))
    }

    pub(super) fn mac(&self, segment: SegmentId) -> Option<Mac> {
        self.segments
            .iter()
            .find(|entry| entry.id == segment)
            .map(|entry| entry.mac)
    }

    /// What virtual routers of the segment were told of its link.
    pub(super) fn has_link(&self, segment: SegmentId) -> bool {
        let mut segments = self.segments.iter();
        segments.any(|entry| entry.id == segment && entry.is_up)
    }

    pub(super) fn send_frame(&self, segment: SegmentId, frame: &[u8]) {
        // An interface that cannot send tells so by its link state.
        drop(self.frames.send(segment.index, frame));
    }

    /// Asks the netlink thread. Its queue holds more than all virtual routers can ask for while it
    /// stalls; a command lost nevertheless is covered by the lease, which ends without a permit.
    pub(super) fn lease(&mut self, command: LeaseCommand) {
        self.has_lease_command |= self.leases.push(command).is_ok();
    }

    /// Tells control; `false`: its queue is full.
    pub(super) fn tell(&mut self, news: FromMachine) -> bool {
        self.try_tell(news).is_ok()
    }

    /// Tells control; gives the news back if its queue is full.
    pub(super) fn try_tell(&mut self, news: FromMachine) -> Result<(), FromMachine> {
        self.control.push(news)?;
        self.has_news = true;
        Ok(())
    }

    pub(super) fn discarded(&mut self, discard: Discard) {
        if let Some(counter) = self.discards.get_mut(discard.index()) {
            *counter += 1;
        }
    }

    /// Wakes whoever was told something: the netlink thread first, clients wait for it.
    pub(super) fn wake_others(&mut self) {
        if std::mem::take(&mut self.has_lease_command) {
            self.leases_wake.wake();
        }
        if std::mem::take(&mut self.has_news) {
            self.control_wake.wake();
        }
    }

    pub(super) fn add(&mut self, segment: Box<Segment>, waiter: &mut Waiter) {
        waiter.watch(segment.socket.as_fd());
        self.segments.push(segment);
    }

    /// Takes a socket out; closing it is not for this thread.
    pub(super) fn remove(&mut self, id: SegmentId, waiter: &mut Waiter) {
        if let Some(at) = self.segments.iter().position(|s| s.id == id) {
            let segment = self.segments.swap_remove(at);
            waiter.forget(segment.socket.as_fd());
            self.tell(FromMachine::Closed(segment));
        }
    }
}
