//! What a host hears on its segment.

use std::{
    io::Read,
    net::IpAddr,
    time::{Duration, Instant},
};

use socket2::{Domain, Protocol, Socket, Type};
use vrrp::{
    Version,
    wire::{Arp, Destination, Mac, Neighbour, neighbour::Kind, parse_ipv4, parse_ipv6},
};

use crate::{lab::Host, node::LONG};

const ALL_PROTOCOLS: u16 = 3;

/// Something heard.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Heard {
    Advertisement {
        source: IpAddr,
        version: Version,
        vrid: u8,
        priority: u8,
        /// The first of its addresses.
        first: IpAddr,
    },
    Announcement {
        address: IpAddr,
        mac: Mac,
    },
}

/// A packet socket on a host.
pub(crate) struct Ear(Socket);

impl Ear {
    pub(crate) fn on(host: &Host) -> Self {
        let socket = host.run(|| {
            let protocol = Protocol::from(i32::from(ALL_PROTOCOLS.to_be()));
            Socket::new(Domain::PACKET, Type::RAW, Some(protocol)).unwrap()
        });
        socket
            .set_read_timeout(Some(Duration::from_millis(100)))
            .unwrap();
        Self(socket)
    }

    /// The next thing heard before `end`.
    pub(crate) fn next(&mut self, end: Instant) -> Option<Heard> {
        let mut frame = [0; 2048];
        while Instant::now() < end {
            let Ok(length) = self.0.read(&mut frame) else {
                continue;
            };
            let frame = &frame[..length];
            if let Ok(arp) = Arp::parse_frame(frame)
                && arp.is_gratuitous()
            {
                return Some(Heard::Announcement {
                    address: arp.sender.into(),
                    mac: arp.sender_mac,
                });
            }
            if let Ok(Neighbour {
                kind:
                    Kind::Advertisement {
                        overrides: true, ..
                    },
                target,
                mac: Some(mac),
                ..
            }) = Neighbour::parse_frame(frame)
            {
                let address = target.into();
                return Some(Heard::Announcement { address, mac });
            }
            let packet = frame.get(14..).unwrap_or_default();
            let received = match frame.get(12..14) {
                Some([8, 0]) => parse_ipv4(packet, Destination::Multicast),
                Some([0x86, 0xdd]) => parse_ipv6(packet, Destination::Multicast),
                _ => continue,
            };
            if let Ok(received) = received {
                return Some(Heard::Advertisement {
                    source: received.source,
                    version: received.advertisement.version,
                    vrid: received.advertisement.vrid.get(),
                    priority: received.advertisement.priority.get(),
                    first: received.advertisement.addresses.get(0).unwrap(),
                });
            }
        }
        None
    }

    /// Waits for something; returns all that was heard up to it.
    pub(crate) fn wait(&mut self, what: impl Fn(&Heard) -> bool) -> Vec<Heard> {
        let end = Instant::now() + LONG;
        let mut all = Vec::new();
        while let Some(heard) = self.next(end) {
            all.push(heard);
            if what(&heard) {
                return all;
            }
        }
        panic!("never heard it, but {all:?}");
    }

    /// Waits until the host with this hardware address announces `address`.
    pub(crate) fn wait_announcement(&mut self, address: &str, host: Mac) {
        let wanted = Heard::Announcement {
            address: address.parse().unwrap(),
            mac: host,
        };
        self.wait(|heard| *heard == wanted);
    }

    /// Waits for an advertisement with this priority.
    pub(crate) fn wait_priority(&mut self, wanted: u8) {
        self.wait(
            |heard| matches!(heard, Heard::Advertisement { priority, .. } if *priority == wanted),
        );
    }
}
