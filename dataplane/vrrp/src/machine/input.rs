//! What enters the machine.

use std::net::IpAddr;

use crate::{Advertisement, Instant};

/// Something that happened. Inputs that make no sense in the present state do nothing.
#[derive(Clone, Copy, Debug)]
pub enum Input<'a> {
    /// Take part (RFC 9568 section 6.4.1, Startup). Listens for one active-down interval before it
    /// may become Active; time already spent listening after [`Self::Withdraw`] or [`Self::Stop`]
    /// counts. Only an owner (priority 255) does not listen.
    Start,
    /// Take part after a restart of the process. Within two intervals of the former process's last
    /// advertisement as Active, goes on as Active; later than that, removes what that process left
    /// and starts as Backup.
    Resume {
        /// When the former process advertised last as Active, on the same clock.
        last_advertisement_at: Instant,
    },
    /// Leave in order, with the listeners already closed. A Backup leaves silently. An Active
    /// advertises priority 0 and keeps the addresses until the next Active is heard,
    /// `Settings::linger` at most: see [`VirtualRouter`](super::VirtualRouter).
    Stop,
    /// Leave because the host cannot serve: its proxy died or hangs. As [`Self::Stop`].
    Withdraw,
    /// Leave because the host seems to be cut off: nobody at all is heard. As [`Self::Stop`], but the
    /// time until the next [`Self::Start`] is none of listening.
    Isolated,
    /// An advertisement, parsed and with correct TTL and checksum.
    Advertisement {
        /// Source address of its packet.
        source: IpAddr,
        /// What it says.
        advertisement: &'a Advertisement<'a>,
    },
    /// [`VirtualRouter::poll_timeout`](super::VirtualRouter::poll_timeout) was reached. Too early
    /// or too often does no harm.
    Timer,
    /// The host has (`true`) or has not a usable endpoint: from the next advertisement on, its
    /// priority is the one for that. Never leaves Active by itself.
    EndpointUsable(bool),
    /// Until then, a lower priority that is heard is not taken over from; a silent or leaving
    /// Active is. An owner that starts listens first. Replaces an earlier hold; one that has passed
    /// means none.
    HoldPreemption {
        /// End of the hold.
        until: Instant,
    },
    /// What was announced is no longer true: the interface has another hardware address.
    Reannounce,
    /// The process did not run for a while, and may have missed packets that did not wait for it.
    /// Before those that did.
    Paused,
    /// The interface is no longer this virtual router's: it is gone, renamed, or lost the prefix of
    /// the addresses. An Active advertises priority 0, if it still can.
    InterfaceLost,
    /// The interface lost its link: nothing can be sent or heard.
    LinkDown,
    /// The interface has its link again: listens as at the start.
    LinkUp,
    /// The host holds the addresses that [`Effect::AddAddresses`](super::Effect) asked for; they are
    /// announced only now. Not for renewals.
    AddressesAdded,
    /// The host no longer holds the addresses that [`Effect::RemoveAddresses`](super::Effect) asked
    /// it to remove, or never did. A router that yielded then speaks one last time, so that the
    /// winner announces (see [`VirtualRouter`](super::VirtualRouter)).
    AddressesRemoved,
    /// The host could not add or lost the addresses while Active.
    AddressesLost,
    /// Another router is known, by other means than an advertisement, to hold the addresses: lets
    /// go of them at once and listens.
    PeerTookOver,
}
