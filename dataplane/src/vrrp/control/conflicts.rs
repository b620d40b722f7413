//! Others who answer for addresses that this host holds (RFC 5227 for IPv4): who is asked about, and what people
//! are told.

use std::sync::Arc;

use ::vrrp::wire::Mac;
use node_api::{AddressConflict, RouterState};

use super::{Control, managed::Managed};
use crate::vrrp::neighbours::{Conflict, Held};

impl Control {
    /// Has the addresses of Active virtual routers asked about, and no others.
    pub(super) fn look_after_addresses(&mut self) {
        let held: Vec<_> = self.routers.iter().filter_map(held).collect();
        let is_same = held.len() == self.held.len()
            && held.iter().zip(&self.held).all(|(one, it)| one.is_like(it));
        if !is_same {
            self.held.clone_from(&held);
            self.ends.neighbours.give(held);
        }
    }

    pub(super) fn on_conflicts(&mut self, conflicts: Vec<Conflict>) {
        for new in &conflicts {
            if !self.conflicts.contains(new) {
                tracing::error!(address = %new.address, mac = %new.mac, "somebody else answers for it");
            }
        }
        for old in &self.conflicts {
            if !conflicts.contains(old) {
                tracing::info!(address = %old.address, mac = %old.mac, "answers for it no more, or is not asked");
            }
        }
        self.conflicts = conflicts;
        self.report.is_wanted = true;
    }

    /// Who else answers for the addresses of each virtual router.
    pub(super) fn conflicts_of(&self, router: &Managed) -> Vec<AddressConflict> {
        let own = self.conflicts.iter().filter(|it| router.is(it.id));
        own.map(|it| AddressConflict {
            address: it.address,
            hardware_address: it.mac.to_string(),
            own_interface: self.own_interface(it.mac),
            since_unix_ms: it.since_unix_ms,
        })
        .collect()
    }

    fn own_interface(&self, mac: Mac) -> Option<String> {
        let world = self.world.as_ref()?;
        world.interface_with(mac.0).map(ToOwned::to_owned)
    }
}

fn held(router: &Managed) -> Option<Held> {
    let instance = router.instance.as_ref()?;
    let binding = router.binding.as_ref().ok()?;
    (router.state == RouterState::Active && binding.index == instance.index).then(|| Held {
        id: instance.id,
        index: instance.index,
        mac: instance.mac.unwrap_or(Mac(binding.mac)),
        asks_from: Mac(binding.mac),
        source: binding.source,
        addresses: router.addresses().to_vec(),
        row: instance.row,
        contested: Arc::clone(&instance.contested),
        interval: instance.settings.interval.as_duration(),
    })
}
