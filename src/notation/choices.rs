//! Values with more than one form: a mapping or its name, `false` or a mapping, and mappings with names as keys, in the
//! order of the file. Each type has its deserialization, its serialization and its JSON schema.

use std::borrow::Cow;
use std::fmt;
use std::marker::PhantomData;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, IntoDeserializer, MapAccess, Unexpected, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use super::forms;

/// A value, or the name of a definition at the top level.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(untagged)]
pub enum Use<T> {
    /// The name of a definition.
    Named(String),
    /// The value, written in place.
    Inline(Box<T>),
}

/// `true`, `false`, or a value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Toggle<T> {
    Off,
    /// `true`: enabled, with the defaults.
    On,
    With(T),
}

/// `false`, or a mapping. `true` has no meaning, because the mapping has required keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OffOr<T> {
    Off,
    Value(T),
}

/// An example for the error message about a value of another form.
pub(crate) trait WriteInstead {
    /// A phrase with an example, such as "a limit such as `{ rate: 100/s }`".
    const EXAMPLE: &'static str;
}

/// A mapping with names as keys, in the order of the file. Duplicate names are kept, so that the compiler can report
/// them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Named<T>(pub Vec<(String, T)>);

impl<T> Default for Named<T> {
    fn default() -> Self {
        Named(Vec::new())
    }
}

// === deserialization ===

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Named<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct NamedVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for NamedVisitor<T> {
            type Value = Named<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a mapping whose keys are names")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Named<T>, A::Error> {
                let mut entries = Vec::with_capacity(map.size_hint().unwrap_or(0));
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Named(entries))
            }
        }
        deserializer.deserialize_map(NamedVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Use<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UseVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for UseVisitor<T> {
            type Value = Use<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name, or a mapping with the definition")
            }
            fn visit_str<E>(self, name: &str) -> Result<Use<T>, E> {
                Ok(Use::Named(name.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Use<T>, A::Error> {
                let inline = T::deserialize(serde::de::value::MapAccessDeserializer::new(map))?;
                Ok(Use::Inline(Box::new(inline)))
            }
        }
        deserializer.deserialize_any(UseVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Toggle<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ToggleVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>> Visitor<'de> for ToggleVisitor<T> {
            type Value = Toggle<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("`true`, `false`, or a custom value")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Toggle<T>, E> {
                Ok(if on { Toggle::On } else { Toggle::Off })
            }
            fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<Toggle<T>, E> {
                T::deserialize(number.into_deserializer()).map(Toggle::With)
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Toggle<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Toggle::With)
            }
        }
        deserializer.deserialize_any(ToggleVisitor(PhantomData))
    }
}

impl<'de, T: Deserialize<'de> + WriteInstead> Deserialize<'de> for OffOr<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OffOrVisitor<T>(PhantomData<T>);
        impl<'de, T: Deserialize<'de> + WriteInstead> Visitor<'de> for OffOrVisitor<T> {
            type Value = OffOr<T>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}, or `false`", T::EXAMPLE)
            }
            fn visit_bool<E: serde::de::Error>(self, on: bool) -> Result<OffOr<T>, E> {
                match on {
                    true => Err(E::invalid_value(Unexpected::Bool(true), &self)),
                    false => Ok(OffOr::Off),
                }
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<OffOr<T>, A::Error> {
                T::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(OffOr::Value)
            }
        }
        deserializer.deserialize_any(OffOrVisitor(PhantomData))
    }
}

// === serialization, in the form of the file ===

impl<T: Serialize> Serialize for OffOr<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            OffOr::Off => serializer.serialize_bool(false),
            OffOr::Value(value) => value.serialize(serializer),
        }
    }
}

impl<T: Serialize> Serialize for Toggle<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Toggle::Off => serializer.serialize_bool(false),
            Toggle::On => serializer.serialize_bool(true),
            Toggle::With(how) => how.serialize(serializer),
        }
    }
}

impl<T: Serialize> Serialize for Named<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(name, value)| (name, value)))
    }
}

// === JSON schemas ===

impl<T: JsonSchema> JsonSchema for Named<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Named{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "object",
            "propertyNames": { "pattern": format!("^{}$", forms::NAME) },
            "additionalProperties": generator.subschema_for::<T>(),
        })
    }
}

impl<T: JsonSchema> JsonSchema for Use<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Use{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [forms::by_name(), generator.subschema_for::<T>()] })
    }
}

impl<T: JsonSchema> JsonSchema for Toggle<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("Toggle{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "type": "boolean" }, generator.subschema_for::<T>()] })
    }
}

impl<T: JsonSchema> JsonSchema for OffOr<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("OffOr{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": false }, generator.subschema_for::<T>()] })
    }
}
