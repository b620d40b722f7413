//! Whether this host's timers keep the advertisement intervals that it was told. A Backup waits for three
//! intervals (RFC 9568 section 6.1), so that an advertisement which is late by a third of one is still far
//! from a takeover, and no accident any more.

use std::time::Duration;

/// How late a timer may be.
fn tolerance(interval: Duration) -> Duration {
    interval / 3
}

/// The warning that timers ran `delay` late, where that is too much for the shortest of `intervals`.
pub(super) fn too_late(
    delay: Duration,
    intervals: impl Iterator<Item = Duration>,
) -> Option<String> {
    let shortest = intervals.min()?;
    (delay > tolerance(shortest)).then(|| {
        format!(
            "timers of the vrrp process ran up to {} ms late in the last minute, with an \
             advertisement each {} ms: give the host more processor time, the process CAP_SYS_NICE, \
             or the pool a longer advertisementInterval",
            delay.as_millis(),
            shortest.as_millis()
        )
    })
}

/// Whether timers that are as fine as `resolution` can keep `interval`.
pub(super) fn can_keep(interval: Duration, resolution: Duration) -> bool {
    resolution <= tolerance(interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn ms(count: u64) -> Duration {
        Duration::from_millis(count)
    }

    #[test]
    fn the_shortest_interval_decides() {
        let said = |delay, intervals: &[u64]| too_late(delay, intervals.iter().copied().map(ms));
        assert_eq!(said(ms(500), &[]), None);
        assert_eq!(said(ms(33), &[100, 1000]), None);
        let said = said(ms(4), &[1000, 10]).unwrap();
        for words in ["4 ms late", "each 10 ms", "advertisementInterval"] {
            assert!(said.contains(words), "{words}: {said}");
        }
    }

    /// With and without high-resolution timers (time(7)), at 250 and 100 ticks a second.
    #[test]
    fn ticks_keep_what_is_three_times_as_long() {
        assert!(can_keep(ms(10), Duration::from_nanos(1)));
        assert!(!can_keep(ms(10), ms(4)));
        assert!(can_keep(ms(20), ms(4)));
        assert!(!can_keep(ms(20), ms(10)));
        assert!(can_keep(ms(30), ms(10)));
    }
}
