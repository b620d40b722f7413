//! Messages of the control stream to a node.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::stream::to_node(bytes));
