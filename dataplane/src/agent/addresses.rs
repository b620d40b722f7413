//! Virtual addresses that a vrrp left behind.

use std::{collections::HashSet, io, net::IpAddr};

use crate::{
    agent::app::App,
    sys::netlink::{Change, Requests},
};

impl App {
    /// Removes our addresses, where no vrrp is left to do so: others may hold them by now. What
    /// cannot be removed runs out with its kernel lease.
    pub(super) fn remove_addresses(&self) {
        let pools = self.rollout.for_vrrp().pools.values();
        let routers = pools.flat_map(|pool| &pool.virtual_routers);
        let wanted = routers.flat_map(|router| router.addresses.iter().copied());
        if let Err(error) = remove(&wanted.collect()) {
            tracing::error!(%error, "cannot remove the addresses that vrrp left behind");
        }
    }
}

/// Addresses of another agent of this host are not ours to remove, though they carry the same mark.
fn remove(wanted: &HashSet<IpAddr>) -> io::Result<()> {
    let mut kernel = Requests::open()?;
    for change in kernel.dump()? {
        let Change::Address(found) = change else {
            continue;
        };
        if found.is_own && wanted.contains(&found.address) {
            tracing::info!(address = %found.address, "removing an address that vrrp left behind");
            kernel.remove(found.index, found.address)?;
        }
    }
    Ok(())
}
