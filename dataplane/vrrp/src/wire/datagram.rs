//! A whole advertisement with its IP header.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::{Advertisement, ChecksumReading, EmitError, Ends, Mac, ethernet, group, ipv4, ipv6};
use crate::{Discard, types::Family};

/// Where advertisements of a virtual router are expected.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Destination {
    /// The group of RFC 9568 sections 5.1.1.2 and 5.1.2.2.
    #[default]
    Multicast,
    /// One of this host's own addresses.
    Unicast,
    /// Either of them: which one it must be is the virtual router's to say.
    Any,
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

/// Reads a packet of `family` from its IP header on.
pub fn parse(bytes: &[u8], family: Family, expected: Destination) -> Result<Received<'_>, Discard> {
    match family {
        Family::V4 => parse_ipv4(bytes, expected),
        Family::V6 => parse_ipv6(bytes, expected),
    }
}

/// Writes a packet with its IP header to the start of `buffer` and returns its length.
/// `identification` and `reading` matter on IPv4 only.
pub fn emit(
    buffer: &mut [u8],
    ends: Ends,
    identification: u16,
    advertisement: &Advertisement<'_>,
    reading: ChecksumReading,
) -> Result<usize, EmitError> {
    match ends {
        Ends::V4 {
            source,
            destination,
        } => emit_ipv4(
            buffer,
            source,
            destination,
            identification,
            advertisement,
            reading,
        ),
        Ends::V6 {
            source,
            destination,
        } => emit_ipv6(buffer, source, destination, advertisement),
    }
}

/// Reads an IPv4 packet from its header on. Padding behind the length that the header states is
/// left alone; bytes too many within it are refused.
pub fn parse_ipv4(bytes: &[u8], expected: Destination) -> Result<Received<'_>, Discard> {
    let (header, payload) = ipv4::Header::parse(bytes)?;
    received(header.into(), payload, expected)
}

fn received(ends: Ends, payload: &[u8], expected: Destination) -> Result<Received<'_>, Discard> {
    let destination = ends.destination();
    let is_group = destination == group(ends.family());
    let as_expected = match expected {
        Destination::Multicast => is_group,
        Destination::Unicast => !destination.is_multicast(),
        Destination::Any => is_group || !destination.is_multicast(),
    };
    if !as_expected {
        return Err(Discard::Destination);
    }
    let (advertisement, checksum) = Advertisement::parse(payload, ends)?;
    Ok(Received {
        source: ends.source(),
        destination,
        advertisement,
        checksum,
    })
}

/// Writes an IPv4 packet with its header to the start of `buffer` and returns its length, for a
/// socket with `IP_HDRINCL`. The payload starts at [`ipv4::HEADER_LEN`], for a socket without.
pub fn emit_ipv4(
    buffer: &mut [u8],
    source: Ipv4Addr,
    destination: Ipv4Addr,
    identification: u16,
    advertisement: &Advertisement<'_>,
    reading: ChecksumReading,
) -> Result<usize, EmitError> {
    let need = ipv4::HEADER_LEN + advertisement.buffer_len(Family::V4);
    let have = buffer.len();
    let Some((head, payload)) = buffer.split_at_mut_checked(ipv4::HEADER_LEN) else {
        return Err(EmitError::BufferTooShort { need, have });
    };
    let header = ipv4::Header {
        source,
        destination,
        identification,
    };
    let payload_len = advertisement.emit(payload, header.into(), reading)?;
    Ok(header.emit(head, payload_len)? + payload_len)
}

/// Writes an Ethernet frame from the virtual router's own hardware address, to the group of its family
/// (RFC 9568 section 7.2), otherwise as [`emit`] does.
pub fn emit_frame(
    buffer: &mut [u8],
    mac: Mac,
    ends: Ends,
    identification: u16,
    advertisement: &Advertisement<'_>,
    reading: ChecksumReading,
) -> Result<usize, EmitError> {
    let have = buffer.len();
    let need = ethernet::HEADER_LEN;
    let Some((head, packet)) = buffer.split_at_mut_checked(need) else {
        return Err(EmitError::BufferTooShort { need, have });
    };
    let (group, ethertype) = match ends.destination() {
        IpAddr::V4(group) => (Mac::of_group_v4(group), ethernet::IPV4),
        IpAddr::V6(group) => (Mac::of_group(group), ethernet::IPV6),
    };
    ethernet::emit(head, mac, group, ethertype);
    Ok(need + emit(packet, ends, identification, advertisement, reading)?)
}

/// Reads an IPv6 packet from its header on, as [`parse_ipv4`] does.
pub fn parse_ipv6(bytes: &[u8], expected: Destination) -> Result<Received<'_>, Discard> {
    let (header, payload) = ipv6::Header::parse(bytes)?;
    received(header.into(), payload, expected)
}

/// Writes an IPv6 packet with its header to the start of `buffer` and returns its length, for a
/// socket with `IPV6_HDRINCL`.
pub fn emit_ipv6(
    buffer: &mut [u8],
    source: Ipv6Addr,
    destination: Ipv6Addr,
    advertisement: &Advertisement<'_>,
) -> Result<usize, EmitError> {
    let need = ipv6::HEADER_LEN + advertisement.buffer_len(Family::V6);
    let have = buffer.len();
    let Some((head, payload)) = buffer.split_at_mut_checked(ipv6::HEADER_LEN) else {
        return Err(EmitError::BufferTooShort { need, have });
    };
    let header = ipv6::Header {
        source,
        destination,
    };
    // On IPv6 there is one reading (RFC 9568 section 5.2.8).
    let payload_len = advertisement.emit(payload, header.into(), ChecksumReading::default())?;
    Ok(header.emit(head, payload_len)? + payload_len)
}
