//! A packet from its IPv6 header on.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::wire::ipv6(bytes));
