//! The value of the key `cors`: how it is deserialized, serialized, and described in the JSON schema.

use std::borrow::Cow;
use std::fmt;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, MapAccess, Visitor};
use serde::{Deserialize, Serialize, Serializer};

use crate::cors::Settings;
use crate::notation::{Use, forms};

/// `cors`: a policy, the name of one, or `false`.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Cors {
    /// `false`: no CORS handling.
    Off,
    /// `true` has no meaning. It is read so that the compiler can refuse it with its place.
    On,
    Policy(Use<Settings>),
}

impl<'de> Deserialize<'de> for Cors {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct CorsVisitor;
        impl<'de> Visitor<'de> for CorsVisitor {
            type Value = Cors;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a policy, the name of a policy, or `false`")
            }
            fn visit_bool<E>(self, on: bool) -> Result<Cors, E> {
                Ok(if on { Cors::On } else { Cors::Off })
            }
            fn visit_str<E>(self, name: &str) -> Result<Cors, E> {
                Ok(Cors::Policy(Use::Named(name.to_owned())))
            }
            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Cors, A::Error> {
                Use::deserialize(serde::de::value::MapAccessDeserializer::new(map)).map(Cors::Policy)
            }
        }
        deserializer.deserialize_any(CorsVisitor)
    }
}

impl Serialize for Cors {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Cors::Off => serializer.serialize_bool(false),
            Cors::On => serializer.serialize_bool(true),
            Cors::Policy(policy) => policy.serialize(serializer),
        }
    }
}

impl JsonSchema for Cors {
    fn schema_name() -> Cow<'static, str> {
        "Cors".into()
    }

    fn inline_schema() -> bool {
        true
    }

    /// `true` is deserialized only to be refused with its place, so the schema does not have it.
    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let policy = generator.subschema_for::<Settings>();
        json_schema!({ "anyOf": [{ "const": false }, forms::by_name(), policy] })
    }
}
