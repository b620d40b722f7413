//! To whom advertisements go, and from whom they are taken.

use std::net::{IpAddr, Ipv4Addr};

use super::Settings;
use crate::wire::Ends;

/// Most members of a [`Group`].
pub const MOST_MEMBERS: usize = 32;

/// How the routers of a virtual router reach each other.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[expect(
    clippy::large_enum_variant,
    reason = "in place, as said at `Group`: a box would be freed by whoever may not"
)]
pub enum Peering {
    /// By the group of RFC 9568 sections 5.1.1.2 and 5.1.2.2: whoever is there.
    #[default]
    Multicast,
    /// By their own addresses: these and no others.
    Unicast(Group),
}

/// The addresses of all routers of a virtual router, its own among them, in place: settings cross to
/// a thread that allocates nothing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Group {
    members: [IpAddr; MOST_MEMBERS],
    len: usize,
}

impl Group {
    /// `None`: more than [`MOST_MEMBERS`].
    pub fn new(addresses: &[IpAddr]) -> Option<Self> {
        let mut members = [IpAddr::V4(Ipv4Addr::UNSPECIFIED); MOST_MEMBERS];
        members
            .get_mut(..addresses.len())?
            .copy_from_slice(addresses);
        Some(Self {
            members,
            len: addresses.len(),
        })
    }

    /// All of them.
    pub fn members(&self) -> &[IpAddr] {
        self.members.get(..self.len).unwrap_or_default()
    }
}

impl Peering {
    /// Whether advertisements for `destination`, which is the group or an address of this host, are
    /// for this virtual router. One that reaches a host by both ways is of two virtual routers.
    pub fn is_for(&self, destination: IpAddr) -> bool {
        match self {
            Self::Multicast => destination.is_multicast(),
            Self::Unicast(group) => group.members().contains(&destination),
        }
    }

    /// Whether a router with this address takes part.
    pub fn has(&self, source: IpAddr) -> bool {
        match self {
            Self::Multicast => true,
            Self::Unicast(group) => group.members().contains(&source),
        }
    }
}

impl Settings {
    /// Source and destination of each packet in which an advertisement leaves; none where nobody
    /// else takes part.
    pub fn ends(&self) -> impl Iterator<Item = Ends> + '_ {
        let source = self.source;
        let (group, members) = match &self.peering {
            Peering::Multicast => (Some(Ends::to_group(source)), &[][..]),
            Peering::Unicast(group) => (None, group.members()),
        };
        let peers = members.iter().filter(move |peer| **peer != source);
        let peers = peers.filter_map(move |peer| Ends::between(source, *peer));
        group.into_iter().chain(peers)
    }
}
