//! An interface as the machine thread uses it, for one family.

use std::sync::Arc;

use ::vrrp::{
    Family,
    wire::{self, Mac},
};

use crate::{
    sys::raw::AdvertisementSocket,
    vrrp::{asking::Heard, carrier::Carrier, world::Binding},
};

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
    /// What the driver says of the link.
    pub(in crate::vrrp) carrier: Arc<Carrier>,
    /// When another router was heard on it.
    pub(in crate::vrrp) heard: Arc<Heard>,
    /// What control says of it.
    pub(super) is_told_up: bool,
    /// What the virtual routers were told.
    pub(super) is_up: bool,
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
            carrier: Carrier::new(),
            heard: Heard::new(),
            is_told_up: binding.is_up,
            is_up: binding.is_up,
        })
    }

    /// Whether the link is there by all accounts: the driver's word comes first when it goes, control's
    /// when an interface without such a driver does.
    pub(super) fn has_link(&self) -> bool {
        self.is_told_up && self.carrier.is_there()
    }
}
