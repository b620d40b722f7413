//! An interface as the machine thread uses it.

use ::vrrp::wire::{self, Mac};

use crate::{sys::raw::AdvertisementSocket, vrrp::world::Binding};

/// A socket, and what frames from it carry.
#[derive(Debug)]
pub(in crate::vrrp) struct Segment {
    pub(in crate::vrrp) index: u32,
    pub(in crate::vrrp) mac: Mac,
    pub(in crate::vrrp) socket: AdvertisementSocket,
}

impl Segment {
    /// Opens the socket; not on the machine thread.
    pub(in crate::vrrp) fn open(binding: &Binding) -> std::io::Result<Self> {
        let socket = AdvertisementSocket::open(
            binding.index,
            &binding.interface,
            wire::PROTOCOL,
            wire::GROUP_V4,
        )?;
        Ok(Self {
            index: binding.index,
            mac: Mac(binding.mac),
            socket,
        })
    }
}
