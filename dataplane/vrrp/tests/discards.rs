//! What the standards say must be discarded, rule by rule, from the bytes of a whole packet: RFC 9568
//! section 7.1 and, for version 2, RFC 3768 section 7.1. Each has its own reason, by which it is
//! counted; what a virtual router discards for its own sake is in `transitions`.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use std::net::{IpAddr, Ipv4Addr};

use vrrp::{
    Advertisement, Authentication, Centiseconds, Discard, Priority, Version, Vrid,
    wire::{AddressList, ChecksumReading, Destination, GROUP_V4, emit_ipv4, parse_ipv4},
};

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
const IP: usize = 20;
const BOTH: [Version; 2] = [Version::V2, Version::V3];

/// A correct packet: VRID 51, priority 100, one second, two addresses.
fn packet(version: Version, reading: ChecksumReading) -> Vec<u8> {
    let addresses = [110, 111].map(|last| IpAddr::from([192, 168, 1, last]));
    let advertisement = Advertisement {
        version,
        vrid: Vrid::new(51).unwrap(),
        priority: Priority::new(100),
        interval: Centiseconds::SECOND,
        authentication: Authentication::None,
        addresses: AddressList::from_slice(&addresses),
    };
    let mut buffer = [0; 128];
    let length = emit_ipv4(&mut buffer, SOURCE, GROUP_V4, 1, &advertisement, reading).unwrap();
    buffer[..length].to_vec()
}

/// One's complement sum (RFC 1071).
fn sum(parts: &[&[u8]]) -> u16 {
    let bytes = parts.concat();
    let words = bytes.chunks(2).map(|word| {
        u32::from(u16::from_be_bytes([
            word[0],
            word.get(1).copied().unwrap_or(0),
        ]))
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}

/// Makes both checksums right again, that of version 3 with the pseudo header.
fn mend(packet: &mut [u8]) {
    packet[10..12].fill(0);
    let ip = sum(&[&packet[..IP]]);
    packet[10..12].copy_from_slice(&ip.to_be_bytes());
    packet[IP + 6..IP + 8].fill(0);
    let length = u16::try_from(packet.len() - IP).unwrap().to_be_bytes();
    let pseudo = [&packet[12..20], &[0, 112], &length].concat();
    let covered: &[&[u8]] = if packet[IP] >> 4 == 2 {
        &[&packet[IP..]]
    } else {
        &[&pseudo, &packet[IP..]]
    };
    let checksum = sum(covered);
    packet[IP + 6..IP + 8].copy_from_slice(&checksum.to_be_bytes());
}

/// What becomes of a packet of `version` changed by `change`, with checksums that are right.
fn fate(version: Version, change: impl Fn(&mut Vec<u8>)) -> Result<(), Discard> {
    let mut packet = packet(version, ChecksumReading::WithPseudoHeader);
    change(&mut packet);
    let total = u16::try_from(packet.len()).unwrap();
    packet[2..4].copy_from_slice(&total.to_be_bytes());
    mend(&mut packet);
    read(&packet)
}

fn read(packet: &[u8]) -> Result<(), Discard> {
    parse_ipv4(packet, Destination::Multicast).map(drop)
}

#[test]
fn rfc9568_7_1_a_correct_packet_is_accepted() {
    for version in BOTH {
        assert_eq!(fate(version, |_| {}), Ok(()), "{version:?}");
    }
}

/// "MUST verify that the IPv4 TTL is 255" (RFC 9568 7.1, RFC 3768 7.1).
#[test]
fn rfc9568_7_1_ttl_other_than_255() {
    for version in BOTH {
        for ttl in [0, 1, 64, 254] {
            assert_eq!(fate(version, |it| it[8] = ttl), Err(Discard::Ttl));
        }
    }
}

/// "MUST verify the VRRP version" (RFC 9568 7.1, RFC 3768 7.1).
#[test]
fn rfc9568_7_1_version_unknown() {
    for version in [0, 1, 4, 15] {
        let change = |it: &mut Vec<u8>| it[IP] = version << 4 | 1;
        assert_eq!(fate(Version::V3, change), Err(Discard::UnknownVersion));
    }
}

/// "MUST verify that the VRRP packet type is 1" (RFC 9568 7.1), "A packet with unknown type MUST be
/// discarded" (5.2.2, RFC 3768 5.3.2).
#[test]
fn rfc9568_5_2_2_type_other_than_advertisement() {
    for version in BOTH {
        for kind in [0, 2, 15] {
            let change = |it: &mut Vec<u8>| it[IP] = it[IP] & 0xf0 | kind;
            assert_eq!(fate(version, change), Err(Discard::Type));
        }
    }
}

/// "MUST verify that the received packet contains the complete VRRP packet" (RFC 9568 7.1): wherever it
/// is cut.
#[test]
fn rfc9568_7_1_truncated() {
    for version in BOTH {
        let whole = packet(version, ChecksumReading::WithPseudoHeader).len();
        for length in IP..whole {
            let cut = |it: &mut Vec<u8>| it.truncate(length);
            // The checksum cannot be mended where its field is cut off.
            let fate = if length < IP + 8 {
                let mut packet = packet(version, ChecksumReading::WithPseudoHeader);
                cut(&mut packet);
                packet[2..4].copy_from_slice(&u16::try_from(length).unwrap().to_be_bytes());
                packet[10..12].fill(0);
                let ip = sum(&[&packet[..IP]]);
                packet[10..12].copy_from_slice(&ip.to_be_bytes());
                read(&packet)
            } else {
                fate(version, cut)
            };
            assert_eq!(fate, Err(Discard::Truncated), "{version:?}, {length} bytes");
        }
    }
}

/// Less arrived than the IP header states.
#[test]
fn rfc9568_7_1_shorter_than_the_ip_header_says() {
    for version in BOTH {
        let whole = packet(version, ChecksumReading::WithPseudoHeader);
        for length in 0..whole.len() {
            assert_eq!(read(&whole[..length]), Err(Discard::Truncated));
        }
    }
}

/// A count beyond the packet is truncation, one below it leaves bytes over.
#[test]
fn rfc9568_5_2_5_count_that_does_not_match() {
    for version in BOTH {
        let fate = |count| fate(version, |it: &mut Vec<u8>| it[IP + 3] = count);
        assert_eq!(fate(3), Err(Discard::Truncated));
        assert_eq!(fate(255), Err(Discard::Truncated));
        assert_eq!(fate(1), Err(Discard::TrailingBytes));
        assert_eq!(fate(0), Err(Discard::TrailingBytes));
    }
}

/// Bytes after the last field within the length that the IP header states, as keepalived discards them;
/// padding of the link after it is none of the packet.
#[test]
fn rfc9568_7_1_trailing_bytes() {
    for version in BOTH {
        let extend = |it: &mut Vec<u8>| it.extend([0; 4]);
        assert_eq!(fate(version, extend), Err(Discard::TrailingBytes));
        let mut padded = packet(version, ChecksumReading::WithPseudoHeader);
        padded.resize(60, 0xaa);
        assert_eq!(read(&padded), Ok(()), "padding of Ethernet");
    }
}

/// No address at all (RFC 9568 5.2.9: "one or more").
#[test]
fn rfc9568_5_2_9_no_address() {
    for version in BOTH {
        let change = |it: &mut Vec<u8>| {
            it[IP + 3] = 0;
            it.drain(IP + 8..IP + 16);
        };
        assert_eq!(fate(version, change), Err(Discard::NoAddress));
    }
}

/// "MUST verify the VRRP checksum" (RFC 9568 7.1, RFC 3768 7.1): whatever bit is wrong.
#[test]
fn rfc9568_7_1_checksum() {
    for version in BOTH {
        let good = packet(version, ChecksumReading::WithPseudoHeader);
        // Not version, type and count, which are looked at before.
        for at in [1, 2, 4, 5, 6, 7, 8, 12] {
            for bit in 0..8 {
                let mut bad = good.clone();
                bad[IP + at] ^= 1 << bit;
                assert_eq!(read(&bad), Err(Discard::Checksum), "byte {at}, bit {bit}");
            }
        }
    }
}

/// RFC 9568 5.2.8 for version 3 on IPv4 is read in two ways, with the pseudo header (keepalived, FRR)
/// and without: both are accepted. Version 2 has one (RFC 3768 5.3.8).
#[test]
fn rfc9568_5_2_8_both_readings_of_the_checksum() {
    for reading in [
        ChecksumReading::WithPseudoHeader,
        ChecksumReading::MessageOnly,
    ] {
        let packet = packet(Version::V3, reading);
        let received = parse_ipv4(&packet, Destination::Multicast).unwrap();
        assert_eq!(received.checksum, reading);
    }
    // The sum of version 2 with a pseudo header on top, as keepalived discards it.
    let mut wrong = packet(Version::V2, ChecksumReading::MessageOnly);
    let length = u16::try_from(wrong.len() - IP).unwrap().to_be_bytes();
    let pseudo = [&wrong[12..20], &[0, 112], &length].concat();
    wrong[IP + 6..IP + 8].fill(0);
    let checksum = sum(&[&pseudo, &wrong[IP..]]);
    wrong[IP + 6..IP + 8].copy_from_slice(&checksum.to_be_bytes());
    assert_eq!(read(&wrong), Err(Discard::Checksum));
}

/// VRIDs go from 1 to 255 (RFC 9568 5.2.3).
#[test]
fn rfc9568_5_2_3_vrid_zero() {
    for version in BOTH {
        let fate = |vrid| fate(version, |it: &mut Vec<u8>| it[IP + 1] = vrid);
        assert_eq!(fate(0), Err(Discard::ZeroVrid));
        assert_eq!(fate(1), Ok(()));
        assert_eq!(fate(255), Ok(()));
    }
}

/// "MUST perform authentication specified by Auth Type" (RFC 3768 7.1): of those that RFC 2338 5.3.6
/// had, a password is read, and whether it is the right one is for the virtual router to say.
#[test]
fn rfc3768_7_1_authentication_type() {
    assert_eq!(fate(Version::V2, |it| it[IP + 4] = 1), Ok(()));
    for kind in [2, 9, 255] {
        let change = |it: &mut Vec<u8>| it[IP + 4] = kind;
        assert_eq!(fate(Version::V2, change), Err(Discard::Authentication));
    }
}

/// The reserved bits of version 3 are ignored (RFC 9568 5.2.6).
#[test]
fn rfc9568_5_2_6_reserved_bits_are_ignored() {
    let mut packet = packet(Version::V3, ChecksumReading::WithPseudoHeader);
    packet[IP + 4] |= 0xf0;
    mend(&mut packet);
    let received = parse_ipv4(&packet, Destination::Multicast).unwrap();
    assert_eq!(received.advertisement.interval, Centiseconds::SECOND);
}

/// RFC 9568 5.1.1.2: to the group and nowhere else.
#[test]
fn rfc9568_5_1_1_2_destination_other_than_the_group() {
    for version in BOTH {
        for destination in [[192, 168, 1, 12], [224, 0, 0, 1], [255; 4]] {
            let change = |it: &mut Vec<u8>| it[16..20].copy_from_slice(&destination);
            assert_eq!(fate(version, change), Err(Discard::Destination));
        }
    }
}

/// RFC 9568 5.1.1.4: protocol 112. A raw socket gets no other, unless it was opened for it.
#[test]
fn rfc9568_5_1_1_4_protocol_other_than_112() {
    for version in BOTH {
        let change = |it: &mut Vec<u8>| it[9] = 51;
        assert_eq!(fate(version, change), Err(Discard::Protocol));
    }
}

/// RFC 791: what the kernel lets through all the same.
#[test]
fn rfc791_3_1_header_that_is_none() {
    for version in BOTH {
        let change = |it: &mut Vec<u8>| it[0] = 0x65;
        assert_eq!(fate(version, change), Err(Discard::IpHeader));
        let change = |it: &mut Vec<u8>| it[0] = 0x44;
        assert_eq!(fate(version, change), Err(Discard::IpHeader));
        let change = |it: &mut Vec<u8>| it[6] = 0x20;
        assert_eq!(fate(version, change), Err(Discard::Fragment));
        let mut packet = packet(version, ChecksumReading::WithPseudoHeader);
        packet[1] ^= 0xff;
        assert_eq!(read(&packet), Err(Discard::IpChecksum));
    }
}

/// Options are no reason to discard: keepalived accepts them, too.
#[test]
fn rfc791_3_1_options_are_accepted() {
    for version in BOTH {
        let mut packet = packet(version, ChecksumReading::WithPseudoHeader);
        // A router alert, and a header longer by it.
        packet.splice(IP..IP, [0x94, 4, 0, 0]);
        packet[0] = 0x46;
        let total = u16::try_from(packet.len()).unwrap();
        packet[2..4].copy_from_slice(&total.to_be_bytes());
        packet[10..12].fill(0);
        let ip = sum(&[&packet[..IP + 4]]);
        packet[10..12].copy_from_slice(&ip.to_be_bytes());
        assert_eq!(read(&packet), Ok(()));
    }
}

/// "MUST verify that the Max Advertise Interval is non zero" (RFC 9568 7.1, erratum 8301): it would make a
/// Backup rise at once. Version 2 has none either (RFC 3768 5.3.7).
#[test]
fn rfc9568_7_1_interval_zero() {
    for version in BOTH {
        // Version 2 has the authentication type before it, version 3 the reserved bits, which do not count.
        for before in [0, 0xf0] {
            let change = |it: &mut Vec<u8>| {
                it[IP + 4] = if version == Version::V3 { before } else { 0 };
                it[IP + 5] = 0;
            };
            assert_eq!(fate(version, change), Err(Discard::ZeroInterval));
        }
    }
}
