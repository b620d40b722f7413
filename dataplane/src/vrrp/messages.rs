//! What the threads of the process tell each other.
//!
//! Control and the netlink thread may wait and allocate; the machine thread may not, so whatever
//! crosses its border is made and dropped on the other side.

use std::{net::IpAddr, sync::Arc};

use ::vrrp::{Instant, Peer, Priority, Settings, State, Transition, wire::Mac};

use super::{
    asking::Heard,
    machine::{
        segment::{Segment, SegmentId},
        slot::Slot,
    },
    world::World,
};
use crate::sys::pages::{PairPage, RouterRow};

/// Number of a virtual router within this process, never used twice.
pub(super) type RouterId = u32;
/// Which time it is that the addresses of a virtual router are asked for.
pub(super) type Term = u32;
/// Number of a pairing with a proxy, growing; 0 is none.
pub(super) type PairingNumber = u64;

/// Control to the machine thread.
#[derive(Debug)]
pub(super) enum ToMachine {
    /// A new pairing: its page tells whether the proxy hangs.
    Pairing(PairingNumber, &'static PairPage),
    /// A socket for one family on an interface.
    Open(Box<Segment>),
    /// Give this socket back.
    Close(SegmentId),
    /// State of the link of this interface, as far as this family goes.
    Link(SegmentId, bool, Mac),
    /// A virtual router that does not take part yet.
    Create(Box<Slot>),
    /// Give it back. One that still takes part leaves at once: it has no interface any more.
    Destroy(RouterId),
    /// Give it back as it is, without a word: another virtual router of this host goes on with its
    /// addresses.
    HandOver(RouterId),
    /// Take part.
    Participate {
        id: RouterId,
        /// Ignored if this proxy is known to be dead by now.
        pairing: PairingNumber,
        /// Do not preempt until then.
        hold_until: Instant,
        /// Last advertisement of what it goes on for, if that was Active.
        resume: Option<Instant>,
    },
    /// Stop taking part: the proxy does not accept.
    Withdraw(RouterId),
    /// Stop taking part: the host is cut off.
    Isolate(RouterId),
    /// Planned stop; answered by [`FromMachine::Stopped`].
    Stop(RouterId),
    /// New settings, without leaving the state.
    Update(RouterId, Box<Settings>),
    /// Whether the host has a usable endpoint.
    EndpointUsable(RouterId, bool),
    /// Fill this and send it back.
    Snapshot(Box<Snapshot>),
    /// End the thread.
    Quit,
}

/// The machine thread to control.
#[derive(Debug)]
pub(super) enum FromMachine {
    Transition(RouterId, Transition),
    /// A planned stop is through as far as the machine is concerned.
    Stopped(RouterId),
    /// The proxy of this pairing began (`true`) or ceased to turn its loops.
    Beats(PairingNumber, bool),
    Returned(Box<Slot>),
    Closed(Box<Segment>),
    Snapshot(Box<Snapshot>),
    /// Settings that were taken over, to be dropped.
    Spent(Box<Settings>),
}

/// State of the machine thread.
#[derive(Debug, Default)]
pub(super) struct Snapshot {
    pub(super) routers: Vec<Observed>,
    pub(super) discards: [u64; ::vrrp::Discard::ALL.len()],
    /// Advertisements that no virtual router was there for.
    pub(super) strangers: u64,
    /// Longest delay of a timer since the snapshot before.
    pub(super) latest_timer: std::time::Duration,
}

/// One virtual router as the machine thread sees it.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    pub(super) id: RouterId,
    pub(super) state: State,
    pub(super) priority: Priority,
    pub(super) last_heard: Option<Peer>,
    pub(super) equal_priority: Option<Peer>,
    pub(super) differing: Option<IpAddr>,
    /// Who states another interval, and which.
    pub(super) differing_interval: Option<(IpAddr, std::time::Duration)>,
    pub(super) sent: u64,
    pub(super) failed: u64,
    /// Why the newest advertisement did not leave, if it did not: the error's number.
    pub(super) failure: Option<i32>,
    pub(super) received: u64,
    /// Own advertisements that left late.
    pub(super) late: u64,
}

/// The machine thread to the netlink thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LeaseCommand {
    Hold(RouterId, Term),
    Remove(RouterId, Term),
}

/// The netlink thread to the machine thread.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum LeaseAnswer {
    Held(RouterId, Term),
    Removed(RouterId, Term),
    Lost(RouterId, Term),
}

/// Control to the netlink thread.
#[derive(Debug)]
pub(super) enum ToHost {
    /// A virtual router that may ask for its addresses from now on.
    Register(Registration),
    /// Its permit is now good for this long.
    Interval(RouterId, std::time::Duration),
    /// Remove its addresses, unless another virtual router goes on with them, and forget it;
    /// answered by [`FromHost::Forgotten`].
    Forget { id: RouterId, keep_addresses: bool },
    /// Remove an address that a former process left behind.
    Remove(u32, IpAddr),
    /// Remove the links of virtual routers that a former process left behind, but for those that belong
    /// to a virtual router of now.
    RemoveLinks,
    /// End the thread.
    Quit,
}

/// What the netlink thread must know of a virtual router.
#[derive(Debug)]
pub(super) struct Registration {
    pub(super) id: RouterId,
    pub(super) index: u32,
    /// Its own hardware address, on a link of its own; `None`: that of the interface.
    pub(super) mac: Option<Mac>,
    pub(super) addresses: Vec<IpAddr>,
    /// Where the machine thread records its advertisements: the permit.
    pub(super) row: &'static RouterRow,
    pub(super) interval: std::time::Duration,
    /// When the machine thread heard, as Active, another Active that has to yield.
    pub(super) contested: Arc<Heard>,
}

/// The netlink thread to control.
#[derive(Debug)]
pub(super) enum FromHost {
    /// Interfaces and addresses changed; the first one is the state at the start.
    World(World),
    /// The host began or ceased to hold the addresses.
    Held(RouterId, bool),
    Forgotten(RouterId),
    /// Something failed, a sentence.
    Problem(RouterId, String),
    /// Netlink itself failed: the process cannot go on.
    Broken(String),
}
