//! The links that carry hardware addresses of virtual routers, each above an interface of the host.
//!
//! Such a link is there for as long as its virtual router is, and switched on exactly while the
//! addresses are held: one that is off neither sends nor takes a frame, so that no switch sees the
//! hardware address of a Backup, and a frame that a switch floods is not forwarded.

use std::{collections::BTreeMap, io};

use crate::{
    sys::netlink::{ArpSettings, NewVirtualLink, Requests},
    vrrp::world::World,
};

/// The link of one virtual router.
#[derive(Debug)]
pub(super) struct OwnLink {
    pub(super) wanted: NewVirtualLink,
    /// Its number, once it is there.
    pub(super) index: Option<u32>,
}

impl OwnLink {
    pub(super) const fn new(wanted: NewVirtualLink) -> Self {
        Self {
            wanted,
            index: None,
        }
    }
}

/// What all of them have in common: the settings of the interfaces beneath.
#[derive(Debug)]
pub(super) struct VirtualLinks {
    /// What interfaces were set to before.
    before: BTreeMap<u32, ArpSettings>,
}

impl VirtualLinks {
    /// With what a former process noted at its links.
    pub(super) fn found(world: &World) -> Self {
        let links = world.virtual_links();
        Self {
            before: links
                .filter_map(|(_, link)| Some((link.beneath, link.before?)))
                .collect(),
        }
    }

    /// Makes a link if it is not there, switched off.
    pub(super) fn make(&mut self, requests: &mut Requests, link: &mut OwnLink) -> io::Result<u32> {
        let wanted = &link.wanted;
        let before = match self.before.get(&wanted.beneath) {
            _ if wanted.is_ipv6 => None,
            Some(before) => Some(*before),
            None => Some(requests.arp_settings(wanted.beneath)?),
        };
        let index = requests.make_virtual_link(wanted, before)?;
        if let Some(before) = before {
            self.before.insert(wanted.beneath, before);
            let now = requests.arp_settings(wanted.beneath)?;
            let needed = now.at_least(ArpSettings::NEEDED);
            if needed != now {
                requests.set_arp_settings(wanted.beneath, needed)?;
            }
        }
        link.index = Some(index);
        Ok(index)
    }

    /// Switches a link on, which may have been removed by somebody.
    pub(super) fn switch_on(
        &mut self,
        requests: &mut Requests,
        link: &mut OwnLink,
    ) -> io::Result<u32> {
        if let Some(index) = link.index {
            match requests.switch_link(index, true) {
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                result => return result.map(|()| index),
            }
        }
        let index = self.make(requests, link)?;
        requests.switch_link(index, true)?;
        Ok(index)
    }

    /// Puts back what interfaces were set to, where `is_used` no more. What somebody has set since stays.
    pub(super) fn put_back(&mut self, requests: &mut Requests, is_used: impl Fn(u32) -> bool) {
        let over = self.before.extract_if(.., |index, _| !is_used(*index));
        for (index, before) in over {
            let result = requests.arp_settings(index).and_then(|now| {
                let earlier = |now, needed, before| if now == needed { before } else { now };
                let needed = before.at_least(ArpSettings::NEEDED);
                let to = ArpSettings {
                    ignore: earlier(now.ignore, needed.ignore, before.ignore),
                    announce: earlier(now.announce, needed.announce, before.announce),
                };
                if to == now {
                    return Ok(());
                }
                requests.set_arp_settings(index, to)
            });
            match result {
                // Gone, and its settings with it.
                Err(error) if error.raw_os_error() == Some(libc::ENODEV) => {}
                Err(error) => {
                    tracing::warn!(index, %error, "cannot put arp_ignore and arp_announce back");
                }
                Ok(()) => {}
            }
        }
    }
}
