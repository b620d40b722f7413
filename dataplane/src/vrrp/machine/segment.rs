//! An interface as the machine thread uses it, for one family.

use ::vrrp::{
    Family,
    wire::{self, Mac},
};

use crate::{sys::raw::AdvertisementSocket, vrrp::world::Binding};

/// One family on one interface: virtual routers of both may share it, and IPv6 may be out of order
/// while IPv4 is not.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::vrrp) struct SegmentId {
    /// Index of the interface.
    pub(in crate::vrrp) index: u32,
    pub(in crate::vrrp) family: Family,
}

impl SegmentId {
    /// That of a virtual router with this binding.
    pub(in crate::vrrp) const fn of(binding: &Binding) -> Self {
        Self {
            index: binding.index,
            family: Family::of(binding.source),
        }
    }
}

/// A socket, and what frames from it carry.
#[derive(Debug)]
pub(in crate::vrrp) struct Segment {
    pub(in crate::vrrp) id: SegmentId,
    pub(in crate::vrrp) mac: Mac,
    pub(in crate::vrrp) socket: AdvertisementSocket,
}

impl Segment {
    /// Opens the socket; not on the machine thread.
    pub(in crate::vrrp) fn open(binding: &Binding) -> std::io::Result<Self> {
        let id = SegmentId::of(binding);
        let socket = AdvertisementSocket::open(
            id.index,
            &binding.interface,
            wire::PROTOCOL,
            wire::group(id.family),
        )?;
        Ok(Self {
            id,
            mac: Mac(binding.mac),
            socket,
        })
    }
}
