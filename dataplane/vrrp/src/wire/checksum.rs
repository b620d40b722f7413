//! The Internet checksum (RFC 1071) and the two readings of it in version 3.

use super::Ends;

/// What the checksum of a version 3 packet on IPv4 covers.
///
/// RFC 5798 could be read both ways; keepalived and FRR include the pseudo header unless told
/// otherwise, several other vendors never did. We accept both. On IPv6 it is always included.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub enum ChecksumReading {
    /// Source, destination, protocol and length are part of it.
    #[default]
    WithPseudoHeader,
    /// Only the VRRP message, as in version 2 (RFC 3768 section 5.3.8).
    MessageOnly,
}

/// Running sum in one's complement arithmetic.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Sum(u32);

impl Sum {
    /// Adds `bytes` as big-endian words, an odd last byte padded with zero.
    pub(super) fn add(self, bytes: &[u8]) -> Self {
        let (words, rest) = bytes.as_chunks::<2>();
        let mut sum = self.0;
        for word in words {
            sum = fold(sum + u32::from(u16::from_be_bytes(*word)));
        }
        if let [last] = rest {
            sum = fold(sum + u32::from(u16::from_be_bytes([*last, 0])));
        }
        Self(sum)
    }

    /// Adds the pseudo header of an IP packet with `length` bytes of `protocol` (RFC 9568 section
    /// 5.2.8, RFC 8200 section 8.1).
    pub(super) fn add_pseudo_header(self, ends: Ends, protocol: u8, length: usize) -> Self {
        // A VRRP message has at most 8 + 255 * 16 + 8 bytes; IPv6 states payloads in 16 bits.
        let length = u16::try_from(length).unwrap_or(u16::MAX).to_be_bytes();
        let sum = match ends {
            Ends::V4 {
                source,
                destination,
            } => self.add(&source.octets()).add(&destination.octets()),
            Ends::V6 {
                source,
                destination,
            } => self.add(&source.octets()).add(&destination.octets()),
        };
        sum.add(&[0, protocol]).add(&length)
    }

    /// The value for the checksum field; zero over data that holds a correct checksum.
    pub(super) fn finish(self) -> u16 {
        // `fold` keeps the sum within 16 bits.
        !u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

fn fold(sum: u32) -> u32 {
    (sum & 0xffff) + (sum >> 16)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 1071 section 3: 0001 f203 f4f5 f6f7 sums to ddf2.
    #[test]
    fn example_of_the_standard() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.finish(), !0xddf2);
    }

    #[test]
    fn odd_byte_is_padded() {
        assert_eq!(Sum::default().add(&[0xab]).finish(), !0xab00);
    }
}
