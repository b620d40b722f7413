//! The IPv4 header of an advertisement (RFC 9568 section 5.1.1).

use std::net::Ipv4Addr;

use super::{EmitError, PROTOCOL, array, byte, checksum::Sum, number, put, room};
use crate::Discard;

/// Bytes of a header without options; those we send have none.
pub const HEADER_LEN: usize = 20;
/// Internetwork control, as keepalived and FRR send.
const TOS: u8 = 0xc0;
/// Proves that a packet started on this segment (RFC 9568 section 5.1.1.3).
pub const TTL: u8 = 255;

mod field {
    pub(super) const VERSION_IHL: usize = 0;
    pub(super) const TOS: usize = 1;
    pub(super) const TOTAL_LENGTH: usize = 2;
    pub(super) const IDENTIFICATION: usize = 4;
    pub(super) const FRAGMENT: usize = 6;
    pub(super) const TTL: usize = 8;
    pub(super) const PROTOCOL: usize = 9;
    pub(super) const CHECKSUM: usize = 10;
    pub(super) const SOURCE: usize = 12;
    pub(super) const DESTINATION: usize = 16;
}

/// View over the bytes of an IPv4 packet, which may be anything. A field that is not there reads as
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
        byte(self.0, field::VERSION_IHL) >> 4
    }

    /// Length of the header in bytes, 0 to 60.
    pub fn header_len(&self) -> usize {
        usize::from(byte(self.0, field::VERSION_IHL) & 0x0f) * 4
    }

    /// Length of header and payload; what follows in the frame is padding of the link.
    pub fn total_len(&self) -> usize {
        usize::from(number(self.0, field::TOTAL_LENGTH))
    }

    /// Identification field.
    pub fn identification(&self) -> u16 {
        number(self.0, field::IDENTIFICATION)
    }

    /// Whether this is a part of a larger packet: More Fragments or an offset.
    pub fn is_fragment(&self) -> bool {
        number(self.0, field::FRAGMENT) & 0x3fff != 0
    }

    /// TTL field.
    pub fn ttl(&self) -> u8 {
        byte(self.0, field::TTL)
    }

    /// Protocol field.
    pub fn protocol(&self) -> u8 {
        byte(self.0, field::PROTOCOL)
    }

    /// Source address.
    pub fn source(&self) -> Ipv4Addr {
        array::<4>(self.0, field::SOURCE).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
    }

    /// Destination address.
    pub fn destination(&self) -> Ipv4Addr {
        array::<4>(self.0, field::DESTINATION).map_or(Ipv4Addr::UNSPECIFIED, Ipv4Addr::from)
    }
}

/// What matters of the header of an advertisement.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Header {
    /// Primary address of the sender.
    pub source: Ipv4Addr,
    /// Where it was sent.
    pub destination: Ipv4Addr,
    /// Identification field.
    pub identification: u16,
}

impl Header {
    /// Reads the header of an advertisement and returns the payload with it, without options before
    /// and without padding of the link after it (RFC 9568 section 7.1).
    pub fn parse(bytes: &[u8]) -> Result<(Self, &[u8]), Discard> {
        let view = View::new(bytes);
        if bytes.len() < HEADER_LEN {
            return Err(Discard::Truncated);
        }
        let header_len = view.header_len();
        if view.version() != 4 || header_len < HEADER_LEN || view.total_len() < header_len {
            return Err(Discard::IpHeader);
        }
        let header = bytes.get(..header_len).ok_or(Discard::Truncated)?;
        let payload = bytes
            .get(header_len..view.total_len())
            .ok_or(Discard::Truncated)?;
        if Sum::default().add(header).finish() != 0 {
            return Err(Discard::IpChecksum);
        }
        if view.is_fragment() {
            return Err(Discard::Fragment);
        }
        if view.protocol() != PROTOCOL {
            return Err(Discard::Protocol);
        }
        if view.ttl() != TTL {
            return Err(Discard::Ttl);
        }
        let header = Self {
            source: view.source(),
            destination: view.destination(),
            identification: view.identification(),
        };
        Ok((header, payload))
    }

    /// Writes the header for `payload_len` bytes to the start of `buffer` and returns its length:
    /// TOS 0xc0, TTL 255, fragmentation not forbidden, as keepalived does.
    pub fn emit(&self, buffer: &mut [u8], payload_len: usize) -> Result<usize, EmitError> {
        let header = room(buffer, HEADER_LEN)?;
        let total =
            u16::try_from(HEADER_LEN + payload_len).map_err(|_| EmitError::TooManyAddresses)?;
        header.fill(0);
        put(header, field::VERSION_IHL, &[0x45]);
        put(header, field::TOS, &[TOS]);
        put(header, field::TOTAL_LENGTH, &total.to_be_bytes());
        put(
            header,
            field::IDENTIFICATION,
            &self.identification.to_be_bytes(),
        );
        put(header, field::TTL, &[TTL]);
        put(header, field::PROTOCOL, &[PROTOCOL]);
        put(header, field::SOURCE, &self.source.octets());
        put(header, field::DESTINATION, &self.destination.octets());
        let sum = Sum::default().add(header).finish();
        put(header, field::CHECKSUM, &sum.to_be_bytes());
        Ok(HEADER_LEN)
    }
}
