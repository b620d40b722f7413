//! What the netlink thread keeps of one virtual router.

use std::{net::IpAddr, sync::Arc};

use ::vrrp::{
    Instant,
    lease::{LIFETIME_SECONDS, Lease, Missing, Todo},
    wire::Mac,
};

use super::{
    contests::Contest,
    virtual_links::{OwnLink, VirtualLinks},
};
use crate::{
    sys::netlink::{NewVirtualLink, Requests},
    vrrp::{
        messages::{Registration, Term},
        world::World,
    },
};

/// The addresses of one virtual router.
#[derive(Debug)]
pub(super) struct Holding {
    pub(super) what: Registration,
    /// Where its hardware address is, if it has one of its own.
    pub(super) link: Option<OwnLink>,
    pub(super) lease: Lease,
    /// Echoed in answers.
    pub(super) term: Term,
    pub(super) contest: Contest,
}

impl Holding {
    pub(super) fn new(what: Registration) -> Self {
        let wanted = |mac: Mac| NewVirtualLink {
            beneath: what.index,
            mac: mac.0,
            is_ipv6: what.addresses.iter().any(IpAddr::is_ipv6),
        };
        Self {
            link: what.mac.map(wanted).map(OwnLink::new),
            lease: Lease::new(what.interval),
            term: 0,
            contest: Contest::new(Arc::clone(&what.contested)),
            what,
        }
    }

    /// The interface that has its addresses; `None`: it is not there.
    pub(super) fn index(&self) -> Option<u32> {
        match &self.link {
            Some(link) => link.index,
            None => Some(self.what.index),
        }
    }

    /// Whether the host has all its addresses, on a link that is switched on.
    pub(super) fn is_here(&self, world: &World) -> bool {
        let mut addresses = self.what.addresses.iter();
        let index = self.index();
        let index = index.filter(|index| self.link.is_none() || world.is_on(*index));
        index.is_some_and(|index| addresses.all(|address| world.has(index, *address)))
    }

    /// When the machine thread last advertised as Active.
    pub(super) fn advertised_at(&self) -> Option<Instant> {
        self.what.row.last_advertisement().map(Instant::from_nanos)
    }

    /// Has the addresses for the time of a lease from now on, on a link that is switched on: a renewal
    /// finds it so, unless somebody else has his hand in it.
    pub(super) fn hold(
        &mut self,
        requests: &mut Requests,
        links: &mut VirtualLinks,
    ) -> Result<(), String> {
        let index = match &mut self.link {
            None => self.what.index,
            Some(link) => links
                .switch_on(requests, link)
                .map_err(|error| format!("cannot use the link {}: {error}", link.wanted.name()))?,
        };
        for address in &self.what.addresses {
            requests
                .hold(index, *address, LIFETIME_SECONDS)
                .map_err(|error| format!("the kernel refuses address {address}: {error}"))?;
        }
        Ok(())
    }

    pub(super) fn todo(&self, now: Instant) -> Todo {
        self.lease.todo(now, self.advertised_at())
    }

    pub(super) fn missing(&mut self, now: Instant) -> Missing {
        self.lease.missing(now, self.advertised_at())
    }
}
