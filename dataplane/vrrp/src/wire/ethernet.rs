//! The Ethernet header.

use super::{Mac, number, put};

/// Bytes of the header.
pub(super) const HEADER_LEN: usize = 14;
/// Ethernet type of IPv4.
pub(super) const IPV4: u16 = 0x0800;
/// Ethernet type of IPv6.
pub(super) const IPV6: u16 = 0x86dd;

mod field {
    pub(super) const DESTINATION: usize = 0;
    pub(super) const SOURCE: usize = 6;
    pub(super) const ETHERTYPE: usize = 12;
}

/// What the frame carries.
pub(super) fn ethertype(frame: &[u8]) -> u16 {
    number(frame, field::ETHERTYPE)
}

/// Writes the header to the start of `frame`.
pub(super) fn emit(frame: &mut [u8], source: Mac, destination: Mac, ethertype: u16) {
    put(frame, field::DESTINATION, &destination.0);
    put(frame, field::SOURCE, &source.0);
    put(frame, field::ETHERTYPE, &ethertype.to_be_bytes());
}
