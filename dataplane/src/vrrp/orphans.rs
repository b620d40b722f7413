//! The thread that ends what earlier sessions left of addresses which this host takes.
//!
//! While an address was elsewhere, so were its clients: what this host has left of their sessions is over, and would
//! keep a client whose present session has the same port from hearing that it is over, too. The takeover does not
//! wait for this, since 20,000 take 0.2 s: what a client writes before its turn it sends again, as nobody has
//! acknowledged it.

use std::{
    net::IpAddr,
    sync::mpsc::{self, Receiver},
};

use crate::sys::netlink::Orphans;

/// Addresses that this host has taken, those of one virtual router.
pub(super) type Taken = mpsc::Sender<Vec<IpAddr>>;

/// Runs until no address can be taken any more.
pub(super) fn run(taken: &Receiver<Vec<IpAddr>>) {
    let mut is_told = false;
    while let Ok(mut addresses) = taken.recv() {
        // Virtual routers that rise together cost one look at the kernel's table.
        addresses.extend(taken.try_iter().flatten());
        match Orphans::open().and_then(|mut orphans| orphans.end(&addresses)) {
            Ok(0) => {}
            Ok(count) => {
                tracing::debug!(?addresses, count, "ended what earlier sessions left");
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
