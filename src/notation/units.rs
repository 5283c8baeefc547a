//! Durations (`500ms`, `2s`, `5m`) and sizes (`64KiB`, `1MiB`) in the form of the configuration.

use std::borrow::Cow;
use std::fmt;
use std::time;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserialize, Deserializer, Visitor};
use serde::ser::{Serialize, Serializer};

/// A duration: 0, or 1 ms to 24 h. In the file, it is an integer with one of the units `ms`, `s`, `m`, `h`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(time::Duration);

/// A number of bytes. In the file, it is an integer with one of the units `B`, `KiB`, `MiB`, `GiB`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Size(u64);

impl Duration {
    const FORM: &'static str = "a duration such as `500ms`, `2s` or `5m`, at most `24h`";

    pub(crate) const fn from_secs(seconds: u64) -> Self {
        Duration(time::Duration::from_secs(seconds))
    }

    pub(crate) const fn get(self) -> time::Duration {
        self.0
    }

    /// Parses an integer and a unit without a space between them. Returns None for another form, and above 24 h.
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

    pub(crate) const fn from_kib(kib: u64) -> Self {
        Size(kib * 1024)
    }

    pub(crate) const fn bytes(self) -> u64 {
        self.0
    }

    /// Parses an integer and a unit without a space between them. Returns None for another form, and if the number of
    /// bytes exceeds `u64`.
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

impl fmt::Display for Duration {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_units(f, self.0.as_millis(), &[(3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")])
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_units(f, self.0.into(), &[(1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB"), (1, "B")])
    }
}

/// Writes the number with the largest unit that divides it.
fn write_units(f: &mut fmt::Formatter<'_>, number: u128, units: &[(u128, &str)]) -> fmt::Result {
    let fits = |(size, _): &&(u128, &str)| number >= *size && number.is_multiple_of(*size);
    match units.iter().find(fits) {
        Some((size, unit)) => write!(f, "{}{unit}", number / size),
        None => write!(f, "0{}", units[units.len() - 2].1),
    }
}

fn split_unit(text: &str) -> Option<(u64, &str)> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    Some((text[..digits].parse().ok()?, &text[digits..]))
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "duration",
            "description": "An integer with a unit: `500ms`, `2s`, `5m`, `1h`; at most `24h`.",
            "type": "string",
            "pattern": "^[0-9]+(ms|s|m|h)$",
        })
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "title": "size",
            "description": "An integer with a unit: `512B`, `64KiB`, `1MiB`, `2GiB`.",
            "type": "string",
            "pattern": "^[0-9]+(B|KiB|MiB|GiB)$",
        })
    }
}

/// Only strings are accepted. A number has no unit, so the error message for numbers shows the form.
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

impl Serialize for Duration {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

deserialize_from_string!(Duration);
deserialize_from_string!(Size);
