//! Why a packet was dropped.

/// Reason to drop what was received. Bad packets are expected traffic: they are counted by reason,
/// never answered and never an error.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq, thiserror::Error)]
pub enum Discard {
    /// Shorter than its headers say, or than any packet of its kind.
    #[error("packet is shorter than its headers say")]
    Truncated,
    /// Bytes follow the last field inside the length that the IP header states.
    #[error("bytes follow the end of the advertisement")]
    TrailingBytes,
    /// An IP header of another version, or with a header length below 20 bytes.
    #[error("IP header is malformed")]
    IpHeader,
    /// The checksum of the IPv4 header is wrong.
    #[error("checksum of the IP header does not match")]
    IpChecksum,
    /// A fragment; an advertisement never is one.
    #[error("packet is a fragment")]
    Fragment,
    /// Not protocol 112.
    #[error("IP protocol is not 112")]
    Protocol,
    /// TTL or hop limit other than 255: it did not start on this segment (RFC 9568 section 7.1).
    #[error("TTL is not 255")]
    Ttl,
    /// Not for the address where advertisements of this virtual router are expected.
    #[error("destination is neither the group nor the configured address")]
    Destination,
    /// Neither version 2 nor 3, or version 2 on IPv6.
    #[error("VRRP version is unknown")]
    UnknownVersion,
    /// A packet type other than ADVERTISEMENT (RFC 9568 section 5.2.2).
    #[error("packet type is not ADVERTISEMENT")]
    Type,
    /// VRID 0.
    #[error("VRID is 0")]
    ZeroVrid,
    /// An interval of zero (RFC 9568 section 7.1, erratum 8301): its sender could not be waited for.
    #[error("advertisement interval is 0")]
    ZeroInterval,
    /// No address in the packet (RFC 9568 section 5.2.5, erratum 8299).
    #[error("advertisement lists no address")]
    NoAddress,
    /// Version 2: an authentication type that is unknown, or not the one configured (RFC 2338 section
    /// 5.3.6; RFC 3768 section 7.1).
    #[error("authentication type is not the one configured")]
    Authentication,
    /// Neither reading of the checksum matches.
    #[error("checksum does not match")]
    Checksum,
    /// For another virtual router.
    #[error("VRID is not this virtual router's")]
    OtherVrid,
    /// The other version than the one configured.
    #[error("version is not the one configured")]
    OtherVersion,
    /// Version 2: another interval than the one configured (RFC 3768 section 7.1).
    #[error("advertisement interval is not the one configured")]
    OtherInterval,
    /// Another virtual router with the same number: no address in common, or in version 2 a list
    /// that differs and is not the owner's (RFC 3768 section 7.1).
    #[error("address list is not this virtual router's")]
    OtherAddresses,
    /// Version 2: another password than the one configured (RFC 2338 section 7.1).
    #[error("password is not the one configured")]
    Password,
    /// From an address that is no peer's, where peers are listed.
    #[error("source is no unicast peer of this virtual router")]
    NotPeer,
    /// Sent from this router's own address: a reflection, or a host with the same address.
    #[error("source is this router's own address")]
    OwnSource,
    /// An Ethernet frame of another type.
    #[error("frame is not ARP")]
    NotArp,
    /// ARP for anything but IPv4 on Ethernet, or an operation that is neither request nor reply.
    #[error("ARP is not for IPv4 on Ethernet")]
    ArpKind,
    /// A frame that carries no neighbour solicitation and no neighbour advertisement.
    #[error("frame is not neighbour discovery")]
    NotNeighbour,
    /// Neighbour discovery that its receiver must not look at (RFC 4861 sections 7.1.1 and 7.1.2).
    #[error("neighbour discovery message is malformed")]
    NeighbourKind,
}

impl Discard {
    /// Every reason, for counters that exist before the first packet.
    pub const ALL: [Self; 26] = [
        Self::Truncated,
        Self::TrailingBytes,
        Self::IpHeader,
        Self::IpChecksum,
        Self::Fragment,
        Self::Protocol,
        Self::Ttl,
        Self::Destination,
        Self::UnknownVersion,
        Self::Type,
        Self::ZeroVrid,
        Self::ZeroInterval,
        Self::NoAddress,
        Self::Authentication,
        Self::Checksum,
        Self::OtherVrid,
        Self::OtherVersion,
        Self::OtherInterval,
        Self::OtherAddresses,
        Self::Password,
        Self::NotPeer,
        Self::OwnSource,
        Self::NotArp,
        Self::ArpKind,
        Self::NotNeighbour,
        Self::NeighbourKind,
    ];

    /// Value of the `reason` label of metrics.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Truncated => "truncated",
            Self::TrailingBytes => "trailing_bytes",
            Self::IpHeader => "ip_header",
            Self::IpChecksum => "ip_checksum",
            Self::Fragment => "fragment",
            Self::Protocol => "protocol",
            Self::Ttl => "ttl",
            Self::Destination => "destination",
            Self::UnknownVersion => "unknown_version",
            Self::Type => "type",
            Self::ZeroVrid => "zero_vrid",
            Self::ZeroInterval => "zero_interval",
            Self::NoAddress => "no_address",
            Self::Authentication => "authentication",
            Self::Checksum => "checksum",
            Self::OtherVrid => "other_vrid",
            Self::OtherVersion => "other_version",
            Self::OtherInterval => "other_interval",
            Self::OtherAddresses => "other_addresses",
            Self::Password => "password",
            Self::NotPeer => "not_peer",
            Self::OwnSource => "own_source",
            Self::NotArp => "not_arp",
            Self::ArpKind => "arp_kind",
            Self::NotNeighbour => "not_neighbour",
            Self::NeighbourKind => "neighbour_kind",
        }
    }

    /// Position in [`Self::ALL`], for an array of counters.
    pub const fn index(self) -> usize {
        self as usize
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_is_in_order_and_labels_differ() {
        for (at, discard) in Discard::ALL.iter().enumerate() {
            assert_eq!(discard.index(), at);
        }
        let mut labels: Vec<_> = Discard::ALL.iter().map(|d| d.label()).collect();
        labels.sort_unstable();
        labels.dedup();
        assert_eq!(labels.len(), Discard::ALL.len());
    }
}
