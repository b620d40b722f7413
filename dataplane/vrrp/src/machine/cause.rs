//! Why a state changed.

use std::{fmt, net::IpAddr};

use crate::Priority;

/// Cause of a transition; `Display` gives a sentence for people.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Cause {
    /// Start: listens first.
    Started,
    /// Start as owner of the addresses (RFC 9568 section 6.4.1).
    OwnerStarted,
    /// Restart of the process, soon enough.
    Resumed,
    /// Restart of the process, too late to go on as Active.
    ResumedLate,
    /// Nobody was heard since the start.
    NoActiveHeard,
    /// The Active router fell silent.
    ActiveSilent {
        /// Who was Active.
        source: IpAddr,
    },
    /// The Active router left in order, with priority 0.
    ActiveReleased {
        /// Who was Active.
        source: IpAddr,
    },
    /// The Active router has a lower priority than this one.
    Preempted {
        /// Who was Active.
        source: IpAddr,
        /// Its priority.
        priority: Priority,
    },
    /// Another Active router has a higher priority.
    HigherPriority {
        /// Who is Active.
        source: IpAddr,
        /// Its priority.
        priority: Priority,
    },
    /// Another Active router has the same priority and a greater address.
    GreaterAddress {
        /// Who is Active.
        source: IpAddr,
        /// The priority of both.
        priority: Priority,
    },
    /// This process did not run for so long that another may have taken over.
    WokeLate,
    /// Planned stop.
    Stopped,
    /// The host cannot serve.
    Withdrawn,
    /// The host seems to be cut off from the network.
    Isolated,
    /// The virtual router has no interface any more, or another one.
    InterfaceLost,
    /// The interface lost its link.
    LinkDown,
    /// The interface has its link again.
    LinkUp,
    /// The host does not hold the addresses.
    AddressesLost,
    /// Another router holds the addresses, as known by other means than VRRP.
    PeerTookOver,
}

impl Cause {
    /// Every value of [`Self::label`].
    pub const LABELS: &'static [&'static str] = &[
        "started",
        "owner_started",
        "resumed",
        "resumed_late",
        "no_active_heard",
        "active_silent",
        "active_released",
        "preempted",
        "higher_priority",
        "greater_address",
        "woke_late",
        "stopped",
        "withdrawn",
        "isolated",
        "interface_lost",
        "link_down",
        "link_up",
        "addresses_lost",
        "peer_took_over",
    ];

    /// Value of the `cause` label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Started => "started",
            Self::OwnerStarted => "owner_started",
            Self::Resumed => "resumed",
            Self::ResumedLate => "resumed_late",
            Self::NoActiveHeard => "no_active_heard",
            Self::ActiveSilent { .. } => "active_silent",
            Self::ActiveReleased { .. } => "active_released",
            Self::Preempted { .. } => "preempted",
            Self::HigherPriority { .. } => "higher_priority",
            Self::GreaterAddress { .. } => "greater_address",
            Self::WokeLate => "woke_late",
            Self::Stopped => "stopped",
            Self::Withdrawn => "withdrawn",
            Self::Isolated => "isolated",
            Self::InterfaceLost => "interface_lost",
            Self::LinkDown => "link_down",
            Self::LinkUp => "link_up",
            Self::AddressesLost => "addresses_lost",
            Self::PeerTookOver => "peer_took_over",
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Started => f.write_str("started, listens first"),
            Self::OwnerStarted => f.write_str("started as owner of the addresses"),
            Self::Resumed => f.write_str("went on where the one before stopped"),
            Self::ResumedLate => f.write_str("restarted too late to go on as Active"),
            Self::NoActiveHeard => f.write_str("no Active router was heard"),
            Self::ActiveSilent { source } => write!(f, "Active router {source} fell silent"),
            Self::ActiveReleased { source } => write!(f, "Active router {source} left"),
            Self::Preempted { source, priority } => write!(
                f,
                "Active router {source} has the lower priority {priority}"
            ),
            Self::HigherPriority { source, priority } => {
                write!(
                    f,
                    "router {source} is Active with the higher priority {priority}"
                )
            }
            Self::GreaterAddress { source, priority } => write!(
                f,
                "router {source} is Active with the same priority {priority} and the greater address"
            ),
            Self::WokeLate => {
                f.write_str("did not run for so long that another may have taken over")
            }
            Self::Stopped => f.write_str("planned stop"),
            Self::Withdrawn => f.write_str("the proxy of this host does not serve"),
            Self::Isolated => {
                f.write_str("neither another router nor the default gateway is heard")
            }
            Self::InterfaceLost => {
                f.write_str("the interface, or its address on this network, is gone")
            }
            Self::LinkDown => f.write_str("the interface has no link"),
            Self::LinkUp => f.write_str("the interface has its link again, listens first"),
            Self::AddressesLost => f.write_str("the host does not hold the addresses"),
            Self::PeerTookOver => f.write_str("another router holds the addresses"),
        }
    }
}
