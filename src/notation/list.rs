//! A list in the configuration: a YAML sequence, or one comma-separated string as in APISIX.

use std::fmt;

use serde::Serialize;
use serde::de::{Deserialize, Deserializer, SeqAccess, Visitor};

/// The entries of a list, in order, without white space around commas.
///
/// Empty lists and empty entries are kept, so that the compiler can refuse them with their place. A stray comma leaves
/// an empty entry, which must never make a policy wider.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize)]
pub struct List(Vec<String>);

impl List {
    /// Returns the entries, in the order of the file.
    pub fn entries(&self) -> &[String] {
        &self.0
    }
}

impl FromIterator<String> for List {
    fn from_iter<I: IntoIterator<Item = String>>(entries: I) -> Self {
        List(entries.into_iter().collect())
    }
}

impl<'de> Deserialize<'de> for List {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ListVisitor;
        impl<'de> Visitor<'de> for ListVisitor {
            type Value = List;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of strings, or one comma-separated string")
            }
            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<List, E> {
                if is_quoted_list(text) {
                    return Err(E::invalid_value(
                        serde::de::Unexpected::Str(text),
                        &"the list without quotes around it",
                    ));
                }
                Ok(text.split(',').map(|entry| entry.trim().to_owned()).collect())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<List, A::Error> {
                let mut entries = Vec::with_capacity(seq.size_hint().unwrap_or(0));
                while let Some(entry) = seq.next_element::<String>()? {
                    entries.push(entry);
                }
                Ok(List(entries))
            }
        }
        deserializer.deserialize_any(ListVisitor)
    }
}

/// Returns true if a string is a list in the notation of YAML or JSON, such as `'["a", "b"]'`. A text that looks like
/// an IPv6 address in brackets is not a list.
fn is_quoted_list(text: &str) -> bool {
    let inner = text.trim().strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    inner.is_some_and(|inner| {
        let is_like_an_address = inner.contains(':') && !inner.contains(',') && !inner.contains("://");
        inner.contains(['"', '\'']) || (!inner.contains(['[', ']']) && !is_like_an_address)
    })
}

/// Makes an optional key without a value an error. Use it with `#[serde(deserialize_with = "given")]`.
///
/// By default, serde reads `hosts:` without a value as an absent key, and absent `hosts` match every host.
pub fn given<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}
