//! Neighbour discovery on Ethernet (RFC 4861): what ARP is to IPv4. The announcement of an address,
//! and the question whether somebody else has it.

use std::net::Ipv6Addr;

use super::{EmitError, Mac, array, byte, checksum::Sum, ethernet, ipv6, put, room};
use crate::Discard;

/// Bytes of the longest frame that we write: Ethernet, IPv6, the message, one option.
pub const FRAME_LEN: usize = MESSAGE + MESSAGE_LEN + OPTION_LEN;
/// Ethernet type of IPv6.
pub const ETHERTYPE: u16 = 0x86dd;
/// All nodes of the link (RFC 4291 section 2.7.1).
pub const ALL_NODES: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 1);

const ICMPV6: u8 = 58;
const SOLICITATION: u8 = 135;
const ADVERTISEMENT: u8 = 136;
/// Where the message begins.
const MESSAGE: usize = ethernet::HEADER_LEN + ipv6::HEADER_LEN;
/// Bytes of a message without options.
const MESSAGE_LEN: usize = 24;
/// A link-layer address of six bytes fills one unit of eight (RFC 4861 section 4.6.1).
const OPTION_LEN: usize = 8;
const SOURCE_LINK_LAYER: u8 = 1;
const TARGET_LINK_LAYER: u8 = 2;

const ROUTER: u8 = 0x80;
const SOLICITED: u8 = 0x40;
const OVERRIDE: u8 = 0x20;

mod field {
    pub(super) const TYPE: usize = 0;
    pub(super) const CODE: usize = 1;
    pub(super) const CHECKSUM: usize = 2;
    pub(super) const FLAGS: usize = 4;
    pub(super) const TARGET: usize = 8;
}

/// What a message does.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// Asks who has the target address (RFC 4861 section 4.3).
    Solicitation,
    /// Tells where it is (RFC 4861 section 4.4).
    Advertisement {
        /// The sender is a router.
        is_router: bool,
        /// It answers a solicitation.
        is_solicited: bool,
        /// It replaces what the receiver knows.
        overrides: bool,
    },
}

/// A neighbour solicitation or advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Neighbour {
    /// Which of the two.
    pub kind: Kind,
    /// Who sent it; unspecified for who does not hold an address yet.
    pub source: Ipv6Addr,
    /// To whom.
    pub destination: Ipv6Addr,
    /// The address that it is about.
    pub target: Ipv6Addr,
    /// Link-layer address in the option of its kind: of the source in a solicitation, of the target
    /// in an advertisement.
    pub mac: Option<Mac>,
}

impl Neighbour {
    /// Announces to all that `address` is at `mac` (RFC 9568 section 6.4.2, RFC 4861 section 7.2.6).
    /// The router flag stays off: for hosts of the segment we are no way out of it.
    pub const fn unsolicited(mac: Mac, address: Ipv6Addr) -> Self {
        Self {
            kind: Kind::Advertisement {
                is_router: false,
                is_solicited: false,
                overrides: true,
            },
            source: address,
            destination: ALL_NODES,
            target: address,
            mac: Some(mac),
        }
    }

    /// Asks whoever has `address` (RFC 4861 section 7.2.2) from `source`, an address of the sender's own.
    /// Whoever has it answers to that address alone: a question from no address, as in duplicate address
    /// detection, would be answered to all nodes with the override flag (RFC 4861 section 7.2.4), which
    /// would lead the segment to a stranger each time that we ask.
    pub const fn solicitation(mac: Mac, source: Ipv6Addr, address: Ipv6Addr) -> Self {
        Self {
            kind: Kind::Solicitation,
            source,
            destination: solicited_node(address),
            target: address,
            mac: Some(mac),
        }
    }

    /// Reads an Ethernet frame; padding behind the packet is left alone, and so are options of other
    /// kinds.
    pub fn parse_frame(frame: &[u8]) -> Result<Self, Discard> {
        if frame.len() < MESSAGE + MESSAGE_LEN {
            return Err(Discard::Truncated);
        }
        if ethernet::ethertype(frame) != ETHERTYPE {
            return Err(Discard::NotNeighbour);
        }
        let packet = frame
            .get(ethernet::HEADER_LEN..)
            .ok_or(Discard::Truncated)?;
        let (header, message) = ipv6::Header::parse_of(packet, ICMPV6)?;
        let flags = byte(message, field::FLAGS);
        let kind = match byte(message, field::TYPE) {
            SOLICITATION => Kind::Solicitation,
            ADVERTISEMENT => Kind::Advertisement {
                is_router: flags & ROUTER != 0,
                is_solicited: flags & SOLICITED != 0,
                overrides: flags & OVERRIDE != 0,
            },
            _ => return Err(Discard::NotNeighbour),
        };
        let target = array::<16>(message, field::TARGET).ok_or(Discard::Truncated)?;
        let options = message.get(MESSAGE_LEN..).ok_or(Discard::Truncated)?;
        if checksum(header, message) != 0 {
            return Err(Discard::Checksum);
        }
        let target = Ipv6Addr::from(target);
        // RFC 4861 sections 7.1.1 and 7.1.2.
        if byte(message, field::CODE) != 0 || target.is_multicast() {
            return Err(Discard::NeighbourKind);
        }
        Ok(Self {
            kind,
            source: header.source,
            destination: header.destination,
            target,
            mac: link_layer(options, option_kind(kind))?,
        })
    }

    /// Writes an Ethernet frame from `source` to `destination` to the start of `buffer` and returns
    /// its length, at most [`FRAME_LEN`].
    pub fn emit_frame(
        &self,
        buffer: &mut [u8],
        source: Mac,
        destination: Mac,
    ) -> Result<usize, EmitError> {
        let length = MESSAGE_LEN + self.mac.map_or(0, |_| OPTION_LEN);
        let need = MESSAGE + length;
        let frame = room(buffer, need)?;
        frame.fill(0);
        ethernet::emit(frame, source, destination, ETHERTYPE);
        let header = ipv6::Header {
            source: self.source,
            destination: self.destination,
        };
        let (_, packet) = frame.split_at_mut(ethernet::HEADER_LEN);
        header.emit_of(packet, length, ICMPV6, 0)?;
        let (_, message) = packet.split_at_mut(ipv6::HEADER_LEN);
        let (kind, flags) = match self.kind {
            Kind::Solicitation => (SOLICITATION, 0),
            Kind::Advertisement {
                is_router,
                is_solicited,
                overrides,
            } => {
                let flag = |set: bool, flag: u8| if set { flag } else { 0 };
                let flags = flag(is_router, ROUTER)
                    | flag(is_solicited, SOLICITED)
                    | flag(overrides, OVERRIDE);
                (ADVERTISEMENT, flags)
            }
        };
        put(message, field::TYPE, &[kind]);
        put(message, field::FLAGS, &[flags]);
        put(message, field::TARGET, &self.target.octets());
        if let Some(mac) = self.mac {
            put(message, MESSAGE_LEN, &[option_kind(self.kind), 1]);
            put(message, MESSAGE_LEN + 2, &mac.0);
        }
        let sum = checksum(header, message);
        put(message, field::CHECKSUM, &sum.to_be_bytes());
        Ok(need)
    }
}

/// The group in which whoever holds `address` listens for questions about it (RFC 4291 section
/// 2.7.1).
pub const fn solicited_node(address: Ipv6Addr) -> Ipv6Addr {
    let [.., high, low] = address.segments();
    Ipv6Addr::new(0xff02, 0, 0, 0, 0, 1, 0xff00 | (high & 0xff), low)
}

const fn option_kind(kind: Kind) -> u8 {
    match kind {
        Kind::Solicitation => SOURCE_LINK_LAYER,
        Kind::Advertisement { .. } => TARGET_LINK_LAYER,
    }
}

/// The address in the first option of `kind`. An option without a length ends the message's validity
/// (RFC 4861 section 7.1).
fn link_layer(mut options: &[u8], kind: u8) -> Result<Option<Mac>, Discard> {
    let mut found = None;
    while !options.is_empty() {
        let length = usize::from(byte(options, 1)) * OPTION_LEN;
        if length == 0 {
            return Err(Discard::NeighbourKind);
        }
        let option = options.get(..length).ok_or(Discard::Truncated)?;
        if found.is_none() && byte(option, 0) == kind && length == OPTION_LEN {
            found = array(option, 2).map(Mac);
        }
        options = options.get(length..).unwrap_or(&[]);
    }
    Ok(found)
}

fn checksum(header: ipv6::Header, message: &[u8]) -> u16 {
    let sum = Sum::default().add(message);
    sum.add_pseudo_header(header.into(), ICMPV6, message.len())
        .finish()
}
