//! Units of the protocol and the two formulas that tie them together.

use std::{fmt, net::IpAddr, num::NonZeroU8, time::Duration};

/// Number of a virtual router, 1 to 255, unique per segment and family (RFC 9568 section 5.2.3).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Vrid(NonZeroU8);

impl Vrid {
    /// `None` for 0, which is no virtual router's number.
    pub const fn new(number: u8) -> Option<Self> {
        match NonZeroU8::new(number) {
            Some(number) => Some(Self(number)),
            None => None,
        }
    }

    /// The number.
    pub const fn get(self) -> u8 {
        self.0.get()
    }
}

impl fmt::Display for Vrid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Weight in the election: the greater one is Active (RFC 9568 section 5.2.4).
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Priority(u8);

impl Priority {
    /// Only on the wire: the sender gives the role up.
    pub const RELEASE: Self = Self(0);
    /// The router that owns the addresses; it does not listen before it speaks.
    pub const OWNER: Self = Self(255);

    /// Any value is one, [`Self::RELEASE`] on the wire only.
    pub const fn new(value: u8) -> Self {
        Self(value)
    }

    /// The value of the field.
    pub const fn get(self) -> u8 {
        self.0
    }

    /// Whether the sender gives the role up.
    pub const fn is_release(self) -> bool {
        self.0 == Self::RELEASE.0
    }

    /// Whether the sender owns the addresses.
    pub const fn is_owner(self) -> bool {
        self.0 == Self::OWNER.0
    }
}

impl fmt::Display for Priority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Hundredths of a second, never zero: the unit in which version 3 states its interval. Version 2
/// states whole seconds.
#[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct Centiseconds(u16);

impl Centiseconds {
    /// The most that version 3 can state: its field has 12 bits (RFC 9568 section 5.2.7).
    pub const MAX_V3: Self = Self(0x0fff);
    /// The most that version 2 can state, 255 s (RFC 3768 section 5.3.7).
    pub const MAX_V2: Self = Self(25_500);
    /// One second, the default of both standards.
    pub const SECOND: Self = Self(100);

    /// `None` for zero and for what neither version can state.
    pub const fn new(value: u16) -> Option<Self> {
        if value == 0 || value > Self::MAX_V2.0 {
            None
        } else {
            Some(Self(value))
        }
    }

    /// Whole seconds, as version 2 states them; `None` for zero.
    pub const fn from_secs(seconds: u8) -> Option<Self> {
        Self::new(seconds as u16 * 100)
    }

    /// `None` where `span` is zero, too long, or not a whole number of hundredths of a second.
    pub fn from_duration(span: Duration) -> Option<Self> {
        let nanos = span.as_nanos();
        if !nanos.is_multiple_of(10_000_000) {
            return None;
        }
        Self::new(u16::try_from(nanos / 10_000_000).ok()?)
    }

    /// The number of hundredths.
    pub const fn get(self) -> u16 {
        self.0
    }

    /// Whole seconds, as version 2 states them; `None` where it is not a whole number of them.
    pub fn whole_secs(self) -> Option<u8> {
        if self.0.is_multiple_of(100) {
            u8::try_from(self.0 / 100).ok()
        } else {
            None
        }
    }

    /// The same span as a duration.
    pub const fn as_duration(self) -> Duration {
        Duration::from_millis(self.0 as u64 * 10)
    }

    /// Whether a packet of `version` can state this interval.
    pub fn fits(self, version: Version) -> bool {
        match version {
            Version::V2 => self.whole_secs().is_some(),
            Version::V3 => self <= Self::MAX_V3,
        }
    }
}

/// Version of the protocol.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Version {
    /// RFC 3768: IPv4 only, intervals in seconds.
    V2,
    /// RFC 9568 and RFC 5798: both families, intervals in hundredths of a second.
    V3,
}

impl Version {
    /// The number in the packet.
    pub const fn get(self) -> u8 {
        match self {
            Self::V2 => 2,
            Self::V3 => 3,
        }
    }
}

/// Address family of a virtual router; the same VRID may exist once in each.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Family {
    /// IPv4.
    V4,
    /// IPv6.
    V6,
}

impl Family {
    /// The family of `address`.
    pub const fn of(address: IpAddr) -> Self {
        match address {
            IpAddr::V4(_) => Self::V4,
            IpAddr::V6(_) => Self::V6,
        }
    }

    /// Bytes of one address.
    pub const fn address_len(self) -> usize {
        match self {
            Self::V4 => 4,
            Self::V6 => 16,
        }
    }
}

/// How long a Backup waits beyond three missed advertisements, so that the best one rises alone.
///
/// Version 3: (256 - priority) / 256 of the Active router's interval (RFC 9568 section 6.1).
/// Version 2: (256 - priority) / 256 of a second, whatever the interval (RFC 3768 section 6.1).
pub fn skew_time(version: Version, priority: Priority, interval: Centiseconds) -> Duration {
    let lag = 256 - u32::from(priority.get());
    match version {
        Version::V2 => Duration::from_secs(1) * lag / 256,
        Version::V3 => interval.as_duration() * lag / 256,
    }
}

/// Silence after which a Backup takes over: three intervals and its skew time (RFC 9568 section
/// 6.1, `Active_Down_Interval`; RFC 3768 section 6.1, `Master_Down_Interval`).
pub fn active_down_interval(
    version: Version,
    priority: Priority,
    interval: Centiseconds,
) -> Duration {
    interval.as_duration() * 3 + skew_time(version, priority, interval)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 9568 section 6.1: priority 100 and one second.
    #[test]
    fn skew_and_active_down_of_the_defaults_v3() {
        let priority = Priority::new(100);
        let second = Centiseconds::SECOND;
        assert_eq!(
            skew_time(Version::V3, priority, second),
            Duration::from_micros(609_375)
        );
        assert_eq!(
            active_down_interval(Version::V3, priority, second),
            Duration::from_micros(3_609_375)
        );
    }

    /// RFC 3768 section 6.1: the skew does not depend on the interval.
    #[test]
    fn skew_of_version_2_is_a_share_of_one_second() {
        let ten = Centiseconds::from_secs(10).unwrap();
        assert_eq!(
            skew_time(Version::V2, Priority::new(100), ten),
            Duration::from_micros(609_375)
        );
        assert_eq!(
            active_down_interval(Version::V2, Priority::new(100), ten),
            Duration::from_micros(30_609_375)
        );
    }

    /// RFC 9568 section 6.1: the skew shrinks with the interval.
    #[test]
    fn skew_of_version_3_is_a_share_of_the_interval() {
        let interval = Centiseconds::new(10).unwrap();
        for (priority, nanos) in [
            (255, 390_625),
            (254, 781_250),
            (235, 8_203_125),
            (50, 80_468_750),
            (1, 99_609_375),
        ] {
            assert_eq!(
                skew_time(Version::V3, Priority::new(priority), interval),
                Duration::from_nanos(nanos),
                "priority {priority}"
            );
        }
    }

    #[test]
    fn intervals_by_version() {
        assert_eq!(Centiseconds::new(0), None);
        assert_eq!(Centiseconds::new(25_501), None);
        assert_eq!(Centiseconds::from_secs(0), None);
        let long = Centiseconds::new(4096).unwrap();
        assert!(!long.fits(Version::V3));
        assert!(Centiseconds::MAX_V3.fits(Version::V3));
        assert!(!Centiseconds::new(150).unwrap().fits(Version::V2));
        assert!(Centiseconds::MAX_V2.fits(Version::V2));
        let from = |millis| Centiseconds::from_duration(Duration::from_millis(millis));
        assert_eq!(from(100), Centiseconds::new(10));
        assert_eq!(from(0), None);
        assert_eq!(from(15), None);
        assert_eq!(from(255_000), Some(Centiseconds::MAX_V2));
        assert_eq!(from(655_370), None);
    }

    #[test]
    fn vrid_is_never_zero() {
        assert_eq!(Vrid::new(0), None);
        assert_eq!(Vrid::new(51).unwrap().get(), 51);
    }
}
