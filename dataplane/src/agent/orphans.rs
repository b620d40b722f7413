//! Addresses that a vrrp process left behind and no other adopts (DESIGN section 4, fencing).
//!
//! A vrrp that is started again goes on within two advertisement intervals, or removes what it finds.
//! One that ends at each start does neither, and peers take over after three intervals.

use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

use node_api::{NodeConfig, VirtualRouter};

use crate::agent::{app::App, event::Event};

/// Within so many advertisement intervals the next vrrp may go on.
const INTERVALS: u32 = 2;

impl App {
    /// A vrrp has ended; the next one has two advertisement intervals.
    pub(super) fn expect_adoption(&mut self) {
        if self.orphans.is_none() {
            self.orphans = Some(Instant::now());
            for wait in patience(self.rollout.for_vrrp()) {
                self.send_later(wait, Event::Orphans);
            }
        }
        // Another one that ended too soon, perhaps too late as well.
        self.remove_orphans();
    }

    /// Removes addresses that were not adopted in time. A vrrp that runs would put them back, and
    /// knows itself whether it is late; if it ends before it does anything, we come here again.
    pub(super) fn remove_orphans(&mut self) {
        if let Some(since) = self.orphans.filter(|_| !self.vrrp.runs()) {
            let waited = since.elapsed();
            self.remove_addresses(|router| waited >= router.advertisement_interval * INTERVALS);
        }
    }

    /// Removes our addresses, where no vrrp is left to do so: others may hold them by now. What
    /// cannot be removed runs out with its kernel lease.
    pub(super) fn remove_addresses(&self, of: impl Fn(&VirtualRouter) -> bool) {
        let pools = self.rollout.for_vrrp().pools.values();
        let routers = pools.flat_map(|pool| &pool.virtual_routers);
        let addresses: Vec<_> = routers
            .filter(|router| of(router))
            .flat_map(|router| router.addresses.clone())
            .collect();
        if addresses.is_empty() {
            return;
        }
        match crate::vrrp::remove_addresses(&addresses) {
            Ok(removed) => {
                for address in removed {
                    tracing::info!(%address, "removed an address that vrrp left behind");
                }
            }
            Err(error) => {
                tracing::error!(%error, "cannot remove the addresses that vrrp left behind");
            }
        }
    }
}

/// How long the next vrrp has, for each advertisement interval that is in use.
fn patience(config: &NodeConfig) -> BTreeSet<Duration> {
    let routers = config.pools.values().flat_map(|pool| &pool.virtual_routers);
    routers
        .map(|router| router.advertisement_interval * INTERVALS)
        .collect()
}
