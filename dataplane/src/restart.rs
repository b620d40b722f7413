//! How long to wait before a process that ended is started again.

use std::time::{Duration, Instant};

/// A proxy that lived so long did not crash at its start.
const PROXY_SETTLED: Duration = Duration::from_secs(10);
/// After the proxy's death vrrp leaves the address in place, 120 ms at most, so that clients are
/// refused rather than ignored until the next host has it. A listener opened meanwhile would take
/// connections that die with the address. The host takes back after 3 s at the earliest anyway.
const PROXY_FIRST_WAIT: Duration = Duration::from_millis(150);
/// Longest wait before the proxy is started again.
const PROXY_WAIT: Duration = Duration::from_secs(5);

/// What is waited for.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// A process that lived so long did not crash at its start.
    pub settled_after: Duration,
    /// Before it is started again after its first end.
    pub first: Duration,
    /// The longest.
    pub longest: Duration,
}

/// Of a proxy.
pub const PROXY: Waits = Waits {
    settled_after: PROXY_SETTLED,
    first: PROXY_FIRST_WAIT,
    longest: PROXY_WAIT,
};

/// Starts and ends of a process that is started again and again.
#[derive(Debug)]
pub struct Restarts {
    waits: Waits,
    started: Instant,
    quick_ends: u32,
}

impl Restarts {
    /// Of a process that was not started yet.
    pub fn new(waits: Waits) -> Self {
        Self {
            waits,
            started: Instant::now(),
            quick_ends: 0,
        }
    }

    /// It was started just now.
    pub fn started(&mut self) {
        self.started = Instant::now();
    }

    /// It ended just now. How long to wait before the next start: at first what is given, then
    /// 100 ms at least, doubled each time it ends soon after its start.
    pub fn ended(&mut self) -> Duration {
        if self.started.elapsed() >= self.waits.settled_after {
            self.quick_ends = 0;
        }
        let wait = backoff(self.quick_ends, self.waits.longest).max(self.waits.first);
        self.quick_ends = self.quick_ends.saturating_add(1);
        wait
    }
}

fn backoff(quick_ends: u32, longest: Duration) -> Duration {
    match quick_ends {
        0 => Duration::ZERO,
        more => {
            (Duration::from_millis(100) * 2_u32.saturating_pow(more - 1).min(1 << 10)).min(longest)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_loop_slows_down() {
        let waits: Vec<u128> = (0..9)
            .map(|ends| backoff(ends, Duration::from_secs(5)).as_millis())
            .collect();
        assert_eq!(waits, [0, 100, 200, 400, 800, 1600, 3200, 5000, 5000]);
        assert_eq!(
            backoff(u32::MAX, Duration::from_secs(1)),
            Duration::from_secs(1)
        );
    }

    #[test]
    fn one_that_settled_is_started_again_soon() {
        let mut restarts = Restarts::new(Waits {
            settled_after: Duration::ZERO,
            ..PROXY
        });
        let mut loops = Restarts::new(PROXY);
        for _ in 0..3 {
            assert_eq!(restarts.ended(), PROXY_FIRST_WAIT);
        }
        let waits: Vec<_> = (0..4).map(|_| loops.ended().as_millis()).collect();
        assert_eq!(waits, [150, 150, 200, 400]);
    }
}
