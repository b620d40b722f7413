//! Clocks that all processes of the host share.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::time::{ClockId, clock_getres, clock_gettime};

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

/// How fine timers of `CLOCK_MONOTONIC` are: a nanosecond with high-resolution timers, else the kernel's
/// tick (time(7)).
pub fn resolution() -> Duration {
    // The call cannot fail for this clock.
    clock_getres(ClockId::CLOCK_MONOTONIC).map_or(Duration::ZERO, Duration::from)
}

/// Milliseconds since the Unix epoch; zero before it.
pub fn unix_ms(time: SystemTime) -> u64 {
    let since = time.duration_since(UNIX_EPOCH);
    since.map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(0))
}

/// Now, in milliseconds since the Unix epoch.
pub fn now_unix_ms() -> u64 {
    unix_ms(SystemTime::now())
}
