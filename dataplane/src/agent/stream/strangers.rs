//! Virtual routers that other hosts advertise on the node's networks, whether or not the node has a part
//! in any: a VRID is best known to be taken before it is given to a pool.
//!
//! Listened for now and then: each advertisement of each router wakes whoever listens all the time.

use std::{
    collections::BTreeMap,
    io,
    net::IpAddr,
    os::fd::{AsFd, BorrowedFd},
    time::{Duration, Instant},
};

use ::vrrp::{
    Family,
    wire::{self, Destination, Received},
};
use node_api::stream::{HeardRouter, NodeFacts};

use crate::sys::{
    raw::{AdvertisementSocket, BUFFER},
    wait::Waiter,
};

/// Three advertisements and a half of a router that sends one each second (RFC 9568 section 5.2.7).
const LISTEN: Duration = Duration::from_millis(3500);
/// Slower routers, and those that were between two advertisements, are heard another time.
const FORGET: Duration = Duration::from_mins(5);
/// Kept for each interface: as many as there are VRIDs. Who floods the segment takes no memory.
const MOST: usize = 255;
/// Kept of what a router advertises.
const ADDRESSES: usize = 8;

/// What was heard lately.
#[derive(Debug, Default)]
pub(super) struct Strangers {
    /// By interface, VRID and source.
    heard: BTreeMap<String, BTreeMap<(u8, IpAddr), Heard>>,
    ears: Option<Ears>,
}

#[derive(Debug)]
struct Heard {
    addresses: Vec<IpAddr>,
    at: Instant,
}

/// Sockets that are listened to.
#[derive(Debug)]
struct Ears {
    sockets: Vec<Ear>,
    until: Instant,
}

/// One interface and family.
#[derive(Debug)]
struct Ear {
    interface: String,
    family: Family,
    socket: AdvertisementSocket,
}

impl Ear {
    fn open(index: u32, name: &str, family: Family) -> Option<Self> {
        let group = wire::group(family);
        let socket = AdvertisementSocket::open(index, name, wire::PROTOCOL, group);
        // An interface that goes, a host without IPv6, or a right that is missing: vrrp says so, too.
        let refused =
            |error: &io::Error| tracing::debug!(%error, name, ?family, "cannot listen for VRRP");
        Some(Self {
            interface: name.to_owned(),
            family,
            socket: socket.inspect_err(refused).ok()?,
        })
    }
}

impl Ears {
    fn open(interfaces: &[(u32, String)]) -> Self {
        let sockets = interfaces.iter().flat_map(|(index, name)| {
            let families = [Family::V4, Family::V6].into_iter();
            families.filter_map(|family| Ear::open(*index, name, family))
        });
        Self {
            sockets: sockets.collect(),
            until: Instant::now() + LISTEN,
        }
    }
}

impl Strangers {
    /// Listens on these interfaces, each an index and a name; `false`: `events` had something to read
    /// before it was done. What arrives until it goes on is not lost: leases are renewed twice a second,
    /// in step with others that send once a second.
    pub(super) fn listen(
        &mut self,
        interfaces: &[(u32, String)],
        events: BorrowedFd<'_>,
    ) -> io::Result<bool> {
        let ears = self.ears.take().unwrap_or_else(|| Ears::open(interfaces));
        let mut waiter = Waiter::new();
        waiter.watch(events);
        for ear in &ears.sockets {
            waiter.watch(ear.socket.as_fd());
        }
        loop {
            for ear in &ears.sockets {
                self.take(ear);
            }
            let left = ears.until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(true);
            }
            waiter.wait(Some(left))?;
            if waiter.is_ready(events) {
                self.ears = Some(ears);
                return Ok(false);
            }
        }
    }

    /// Takes what waits, and not more than that: others wait, too.
    fn take(&mut self, ear: &Ear) {
        let mut buffer = [0; BUFFER];
        for _ in 0..MOST {
            // An error belongs to the socket's past and is cleared by this.
            let Ok(Some(packet)) = ear.socket.receive(&mut buffer) else {
                return;
            };
            if let Ok(received) = wire::parse(packet, ear.family, Destination::Multicast) {
                self.note(&ear.interface, &received, Instant::now());
            }
        }
    }

    fn note(&mut self, interface: &str, received: &Received<'_>, now: Instant) {
        let advertisement = &received.advertisement;
        let heard = self.heard.entry(interface.to_owned()).or_default();
        let key = (advertisement.vrid.get(), received.source);
        if heard.len() < MOST || heard.contains_key(&key) {
            let addresses = advertisement.addresses.iter().take(ADDRESSES).collect();
            heard.insert(key, Heard { addresses, at: now });
        }
    }

    /// Puts in what was heard lately.
    pub(super) fn tell(&mut self, facts: &mut NodeFacts, now: Instant) {
        self.heard.retain(|_, heard| {
            heard.retain(|_, one| now.saturating_duration_since(one.at) < FORGET);
            !heard.is_empty()
        });
        for interface in &mut facts.interfaces {
            let heard = self.heard.get(&interface.name).into_iter().flatten();
            interface.heard = heard
                .map(|((virtual_router_id, source), one)| HeardRouter {
                    virtual_router_id: *virtual_router_id,
                    source: *source,
                    addresses: one.addresses.clone(),
                })
                .collect();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use ::vrrp::{
        Centiseconds, Priority, Version, Vrid,
        wire::{AddressList, Advertisement, ChecksumReading},
    };
    use node_api::stream::InterfaceFacts;

    use super::*;

    fn note(strangers: &mut Strangers, interface: &str, vrid: u8, last: u8, now: Instant) {
        let addresses: Vec<IpAddr> = (1..=20).map(|last| [10, 0, 0, last].into()).collect();
        let advertisement = Advertisement {
            version: Version::V3,
            vrid: Vrid::new(vrid).unwrap(),
            priority: Priority::new(100),
            interval: Centiseconds::new(100).unwrap(),
            authentication: ::vrrp::Authentication::None,
            addresses: AddressList::from_slice(&addresses),
        };
        let received = Received {
            source: Ipv4Addr::new(10, 0, 0, last).into(),
            destination: wire::GROUP_V4.into(),
            advertisement,
            checksum: ChecksumReading::WithPseudoHeader,
        };
        strangers.note(interface, &received, now);
    }

    fn told(strangers: &mut Strangers, now: Instant) -> Vec<(String, Vec<(u8, String)>)> {
        let mut facts = NodeFacts {
            interfaces: ["eth0", "eth1"]
                .map(|name| InterfaceFacts {
                    name: name.to_owned(),
                    ..InterfaceFacts::default()
                })
                .into(),
        };
        strangers.tell(&mut facts, now);
        let one = |it: HeardRouter| {
            assert_eq!(it.addresses.len(), ADDRESSES);
            (it.virtual_router_id, it.source.to_string())
        };
        let interfaces = facts.interfaces.into_iter();
        interfaces
            .map(|it| (it.name, it.heard.into_iter().map(one).collect()))
            .collect()
    }

    #[test]
    fn what_was_heard_is_told_until_it_is_old() {
        let mut strangers = Strangers::default();
        let start = Instant::now();
        let later = start + FORGET / 2;
        note(&mut strangers, "eth0", 51, 77, start);
        note(&mut strangers, "eth0", 51, 78, start);
        note(&mut strangers, "eth1", 1, 1, start);
        note(&mut strangers, "eth0", 51, 77, later);
        let heard = |vrid: u8, source: &str| (vrid, source.to_owned());
        assert_eq!(
            told(&mut strangers, later),
            [
                (
                    "eth0".to_owned(),
                    vec![heard(51, "10.0.0.77"), heard(51, "10.0.0.78")]
                ),
                ("eth1".to_owned(), vec![heard(1, "10.0.0.1")]),
            ]
        );
        assert_eq!(
            told(&mut strangers, start + FORGET),
            [
                ("eth0".to_owned(), vec![heard(51, "10.0.0.77")]),
                ("eth1".to_owned(), Vec::new()),
            ]
        );
    }

    #[test]
    fn a_flood_takes_no_memory() {
        let mut strangers = Strangers::default();
        let now = Instant::now();
        for last in 0..2 {
            for vrid in 1..=255 {
                note(&mut strangers, "eth0", vrid, last, now);
            }
        }
        let told = told(&mut strangers, now);
        assert_eq!(told[0].1.len(), MOST);
    }
}
