//! Requests of clients in streams of HTTP/2.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::http2::request(bytes));
