//! The thread that ends what earlier sessions left of addresses whose clients come back to this host.
//!
//! While an address was elsewhere, so were its clients: what this host has left of their sessions is over, and would
//! keep a client whose present session has the same port from hearing that it is over, too. So it is where this host
//! takes an address, and where it was Active all the while and hears another Active that has to yield, after a
//! partition which neither noticed. The takeover does not wait for this, since 20,000 take 0.2 s: what a client writes
//! before its turn it sends again, as nobody has acknowledged it.

use std::{
    iter,
    net::IpAddr,
    sync::{Arc, mpsc::Receiver},
};

use crate::sys::netlink::Orphans;

/// Addresses whose clients come back.
#[derive(Debug)]
pub(super) enum Regained {
    /// Of one virtual router: they were elsewhere.
    Taken(Vec<IpAddr>),
    /// Of those virtual routers that were contested: they were here and elsewhere. Dropped once the look is over.
    Contested(Arc<Vec<IpAddr>>),
}

/// Runs until no address can be regained any more.
pub(super) fn run(regained: &Receiver<Regained>) {
    let mut is_told = false;
    while let Ok(first) = regained.recv() {
        let (mut taken, mut contested) = (Vec::new(), Arc::default());
        // Virtual routers that rise together cost one look at the kernel's table.
        for addresses in iter::once(first).chain(regained.try_iter()) {
            match addresses {
                Regained::Taken(addresses) => taken.extend(addresses),
                // There is never a second one.
                Regained::Contested(addresses) => contested = addresses,
            }
        }
        match Orphans::open().and_then(|mut orphans| orphans.end(&taken, &contested)) {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(
                    ?taken,
                    ?contested,
                    count,
                    "ended what earlier sessions left"
                );
            }
            Err(error) if is_told => tracing::debug!(%error, "as before"),
            Err(error) => {
                is_told = true;
                tracing::warn!(
                    %error,
                    "cannot end what earlier sessions left of an address (Linux 6.0 is the first that can): \
                     clients whose port had one may hear nothing for a while"
                );
            }
        }
    }
}
