//! A takeover that nobody hears of, before anything is served. Memory is locked from its first use on, and
//! what only a takeover uses would otherwise be read from the disk when it must be quick, on a host that has
//! no memory to spare.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ::vrrp::{
    Authentication, Centiseconds, Config, Effect, Family, Input, Peering, Priority, Settings,
    Version, VirtualRouter, Vrid,
    machine::{Preemption, default_linger},
    wire::{self, ChecksumReading, Destination, Ends, Mac, resolution},
};

use super::machine;
use crate::sys::{netlink::Requests, raw::BUFFER};

/// Timers that run out: the takeover, advertisements, the refresh of what was announced.
const TIMERS: u32 = 8;

/// Plays it for both families.
pub(super) fn rehearse() {
    for family in [Family::V4, Family::V6] {
        takeover(family);
    }
    // There is no interface of that number.
    if let Ok(mut requests) = Requests::open() {
        drop(requests.hold(0, Ipv4Addr::LOCALHOST.into(), 1));
        drop(requests.hold(0, Ipv6Addr::LOCALHOST.into(), 1));
    }
}

/// How many packets and frames were written. `None`: what is played is not what the state machine takes, which the test would tell.
fn takeover(family: Family) -> Option<usize> {
    let host = |number: u8| match family {
        // Addresses for documentation (RFC 5737, RFC 3849), and link-local ones.
        Family::V4 => IpAddr::from([192, 0, 2, number]),
        Family::V6 => Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, number.into()).into(),
    };
    let interval = Centiseconds::SECOND;
    let mut router = VirtualRouter::new(Config {
        vrid: Vrid::new(1)?,
        addresses: vec![host(9)],
        settings: Settings {
            peering: Peering::Multicast,
            authentication: Authentication::None,
            version: Version::V3,
            source: host(1),
            priority: Priority::new(100),
            priority_without_endpoint: Priority::new(10),
            interval,
            preemption: Preemption::Disabled,
            linger: default_linger(Version::V3, interval),
        },
    })
    .ok()?;
    let mut packet = [0; BUFFER];
    let mut now = machine::now();
    router.handle(now, Input::Start);
    // The other one is heard, once.
    let ends = Ends::to_group(host(2));
    let reading = ChecksumReading::WithPseudoHeader;
    let word = router.advertisement(Priority::new(200));
    let length = wire::emit(&mut packet, ends, 1, &word, reading).ok()?;
    let heard = wire::parse(packet.get(..length)?, family, Destination::Multicast).ok()?;
    let input = Input::Advertisement {
        source: heard.source,
        advertisement: &heard.advertisement,
    };
    router.handle(now, input);
    let mut written = 0;
    for _ in 0..TIMERS {
        now = router.poll_timeout()?;
        router.handle(now, Input::Timer);
        written += carry_out(&mut router, now, &mut packet)?;
    }
    router.handle(now, Input::Stop);
    Some(written + carry_out(&mut router, now, &mut packet)?)
}

fn carry_out(
    router: &mut VirtualRouter,
    now: ::vrrp::Instant,
    packet: &mut [u8; BUFFER],
) -> Option<usize> {
    let mut written = 0;
    while let Some(effect) = router.poll_effect() {
        match effect {
            Effect::SendAdvertisement { priority } => {
                let ends = Ends::to_group(router.config().settings.source);
                let word = router.advertisement(priority);
                let reading = ChecksumReading::WithPseudoHeader;
                wire::emit(packet, ends, 1, &word, reading).ok()?;
                written += 1;
            }
            Effect::AnnounceAddresses => {
                let address = router.config().addresses.first().copied()?;
                resolution::announcement(packet, Mac([2, 0, 0, 0, 0, 1]), address).ok()?;
                written += 1;
            }
            Effect::AddAddresses => router.handle(now, Input::AddressesAdded),
            Effect::RemoveAddresses => router.handle(now, Input::AddressesRemoved),
            Effect::Transition(_) | Effect::Discarded(_) => {}
        }
    }
    Some(written)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_families_are_played_to_the_end() {
        for family in [Family::V4, Family::V6] {
            let written = takeover(family).unwrap();
            // The takeover's advertisement and announcement, and a word at the end, at the least.
            assert!(written >= 3, "{family:?}: {written}");
        }
    }
}
