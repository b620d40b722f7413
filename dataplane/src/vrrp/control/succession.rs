//! A virtual router that another one of this host replaces under the same addresses, as with an edit
//! of the VRID: for clients nothing has changed.
//!
//! It ends without a word, its addresses stay in place under their lease, and the successor goes on
//! as Active, as after a restart of the process: [`Input::Resume`](::vrrp::Input::Resume).

use std::net::IpAddr;

use ::vrrp::Instant;
use node_api::{MacAddress, RouterState};

use super::{
    Control,
    managed::{Managed, Stage},
};
use crate::vrrp::messages::{RouterId, ToHost, ToMachine};

/// How long a successor may take to appear; the lease ends no later.
const CLAIMED_WITHIN: std::time::Duration = std::time::Duration::from_secs(1);

/// Addresses that wait for the virtual router that goes on with them.
#[derive(Debug)]
pub(super) struct Estate {
    index: u32,
    addresses: Vec<IpAddr>,
    last_advertisement: Instant,
}

impl Control {
    /// Whether the same addresses are wanted under another VRID, at the same place, while `router`
    /// is Active.
    pub(super) fn has_successor(&self, router: &Managed) -> bool {
        let old = &router.spec.settings;
        let desired = self.desired.iter().flat_map(|desired| &desired.routers);
        router.state == RouterState::Active
            && desired.map(|router| &router.settings).any(|new| {
                new.addresses == old.addresses
                    && new.interface == old.interface
                    && new.virtual_router_id != old.virtual_router_id
                    // Another VRID is another hardware address.
                    && old.mac_address == MacAddress::Interface
                    && new.mac_address == old.mac_address
            })
    }

    pub(super) fn hand_over(&mut self, id: RouterId) {
        self.set_stage(id, Stage::AwaitHandOver);
        self.tell_machine(ToMachine::HandOver(id));
    }

    pub(super) fn is_handed_over(&self, id: RouterId) -> bool {
        let mut instances = self.routers.iter().filter_map(|it| it.instance.as_ref());
        instances.any(|it| it.id == id && it.stage == Stage::AwaitHandOver)
    }

    /// Keeps what a virtual router leaves to its successor.
    pub(super) fn bequeath(&mut self, id: RouterId) {
        let Some(router) = self.routers.iter().find(|router| router.is(id)) else {
            return;
        };
        let instance = router.instance.as_ref();
        let Some(instance) = instance.filter(|it| it.stage == Stage::AwaitHandOver) else {
            return;
        };
        // Without one it let go on its own before its time came.
        if let Some(last) = instance.row.last_advertisement() {
            self.estates.push(Estate {
                index: instance.index,
                addresses: router.addresses().to_vec(),
                last_advertisement: Instant::from_nanos(last),
            });
        }
    }

    /// When the predecessor of a virtual router advertised last, if there was one at this place.
    pub(super) fn inherit(&mut self, index: u32, addresses: &[IpAddr]) -> Option<Instant> {
        let is_it = |estate: &Estate| estate.index == index && estate.addresses == addresses;
        let at = self.estates.iter().position(is_it)?;
        Some(self.estates.swap_remove(at).last_advertisement)
    }

    /// Removes addresses that no successor came for, and that no other virtual router has.
    pub(super) fn clean_estates(&mut self, now: Instant) {
        let is_over = |estate: &mut Estate| estate.until() <= now;
        let over: Vec<Estate> = self.estates.extract_if(.., is_over).collect();
        for Estate {
            index, addresses, ..
        } in over
        {
            let is_taken = |address: &IpAddr| {
                let mut routers = self.routers.iter();
                routers.any(|router| router.addresses().contains(address))
            };
            let left = addresses.into_iter().filter(|address| !is_taken(address));
            for address in left.collect::<Vec<_>>() {
                self.tell_host(ToHost::Remove(index, address));
            }
        }
    }

    /// When the first estate is to be cleaned.
    pub(super) fn first_estate_until(&self) -> Option<Instant> {
        self.estates.iter().map(Estate::until).min()
    }
}

impl Estate {
    fn until(&self) -> Instant {
        self.last_advertisement + CLAIMED_WITHIN
    }
}
