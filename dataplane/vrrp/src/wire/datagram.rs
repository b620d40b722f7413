//! A whole advertisement with its IPv4 header, as a raw socket gives and takes it.

use std::net::{IpAddr, Ipv4Addr};

use super::{
    Advertisement, ChecksumReading, EmitError, Ends, GROUP_V4,
    ipv4::{HEADER_LEN, Header},
};
use crate::{Discard, types::Family};

/// Where advertisements of a virtual router are expected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Destination {
    /// The group of RFC 9568 section 5.1.1.2.
    #[default]
    Multicast,
    /// One of this host's own addresses.
    Unicast,
}

/// An advertisement and where it came from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Received<'a> {
    /// Primary address of the sender.
    pub source: IpAddr,
    /// Where it was sent.
    pub destination: IpAddr,
    /// What it says.
    pub advertisement: Advertisement<'a>,
    /// How the sender reads the checksum.
    pub checksum: ChecksumReading,
}

/// Reads an IPv4 packet from its header on. Padding behind the length that the header states is
/// left alone; bytes too many within it are refused.
pub fn parse_ipv4(bytes: &[u8], expected: Destination) -> Result<Received<'_>, Discard> {
    let (header, payload) = Header::parse(bytes)?;
    let as_expected = match expected {
        Destination::Multicast => header.destination == GROUP_V4,
        Destination::Unicast => !header.destination.is_multicast(),
    };
    if !as_expected {
        return Err(Discard::Destination);
    }
    let ends = Ends::V4 {
        source: header.source,
        destination: header.destination,
    };
    let (advertisement, checksum) = Advertisement::parse(payload, ends)?;
    Ok(Received {
        source: IpAddr::V4(header.source),
        destination: IpAddr::V4(header.destination),
        advertisement,
        checksum,
    })
}

/// Writes an IPv4 packet with its header to the start of `buffer` and returns its length, for a
/// socket with `IP_HDRINCL`. The payload starts at [`HEADER_LEN`], for a socket without.
pub fn emit_ipv4(
    buffer: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    advertisement: &Advertisement<'_>,
    reading: ChecksumReading,
) -> Result<usize, EmitError> {
    let need = HEADER_LEN + advertisement.buffer_len(Family::V4);
    let have = buffer.len();
    let Some((head, payload)) = buffer.split_at_mut_checked(HEADER_LEN) else {
        return Err(EmitError::BufferTooShort { need, have });
    };
    let ends = Ends::V4 {
        source,
        destination,
    };
    let payload_len = advertisement.emit(payload, ends, reading)?;
    let header = Header {
        source,
        destination,
        identification,
    };
    Ok(header.emit(head, payload_len)? + payload_len)
}
