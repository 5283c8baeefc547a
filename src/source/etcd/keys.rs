//! The keys under the prefix, and their values as etcd has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::PartKind;

/// The largest value of a key. The default limit of etcd for a whole request is 1.5 MiB.
pub(super) const LARGEST_VALUE: usize = 1 << 20;
/// The most keys of a configuration.
pub(super) const MOST_KEYS: usize = 200_000;
/// The most bytes of all values together, as for a file.
pub(super) const MOST_BYTES: usize = 64 << 20;
/// Keys that are no part of a configuration, of which the names are kept.
const MOST_STRANGERS: usize = 100;

/// The key of a part of the configuration, without the prefix.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Key {
    pub(super) kind: PartKind,
    /// Empty for settings.
    pub(super) name: Box<str>,
}

/// The value of a key.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Raw {
    /// Revision of its last change.
    pub(super) revision: i64,
    pub(super) value: RawValue,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum RawValue {
    Bytes(Vec<u8>),
    /// A value of this size is not kept.
    TooLarge(usize),
}

/// A name below the prefix, read as a key.
#[derive(Debug)]
pub(super) enum Name {
    Part(Key),
    /// A record of an instance.
    Instance,
    /// No key of a configuration.
    Stranger(&'static str),
}

/// All keys at one revision.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Revision of the last change that is part of this state.
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<Key, Arc<Raw>>,
    /// Keys that are no part of a configuration: their revision, and why.
    pub(super) strangers: BTreeMap<Vec<u8>, (i64, &'static str)>,
    bytes: usize,
}

// === impl Key ===

impl Key {
    pub(super) fn settings() -> Self {
        Key::new(PartKind::Settings, "")
    }

    /// Reads what follows the prefix and its slash.
    pub(super) fn parse(name: &[u8]) -> Name {
        const SECTIONS: [(&[u8], PartKind); 4] = [
            (b"services/", PartKind::Service),
            (b"upstreams/", PartKind::Upstream),
            (b"cors_policies/", PartKind::Policy),
            (b"origin_sets/", PartKind::OriginSet),
        ];
        if name == b"settings" {
            return Name::Part(Key { kind: PartKind::Settings, name: "".into() });
        }
        if name.starts_with(b"instances/") {
            return Name::Instance;
        }
        let section = SECTIONS.iter().find_map(|(section, kind)| Some((*kind, name.strip_prefix(*section)?)));
        let Some((kind, name)) = section else {
            return Name::Stranger(
                "is no key of a configuration; write services/NAME, upstreams/NAME, cors_policies/NAME, \
                 origin_sets/NAME or settings, or move it out of the prefix",
            );
        };
        let usable = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.');
        match std::str::from_utf8(name) {
            Ok(text) if (1..=128).contains(&name.len()) && name.iter().all(usable) => {
                Name::Part(Key { kind, name: text.into() })
            }
            _ => Name::Stranger("has a name that cannot be used; write 1 to 128 letters, digits, `-`, `_` and `.`"),
        }
    }

    pub(super) fn new(kind: PartKind, name: &str) -> Self {
        Key { kind, name: name.into() }
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let section = match self.kind {
            PartKind::Settings => return f.write_str("settings"),
            PartKind::OriginSet => "origin_sets",
            PartKind::Policy => "cors_policies",
            PartKind::Upstream => "upstreams",
            PartKind::Service => "services",
        };
        write!(f, "{section}/{}", self.name)
    }
}

// === impl Raw ===

impl Raw {
    pub(super) fn new(revision: i64, value: Vec<u8>) -> Arc<Self> {
        let value = match value.len() {
            size if size > LARGEST_VALUE => RawValue::TooLarge(size),
            _ => RawValue::Bytes(value),
        };
        Arc::new(Raw { revision, value })
    }

    fn size(&self) -> usize {
        match &self.value {
            RawValue::Bytes(bytes) => bytes.len(),
            RawValue::TooLarge(_) => 0,
        }
    }
}

// === impl State ===

impl State {
    /// A state of these keys.
    pub(super) fn of(revision: i64, keys: BTreeMap<Key, Arc<Raw>>) -> Self {
        State { revision, bytes: keys.values().map(|raw| raw.size()).sum(), keys, strangers: BTreeMap::new() }
    }

    /// Adds or changes a key. True if it is part of the configuration, or was meant to be.
    pub(super) fn put(&mut self, name: &[u8], revision: i64, value: Vec<u8>) -> bool {
        match Key::parse(name) {
            Name::Instance => return false,
            Name::Part(key) => {
                // Further keys only count, so that the refusal says how many there are.
                let raw = match self.is_too_large() {
                    true => Arc::new(Raw { revision, value: RawValue::TooLarge(value.len()) }),
                    false => Raw::new(revision, value),
                };
                self.bytes += raw.size();
                if let Some(old) = self.keys.insert(key, raw) {
                    self.bytes -= old.size();
                }
            }
            Name::Stranger(why) => {
                if self.strangers.len() < MOST_STRANGERS || self.strangers.contains_key(name) {
                    self.strangers.insert(name.to_vec(), (revision, why));
                }
            }
        }
        true
    }

    /// Removes a key. True if it was part of this state.
    pub(super) fn delete(&mut self, name: &[u8]) -> bool {
        match Key::parse(name) {
            Name::Instance => false,
            Name::Part(key) => self.keys.remove(&key).map(|old| self.bytes -= old.size()).is_some(),
            Name::Stranger(_) => self.strangers.remove(name).is_some(),
        }
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.keys.len() > MOST_KEYS || self.bytes > MOST_BYTES
    }

    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// SHA-256 of all keys with their revisions: equal if two processes have read the same state.
    pub(super) fn digest(&self) -> String {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for (key, raw) in &self.keys {
            digest.update(format!("{key}\0{}\0", raw.revision).as_bytes());
        }
        digest.finish().as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_keys() {
        for (name, expected) in [
            ("services/api", "services/api"),
            ("upstreams/a.b-c_d", "upstreams/a.b-c_d"),
            ("cors_policies/p", "cors_policies/p"),
            ("origin_sets/s", "origin_sets/s"),
            ("settings", "settings"),
            ("instances/x", "instance"),
            ("settings/", "stranger"),
            ("settings/x", "stranger"),
            ("services/", "stranger"),
            ("services/a/b", "stranger"),
            ("services/..", "services/.."),
            ("services/a\n", "stranger"),
            ("services/é", "stranger"),
            ("services", "stranger"),
            ("servicesx/a", "stranger"),
            ("", "stranger"),
        ] {
            let found = match Key::parse(name.as_bytes()) {
                Name::Part(key) => key.to_string(),
                Name::Instance => "instance".into(),
                Name::Stranger(_) => "stranger".into(),
            };
            assert_eq!(found, expected, "{name:?}");
        }
        assert!(matches!(Key::parse(b"services/\xff"), Name::Stranger(_)));
        assert!(matches!(Key::parse(format!("services/{}", "a".repeat(129)).as_bytes()), Name::Stranger(_)));
    }

    #[test]
    fn a_state_has_bounds() {
        let mut state = State::default();
        for i in 0..1000 {
            state.put(format!("other/{i}").as_bytes(), i, vec![0; 10]);
        }
        assert_eq!((state.strangers.len(), state.keys.len()), (MOST_STRANGERS, 0));
        state.put(b"services/a", 1, vec![b'a'; LARGEST_VALUE + 1]);
        assert_eq!(state.bytes, 0);
        for i in 0..100 {
            state.put(format!("services/{i}").as_bytes(), i, vec![b'a'; LARGEST_VALUE]);
        }
        assert!(state.is_too_large() && state.bytes <= MOST_BYTES + LARGEST_VALUE);
        for i in 0..100 {
            state.delete(format!("services/{i}").as_bytes());
        }
        assert_eq!(state.bytes, 0);
    }
}
