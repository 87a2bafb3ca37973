//! Quantities as people write them: `64KiB`, `10m`, `30/s`, Unix time.
//!
//! Each type parses with `FromStr` and prints with `Display`; what it prints parses to the same.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A unit that does not parse; the message says what would.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct UnitError(String);

/// A number of bytes: `512`, `64KiB`, `1MiB`, `1MB`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

const SIZE_UNITS: &[(&str, u64)] = &[
    ("GiB", 1 << 30),
    ("GB", 1_000_000_000),
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("kB", 1_000),
    ("KB", 1_000),
    ("B", 1),
];

impl ByteSize {
    /// The size as an index, capped at what the machine can address.
    pub fn as_usize(self) -> usize {
        usize::try_from(self.0).unwrap_or(usize::MAX)
    }
}

impl FromStr for ByteSize {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let (number, unit) = SIZE_UNITS
            .iter()
            .find_map(|(name, factor)| Some((text.strip_suffix(name)?, *factor)))
            .unwrap_or((text, 1));
        number
            .trim_end()
            .parse::<u64>()
            .ok()
            .and_then(|n| n.checked_mul(unit))
            .map(Self)
            .ok_or_else(|| {
                UnitError(format!(
                    "`{text}` is not a size; write `512`, `64KiB`, `1MiB` or `1MB`"
                ))
            })
    }
}

impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, factor) in [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10)] {
            if self.0 >= factor && self.0.is_multiple_of(factor) {
                return write!(f, "{}{name}", self.0 / factor);
            }
        }
        write!(f, "{}", self.0)
    }
}

/// A length of time with its unit: `250ms`, `5s`, `10m`, `2h`, `1d`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

const SPAN_UNITS: &[(&str, u64)] = &[
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

impl FromStr for Span {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let millis = SPAN_UNITS
            .iter()
            .find(|(name, _)| *name == unit)
            .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor));
        match millis {
            Some(millis) => Ok(Self(Duration::from_millis(millis))),
            // What is nothing with any unit is hardly meant.
            None if !text.is_empty() && unit.is_empty() && number.parse() != Ok(0_u64) => {
                Err(UnitError(format!(
                    "`{text}` has no unit; write `{text}s`, `{text}ms`, `{text}m`, `{text}h` or `{text}d`"
                )))
            }
            None => Err(UnitError(format!(
                "`{text}` is not a duration; write `250ms`, `5s`, `10m`, `2h` or `1d`"
            ))),
        }
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let millis = self.0.as_millis();
        for (name, factor) in SPAN_UNITS.iter().rev() {
            let factor = u128::from(*factor);
            if millis >= factor && millis.is_multiple_of(factor) {
                return write!(f, "{}{name}", millis / factor);
            }
        }
        write!(f, "{millis}ms")
    }
}

/// So many per length of time: `30/s`, `100/m`, `1000/h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rate {
    /// How many in one `per`.
    pub count: std::num::NonZeroU32,
    /// One second, minute or hour.
    pub per: Duration,
}

impl FromStr for Rate {
    type Err = UnitError;

    fn from_str(text: &str) -> Result<Self, UnitError> {
        let parse = || {
            let (count, unit) = text.split_once('/')?;
            let per = match unit {
                "s" => 1,
                "m" => 60,
                "h" => 3_600,
                _ => return None,
            };
            Some(Self {
                count: count.parse().ok()?,
                per: Duration::from_secs(per),
            })
        };
        parse().ok_or_else(|| {
            UnitError(format!(
                "`{text}` is not a rate; write `30/s`, `100/m` or `1000/h`"
            ))
        })
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = match self.per.as_secs() {
            1 => "s",
            60 => "m",
            _ => "h",
        };
        write!(f, "{}/{unit}", self.count)
    }
}

/// A moment, in milliseconds since 1970-01-01T00:00:00Z.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct UnixTime(i64);

impl UnixTime {
    /// Whether it is past the year 9999, where RFC 3339 ends: milliseconds that were taken for seconds are.
    pub fn is_past_calendars(self) -> bool {
        self.secs() > 253_402_300_799
    }

    /// From milliseconds since the epoch.
    pub const fn from_millis(millis: i64) -> Self {
        Self(millis)
    }

    /// From seconds since the epoch; saturates.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000))
    }

    /// From RFC 3339, any offset.
    pub fn from_rfc3339(text: &str) -> Option<Self> {
        // jiff reads more than RFC 3339 (week dates, zone names): hold it to the date, `T`, time form.
        let bytes = text.as_bytes();
        let shaped = bytes.len() >= 20
            && bytes.get(4) == Some(&b'-')
            && bytes.get(7) == Some(&b'-')
            && matches!(bytes.get(10), Some(b'T' | b't'))
            && !text.contains('[');
        let timestamp: jiff::Timestamp = shaped.then(|| text.parse().ok()).flatten()?;
        Some(Self(timestamp.as_millisecond()))
    }

    /// Milliseconds since the epoch.
    pub const fn millis(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn secs(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// How far this moment lies after `other`; negative when before. Saturates.
    pub const fn millis_since(self, other: Self) -> i64 {
        self.0.saturating_sub(other.0)
    }
}

impl FromStr for UnixTime {
    type Err = UnitError;

    /// Unix seconds or RFC 3339.
    fn from_str(text: &str) -> Result<Self, UnitError> {
        text.parse::<i64>()
            .ok()
            .map(Self::from_secs)
            .or_else(|| Self::from_rfc3339(text))
            .ok_or_else(|| {
                UnitError(format!(
                    "`{text}` is not a time; write Unix seconds or RFC 3339 (2027-01-01T00:00:00Z)"
                ))
            })
    }
}

impl fmt::Display for UnixTime {
    /// RFC 3339 in UTC.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match jiff::Timestamp::from_millisecond(self.0) {
            Ok(timestamp) => write!(f, "{timestamp}"),
            Err(_) => write!(f, "{}", self.secs()),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("512", 512),
            ("64KiB", 65_536),
            ("1MiB", 1_048_576),
            ("1MB", 1_000_000),
        ] {
            assert_eq!(text.parse::<ByteSize>().unwrap().0, bytes);
        }
        for text in ["", "KiB", "-1", "1.5MiB", "1 TiB", "99999999999GiB"] {
            assert!(text.parse::<ByteSize>().is_err(), "{text}");
        }
    }

    #[test]
    fn spans_need_a_unit() {
        let error = "5".parse::<Span>().unwrap_err().to_string();
        assert!(error.contains("`5s`"), "{error}");
        let error = "0".parse::<Span>().unwrap_err().to_string();
        assert!(!error.contains("`0s`"), "{error}");
        for text in ["", "s", "5x", "5 s", "-5s", "1.5s", "99999999999999999999s"] {
            assert!(text.parse::<Span>().is_err(), "{text}");
        }
    }

    #[test]
    fn rates() {
        assert!("0/s".parse::<Rate>().is_err());
        assert!("30/d".parse::<Rate>().is_err());
        assert_eq!("100/m".parse::<Rate>().unwrap().per, Duration::from_mins(1));
    }

    #[test]
    fn times() {
        assert_eq!(
            "1700000000".parse::<UnixTime>().unwrap().secs(),
            1_700_000_000
        );
        assert_eq!(
            "2023-11-14T22:13:20Z".parse::<UnixTime>().unwrap().secs(),
            1_700_000_000
        );
        assert_eq!(
            "2023-11-15T00:13:20+02:00"
                .parse::<UnixTime>()
                .unwrap()
                .secs(),
            1_700_000_000
        );
        for text in ["", "1e9", "2023-11-14", "2023-11-14 22:13:20Z", "yesterday"] {
            assert!(text.parse::<UnixTime>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_printed_parses(bytes in 0..u64::MAX, millis in 0..u64::MAX / 2, count in 1..u32::MAX) {
            let size = ByteSize(bytes);
            prop_assert_eq!(size.to_string().parse::<ByteSize>().unwrap(), size);
            let span = Span(Duration::from_millis(millis));
            prop_assert_eq!(span.to_string().parse::<Span>().unwrap(), span);
            for per in [1, 60, 3600] {
                let rate = Rate { count: count.try_into().unwrap(), per: Duration::from_secs(per) };
                prop_assert_eq!(rate.to_string().parse::<Rate>().unwrap(), rate);
            }
        }

        #[test]
        fn parsing_is_total(text in ".*") {
            drop((text.parse::<ByteSize>(), text.parse::<Span>(), text.parse::<Rate>(), text.parse::<UnixTime>()));
        }
    }
}
