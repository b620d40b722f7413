//! What must hold for any bytes given to a decoder of what is heard on the segment.

use std::net::Ipv4Addr;

use vrrp::{
    Discard, Version,
    wire::{
        Advertisement, Arp, Destination, Ends, GROUP_V4, GROUP_V6, Mac, Neighbour, emit_ipv4,
        emit_ipv6, parse_ipv4, parse_ipv6,
    },
};

/// Sender of the captured packets: the pseudo header needs it.
pub const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
/// Ends of the captured packets.
pub const ENDS: Ends = Ends::V4 {
    source: SOURCE,
    destination: GROUP_V4,
};
const LONGEST: usize = 2048;

/// Payload of an IP packet, as `version` or as it is, with its own checksum or a correct one.
pub fn advertisement(bytes: &[u8], version: Version) {
    check_advertisement(bytes);
    let mut copy = bytes.to_vec();
    if let Some(first) = copy.first_mut() {
        *first = version.get() << 4 | 1;
    }
    correct(&mut copy, 6, version == Version::V3);
    let parsed = Advertisement::parse(&copy, ENDS);
    assert_ne!(
        parsed.err(),
        Some(Discard::Checksum),
        "the checksum was corrected"
    );
    check_advertisement(&copy);
}

fn check_advertisement(bytes: &[u8]) {
    let Ok((advertisement, reading)) = Advertisement::parse(bytes, ENDS) else {
        return;
    };
    assert!(!advertisement.addresses.is_empty());
    let mut buffer = [0xaa; LONGEST];
    let written = advertisement.emit(&mut buffer, ENDS, reading);
    let Ok(len) = written else {
        panic!("what was read cannot be written: {written:?}");
    };
    assert_eq!(len, bytes.len());
    let again = Advertisement::parse(&buffer[..len], ENDS);
    assert_eq!(again, Ok((advertisement, reading)));
    // Addresses are copied as they are; so is all before them but reserved bits and checksum.
    assert_eq!(buffer[1..4], bytes[1..4]);
    let addresses = 8..8 + 4 * advertisement.addresses.len();
    assert_eq!(buffer[addresses.clone()], bytes[addresses]);
}

/// A packet from its IPv4 header on, with its own checksum or a correct one.
pub fn ipv4(bytes: &[u8]) {
    check_ipv4(bytes);
    let mut copy = bytes.to_vec();
    let header_len = usize::from(copy.first().copied().unwrap_or(0) & 0x0f) * 4;
    if let Some(header) = copy.get_mut(..header_len) {
        correct(header, 10, false);
    }
    check_ipv4(&copy);
}

fn check_ipv4(bytes: &[u8]) {
    for expected in [Destination::Multicast, Destination::Unicast] {
        let Ok(received) = parse_ipv4(bytes, expected) else {
            continue;
        };
        let (std::net::IpAddr::V4(source), std::net::IpAddr::V4(destination)) =
            (received.source, received.destination)
        else {
            panic!("an IPv4 packet has IPv4 ends");
        };
        assert_eq!(destination == GROUP_V4, expected == Destination::Multicast);
        let mut buffer = [0xaa; LONGEST];
        if let Ok(len) = emit_ipv4(
            &mut buffer,
            source,
            destination,
            7,
            &received.advertisement,
            received.checksum,
        ) {
            assert_eq!(parse_ipv4(&buffer[..len], expected), Ok(received));
        }
    }
}

/// A packet from its IPv6 header on, with its own checksum or a correct one.
pub fn ipv6(bytes: &[u8]) {
    check_ipv6(bytes);
    let mut copy = bytes.to_vec();
    if let Some((header, payload)) = copy.split_at_mut_checked(40) {
        correct_ipv6(header, payload, 6, 112);
    }
    check_ipv6(&copy);
}

fn check_ipv6(bytes: &[u8]) {
    for expected in [Destination::Multicast, Destination::Unicast] {
        let Ok(received) = parse_ipv6(bytes, expected) else {
            continue;
        };
        let (std::net::IpAddr::V6(source), std::net::IpAddr::V6(destination)) =
            (received.source, received.destination)
        else {
            panic!("an IPv6 packet has IPv6 ends");
        };
        assert_eq!(destination == GROUP_V6, expected == Destination::Multicast);
        // Longer than any that a socket hands over, and than any that is sent.
        let mut buffer = [0xaa; 40 + 8 + 255 * 16];
        if let Ok(len) = emit_ipv6(&mut buffer, source, destination, &received.advertisement) {
            assert_eq!(parse_ipv6(&buffer[..len], expected), Ok(received));
        }
    }
}

/// An Ethernet frame, with its own checksum or a correct one.
pub fn neighbour(bytes: &[u8]) {
    check_neighbour(bytes);
    let mut copy = bytes.to_vec();
    if let Some((head, message)) = copy.split_at_mut_checked(54) {
        correct_ipv6(&head[14..], message, 2, 58);
    }
    check_neighbour(&copy);
}

fn check_neighbour(bytes: &[u8]) {
    let Ok(told) = Neighbour::parse_frame(bytes) else {
        return;
    };
    assert!(!told.target.is_multicast());
    let mut buffer = [0xaa; 96];
    let source = Mac([2, 0, 0, 0, 0, 1]);
    let len = told
        .emit_frame(&mut buffer, source, Mac::BROADCAST)
        .unwrap();
    assert_eq!(Neighbour::parse_frame(&buffer[..len]), Ok(told));
}

/// Sets the checksum field at `at` of what the header says is the payload.
fn correct_ipv6(header: &[u8], payload: &mut [u8], at: usize, protocol: u8) {
    let len = usize::from(u16::from_be_bytes([header[4], header[5]]));
    let Some(payload) = payload.get_mut(..len) else {
        return;
    };
    if payload.len() < at + 2 {
        return;
    }
    payload[at..at + 2].fill(0);
    let pseudo_header = [&header[8..40], &header[4..6], &[0, protocol]].concat();
    let sum = !fold(words(&pseudo_header) + words(payload));
    payload[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

/// An Ethernet frame.
pub fn arp(bytes: &[u8]) {
    let Ok(arp) = Arp::parse_frame(bytes) else {
        return;
    };
    let mut buffer = [0xaa; 64];
    let source = Mac([2, 0, 0, 0, 0, 1]);
    let len = arp.emit_frame(&mut buffer, source, Mac::BROADCAST).unwrap();
    assert_eq!(Arp::parse_frame(&buffer[..len]), Ok(arp));
    assert_eq!(buffer[12..len], bytes[12..len]);
}

/// Sets the checksum field at `at`, with the pseudo header of [`ENDS`] where asked.
fn correct(bytes: &mut [u8], at: usize, pseudo_header: bool) {
    let len = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
    let Some(field) = bytes.get_mut(at..at + 2) else {
        return;
    };
    field.fill(0);
    let mut sum = words(bytes);
    if pseudo_header {
        for word in [0xc0a8, 0x010b, 0xe000, 0x0012, 112, u64::from(len)] {
            sum += word;
        }
    }
    let sum = !fold(sum);
    bytes[at..at + 2].copy_from_slice(&sum.to_be_bytes());
}

fn words(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|word| u64::from(word[0]) << 8 | word.get(1).map_or(0, |low| u64::from(*low)))
        .sum()
}

fn fold(mut sum: u64) -> u16 {
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}
