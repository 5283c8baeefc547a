//! The keys under the prefix, and their values as etcd has them.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::config::PartKind;
use crate::import::ApisixObject;

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

/// The program whose keys are under the prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Layout {
    /// corsgate: each key is a part of a configuration.
    #[default]
    Parts,
    /// APISIX: the keys are translated.
    Apisix,
}

/// Objects of APISIX by kind and id, such as `routes/1`.
pub(super) type Objects = BTreeMap<Box<str>, Arc<Raw>>;

/// A name below the prefix, read as a key.
#[derive(Debug)]
pub(super) enum Name {
    Part(Key),
    Object(Box<str>),
    /// No part of the configuration, such as a record of an instance.
    Ignored,
    /// No key of a configuration.
    Stranger(&'static str),
}

/// All keys at one revision.
#[derive(Debug, Clone, Default)]
pub(super) struct State {
    /// Revision of the last change that is part of this state.
    pub(super) revision: i64,
    pub(super) keys: BTreeMap<Key, Arc<Raw>>,
    pub(super) objects: Objects,
    layout: Layout,
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
            return Name::Ignored;
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

// === impl Layout ===

impl Layout {
    /// Reads what follows the prefix and its slash.
    pub(super) fn read(self, name: &[u8]) -> Name {
        match self {
            Layout::Parts => Key::parse(name),
            Layout::Apisix => read_object(name),
        }
    }

    /// Why nothing can be written. None if it can.
    pub(super) fn read_only(self) -> Option<&'static str> {
        match self {
            Layout::Parts => None,
            Layout::Apisix => Some("with format=apisix the keys belong to APISIX; change them with its Admin API"),
        }
    }
}

/// Reads the name of an object of APISIX.
fn read_object(name: &[u8]) -> Name {
    let Ok(name) = std::str::from_utf8(name) else { return Name::Stranger("not read: its name is not UTF-8") };
    let Some((kind, id)) = name.split_once('/') else { return Name::Stranger("not read: it is no key of APISIX") };
    match kind {
        // `init_dir` of APISIX, and the records of its instances.
        _ if id.is_empty() => Name::Ignored,
        "data_plane" => Name::Ignored,
        kind if ApisixObject::is_kind(kind) && !id.contains('/') => Name::Object(name.into()),
        kind if ApisixObject::is_kind(kind) => Name::Stranger("not read: its id cannot be used"),
        "ssls" => Name::Stranger("not read: corsgate takes certificates from `listeners` in its file"),
        "stream_routes" => Name::Stranger("not read: corsgate serves HTTP only"),
        _ => Name::Stranger("not read: corsgate has no counterpart"),
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

    /// The bytes of the value. Err: the value is too large and was not kept.
    pub(super) fn bytes(&self) -> Result<&[u8], String> {
        match &self.value {
            RawValue::Bytes(bytes) => Ok(bytes),
            RawValue::TooLarge(size) => Err(format!("the value has {size} bytes; the maximum is {LARGEST_VALUE}")),
        }
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
        State { revision, bytes: keys.values().map(|raw| raw.size()).sum(), keys, ..State::default() }
    }

    /// A state without keys.
    pub(super) fn empty(layout: Layout) -> Self {
        State { layout, ..State::default() }
    }

    pub(super) fn layout(&self) -> Layout {
        self.layout
    }

    /// Number of keys.
    pub(super) fn len(&self) -> usize {
        self.keys.len() + self.objects.len()
    }

    /// Whether two states have the same values.
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.keys == other.keys && self.objects == other.objects && self.strangers == other.strangers
    }

    /// Counts the values that are older than the state `old`, but missing in it.
    pub(super) fn missed_by(&self, old: &Self) -> usize {
        fn missed<K: Ord>(new: &BTreeMap<K, Arc<Raw>>, old: &BTreeMap<K, Arc<Raw>>, revision: i64) -> usize {
            let was_there = |(key, raw): &(&K, &Arc<Raw>)| {
                raw.revision > revision || old.get(*key).is_some_and(|old| old.revision == raw.revision)
            };
            new.iter().filter(|entry| !was_there(entry)).count()
        }
        missed(&self.keys, &old.keys, old.revision) + missed(&self.objects, &old.objects, old.revision)
    }

    /// Adds or changes a key. True if it is part of the configuration, or was meant to be.
    pub(super) fn put(&mut self, name: &[u8], revision: i64, value: Vec<u8>) -> bool {
        // Further keys only count, so that the refusal says how many there are.
        let raw = match self.is_too_large() {
            true => Arc::new(Raw { revision, value: RawValue::TooLarge(value.len()) }),
            false => Raw::new(revision, value),
        };
        let size = raw.size();
        let old = match self.layout.read(name) {
            Name::Ignored => return false,
            Name::Part(key) => self.keys.insert(key, raw),
            Name::Object(key) => self.objects.insert(key, raw),
            Name::Stranger(why) => {
                if self.strangers.len() < MOST_STRANGERS || self.strangers.contains_key(name) {
                    self.strangers.insert(name.to_vec(), (revision, why));
                }
                return true;
            }
        };
        self.bytes += size;
        if let Some(old) = old {
            self.bytes -= old.size();
        }
        true
    }

    /// Removes a key. True if it was part of this state.
    pub(super) fn delete(&mut self, name: &[u8]) -> bool {
        let old = match self.layout.read(name) {
            Name::Ignored => None,
            Name::Part(key) => self.keys.remove(&key),
            Name::Object(key) => self.objects.remove(&key),
            Name::Stranger(_) => return self.strangers.remove(name).is_some(),
        };
        old.map(|old| self.bytes -= old.size()).is_some()
    }

    pub(super) fn is_too_large(&self) -> bool {
        self.len() > MOST_KEYS || self.bytes > MOST_BYTES
    }

    /// Why it cannot be accepted. None if it is not too large.
    pub(super) fn too_large(&self) -> Option<String> {
        self.is_too_large().then(|| {
            let (keys, size) = (self.len(), self.bytes >> 20);
            format!(
                "there are {keys} keys with {size} MiB; the maximum is {MOST_KEYS} keys with {} MiB",
                MOST_BYTES >> 20
            )
        })
    }

    /// SHA-256 of all keys with their revisions: equal if two processes have read the same state.
    pub(super) fn digest(&self) -> String {
        let mut digest = ring::digest::Context::new(&ring::digest::SHA256);
        for (key, raw) in &self.keys {
            digest.update(format!("{key}\0{}\0", raw.revision).as_bytes());
        }
        for (key, raw) in &self.objects {
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
            ("instances/x", "ignored"),
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
                Name::Object(key) => key.into(),
                Name::Ignored => "ignored".into(),
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
