//! Messages of the control stream to a controller.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| dataplane_fuzz::laws::stream::to_controller(bytes));
