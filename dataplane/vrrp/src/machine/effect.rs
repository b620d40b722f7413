//! What leaves the machine.

use std::net::IpAddr;

use super::Cause;
use crate::{Discard, Instant, Priority};

/// Something that the driver must now do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Effect {
    /// Send [`VirtualRouter::advertisement`](super::VirtualRouter::advertisement) with this priority.
    SendAdvertisement {
        /// Not always the configured one: 0 when leaving, a lower one when yielding.
        priority: Priority,
    },
    /// Hold the addresses, and answer [`Input::AddressesAdded`](super::Input) once the host does. A
    /// host that holds them already answers at once.
    AddAddresses,
    /// Hold them no longer, and answer [`Input::AddressesRemoved`](super::Input). Also given where
    /// the host may not hold them.
    RemoveAddresses,
    /// Tell the segment where the addresses are (gratuitous ARP, unsolicited neighbour
    /// advertisement), each of them once.
    AnnounceAddresses,
    /// The state changed; for logs, status and metrics.
    Transition(Transition),
    /// An advertisement was dropped; for metrics.
    Discarded(Discard),
}

/// A change of state.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Transition {
    /// When.
    pub at: Instant,
    /// State left.
    pub from: State,
    /// State entered.
    pub to: State,
    /// Why; its `Display` is a sentence.
    pub cause: Cause,
}

/// State of a virtual router as seen from outside (RFC 9568 section 6.3).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum State {
    /// Takes no part.
    Initialize,
    /// Watches the Active router.
    Backup,
    /// Holds the addresses.
    Active,
}

impl State {
    /// The word of RFC 9568.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Initialize => "Initialize",
            Self::Backup => "Backup",
            Self::Active => "Active",
        }
    }
}

/// Another router of the same VRID, as it was heard last.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Peer {
    /// Source address of its advertisement.
    pub source: IpAddr,
    /// Its priority.
    pub priority: Priority,
    /// When it was heard.
    pub heard_at: Instant,
}
