//! Which advertisements pass each interface, looked at where packet filters have no say: what leaves has
//! left, and what arrives and is not heard is dropped by this host.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::IpAddr,
    os::fd::AsFd,
    time::{Duration, Instant},
};

use vrrp::{
    Family,
    wire::{self, Destination},
};

use crate::sys::{
    netlink::{Change, Requests},
    raw::BUFFER,
    tap::{Tap, Way},
    wait::Waiter,
};

/// Longer than three advertisements of a router that sends one each second.
pub(super) const LEAST: Duration = Duration::from_millis(3500);
/// Nobody waits for longer; of slower routers nothing is said.
const MOST: Duration = Duration::from_secs(12);

/// How long to look so that a router with this interval sends at least three advertisements; `None`: too
/// long.
pub(super) fn patience(interval: Duration) -> Option<Duration> {
    let needed = (interval * 7 / 2).max(LEAST);
    (needed <= MOST).then_some(needed)
}

/// A virtual router of an interface: each family has VRIDs of its own.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(super) struct Key {
    pub(super) is_ipv6: bool,
    pub(super) virtual_router_id: u8,
}

/// What passed one interface.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Those of which advertisements left.
    pub(super) left: BTreeSet<Key>,
    /// Whose advertisements arrived.
    pub(super) arrived: BTreeMap<Key, BTreeSet<IpAddr>>,
}

/// By the interface's name; those that cannot be looked at are missing.
pub(super) type Traffic = BTreeMap<String, Seen>;

/// Looks at these interfaces for so long.
pub(super) fn watch(interfaces: &BTreeSet<&str>, patience: Duration) -> io::Result<Traffic> {
    let mut taps = Vec::new();
    for change in Requests::open()?.dump()? {
        if let Change::Link(link) = change
            && interfaces.contains(link.name.as_str())
        {
            taps.push((Tap::open(link.index)?, link.name));
        }
    }
    let mut waiter = Waiter::new();
    for (tap, _) in &taps {
        waiter.watch(tap.as_fd());
    }
    let mut traffic: Traffic = taps
        .iter()
        .map(|(_, name)| (name.clone(), Seen::default()))
        .collect();
    let end = Instant::now() + patience;
    let mut buffer = [0; BUFFER];
    loop {
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(traffic);
        }
        waiter.wait(Some(left))?;
        for (tap, name) in &taps {
            let Some(seen) = traffic.get_mut(name) else {
                continue;
            };
            while let Some((way, packet)) = tap.receive(&mut buffer)? {
                seen.note(way, packet);
            }
        }
    }
}

impl Seen {
    fn note(&mut self, way: Way, packet: &[u8]) {
        // The version of IP is the first half of the first byte of either header.
        let family = match packet.first().map(|byte| byte >> 4) {
            Some(4) => Family::V4,
            Some(6) => Family::V6,
            _ => return,
        };
        let Ok(received) = wire::parse(packet, family, Destination::Any) else {
            return;
        };
        let key = Key {
            is_ipv6: received.source.is_ipv6(),
            virtual_router_id: received.advertisement.vrid.get(),
        };
        match way {
            Way::Out => {
                self.left.insert(key);
            }
            Way::In => {
                self.arrived.entry(key).or_default().insert(received.source);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slow_routers_are_waited_for_up_to_a_limit() {
        let seconds = |interval| patience(Duration::from_millis(interval)).map(|it| it.as_millis());
        assert_eq!(seconds(100), Some(3500));
        assert_eq!(seconds(1000), Some(3500));
        assert_eq!(seconds(3000), Some(10_500));
        assert_eq!(seconds(10_000), None);
    }
}
