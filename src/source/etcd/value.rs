//! The value of a key, read with the parser of the file.

use std::collections::BTreeMap;
use std::path::{Component, Path};
use std::sync::Arc;

use serde_json::Value;

use super::accept::Base;
use super::keys::{Key, LARGEST_VALUE, Raw, RawValue};
use super::refusal::{KeyRefusal, refusal, self_fault};
use crate::config::{Document, Part, Source, environment};
use crate::problem::Problems;

/// A value of a key, read.
#[derive(Debug)]
pub(super) struct Version {
    pub(super) raw: Arc<Raw>,
    pub(super) content: Result<Content, Box<KeyRefusal>>,
}

#[derive(Debug)]
pub(super) struct Content {
    pub(super) part: Part,
    /// The part as JSON ([`Part::json`]), to compare versions.
    pub(super) json: String,
}

/// Versions of keys.
pub(super) type Versions = BTreeMap<Key, Arc<Version>>;

// === impl Version ===

impl Version {
    /// The value as text. Empty if it is none.
    pub(super) fn text(&self) -> &str {
        match &self.raw.value {
            RawValue::Bytes(bytes) => std::str::from_utf8(bytes).unwrap_or_default(),
            RawValue::TooLarge(_) => "",
        }
    }

    /// Reads a value of the cache.
    pub(super) fn read(base: &Base, key: &Key, raw: &Arc<Raw>) -> Arc<Self> {
        version(base, key, raw, &Versions::new())
    }

    pub(super) fn is_usable(&self) -> bool {
        self.content.is_ok()
    }

    /// Whether it is a value of `settings` with this key.
    pub(super) fn sets(&self, section: &str) -> bool {
        match &self.content {
            Ok(Content { part: Part::Settings(settings), .. }) => settings.keys_set().iter().any(|key| key == section),
            _ => false,
        }
    }

    /// The errors of the value. None if it can be read.
    pub(super) fn fault(&self) -> Option<&KeyRefusal> {
        self.content.as_ref().err().map(|refusal| &**refusal)
    }
}

/// Reads a value, or takes the result of an earlier reading.
pub(super) fn version(base: &Base, key: &Key, raw: &Arc<Raw>, read: &Versions) -> Arc<Version> {
    match read.get(key) {
        Some(known) if Arc::ptr_eq(&known.raw, raw) || known.raw == *raw => known.clone(),
        _ => Arc::new(Version { raw: raw.clone(), content: content(base, key, raw) }),
    }
}

fn content(base: &Base, key: &Key, raw: &Raw) -> Result<Content, Box<KeyRefusal>> {
    let fault =
        |code, fault: &str, remedy: &str| Box::new(self_fault(&key.to_string(), raw.revision, code, fault, remedy));
    let bytes = match &raw.value {
        RawValue::Bytes(bytes) => bytes,
        RawValue::TooLarge(size) => {
            let found = format!("the value has {size} bytes; the maximum is {LARGEST_VALUE}");
            return Err(fault("etcd-value-too-large", &found, "divide it"));
        }
    };
    let text = std::str::from_utf8(bytes).map_err(|error| {
        let found = format!("the value is not UTF-8 text: byte {} cannot be read", error.valid_up_to() + 1);
        fault("etcd-value-not-utf-8", &found, "write it as UTF-8")
    })?;
    let mut problems = Problems::default();
    let part = Part::parse(key.kind, text, &mut problems);
    let Some(mut part) = part else {
        return Err(Box::new(refusal(key, raw.revision, text, &problems)));
    };
    if let Some((at, variable)) = environment::looks_meant(text).into_iter().next() {
        let place = Source::new("", text).place(&at);
        let found =
            format!("line {}: {at}: `{variable}` is a variable; values of etcd read no environment", place.line);
        return Err(fault("etcd-variable", &found, "write the value"));
    }
    // Of the part, not of its text: `values` knows no YAML tags, and a tag must not hide an address.
    let typed = serde_json::from_str(&part.with_defaults()).unwrap_or(Value::Null);
    if let Some(socket) = foreign_socket(&typed, false) {
        let fault_text = format!("`{socket}` is a socket of the machine");
        let remedy = "name a socket below the directory of the configuration file, by a relative path without `..`";
        return Err(fault("etcd-socket", &fault_text, remedy));
    }
    match &mut part {
        Part::Service(service) => match &service.name {
            Some(name) if **name != *key.name => {
                let found = format!("the value has the name `{name}`, and the key `{}`", key.name);
                return Err(fault("etcd-name-differs", &found, "remove `name` from the value"));
            }
            _ => service.name = Some(key.name.to_string()),
        },
        Part::Settings(settings) => {
            check_settings(base, settings).map_err(|(found, remedy)| fault("etcd-setting", &found, remedy))?;
        }
        Part::OriginSet(_) | Part::Policy(_) | Part::Upstream(_) => {}
    }
    Ok(Content { json: part.json(text), part })
}

/// A socket in `nodes` that is not below the directory of the file: by it, whoever can write to etcd could reach programs
/// that trust each local client.
fn foreign_socket(value: &Value, is_node: bool) -> Option<String> {
    match value {
        Value::String(text) => {
            let path = Path::new(text.strip_prefix("unix:").filter(|_| is_node)?);
            let is_below = path.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
            (!is_below).then(|| text.clone())
        }
        Value::Array(entries) => entries.iter().find_map(|entry| foreign_socket(entry, is_node)),
        Value::Object(entries) => {
            entries.iter().find_map(|(key, entry)| foreign_socket(entry, is_node || key == "nodes"))
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => None,
    }
}

/// Keys that the value of `settings` cannot have. Err: fault and remedy.
fn check_settings(base: &Base, settings: &Document) -> Result<(), (String, &'static str)> {
    for key in settings.keys_set() {
        let remedy = match &*key {
            "services" | "upstreams" | "cors_policies" | "origin_sets" => "write each entry as a key of its own",
            "source" => "remove it: etcd is the source",
            "environment" => "remove it: values of etcd read no environment",
            "expect" | "expect_files" => {
                "remove it: with expectations, one key could refuse all others; use `corsgate test` before a change"
            }
            key if base.keys.iter().any(|set| set == key) => "remove it: the file of this process sets it",
            _ => continue,
        };
        return Err((format!("`{key}` cannot be set here"), remedy));
    }
    Ok(())
}
