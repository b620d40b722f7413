//! What a former vrrp process left behind: addresses and rows of the table.

use std::net::IpAddr;

use ::vrrp::Instant;

use super::{Control, settle::resume_limit};
use crate::vrrp::messages::ToHost;

impl Control {
    /// Removes own addresses that no virtual router goes on with.
    pub(super) fn clean_residuals(&mut self, now: Instant) {
        if self.desired.is_none() && !self.is_leaving {
            return;
        }
        for at in 0..self.routers.len() {
            let Some(router) = self.routers.get_mut(at) else {
                continue;
            };
            let limit = resume_limit(&router.spec);
            let addresses = router.addresses().to_vec();
            let Some(instance) = &mut router.instance else {
                continue;
            };
            let is_late = instance.resume.is_some_and(|last| last + limit < now);
            if is_late && std::mem::take(&mut instance.keeps_residual) {
                let index = instance.index;
                for (index, address) in self.residual_of(index, &addresses) {
                    self.remove_residual(index, address);
                }
            }
        }
        if self.is_cleaned {
            return;
        }
        self.is_cleaned = true;
        let beneath = |index| self.world.as_ref().map_or(index, |it| it.beneath(index));
        let kept = |index: u32, address: IpAddr| {
            self.routers.iter().any(|router| {
                router.addresses().contains(&address)
                    && router
                        .instance
                        .as_ref()
                        .is_some_and(|i| i.index == beneath(index) && i.keeps_residual)
            })
        };
        let residual: Vec<_> = self
            .world
            .iter()
            .flat_map(super::World::own)
            .filter(|(index, address)| !kept(*index, *address))
            .collect();
        for (index, address) in residual {
            self.remove_residual(index, address);
        }
        self.tell_host(ToHost::RemoveLinks);
        self.free_rows();
    }

    /// Where the host has those of `addresses` that are on this interface, or on links above it.
    fn residual_of(&self, index: u32, addresses: &[IpAddr]) -> Vec<(u32, IpAddr)> {
        let Some(world) = &self.world else {
            return Vec::new();
        };
        let own = world.own();
        own.filter(|(at, address)| world.beneath(*at) == index && addresses.contains(address))
            .collect()
    }

    /// Gives back the rows of virtual routers that only a former process had.
    fn free_rows(&self) {
        for row in &self.table.rows {
            let is_used = self.routers.iter().any(|router| {
                let instance = router.instance.as_ref();
                instance.is_some_and(|instance| std::ptr::eq(instance.row, row))
            });
            if !is_used {
                row.clear();
            }
        }
    }

    fn remove_residual(&self, index: u32, address: IpAddr) {
        tracing::info!(%address, "removing an address that a former process left behind");
        self.tell_host(ToHost::Remove(index, address));
    }
}
