//! The one packet of VRRP (RFC 9568 section 5.2; RFC 3768 section 5.3).
//!
//! ```text
//!  0                   1                   2                   3
//!  0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
//! +-------+-------+---------------+---------------+---------------+
//! |Version| Type  |     VRID      |   Priority    | Address count |
//! +-------+-------+---------------+---------------+---------------+
//! | v2: Auth Type | v2: Interval/s|           Checksum            |
//! | v3: reserved(4), Interval/cs(12)              |               |
//! +---------------+---------------+---------------+---------------+
//! |                 Addresses, 4 or 16 bytes each                 |
//! +---------------------------------------------------------------+
//! |      v2 only: 8 bytes of authentication data, always there    |
//! +---------------------------------------------------------------+
//! ```

use std::net::IpAddr;

use super::{
    AddressList, ChecksumReading, EmitError, Ends, PROTOCOL, byte, checksum::Sum, number, put, room,
};
use crate::{
    Authentication, Discard, Password,
    types::{Centiseconds, Family, Priority, Version, Vrid},
};

/// Bytes before the first address.
const HEADER_LEN: usize = 8;
/// Authentication data of version 2, zero for authentication type 0 (RFC 3768 section 5.3.10).
const AUTHENTICATION_LEN: usize = 8;
/// Authentication type of a password (RFC 2338 section 5.3.6).
const SIMPLE_PASSWORD: u8 = 1;
/// The only packet type, ADVERTISEMENT.
const TYPE: u8 = 1;

mod field {
    pub(super) const VERSION_TYPE: usize = 0;
    pub(super) const VRID: usize = 1;
    pub(super) const PRIORITY: usize = 2;
    pub(super) const COUNT: usize = 3;
    pub(super) const AUTHENTICATION_TYPE: usize = 4;
    pub(super) const INTERVAL_V2: usize = 5;
    pub(super) const INTERVAL_V3: usize = 4;
    pub(super) const CHECKSUM: usize = 6;
}

/// Longest advertisement: 255 IPv6 addresses.
pub const MAX_LEN: usize = HEADER_LEN + 255 * 16;

/// View over the bytes of an advertisement, which may be anything. A field that is not there reads
/// as zero.
#[derive(Clone, Copy, Debug)]
pub struct View<'a>(&'a [u8]);

impl<'a> View<'a> {
    /// Views `bytes`, the whole payload of an IP packet.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// Version field.
    pub fn version(&self) -> u8 {
        byte(self.0, field::VERSION_TYPE) >> 4
    }

    /// Type field.
    pub fn packet_type(&self) -> u8 {
        byte(self.0, field::VERSION_TYPE) & 0x0f
    }

    /// VRID field.
    pub fn vrid(&self) -> u8 {
        byte(self.0, field::VRID)
    }

    /// Priority field.
    pub fn priority(&self) -> u8 {
        byte(self.0, field::PRIORITY)
    }

    /// Count of addresses.
    pub fn address_count(&self) -> u8 {
        byte(self.0, field::COUNT)
    }

    /// Version 2: authentication type.
    pub fn authentication_type(&self) -> u8 {
        byte(self.0, field::AUTHENTICATION_TYPE)
    }

    /// Version 2: authentication data, the last bytes.
    pub fn authentication_data(&self) -> [u8; AUTHENTICATION_LEN] {
        self.0.last_chunk().copied().unwrap_or_default()
    }

    /// Version 2: interval in seconds.
    pub fn interval_seconds(&self) -> u8 {
        byte(self.0, field::INTERVAL_V2)
    }

    /// Version 3: interval in hundredths of a second; the four reserved bits before it are ignored
    /// (RFC 9568 section 5.2.6).
    pub fn interval_centiseconds(&self) -> u16 {
        number(self.0, field::INTERVAL_V3) & 0x0fff
    }

    /// Checksum field.
    pub fn checksum(&self) -> u16 {
        number(self.0, field::CHECKSUM)
    }

    /// What the checksum covers, `None` where no reading of it matches. Version 2 has one reading
    /// only, IPv6 likewise.
    pub fn checksum_reading(&self, ends: Ends) -> Option<ChecksumReading> {
        let message = Sum::default().add(self.0);
        let with_pseudo_header = message.add_pseudo_header(ends, PROTOCOL, self.0.len());
        let message_only = self.version() == 2 || ends.family() == Family::V4;
        if self.version() != 2 && with_pseudo_header.finish() == 0 {
            Some(ChecksumReading::WithPseudoHeader)
        } else if message_only && message.finish() == 0 {
            Some(ChecksumReading::MessageOnly)
        } else {
            None
        }
    }
}

/// An advertisement that we understand.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Advertisement<'a> {
    /// Version of the packet.
    pub version: Version,
    /// The virtual router it speaks of.
    pub vrid: Vrid,
    /// The sender's weight; [`Priority::RELEASE`] when it leaves.
    pub priority: Priority,
    /// The sender's interval.
    pub interval: Centiseconds,
    /// What else version 2 carries.
    pub authentication: Authentication,
    /// The virtual addresses, at least one.
    pub addresses: AddressList<'a>,
}

impl<'a> Advertisement<'a> {
    /// Reads the payload of an IP packet, of which `ends` are source and destination (RFC 9568
    /// section 7.1; RFC 3768 section 7.1). Also tells which reading of the checksum matched.
    pub fn parse(bytes: &'a [u8], ends: Ends) -> Result<(Self, ChecksumReading), Discard> {
        let view = View::new(bytes);
        if bytes.len() < HEADER_LEN {
            return Err(Discard::Truncated);
        }
        let (version, tail) = match (view.version(), ends.family()) {
            (2, Family::V4) => (Version::V2, AUTHENTICATION_LEN),
            (3, _) => (Version::V3, 0),
            _ => return Err(Discard::UnknownVersion),
        };
        if view.packet_type() != TYPE {
            return Err(Discard::Type);
        }
        let end = HEADER_LEN + usize::from(view.address_count()) * ends.family().address_len();
        if bytes.len() < end + tail {
            return Err(Discard::Truncated);
        }
        if bytes.len() > end + tail {
            return Err(Discard::TrailingBytes);
        }
        let reading = view.checksum_reading(ends).ok_or(Discard::Checksum)?;
        let vrid = Vrid::new(view.vrid()).ok_or(Discard::ZeroVrid)?;
        let interval = match version {
            Version::V2 => Centiseconds::from_secs(view.interval_seconds()),
            Version::V3 => Centiseconds::new(view.interval_centiseconds()),
        };
        let interval = interval.ok_or(Discard::ZeroInterval)?;
        let authentication = match (version, view.authentication_type()) {
            (Version::V3, _) | (Version::V2, 0) => Authentication::None,
            (Version::V2, SIMPLE_PASSWORD) => {
                let data = view.authentication_data();
                Authentication::SimplePassword(Password::from_bytes(data))
            }
            (Version::V2, _) => return Err(Discard::Authentication),
        };
        let addresses = bytes.get(HEADER_LEN..end).ok_or(Discard::Truncated)?;
        if addresses.is_empty() {
            return Err(Discard::NoAddress);
        }
        let advertisement = Self {
            version,
            vrid,
            priority: Priority::new(view.priority()),
            interval,
            authentication,
            addresses: AddressList::from_packet(ends.family(), addresses),
        };
        Ok((advertisement, reading))
    }

    /// Bytes that [`Self::emit`] writes for `family`.
    pub fn buffer_len(&self, family: Family) -> usize {
        let tail = match self.version {
            Version::V2 => AUTHENTICATION_LEN,
            Version::V3 => 0,
        };
        HEADER_LEN + self.addresses.len() * family.address_len() + tail
    }

    /// Writes the packet's payload to the start of `buffer` and returns its length. `reading`
    /// matters for version 3 on IPv4 only.
    pub fn emit(
        &self,
        buffer: &mut [u8],
        ends: Ends,
        reading: ChecksumReading,
    ) -> Result<usize, EmitError> {
        let family = ends.family();
        let need = self.buffer_len(family);
        let packet = room(buffer, need)?;
        let count = u8::try_from(self.addresses.len()).map_err(|_| EmitError::TooManyAddresses)?;
        let interval = self.interval;
        if !interval.fits(self.version) {
            return Err(EmitError::Interval);
        }
        packet.fill(0);
        put(
            packet,
            field::VERSION_TYPE,
            &[self.version.get() << 4 | TYPE],
        );
        put(packet, field::VRID, &[self.vrid.get()]);
        put(packet, field::PRIORITY, &[self.priority.get()]);
        put(packet, field::COUNT, &[count]);
        match self.version {
            Version::V2 => {
                if family == Family::V6 {
                    return Err(EmitError::VersionHasNoIpv6);
                }
                let seconds = interval.whole_secs().ok_or(EmitError::Interval)?;
                put(packet, field::INTERVAL_V2, &[seconds]);
                if let Authentication::SimplePassword(password) = &self.authentication {
                    put(packet, field::AUTHENTICATION_TYPE, &[SIMPLE_PASSWORD]);
                    put(packet, need - AUTHENTICATION_LEN, password.as_bytes());
                }
            }
            Version::V3 => put(packet, field::INTERVAL_V3, &interval.get().to_be_bytes()),
        }
        for (at, address) in self.addresses.iter().enumerate() {
            let at = HEADER_LEN + at * family.address_len();
            match (address, family) {
                (IpAddr::V4(address), Family::V4) => put(packet, at, &address.octets()),
                (IpAddr::V6(address), Family::V6) => put(packet, at, &address.octets()),
                _ => return Err(EmitError::MixedFamilies),
            }
        }
        let mut sum = Sum::default().add(packet);
        let pseudo_header = match (self.version, family) {
            (Version::V2, _) => false,
            (Version::V3, Family::V6) => true,
            (Version::V3, Family::V4) => reading == ChecksumReading::WithPseudoHeader,
        };
        if pseudo_header {
            sum = sum.add_pseudo_header(ends, PROTOCOL, need);
        }
        put(packet, field::CHECKSUM, &sum.finish().to_be_bytes());
        Ok(need)
    }
}
