//! Durations (`500ms`, `2s`, `5m`) and sizes (`64KiB`, `1MiB`) as the configuration writes them.

use std::fmt;
use std::time;

use serde::de::{Deserialize, Deserializer, Visitor};

/// A time span of 1 ms to 24 h, or 0.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(time::Duration);

/// A number of bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Duration {
    const FORM: &'static str = "a duration such as `500ms`, `2s` or `5m`, at most `24h`";

    /// Whole seconds.
    pub const fn from_secs(seconds: u64) -> Self {
        Duration(time::Duration::from_secs(seconds))
    }

    /// As the standard library counts.
    pub const fn get(self) -> time::Duration {
        self.0
    }

    /// A number with its unit, nothing between.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let milliseconds = match unit {
            "ms" => number,
            "s" => number.checked_mul(1_000)?,
            "m" => number.checked_mul(60_000)?,
            "h" => number.checked_mul(3_600_000)?,
            _ => return None,
        };
        (milliseconds <= 24 * 3_600_000).then(|| Duration(time::Duration::from_millis(milliseconds)))
    }
}

impl Size {
    const FORM: &'static str = "a size such as `64KiB` or `1MiB`";

    /// Units of 1024 bytes.
    pub const fn from_kib(kib: u64) -> Self {
        Size(kib * 1024)
    }

    /// In bytes.
    pub const fn bytes(self) -> u64 {
        self.0
    }

    /// A number with its unit, nothing between.
    pub fn parse(text: &str) -> Option<Self> {
        let (number, unit) = split_unit(text)?;
        let shift = match unit {
            "B" => 0,
            "KiB" => 10,
            "MiB" => 20,
            "GiB" => 30,
            _ => return None,
        };
        number.checked_mul(1 << shift).map(Size)
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

/// Both are strings; a bare number has no unit, and the message says so.
macro_rules! deserialize_from_string {
    ($type:ty) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct UnitVisitor;
                impl Visitor<'_> for UnitVisitor {
                    type Value = $type;
                    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                        f.write_str(<$type>::FORM)
                    }
                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type>::parse(text).ok_or_else(|| E::invalid_value(serde::de::Unexpected::Str(text), &self))
                    }
                }
                deserializer.deserialize_any(UnitVisitor)
            }
        }
    };
}

deserialize_from_string!(Duration);
deserialize_from_string!(Size);
