//! Durations in the form of the Gateway API (GEP-2257): `1h30m`, `20s`, `100ms`.

use std::{borrow::Cow, fmt, str::FromStr, time};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// What a string must match to be a [`Duration`].
pub(crate) const PATTERN: &str = "^([0-9]{1,5}(h|m|s|ms)){1,4}$";

/// A span of time, whole milliseconds, written as one to four numbers with a unit each.
#[derive(Clone, Copy, Debug, Default, Eq, Ord, PartialEq, PartialOrd)]
pub struct Duration(time::Duration);

/// Why a string is no [`Duration`].
#[derive(Clone, Debug, Eq, PartialEq, thiserror::Error)]
#[error("{0:?} is no duration; write numbers with a unit (h, m, s or ms), such as 100ms or 1m30s")]
pub struct ParseDurationError(String);

impl Duration {
    /// `seconds` seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Self(time::Duration::from_secs(seconds))
    }

    /// `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(time::Duration::from_millis(millis))
    }

    /// The span as the standard library has it.
    pub const fn get(self) -> time::Duration {
        self.0
    }

    /// Whether it is `0s`, which switches off what it governs where that is allowed.
    pub const fn is_zero(self) -> bool {
        self.0.is_zero()
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refuse = || ParseDurationError(text.chars().take(40).collect());
        let mut millis: u64 = 0;
        let mut rest = text;
        for part in 0.. {
            if rest.is_empty() && part > 0 {
                break;
            }
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            if part == 4 || !(1..=5).contains(&digits) {
                return Err(refuse());
            }
            let (number, unit) = rest.split_at(digits);
            let number: u64 = number.parse().map_err(|_| refuse())?;
            // `ms` before `m` and `s`: the longest unit that fits is meant.
            let (scale, unit) = match unit.as_bytes() {
                [b'm', b's', ..] => (1, "ms"),
                [b's', ..] => (1_000, "s"),
                [b'm', ..] => (60_000, "m"),
                [b'h', ..] => (3_600_000, "h"),
                _ => return Err(refuse()),
            };
            millis += number * scale; // at most 4 x 99999 h: far below the limit
            rest = &rest[digits + unit.len()..];
        }
        Ok(Self::from_millis(millis))
    }
}

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rest = self.0.as_millis();
        if rest == 0 {
            return f.write_str("0s");
        }
        for (scale, unit) in [(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")] {
            if rest >= scale {
                write!(f, "{}{unit}", rest / scale)?;
                rest %= scale;
            }
        }
        Ok(())
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }
}

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl JsonSchema for Duration {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        // The longest match of the pattern: four parts of five digits and two letters.
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 28})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_and_writes_the_gateway_api_form() {
        for (text, millis, canonical) in [
            ("0s", 0, "0s"),
            ("100ms", 100, "100ms"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("10s500ms", 10_500, "10s500ms"),
            ("1m1ms", 60_001, "1m1ms"),
            ("1s1s1s1s", 4_000, "4s"),
        ] {
            let parsed: Duration = text.parse().unwrap();
            assert_eq!(parsed, Duration::from_millis(millis), "{text}");
            assert_eq!(parsed.to_string(), canonical);
        }
    }

    #[test]
    fn refuses_what_the_pattern_refuses() {
        for text in [
            "",
            "1",
            "s",
            "1.5s",
            "-1s",
            "1d",
            "100000s",
            "1s ",
            "1s1s1s1s1s",
            "1µs",
            "١s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text:?}");
        }
    }
}
