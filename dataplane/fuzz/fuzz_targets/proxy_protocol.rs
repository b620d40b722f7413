//! Headers of the PROXY protocol.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::proxy_protocol::bytes(bytes));
