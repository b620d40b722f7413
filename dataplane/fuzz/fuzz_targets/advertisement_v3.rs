//! Payload of an IP packet, read as version 3.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::wire::advertisement(bytes, vrrp::Version::V3));
