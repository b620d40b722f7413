//! When a host gave an address up, as its kernel tells.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::socket::{MsgFlags, recv};
use nix::sys::time::TimeSpec;

use super::{Host, rtnetlink};

/// Is told of each address that its host no longer has.
#[derive(Debug)]
pub struct Vacated(OwnedFd);

impl Vacated {
    /// Watches `host` from now on.
    pub fn watch(host: &Host) -> Result<Self> {
        host.run(rtnetlink::watch_addresses)?.map(Self)
    }

    /// Waits until `address` is gone.
    pub fn wait(&self, address: Ipv4Addr, bound: Duration) -> Result<Instant> {
        let deadline = Instant::now() + bound;
        let mut datagram = [0; 8192];
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                bail!("{address} was not given up");
            }
            let mut wanted = [PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            // Whatever ends the wait, the socket is looked at, and then the clock.
            ppoll(&mut wanted, Some(TimeSpec::from_duration(left)), None).ok();
            let Ok(length) = recv(self.0.as_raw_fd(), &mut datagram, MsgFlags::MSG_DONTWAIT) else {
                continue;
            };
            let told = datagram.get(..length).unwrap_or_default();
            if rtnetlink::removed(told).contains(&address.octets()) {
                return Ok(Instant::now());
            }
        }
    }
}
