//! Replays the fuzz corpus: every file through every decoder, and the named ones against what they
//! must give. `keepalived-*` were captured from Debian's keepalived 2.2.7 on a veth pair, `*frr-*` from
//! its FRR 8.4.4; `forged-*` are one of the former with the named defect and otherwise correct checksums.
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    reason = "helpers of tests"
)]

use std::{fs, path::PathBuf};

use vrrp::{
    Discard, Version, wire,
    wire::{Advertisement, Arp, Destination, Neighbour},
};

#[path = "../../fuzz/src/laws/wire.rs"]
#[expect(
    unreachable_pub,
    reason = "the fuzz targets see it as a crate of its own"
)]
mod laws;

fn corpus(target: &str) -> Vec<(String, Vec<u8>)> {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut files: Vec<_> = fs::read_dir(&folder)
        .unwrap_or_else(|error| panic!("cannot list {}: {error}", folder.display()))
        .map(|entry| {
            let path = entry.unwrap().path();
            let name = path.file_stem().unwrap().to_string_lossy().into_owned();
            (name, fs::read(&path).unwrap())
        })
        .collect();
    files.sort();
    assert!(!files.is_empty(), "no corpus in {}", folder.display());
    files
}

fn check(
    target: &str,
    decode: impl Fn(&[u8]) -> Result<(), Discard>,
    expected: &[(&str, Result<(), Discard>)],
) {
    let files = corpus(target);
    for (name, outcome) in expected {
        let (_, bytes) = files
            .iter()
            .find(|(file, _)| file == name)
            .unwrap_or_else(|| panic!("{target}/{name}.bin is missing"));
        assert_eq!(decode(bytes), *outcome, "{target}/{name}");
    }
    let unnamed = files
        .iter()
        .find(|(file, _)| !expected.iter().any(|(name, _)| name == file));
    assert_eq!(unnamed, None, "{target}: file without an expected outcome");
}

/// Outcomes common to both versions.
const COMMON: [(&str, Result<(), Discard>); 12] = [
    ("keepalived-priority-0", Ok(())),
    ("keepalived-priority-50", Ok(())),
    ("keepalived-priority-100-two-addresses", Ok(())),
    ("forged-priority-255", Ok(())),
    ("forged-interval-0", Err(Discard::ZeroInterval)),
    ("forged-checksum", Err(Discard::Checksum)),
    ("forged-truncated", Err(Discard::Truncated)),
    ("forged-trailing-bytes", Err(Discard::TrailingBytes)),
    ("forged-count-too-large", Err(Discard::Truncated)),
    ("forged-count-zero", Err(Discard::NoAddress)),
    ("forged-vrid-0", Err(Discard::ZeroVrid)),
    ("forged-type-2", Err(Discard::Type)),
];
const COMMON_2: [(&str, Result<(), Discard>); 2] = [
    ("forged-version-4", Err(Discard::UnknownVersion)),
    ("forged-empty", Err(Discard::Truncated)),
];
const V2: [(&str, Result<(), Discard>); 3] = [
    ("keepalived-password", Ok(())),
    ("forged-authentication-9", Err(Discard::Authentication)),
    ("forged-checksum-with-pseudo-header", Err(Discard::Checksum)),
];
const V3: [(&str, Result<(), Discard>); 2] = [
    ("forged-checksum-without-pseudo-header", Ok(())),
    ("forged-reserved-bits", Ok(())),
];

/// RFC 3768 section 7.1.
#[test]
fn version_2() {
    let decode = |bytes: &[u8]| Advertisement::parse(bytes, laws::ENDS).map(|_| ());
    check(
        "advertisement_v2",
        decode,
        &[&COMMON[..], &COMMON_2, &V2].concat(),
    );
}

/// RFC 9568 section 7.1.
#[test]
fn version_3() {
    let decode = |bytes: &[u8]| Advertisement::parse(bytes, laws::ENDS).map(|_| ());
    check(
        "advertisement_v3",
        decode,
        &[&COMMON[..], &COMMON_2, &V3].concat(),
    );
}

/// RFC 9568 section 7.1, from the IP header on.
#[test]
fn ipv4() {
    let v2 = [&COMMON[..], &COMMON_2, &V2].concat();
    let v3 = [&COMMON[..], &COMMON_2, &V3].concat();
    let named = |version: &str, expected: &[(&str, Result<(), Discard>)]| {
        expected
            .iter()
            .map(|(name, outcome)| (format!("{version}-{name}"), *outcome))
            .collect::<Vec<_>>()
    };
    let owned = [named("v2", &v2), named("v3", &v3)].concat();
    let mut expected: Vec<_> = owned
        .iter()
        .map(|(name, outcome)| (name.as_str(), *outcome))
        .collect();
    expected.extend([
        ("v2-frr-priority-120", Ok(())),
        ("v2-frr-priority-0", Ok(())),
        ("v3-frr-priority-120", Ok(())),
        ("v3-frr-priority-0", Ok(())),
        ("forged-ttl-254", Err(Discard::Ttl)),
        ("forged-protocol-51", Err(Discard::Protocol)),
        ("forged-ip-checksum", Err(Discard::IpChecksum)),
        ("forged-fragment", Err(Discard::Fragment)),
        ("forged-dont-fragment", Ok(())),
        ("forged-header-length-16", Err(Discard::IpHeader)),
        ("forged-header-length-60", Err(Discard::IpHeader)),
        ("forged-ip-version-6", Err(Discard::IpHeader)),
        ("forged-total-length-too-large", Err(Discard::Truncated)),
        ("forged-ethernet-padding", Ok(())),
        ("forged-router-alert", Ok(())),
        ("forged-unicast", Err(Discard::Destination)),
    ]);
    let decode = |bytes: &[u8]| wire::parse_ipv4(bytes, Destination::Multicast).map(|_| ());
    check("ipv4", decode, &expected);
}

/// RFC 9568 section 7.1, from the IPv6 header on.
#[test]
fn ipv6() {
    let decode = |bytes: &[u8]| wire::parse_ipv6(bytes, Destination::Multicast).map(|_| ());
    let expected = [
        ("frr-priority-100", Ok(())),
        ("frr-priority-0", Ok(())),
        ("forged-reserved-bits", Ok(())),
        ("forged-version-2", Err(Discard::UnknownVersion)),
        ("forged-empty", Err(Discard::Truncated)),
        ("forged-hop-limit-254", Err(Discard::Ttl)),
        ("forged-protocol-51", Err(Discard::Protocol)),
        ("forged-extension-header", Err(Discard::Protocol)),
        ("forged-ip-version-4", Err(Discard::IpHeader)),
        ("forged-payload-length-too-large", Err(Discard::Truncated)),
        ("forged-ethernet-padding", Ok(())),
        ("forged-unicast", Err(Discard::Destination)),
        (
            "forged-checksum-without-pseudo-header",
            Err(Discard::Checksum),
        ),
    ];
    check("ipv6", decode, &[&COMMON[..], &expected].concat());
}

/// RFC 4861 section 7.1.
#[test]
fn neighbour() {
    let decode = |bytes: &[u8]| Neighbour::parse_frame(bytes).map(|_| ());
    check(
        "neighbour",
        decode,
        &[
            ("keepalived-unsolicited", Ok(())),
            ("keepalived-unsolicited-link-local", Ok(())),
            ("frr-unsolicited", Ok(())),
            ("frr-unsolicited-link-local", Ok(())),
            ("kernel-router-solicitation", Err(Discard::Truncated)),
            ("forged-solicitation", Ok(())),
            ("forged-without-option", Ok(())),
            ("forged-other-option-first", Ok(())),
            ("forged-padded", Ok(())),
            ("forged-option-of-no-length", Err(Discard::NeighbourKind)),
            ("forged-option-too-long", Err(Discard::Truncated)),
            ("forged-code-1", Err(Discard::NeighbourKind)),
            ("forged-multicast-target", Err(Discard::NeighbourKind)),
            ("forged-hop-limit-254", Err(Discard::Ttl)),
            ("forged-checksum", Err(Discard::Checksum)),
            ("forged-ethertype-ipv4", Err(Discard::NotNeighbour)),
            ("forged-truncated", Err(Discard::Truncated)),
        ],
    );
}

/// RFC 826.
#[test]
fn arp() {
    let decode = |bytes: &[u8]| Arp::parse_frame(bytes).map(|_| ());
    check(
        "arp",
        decode,
        &[
            ("keepalived-gratuitous", Ok(())),
            ("forged-padded", Ok(())),
            ("forged-reply", Ok(())),
            ("forged-operation-3", Err(Discard::ArpKind)),
            ("forged-hardware-type-6", Err(Discard::ArpKind)),
            ("forged-ethertype-ipv4", Err(Discard::NotArp)),
            ("forged-truncated", Err(Discard::Truncated)),
        ],
    );
}

/// Every file through every decoder, whole and cut short at every length: nothing panics and the
/// laws of the fuzz targets hold.
#[test]
fn every_decoder_survives_every_file() {
    for target in [
        "advertisement_v2",
        "advertisement_v3",
        "ipv4",
        "ipv6",
        "arp",
        "neighbour",
    ] {
        for (_, bytes) in corpus(target) {
            for end in 0..=bytes.len() {
                laws::advertisement(&bytes[..end], Version::V2);
                laws::advertisement(&bytes[..end], Version::V3);
                laws::ipv4(&bytes[..end]);
                laws::ipv6(&bytes[..end]);
                laws::arp(&bytes[..end]);
                laws::neighbour(&bytes[..end]);
            }
        }
    }
}
