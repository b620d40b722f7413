//! Formats of advertisements against bytes captured from keepalived 2.2.7 and FRR 8.4.4, in both directions, and the laws of the
//! checksum.
#![allow(clippy::unwrap_used, reason = "helpers of tests")]

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use hex_literal::hex;
use proptest::prelude::*;
use vrrp::{
    Advertisement, Authentication, Centiseconds, Discard, Family, Password, Priority, Version,
    Vrid,
    wire::{
        AddressList, ChecksumReading, Destination, EmitError, Ends, GROUP_V4, GROUP_V6, Mac,
        advertisement, emit, emit_frame, emit_ipv4, emit_ipv6, ipv4, ipv6, parse, parse_ipv4,
        parse_ipv6,
    },
};

const SOURCE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);

/// Version 3, VRID 51, priority 50, 100 ms, 192.168.1.110.
const V3: [u8; 32] = hex!("45c0002000010000ff7018e7c0a8010be000001231333201000a3868c0a8016e");
/// Version 2, VRID 52, priority 100, 1 s, 192.168.1.112 and 192.168.1.113.
const V2: [u8; 44] = hex!(
    "45c0002c00010000ff7018dbc0a8010be0000012213464020001f695c0a80170c0a801710000000000000000"
);
fn v4(last: u8) -> IpAddr {
    IpAddr::from([192, 168, 1, last])
}

fn advertise(
    version: Version,
    vrid: u8,
    priority: u8,
    interval: u16,
    addresses: &[IpAddr],
) -> Advertisement<'_> {
    Advertisement {
        version,
        vrid: Vrid::new(vrid).unwrap(),
        priority: Priority::new(priority),
        interval: Centiseconds::new(interval).unwrap(),
        authentication: Authentication::None,
        addresses: AddressList::from_slice(addresses),
    }
}

/// RFC 9568 sections 7.2 and 7.3, RFC 1112 section 6.4, RFC 2464 section 7.
#[test]
fn frames_go_from_the_virtual_routers_hardware_address_to_the_group() {
    let vrid = Vrid::new(51).unwrap();
    let mut buffer = [0; 128];
    let addresses = [v4(110)];
    let advertisement = advertise(Version::V3, 51, 50, 10, &addresses);
    let mac = Mac::of_virtual_router(vrid, Family::V4);
    let ends = Ends::to_group(SOURCE.into());
    let reading = ChecksumReading::WithPseudoHeader;
    let length = emit_frame(&mut buffer, mac, ends, 1, &advertisement, reading).unwrap();
    assert_eq!(buffer[..14], hex!("01005e00001200005e0001330800"));
    assert_eq!(buffer[14..length], V3);

    let addresses = ["fe80::110".parse().unwrap()];
    let advertisement = advertise(Version::V3, 51, 50, 10, &addresses);
    let mac = Mac::of_virtual_router(vrid, Family::V6);
    let ends = Ends::to_group("fe80::1".parse().unwrap());
    let length = emit_frame(&mut buffer, mac, ends, 1, &advertisement, reading).unwrap();
    assert_eq!(buffer[..14], hex!("33330000001200005e00023386dd"));
    let heard = parse_ipv6(&buffer[14..length], Destination::Multicast).unwrap();
    assert_eq!(heard.advertisement, advertisement);
    let short = emit_frame(&mut [0; 13], mac, ends, 1, &advertisement, reading);
    assert_eq!(short, Err(EmitError::BufferTooShort { need: 14, have: 13 }));
}

#[test]
fn deconstruct_v3() {
    let ip = ipv4::View::new(&V3);
    assert_eq!((ip.version(), ip.header_len(), ip.total_len()), (4, 20, 32));
    assert_eq!((ip.identification(), ip.is_fragment()), (1, false));
    assert_eq!((ip.ttl(), ip.protocol()), (255, 112));
    assert_eq!((ip.source(), ip.destination()), (SOURCE, GROUP_V4));
    let view = advertisement::View::new(&V3[20..]);
    assert_eq!((view.version(), view.packet_type()), (3, 1));
    assert_eq!((view.vrid(), view.priority()), (51, 50));
    assert_eq!(
        (view.address_count(), view.interval_centiseconds()),
        (1, 10)
    );
    assert_eq!(view.checksum(), 0x3868);
}

#[test]
fn parse_v3() {
    let received = parse_ipv4(&V3, Destination::Multicast).unwrap();
    assert_eq!(received.source, IpAddr::V4(SOURCE));
    assert_eq!(received.destination, IpAddr::V4(GROUP_V4));
    assert_eq!(received.checksum, ChecksumReading::WithPseudoHeader);
    assert_eq!(
        received.advertisement,
        advertise(Version::V3, 51, 50, 10, &[v4(110)])
    );
}

#[test]
fn emit_v3_as_keepalived_does() {
    let mut buffer = [0xaa; 64];
    let len = emit_ipv4(
        &mut buffer,
        SOURCE,
        GROUP_V4,
        1,
        &advertise(Version::V3, 51, 50, 10, &[v4(110)]),
        ChecksumReading::WithPseudoHeader,
    )
    .unwrap();
    assert_eq!(buffer[..len], V3);
}

#[test]
fn parse_v2() {
    let received = parse_ipv4(&V2, Destination::Multicast).unwrap();
    assert_eq!(received.checksum, ChecksumReading::MessageOnly);
    assert_eq!(
        received.advertisement,
        advertise(Version::V2, 52, 100, 100, &[v4(112), v4(113)])
    );
}

#[test]
fn emit_v2_as_keepalived_does() {
    let mut buffer = [0xaa; 64];
    for reading in [
        ChecksumReading::WithPseudoHeader,
        ChecksumReading::MessageOnly,
    ] {
        let len = emit_ipv4(
            &mut buffer,
            SOURCE,
            GROUP_V4,
            1,
            &advertise(Version::V2, 52, 100, 100, &[v4(112), v4(113)]),
            reading,
        )
        .unwrap();
        assert_eq!(buffer[..len], V2, "version 2 has one reading only");
    }
}

#[test]
fn checksum_without_pseudo_header_is_sent_on_request_and_accepted() {
    let mut buffer = [0; 64];
    let addresses = [v4(110)];
    let advertisement = advertise(Version::V3, 51, 50, 10, &addresses);
    let reading = ChecksumReading::MessageOnly;
    let len = emit_ipv4(&mut buffer, SOURCE, GROUP_V4, 1, &advertisement, reading).unwrap();
    assert_ne!(buffer[..len], V3);
    let received = parse_ipv4(&buffer[..len], Destination::Multicast).unwrap();
    assert_eq!(received.checksum, ChecksumReading::MessageOnly);
    assert_eq!(received.advertisement, advertisement);
}

#[test]
fn virtual_mac_of_the_standard() {
    let vrid = Vrid::new(51).unwrap();
    let v4 = Mac::of_virtual_router(vrid, Family::V4);
    assert_eq!(v4.to_string(), "00:00:5e:00:01:33");
    let v6 = Mac::of_virtual_router(vrid, Family::V6);
    assert_eq!(v6.to_string(), "00:00:5e:00:02:33");
}

/// RFC 9568 section 5.1.2: the fields of the header, and none of them as it should not be.
#[test]
fn an_advertisement_on_ipv6_has_the_header_of_the_standard() {
    let source = Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11);
    let addresses = [
        IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x51)),
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x110)),
    ];
    let advertisement = advertise(Version::V3, 51, 100, 10, &addresses);
    let mut buffer = [0xaa; 100];
    let len = emit_ipv6(&mut buffer, source, GROUP_V6, &advertisement).unwrap();
    let view = ipv6::View::new(&buffer);
    assert_eq!((view.version(), view.traffic_class()), (6, 0xc0));
    assert_eq!((view.payload_len(), len), (40, 80));
    assert_eq!((view.next_header(), view.hop_limit()), (112, 255));
    assert_eq!((view.source(), view.destination()), (source, GROUP_V6));
    // Padding of the link follows.
    let received = parse_ipv6(&buffer, Destination::Multicast).unwrap();
    assert_eq!(received.source, IpAddr::V6(source));
    assert_eq!(received.destination, IpAddr::V6(GROUP_V6));
    assert_eq!(received.advertisement, advertisement);

    let changed = |at: usize, value: u8| {
        let mut copy = buffer;
        copy[at] = value;
        parse_ipv6(&copy[..len], Destination::Multicast).map(|_| ())
    };
    assert_eq!(changed(0, 0x45), Err(Discard::IpHeader));
    assert_eq!(changed(5, 41), Err(Discard::Truncated));
    assert_eq!(changed(5, 39), Err(Discard::Truncated));
    assert_eq!(changed(6, 51), Err(Discard::Protocol));
    assert_eq!(changed(7, 254), Err(Discard::Ttl));
    assert_eq!(changed(39, 0x13), Err(Discard::Destination));
    assert_eq!(changed(23, 0x12), Err(Discard::Checksum));
    let unicast = parse_ipv6(&buffer[..len], Destination::Unicast);
    assert_eq!(unicast, Err(Discard::Destination));
}

/// Version 3, VRID 52, priority 100, 100 ms, `fe80::112` and `fd00:1::112`, from
/// `fe80::c0ff:fea8:10b`.
const V3_IPV6: [u8; 40] =
    hex!("31346402000aae36fe800000000000000000000000000112fd000001000000000000000000000112");
/// The same from FRR 8.4.4, at 300 ms, from the link-local address of the virtual MAC.
const V3_IPV6_FRR: [u8; 40] =
    hex!("31346402001e0da2fe800000000000000000000000000112fd000001000000000000000000000112");
/// All but the flow label of the header, which keepalived leaves to the kernel.
#[test]
fn emit_v3_on_ipv6_as_keepalived_does() {
    let source = "fe80::c0ff:fea8:10b".parse().unwrap();
    let addresses = ["fe80::112", "fd00:1::112"].map(|text| text.parse().unwrap());
    let advertisement = advertise(Version::V3, 52, 100, 10, &addresses);
    let mut buffer = [0xaa; 100];
    let len = emit_ipv6(&mut buffer, source, GROUP_V6, &advertisement).unwrap();
    assert_eq!(buffer[ipv6::HEADER_LEN..len], V3_IPV6);
}

/// As above, and its flow label is the kernel's, too.
#[test]
fn emit_v3_on_ipv6_as_frr_does() {
    let vrid = Vrid::new(52).unwrap();
    assert_eq!(
        Mac::of_virtual_router(vrid, Family::V6).to_string(),
        "00:00:5e:00:02:34"
    );
    let source = "fe80::200:5eff:fe00:234".parse().unwrap();
    let addresses = ["fe80::112", "fd00:1::112"].map(|text| text.parse().unwrap());
    let advertisement = advertise(Version::V3, 52, 100, 30, &addresses);
    let mut buffer = [0xaa; 100];
    let len = emit_ipv6(&mut buffer, source, GROUP_V6, &advertisement).unwrap();
    assert_eq!(buffer[ipv6::HEADER_LEN..len], V3_IPV6_FRR);
}

#[test]
fn version_3_on_ipv6_needs_the_pseudo_header() {
    let ends = Ends::V6 {
        source: Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x11),
        destination: GROUP_V6,
    };
    let addresses = [
        IpAddr::from(Ipv6Addr::new(0xfe80, 0, 0, 0, 0, 0, 0, 0x51)),
        IpAddr::from(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x110)),
    ];
    let advertisement = advertise(Version::V3, 51, 100, 10, &addresses);
    let mut buffer = [0; 64];
    let len = advertisement
        .emit(&mut buffer, ends, ChecksumReading::MessageOnly)
        .unwrap();
    assert_eq!(len, 40);
    assert_eq!(
        Advertisement::parse(&buffer[..len], ends),
        Ok((advertisement, ChecksumReading::WithPseudoHeader))
    );
    let v2 = advertise(Version::V2, 51, 100, 100, &addresses);
    assert_eq!(
        v2.emit(&mut buffer, ends, ChecksumReading::MessageOnly),
        Err(EmitError::VersionHasNoIpv6)
    );
}

#[test]
fn what_cannot_be_stated_is_not_written() {
    let ends = Ends::V4 {
        source: SOURCE,
        destination: GROUP_V4,
    };
    let addresses = [v4(110)];
    let mixed = [IpAddr::from(Ipv6Addr::LOCALHOST)];
    let many = [v4(110); 256];
    let mut buffer = [0; 2000];
    let mut emit = |advertisement: Advertisement<'_>| {
        advertisement.emit(&mut buffer, ends, ChecksumReading::default())
    };
    assert_eq!(
        emit(advertise(Version::V3, 1, 1, 4096, &addresses)),
        Err(EmitError::Interval)
    );
    assert_eq!(
        emit(advertise(Version::V2, 1, 1, 150, &addresses)),
        Err(EmitError::Interval)
    );
    assert_eq!(
        emit(advertise(Version::V3, 1, 1, 10, &mixed)),
        Err(EmitError::MixedFamilies)
    );
    assert_eq!(
        emit(advertise(Version::V3, 1, 1, 10, &many)),
        Err(EmitError::TooManyAddresses)
    );
    let short = advertise(Version::V3, 1, 1, 10, &addresses);
    assert_eq!(
        short.emit(&mut [0; 11], ends, ChecksumReading::default()),
        Err(EmitError::BufferTooShort { need: 12, have: 11 })
    );
}

fn any_advertisement() -> impl Strategy<Value = (Version, u8, u8, u16, Vec<IpAddr>)> {
    let addresses = prop::collection::vec(any::<Ipv4Addr>().prop_map(IpAddr::V4), 1..20);
    (
        any::<bool>(),
        1..=255_u8,
        any::<u8>(),
        1..=255_u16,
        addresses,
    )
        .prop_map(|(v3, vrid, priority, interval, addresses)| {
            if v3 {
                (Version::V3, vrid, priority, interval * 16, addresses)
            } else {
                (Version::V2, vrid, priority, interval * 100, addresses)
            }
        })
}

proptest! {
    #[test]
    fn what_was_written_is_read(
        (version, vrid, priority, interval, addresses) in any_advertisement(),
        source: Ipv4Addr,
        destination: Ipv4Addr,
        pseudo_header: bool,
        padding in 0..20_usize,
    ) {
        let interval = interval.min(if version == Version::V3 { 4095 } else { 25_500 });
        let advertisement = advertise(version, vrid, priority, interval, &addresses);
        let reading = if pseudo_header && version == Version::V3 {
            ChecksumReading::WithPseudoHeader
        } else {
            ChecksumReading::MessageOnly
        };
        let mut buffer = [0xaa; 512];
        let len = emit_ipv4(&mut buffer, source, destination, 1, &advertisement, reading).unwrap();
        let expected = if destination == GROUP_V4 || !destination.is_multicast() {
            let kind = if destination == GROUP_V4 { Destination::Multicast } else { Destination::Unicast };
            parse_ipv4(&buffer[..len + padding], kind)
        } else {
            return Ok(());
        };
        let received = expected.unwrap();
        prop_assert_eq!(received.source, IpAddr::V4(source));
        prop_assert_eq!(received.advertisement, advertisement);
        // Ends that sum to zero make both readings equal.
        let sums_to_zero = source.is_unspecified() && destination.is_unspecified();
        prop_assert!(received.checksum == reading || sums_to_zero);
    }

    #[test]
    fn garbage_never_panics(bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        prop_assert!(parse_ipv4(&bytes, Destination::Multicast).is_err());
        prop_assert!(parse_ipv6(&bytes, Destination::Multicast).is_err());
        let ends = Ends::V4 { source: SOURCE, destination: GROUP_V4 };
        let view = advertisement::View::new(&bytes);
        if Advertisement::parse(&bytes, ends).is_ok() {
            prop_assert!(view.checksum_reading(ends).is_some());
        }
    }

    /// One's complement sums notice every change of a single bit.
    #[test]
    fn a_flipped_bit_is_never_accepted(
        (version, vrid, priority, interval, addresses) in any_advertisement(),
        bit in 0..96_usize,
    ) {
        let interval = interval.min(if version == Version::V3 { 4095 } else { 25_500 });
        let advertisement = advertise(version, vrid, priority, interval, &addresses);
        let ends = Ends::V4 { source: SOURCE, destination: GROUP_V4 };
        let mut buffer = [0; 512];
        let len = advertisement.emit(&mut buffer, ends, ChecksumReading::default()).unwrap();
        buffer[bit / 8] ^= 1 << (bit % 8);
        let outcome = Advertisement::parse(&buffer[..len], ends);
        prop_assert!(outcome.is_err(), "{outcome:?}");
        if bit >= 32 {
            prop_assert_eq!(outcome.err(), Some(Discard::Checksum));
        }
    }

    #[test]
    fn an_advertisement_on_ipv6_is_read_as_it_was_written(
        vrid in 1..=255_u8,
        priority: u8,
        interval in 1..=4095_u16,
        addresses in prop::collection::vec(any::<Ipv6Addr>().prop_map(IpAddr::V6), 1..20),
        source: Ipv6Addr,
        padding in 0..20_usize,
        bit in 0..96_usize,
    ) {
        let advertisement = advertise(Version::V3, vrid, priority, interval, &addresses);
        let mut buffer = [0xaa; 512];
        let len = emit_ipv6(&mut buffer, source, GROUP_V6, &advertisement).unwrap();
        let received = parse_ipv6(&buffer[..len + padding], Destination::Multicast).unwrap();
        prop_assert_eq!(received.source, IpAddr::V6(source));
        prop_assert_eq!(received.advertisement, advertisement);
        buffer[40 + bit / 8] ^= 1 << (bit % 8);
        prop_assert!(parse_ipv6(&buffer[..len], Destination::Multicast).is_err());
    }
}

/// RFC 9568 section 5.2.8: the pseudo header holds the destination, so each peer gets a checksum of its
/// own.
#[test]
fn each_unicast_peer_gets_its_own_checksum() {
    let own: IpAddr = "fd00::11".parse().unwrap();
    let virtual_v6: IpAddr = "fd00::110".parse().unwrap();
    let v4 = IpAddr::from([192, 168, 1, 110]);
    let to = |source: IpAddr, destination: &str, addresses: &[IpAddr]| {
        let advertisement = advertise(Version::V3, 51, 100, 10, addresses);
        let ends = Ends::between(source, destination.parse().unwrap()).unwrap();
        let mut buffer = [0; 128];
        let reading = ChecksumReading::WithPseudoHeader;
        let len = emit(&mut buffer, ends, 1, &advertisement, reading).unwrap();
        buffer[..len].to_vec()
    };
    let checked = |packet: &[u8], expected: &str| {
        let family = if packet[0] >> 4 == 6 {
            Family::V6
        } else {
            Family::V4
        };
        assert_eq!(
            parse(packet, family, Destination::Multicast),
            Err(Discard::Destination)
        );
        for kind in [Destination::Unicast, Destination::Any] {
            let received = parse(packet, family, kind).unwrap();
            assert_eq!(received.destination.to_string(), expected);
            assert_eq!(received.checksum, ChecksumReading::WithPseudoHeader);
        }
    };
    let [twelve, thirteen] = ["fd00::12", "fd00::13"].map(|to_| to(own, to_, &[virtual_v6]));
    assert_ne!(twelve[46..48], thirteen[46..48]);
    checked(&twelve, "fd00::12");
    checked(&thirteen, "fd00::13");
    let mut misdirected = twelve;
    misdirected[39] = 0x13;
    assert_eq!(
        parse(&misdirected, Family::V6, Destination::Any),
        Err(Discard::Checksum)
    );
    let source = IpAddr::from([192, 168, 1, 11]);
    checked(&to(source, "192.168.1.12", &[v4]), "192.168.1.12");
    let group = to(source, "224.0.0.18", &[v4]);
    assert!(parse(&group, Family::V4, Destination::Any).is_ok());
    let other_group = to(source, "224.0.0.5", &[v4]);
    assert_eq!(
        parse(&other_group, Family::V4, Destination::Any),
        Err(Discard::Destination)
    );
    assert_eq!(Ends::between(source, own), None);
}

/// RFC 2338 sections 5.3.6 and 5.3.10, and what keepalived sends.
#[test]
fn version_2_carries_a_password() {
    let addresses = [IpAddr::from([192, 168, 1, 110])];
    let mut advertisement = advertise(Version::V2, 51, 100, 100, &addresses);
    advertisement.authentication = Authentication::SimplePassword(Password::new("secret").unwrap());
    let mut buffer = [0xaa; 64];
    let reading = ChecksumReading::MessageOnly;
    let len = emit_ipv4(&mut buffer, SOURCE, GROUP_V4, 1, &advertisement, reading).unwrap();
    assert_eq!(buffer[24], 1);
    assert_eq!(&buffer[len - 8..len], b"secret\0\0");
    let received = parse_ipv4(&buffer[..len], Destination::Multicast).unwrap();
    assert_eq!(received.advertisement, advertisement);
    // The checksum covers it.
    buffer[len - 8] ^= 1;
    assert_eq!(
        parse_ipv4(&buffer[..len], Destination::Multicast),
        Err(Discard::Checksum)
    );
}
