//! Formats of ARP and neighbour discovery against bytes captured from keepalived 2.2.7, and what they claim.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hex_literal::hex;
use proptest::prelude::*;
use vrrp::wire::{
    Arp, Mac, Neighbour,
    arp::Operation,
    neighbour::{self, ALL_NODES, Kind},
    resolution,
};

/// Gratuitous ARP for 192.168.1.112.
const ARP: [u8; 42] =
    hex!("ffffffffffff9ed2dc3ce13c080600010800060400019ed2dc3ce13cc0a80170ffffffffffffc0a80170");

/// Unsolicited neighbour advertisement for `fd00:1::112`.
const NEIGHBOUR: [u8; 86] = hex!(
    "3333000000010200c0a8010b86dd6000000000203afffd000001000000000000000000000112ff02000000000000
     0000000000000001880096c420000000fd00000100000000000000000000011202010200c0a8010b"
);

#[test]
fn gratuitous_arp_as_keepalived_sends_it() {
    let mac = Mac([0x9e, 0xd2, 0xdc, 0x3c, 0xe1, 0x3c]);
    let arp = Arp::gratuitous(mac, Ipv4Addr::new(192, 168, 1, 112));
    let mut buffer = [0xaa; 60];
    let len = arp.emit_frame(&mut buffer, mac, Mac::BROADCAST).unwrap();
    assert_eq!(buffer[..len], ARP);
    let parsed = Arp::parse_frame(&ARP).unwrap();
    assert_eq!(parsed, arp);
    assert!(parsed.is_gratuitous());
    assert_eq!(parsed.operation, Operation::Request);
    assert_eq!(mac.to_string(), "9e:d2:dc:3c:e1:3c");
}

/// RFC 4861 section 7.2.6, as keepalived sends it: override only, the target's link-layer address,
/// from the address itself to all nodes.
#[test]
fn an_unsolicited_neighbour_advertisement_is_that_of_the_standard() {
    let mac = Mac([0x02, 0, 0xc0, 0xa8, 0x01, 0x0b]);
    let address = "fd00:1::112".parse().unwrap();
    let told = Neighbour::unsolicited(mac, address);
    let mut buffer = [0xaa; neighbour::FRAME_LEN];
    let all = Mac::of_group(ALL_NODES);
    assert_eq!(all.to_string(), "33:33:00:00:00:01");
    let len = told.emit_frame(&mut buffer, mac, all).unwrap();
    assert_eq!(buffer[..len], NEIGHBOUR);
    assert_eq!(Neighbour::parse_frame(&buffer), Ok(told));
}

/// RFC 4861 section 7.2.2: asked in the group of whoever has the target, with the sender's own address
/// and where that is, so that the answer comes to the sender alone.
#[test]
fn a_solicitation_claims_nothing_but_its_source() {
    let address = Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0xab12, 0x3456);
    let (mac, source) = (Mac([2; 6]), "fe80::1".parse().unwrap());
    let mut buffer = [0xaa; resolution::FRAME_LEN];
    let len = resolution::question(&mut buffer, mac, source, address.into()).unwrap();
    let parsed = Neighbour::parse_frame(&buffer[..len]).unwrap();
    assert_eq!(parsed, Neighbour::solicitation(mac, source, address));
    assert_eq!(parsed.destination.to_string(), "ff02::1:ff12:3456");
    assert_eq!(buffer[..6], [0x33, 0x33, 0xff, 0x12, 0x34, 0x56]);
    let claim = resolution::claim(&buffer[..len]);
    assert_eq!(claim, Ok(Some((source.into(), mac))));
}

/// RFC 5227 section 1.1 and RFC 4862 section 5.4.2.
#[test]
fn who_looks_for_duplicates_claims_nothing() {
    let mac = Mac([2; 6]);
    let mut buffer = [0xaa; resolution::FRAME_LEN];
    let address = Ipv4Addr::new(192, 168, 1, 110);
    let none = Ipv6Addr::UNSPECIFIED;
    let len = resolution::question(&mut buffer, mac, none, address.into()).unwrap();
    assert_eq!(Arp::parse_frame(&buffer), Ok(Arp::probe(mac, address)));
    assert_eq!(resolution::claim(&buffer[..len]), Ok(None));
    let address = "fd00:1::112".parse().unwrap();
    let question = Neighbour {
        mac: None,
        ..Neighbour::solicitation(mac, none, address)
    };
    let len = question.emit_frame(&mut buffer, mac, mac).unwrap();
    assert_eq!(resolution::claim(&buffer[..len]), Ok(None));
}

#[test]
fn who_announces_an_address_claims_it() {
    let mac = Mac([2; 6]);
    for address in ["192.168.1.110", "fd00:1::112"] {
        let address: IpAddr = address.parse().unwrap();
        let mut buffer = [0xaa; resolution::FRAME_LEN];
        let len = resolution::announcement(&mut buffer, mac, address).unwrap();
        let claim = resolution::claim(&buffer[..len]);
        assert_eq!(claim, Ok(Some((address, mac))));
    }
}

proptest! {
    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(Arp::parse_frame(&bytes).is_err());
        prop_assert!(Neighbour::parse_frame(&bytes).is_err());
    }

    #[test]
    fn neighbour_round_trip(
        flags: Option<(bool, bool, bool)>,
        source: Ipv6Addr,
        destination: Ipv6Addr,
        target: Ipv6Addr,
        mac: Option<[u8; 6]>,
        padding in 0..9_usize,
        bit in 0..192_usize,
    ) {
        prop_assume!(!target.is_multicast());
        let kind = flags.map_or(Kind::Solicitation, |(is_router, is_solicited, overrides)| {
            Kind::Advertisement { is_router, is_solicited, overrides }
        });
        let mac = mac.map(Mac);
        let message = Neighbour { kind, source, destination, target, mac };
        let mut buffer = [0; neighbour::FRAME_LEN + 8];
        let from = Mac([2, 0, 0, 0, 0, 1]);
        let len = message.emit_frame(&mut buffer, from, Mac::BROADCAST).unwrap();
        prop_assert_eq!(Neighbour::parse_frame(&buffer[..len + padding.min(8)]), Ok(message));
        buffer[54 + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(Neighbour::parse_frame(&buffer[..len]).is_err());
    }

    #[test]
    fn arp_round_trip(sender: [u8; 6], target: [u8; 6], from: Ipv4Addr, to: Ipv4Addr, reply: bool) {
        let arp = Arp {
            operation: if reply { Operation::Reply } else { Operation::Request },
            sender_mac: Mac(sender),
            sender: from,
            target_mac: Mac(target),
            target: to,
        };
        let mut buffer = [0; 60];
        arp.emit_frame(&mut buffer, Mac(sender), Mac::BROADCAST).unwrap();
        prop_assert_eq!(Arp::parse_frame(&buffer), Ok(arp));
    }
}
