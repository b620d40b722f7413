//! The clock that all processes of the host share.

use nix::time::{ClockId, clock_gettime};

/// Nanoseconds of `CLOCK_MONOTONIC`: the same in every process of the host, untouched by clock
/// steps, so it may be written to a shared page and compared on the other side.
pub fn monotonic_ns() -> u64 {
    // The call cannot fail for this clock; zero would only look like a very old beat.
    clock_gettime(ClockId::CLOCK_MONOTONIC).map_or(0, |now| {
        let seconds = u64::try_from(now.tv_sec()).unwrap_or(0);
        let nanos = u64::try_from(now.tv_nsec()).unwrap_or(0);
        seconds * 1_000_000_000 + nanos
    })
}
