//! Hardware addresses of Ethernet.

use std::{
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

use crate::types::{Family, Vrid};

/// Hardware address of an Ethernet interface.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Mac(pub [u8; 6]);

impl Mac {
    /// Everyone on the segment.
    pub const BROADCAST: Self = Self([0xff; 6]);

    /// The virtual router's own hardware address (RFC 9568 section 7.3).
    pub const fn of_virtual_router(vrid: Vrid, family: Family) -> Self {
        let kind = match family {
            Family::V4 => 1,
            Family::V6 => 2,
        };
        Self([0, 0, 0x5e, 0, kind, vrid.get()])
    }

    /// Where frames to an IPv4 group go (RFC 1112 section 6.4).
    pub const fn of_group_v4(group: Ipv4Addr) -> Self {
        let [_, b, c, d] = group.octets();
        Self([0x01, 0x00, 0x5e, b & 0x7f, c, d])
    }

    /// Where frames to an IPv6 group go (RFC 2464 section 7).
    pub const fn of_group(group: Ipv6Addr) -> Self {
        let [.., a, b, c, d] = group.octets();
        Self([0x33, 0x33, a, b, c, d])
    }
}

impl fmt::Display for Mac {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            let colon = if at == 0 { "" } else { ":" };
            write!(f, "{colon}{byte:02x}")?;
        }
        Ok(())
    }
}
