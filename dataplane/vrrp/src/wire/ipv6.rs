//! The IPv6 header of an advertisement (RFC 9568 section 5.1.2).

use std::net::Ipv6Addr;

use super::{EmitError, PROTOCOL, array, byte, number, put, room};
use crate::Discard;

/// Bytes of the header. Extension headers are none of an advertisement's: we send none, and the
/// kernel takes them off what it hands over.
pub const HEADER_LEN: usize = 40;
/// Internetwork control, as keepalived and FRR send.
const TRAFFIC_CLASS: u8 = 0xc0;
/// Proves that a packet started on this segment (RFC 9568 section 5.1.2.3).
pub const HOP_LIMIT: u8 = 255;

mod field {
    pub(super) const VERSION_CLASS_FLOW: usize = 0;
    pub(super) const PAYLOAD_LENGTH: usize = 4;
    pub(super) const NEXT_HEADER: usize = 6;
    pub(super) const HOP_LIMIT: usize = 7;
    pub(super) const SOURCE: usize = 8;
    pub(super) const DESTINATION: usize = 24;
}

/// View over the bytes of an IPv6 packet, which may be anything. A field that is not there reads as
/// zero.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Views `bytes`, from the first byte of the IP header on.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Version field.
    pub fn version(&self) -> u8 {
        byte(self.0, field::VERSION_CLASS_FLOW) >> 4
    }

    /// Traffic class.
    pub fn traffic_class(&self) -> u8 {
        let [high, low] = number(self.0, field::VERSION_CLASS_FLOW).to_be_bytes();
        high << 4 | low >> 4
    }

    /// Length of what follows the header; what follows that in the frame is padding of the link.
    pub fn payload_len(&self) -> usize {
        usize::from(number(self.0, field::PAYLOAD_LENGTH))
    }

    /// Protocol of the payload, or an extension header.
    pub fn next_header(&self) -> u8 {
        byte(self.0, field::NEXT_HEADER)
    }

    /// Hop limit.
    pub fn hop_limit(&self) -> u8 {
        byte(self.0, field::HOP_LIMIT)
    }

    /// Source address.
    pub fn source(&self) -> Ipv6Addr {
        array::<16>(self.0, field::SOURCE).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv6Addr {
        array::<16>(self.0, field::DESTINATION).map_or(Ipv6Addr::UNSPECIFIED, Ipv6Addr::from)
    }
}

/// What matters of the header of an advertisement, or of a neighbour discovery message.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Link-local address of the sender.
    pub source: Ipv6Addr,
    /// Where it was sent.
    pub destination: Ipv6Addr,
}

impl Header {
    /// Reads the header of an advertisement and returns the payload with it, without padding of the
    /// link after it (RFC 9568 section 7.1).
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Discard> {
        Self::parse_of(bytes, PROTOCOL)
    }

    /// The same for a payload of `protocol`.
    pub(super) fn parse_of(bytes: &[u8], protocol: u8) -> Result<(Self, &[u8]), Discard> {
        let view = View::new(bytes);
        if bytes.len() < HEADER_LEN {
            return Err(Discard::Truncated);
        }
        if view.version() != 6 {
            return Err(Discard::IpHeader);
        }
        let payload = bytes
            .get(HEADER_LEN..HEADER_LEN + view.payload_len())
            .ok_or(Discard::Truncated)?;
        if view.next_header() != protocol {
            return Err(Discard::Protocol);
        }
        if view.hop_limit() != HOP_LIMIT {
            return Err(Discard::Ttl);
        }
        let header = Self {
            source: view.source(),
            destination: view.destination(),
        };
        Ok((header, payload))
    }

    /// Writes the header for `payload_len` bytes to the start of `buffer` and returns its length:
    /// traffic class 0xc0, no flow label, hop limit 255.
    pub fn emit(&self, buffer: &mut [u8], payload_len: usize) -> Result<usize, EmitError> {
        self.emit_of(buffer, payload_len, PROTOCOL, TRAFFIC_CLASS)
    }

    /// The same for a payload of `protocol`.
    pub(super) fn emit_of(
        &self,
        buffer: &mut [u8],
        payload_len: usize,
        protocol: u8,
        traffic_class: u8,
    ) -> Result<usize, EmitError> {
        let header = room(buffer, HEADER_LEN)?;
        let payload_len = u16::try_from(payload_len).map_err(|_| EmitError::TooManyAddresses)?;
        header.fill(0);
        let class = [0x60 | traffic_class >> 4, traffic_class << 4];
        put(header, field::VERSION_CLASS_FLOW, &class);
        put(header, field::PAYLOAD_LENGTH, &payload_len.to_be_bytes());
        put(header, field::NEXT_HEADER, &[protocol]);
        put(header, field::HOP_LIMIT, &[HOP_LIMIT]);
        put(header, field::SOURCE, &self.source.octets());
        put(header, field::DESTINATION, &self.destination.octets());
        Ok(HEADER_LEN)
    }
}
