//! VRRP packets as nobody should send them.

use std::net::{Ipv4Addr, SocketAddrV4};

use anyhow::{Context, Result};
use socket2::{Domain, Protocol, Socket, Type};

use super::inside;
use crate::lab::Host;

const GROUP: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);
const VRRP: i32 = 112;

/// The fields of an advertisement; [`Self::emit`] makes a proper one of them.
#[derive(Clone, Debug)]
pub struct Advertisement {
    /// Version, 2 or 3.
    pub version: u8,
    /// Packet type; 1 is an advertisement.
    pub kind: u8,
    /// VRID.
    pub vrid: u8,
    /// Priority.
    pub priority: u8,
    /// Interval in centiseconds; version 2 carries whole seconds.
    pub interval: u16,
    /// Virtual addresses.
    pub addresses: Vec<Ipv4Addr>,
}

impl Advertisement {
    /// The packet (RFC 9568 section 5.1, RFC 3768 section 5.1) with a right checksum when sent from `source`.
    pub fn emit(&self, source: Ipv4Addr) -> Vec<u8> {
        let count = u8::try_from(self.addresses.len()).unwrap_or(u8::MAX);
        let mut packet = vec![
            self.version << 4 | self.kind,
            self.vrid,
            self.priority,
            count,
        ];
        if self.version == 2 {
            packet.extend([0, u8::try_from(self.interval / 100).unwrap_or(u8::MAX)]);
        } else {
            packet.extend(self.interval.to_be_bytes());
        }
        packet.extend([0, 0]);
        for address in &self.addresses {
            packet.extend(address.octets());
        }
        let mut covered = Vec::new();
        if self.version == 2 {
            packet.extend([0; 8]);
        } else {
            covered.extend(source.octets());
            covered.extend(GROUP.octets());
            covered.extend([0, 112]);
            covered.extend(
                u16::try_from(packet.len())
                    .unwrap_or_default()
                    .to_be_bytes(),
            );
        }
        covered.extend(&packet);
        packet[6..8].copy_from_slice(&checksum(&covered).to_be_bytes());
        packet
    }
}

/// The Internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> u16 {
    let sum: u64 = bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or_default()))
        .sum();
    let mut sum = sum;
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

/// Sends each packet from `host` to the VRRP group, with the TTL given beside it.
pub fn send(host: &Host, packets: &[(Vec<u8>, u32)]) -> Result<()> {
    let source = host.address();
    inside(host, || {
        let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(VRRP)))
            .context("raw socket")?;
        socket
            .bind(&SocketAddrV4::new(source, 0).into())
            .context("bind the raw socket")?;
        socket.set_multicast_if_v4(&source)?;
        socket.set_multicast_loop_v4(false)?;
        for (packet, ttl) in packets {
            socket.set_multicast_ttl_v4(*ttl)?;
            socket
                .send_to(packet, &SocketAddrV4::new(GROUP, 0).into())
                .context("cannot send a forged packet")?;
        }
        Ok(())
    })
}
