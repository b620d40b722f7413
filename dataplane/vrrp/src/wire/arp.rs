//! ARP for IPv4 on Ethernet (RFC 826), and the announcement of an address with it.

use std::net::Ipv4Addr;

use super::{EmitError, Mac, array, ethernet, number, put, room};
use crate::Discard;

/// Bytes of an ARP frame, Ethernet header included, padding not.
pub const FRAME_LEN: usize = 42;
/// Ethernet type of ARP.
pub const ETHERTYPE: u16 = 0x0806;

mod field {
    pub(super) const KIND: usize = 14;
    pub(super) const OPERATION: usize = 20;
    pub(super) const SENDER_MAC: usize = 22;
    pub(super) const SENDER: usize = 28;
    pub(super) const TARGET_MAC: usize = 32;
    pub(super) const TARGET: usize = 38;
}

/// Hardware type 1 (Ethernet), protocol type 0x0800 (IPv4), address lengths 6 and 4.
const KIND: [u8; 6] = [0, 1, 8, 0, 6, 4];

/// What an ARP packet does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Operation {
    /// Asks who has the target address.
    Request,
    /// Answers.
    Reply,
}

/// An ARP packet for IPv4 on Ethernet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Arp {
    /// Request or reply.
    pub operation: Operation,
    /// Hardware address that the sender claims.
    pub sender_mac: Mac,
    /// Address of the sender.
    pub sender: Ipv4Addr,
    /// Hardware address of the target; nothing in a request.
    pub target_mac: Mac,
    /// Address of the target.
    pub target: Ipv4Addr,
}

impl Arp {
    /// Announces that `address` is at `mac`: a request for the address itself, with the broadcast
    /// address as target, as keepalived sends it (RFC 9568 section 8.1.2).
    pub const fn gratuitous(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: address,
            target_mac: Mac::BROADCAST,
            target: address,
        }
    }

    /// Asks whether anybody has `address`, without claiming it: a probe, which no neighbour takes for
    /// news (RFC 5227 section 2.1.1).
    pub const fn probe(mac: Mac, address: Ipv4Addr) -> Self {
        Self {
            operation: Operation::Request,
            sender_mac: mac,
            sender: Ipv4Addr::UNSPECIFIED,
            target_mac: Mac([0; 6]),
            target: address,
        }
    }

    /// Whether it tells of its own address instead of asking for another.
    pub fn is_gratuitous(&self) -> bool {
        self.sender == self.target
    }

    /// Reads an Ethernet frame; padding behind the packet is left alone.
    pub fn parse_frame(frame: &[u8]) -> Result<Self, Discard> {
        if frame.len() < FRAME_LEN {
            return Err(Discard::Truncated);
        }
        if ethernet::ethertype(frame) != ETHERTYPE {
            return Err(Discard::NotArp);
        }
        if array(frame, field::KIND) != Some(KIND) {
            return Err(Discard::ArpKind);
        }
        let operation = match number(frame, field::OPERATION) {
            1 => Operation::Request,
            2 => Operation::Reply,
            _ => return Err(Discard::ArpKind),
        };
        let mac = |at| array(frame, at).map(Mac).ok_or(Discard::Truncated);
        let address = |at| {
            array::<4>(frame, at)
                .map(Ipv4Addr::from)
                .ok_or(Discard::Truncated)
        };
        Ok(Self {
            operation,
            sender_mac: mac(field::SENDER_MAC)?,
            sender: address(field::SENDER)?,
            target_mac: mac(field::TARGET_MAC)?,
            target: address(field::TARGET)?,
        })
    }

    /// Writes an Ethernet frame from `source` to `destination` to the start of `buffer` and returns
    /// its length, [`FRAME_LEN`].
    pub fn emit_frame(
        &self,
        buffer: &mut [u8],
        source: Mac,
        destination: Mac,
    ) -> Result<usize, EmitError> {
        let frame = room(buffer, FRAME_LEN)?;
        let operation: u16 = match self.operation {
            Operation::Request => 1,
            Operation::Reply => 2,
        };
        ethernet::emit(frame, source, destination, ETHERTYPE);
        put(frame, field::KIND, &KIND);
        put(frame, field::OPERATION, &operation.to_be_bytes());
        put(frame, field::SENDER_MAC, &self.sender_mac.0);
        put(frame, field::SENDER, &self.sender.octets());
        put(frame, field::TARGET_MAC, &self.target_mac.0);
        put(frame, field::TARGET, &self.target.octets());
        Ok(FRAME_LEN)
    }
}
