//! Formats on the wire.
//!
//! Each format has a *view* over bytes whose accessors cannot panic, whatever the bytes are (a field
//! that is not there reads as zero), and a *representation* that can hold only what we understand:
//! `parse` refuses all else with a [`Discard`](crate::Discard), `emit` writes into a buffer of the
//! caller. Nothing here allocates.
#![warn(clippy::indexing_slicing)]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

pub mod addresses;
pub mod advertisement;
pub mod arp;
pub mod checksum;
pub mod datagram;
mod ethernet;
pub mod ipv4;
pub mod ipv6;
pub mod mac;
pub mod neighbour;
pub mod resolution;

pub use addresses::AddressList;
pub use advertisement::Advertisement;
pub use arp::Arp;
pub use checksum::ChecksumReading;
pub use datagram::{
    Destination, Received, emit, emit_frame, emit_ipv4, emit_ipv6, parse, parse_ipv4, parse_ipv6,
};
pub use mac::Mac;
pub use neighbour::Neighbour;

use crate::types::Family;

/// Protocol number of VRRP (RFC 9568 section 5.1.1.4).
pub const PROTOCOL: u8 = 112;

/// Group to which IPv4 advertisements go (RFC 9568 section 5.1.1.2).
pub const GROUP_V4: Ipv4Addr = Ipv4Addr::new(224, 0, 0, 18);

/// Group to which IPv6 advertisements go (RFC 9568 section 5.1.2.2).
pub const GROUP_V6: Ipv6Addr = Ipv6Addr::new(0xff02, 0, 0, 0, 0, 0, 0, 0x12);

/// The group of `family`.
pub const fn group(family: Family) -> IpAddr {
    match family {
        Family::V4 => IpAddr::V4(GROUP_V4),
        Family::V6 => IpAddr::V6(GROUP_V6),
    }
}

/// Source and destination of an IP packet; both enter the pseudo header.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Ends {
    /// IPv4.
    V4 {
        /// Primary address of the sender.
        source: Ipv4Addr,
        /// [`GROUP_V4`], or a unicast peer.
        destination: Ipv4Addr,
    },
    /// IPv6.
    V6 {
        /// Link-local address of the sender.
        source: Ipv6Addr,
        /// [`GROUP_V6`], or a unicast peer.
        destination: Ipv6Addr,
    },
}

impl From<ipv4::Header> for Ends {
    fn from(header: ipv4::Header) -> Self {
        Self::V4 {
            source: header.source,
            destination: header.destination,
        }
    }
}

impl From<ipv6::Header> for Ends {
    fn from(header: ipv6::Header) -> Self {
        Self::V6 {
            source: header.source,
            destination: header.destination,
        }
    }
}

impl Ends {
    /// Of an advertisement from `source` to the group of its family.
    pub const fn to_group(source: IpAddr) -> Self {
        match source {
            IpAddr::V4(source) => Self::V4 {
                source,
                destination: GROUP_V4,
            },
            IpAddr::V6(source) => Self::V6 {
                source,
                destination: GROUP_V6,
            },
        }
    }

    /// Of an advertisement from `source` to `destination`; `None`: they are of different families.
    pub const fn between(source: IpAddr, destination: IpAddr) -> Option<Self> {
        match (source, destination) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Some(Self::V4 {
                source,
                destination,
            }),
            (IpAddr::V6(source), IpAddr::V6(destination)) => Some(Self::V6 {
                source,
                destination,
            }),
            _ => None,
        }
    }

    /// The family of both.
    pub const fn family(self) -> Family {
        match self {
            Self::V4 { .. } => Family::V4,
            Self::V6 { .. } => Family::V6,
        }
    }

    /// The sender.
    pub const fn source(self) -> IpAddr {
        match self {
            Self::V4 { source, .. } => IpAddr::V4(source),
            Self::V6 { source, .. } => IpAddr::V6(source),
        }
    }

    /// The receiver.
    pub const fn destination(self) -> IpAddr {
        match self {
            Self::V4 { destination, .. } => IpAddr::V4(destination),
            Self::V6 { destination, .. } => IpAddr::V6(destination),
        }
    }
}

/// Why nothing was written.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum EmitError {
    /// The caller's buffer is too short.
    #[error("buffer holds {have} bytes, the packet needs {need}")]
    BufferTooShort {
        /// Bytes needed.
        need: usize,
        /// Bytes given.
        have: usize,
    },
    /// An address of the other family than the packet's.
    #[error("address list holds an address of the other family")]
    MixedFamilies,
    /// Version 2 has no IPv6.
    #[error("version 2 has no IPv6")]
    VersionHasNoIpv6,
    /// More addresses than the count field can state.
    #[error("more than 255 addresses")]
    TooManyAddresses,
    /// An interval that the version cannot state.
    #[error("interval cannot be stated in this version")]
    Interval,
}

/// The byte at `at`, zero where the buffer ends before it.
fn byte(bytes: &[u8], at: usize) -> u8 {
    bytes.get(at).copied().unwrap_or(0)
}

/// The big-endian number at `at`, zero where the buffer ends before it.
fn number(bytes: &[u8], at: usize) -> u16 {
    array(bytes, at).map_or(0, u16::from_be_bytes)
}

/// The `N` bytes at `at`.
fn array<const N: usize>(bytes: &[u8], at: usize) -> Option<[u8; N]> {
    bytes.get(at..)?.first_chunk().copied()
}

/// The first `need` bytes of a caller's buffer.
fn room(buffer: &mut [u8], need: usize) -> Result<&mut [u8], EmitError> {
    let have = buffer.len();
    let short = EmitError::BufferTooShort { need, have };
    buffer.get_mut(..need).ok_or(short)
}

/// Writes `value` at `at`; whoever emits checked the length before.
fn put(bytes: &mut [u8], at: usize, value: &[u8]) {
    if let Some(field) = bytes.get_mut(at..at + value.len()) {
        field.copy_from_slice(value);
    }
}
