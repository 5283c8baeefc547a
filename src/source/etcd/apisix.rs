//! The keys of APISIX as a source. All objects are translated into one configuration. Its parts are then accepted like
//! keys of corsgate. corsgate never writes these keys.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde_json::{Value, json};

use super::accept::{self, Acceptance, Base, Known, MOST_DESCRIBED};
use super::keys::{Key, Objects, Raw, RawValue, State};
use super::refusal::{Kept, KeyRefusal, self_fault};
use crate::config::Parts;
use crate::import::{ApisixObject, KeyNote, Translated, Untranslatable, translate};
use crate::problem::Severity;
use crate::snapshot::CompileEnv;
use crate::terminal::printable;

/// Objects as keys of corsgate.
#[derive(Debug, Default)]
pub(super) struct AsParts {
    pub(super) state: State,
    /// The versions of the objects that were translated.
    objects: Objects,
    /// Objects that cannot be read.
    refused: Vec<KeyRefusal>,
    notes: Vec<KeyNote>,
    /// Why there is no configuration.
    pub(super) whole: Option<String>,
}

/// Accepts a state of objects.
pub(super) fn accept(base: &Base, state: &State, known: &Known, env: CompileEnv<'_>) -> Acceptance {
    let AsParts { state: parts, objects, refused, notes, whole } = as_parts(base, state, known);
    let mut acceptance = match whole {
        Some(why) => Acceptance { whole: Some(why), ..Acceptance::default() },
        None => accept::accept(base, &parts, known, env),
    };
    acceptance.objects = objects;
    acceptance.refused_count += refused.len();
    acceptance.refused.extend(refused);
    acceptance.refused.truncate(MOST_DESCRIBED);
    acceptance.warnings.extend(warnings(state, notes));
    acceptance
}

/// Translates the objects. An object that cannot be read keeps its last good version.
pub(super) fn as_parts(base: &Base, state: &State, known: &Known) -> AsParts {
    let mut made = AsParts { state: State::of(state.revision, BTreeMap::new()), ..AsParts::default() };
    if let Some(why) = state.too_large() {
        made.whole = Some(why);
        return made;
    }
    let mut refused = BTreeMap::new();
    loop {
        let used: Objects = (state.objects.iter())
            .filter_map(|(key, raw)| match refused.contains_key(key) {
                false => Some((key.clone(), raw.clone())),
                true => Some((key.clone(), known.objects.get(key)?.clone())),
            })
            .collect();
        let mut read = Vec::new();
        let mut unread = Vec::new();
        for (key, raw) in &used {
            match raw.bytes().and_then(|bytes| ApisixObject::read(key, bytes)) {
                Ok(object) => read.push(object),
                Err(why) => unread.push((key.clone(), why)),
            }
        }
        // In the first round no key is refused, so each of these values is the newest one.
        if refused.is_empty() && !unread.is_empty() {
            refused.extend(unread);
            continue;
        }
        // A rule for all routes may be a login. Without it, no route may be served.
        if let Some(rule) = refused.keys().find(|key| key.starts_with("global_rules/") && !used.contains_key(*key)) {
            made.whole = Some(format!("{rule} cannot be read, and may protect all routes; correct it or delete it"));
            break;
        }
        match translate(&read) {
            Ok(Translated { text, notes }) => {
                made.notes = notes;
                match Parts::of(&text) {
                    Some(parts) => made.state = state_of(parts, base, state.revision, known),
                    None => made.whole = Some("the objects cannot be translated; please report it".to_owned()),
                }
            }
            Err(Untranslatable::Value { key, why }) if !refused.contains_key(&*key) => {
                refused.insert(key.into(), why);
                continue;
            }
            Err(Untranslatable::Value { key, why }) => made.whole = Some(format!("{key}: {why}")),
            Err(Untranslatable::NoRoute(notes)) => {
                made.notes = notes;
                made.whole = Some("no route can be translated; `corsgate check` lists the reasons".to_owned());
            }
            Err(Untranslatable::Fault(why)) => made.whole = Some(why),
        }
        made.objects = used;
        break;
    }
    made.refused = refused.into_iter().map(|(key, why)| refusal(state, known, &key, &why)).collect();
    made
}

fn refusal(state: &State, known: &Known, key: &str, why: &str) -> KeyRefusal {
    let kept = known.objects.get(key).map_or(Kept::Nothing, |good| Kept::Revision(good.revision));
    let revision = state.objects.get(key).map_or(state.revision, |raw| raw.revision);
    KeyRefusal { kept, ..self_fault(key, revision, "etcd-value-not-an-object", why, "write the object again") }
}

/// Parts as keys. Unchanged parts keep their revisions.
fn state_of(parts: Parts, base: &Base, revision: i64, known: &Known) -> State {
    let mut keys = BTreeMap::new();
    let mut add = |key: Key, value: &Value| {
        let bytes = value.to_string().into_bytes();
        let same = known
            .read
            .get(&key)
            .map(|version| &version.raw)
            .filter(|raw| raw.bytes().is_ok_and(|same| same == bytes))
            .cloned();
        let raw = same.unwrap_or_else(|| Arc::new(Raw { revision, value: RawValue::Bytes(bytes) }));
        keys.insert(key, raw);
    };
    for ((kind, name), value) in &parts.named {
        add(Key::new(*kind, name), value);
    }
    // The import assumes the listener of APISIX.
    let others: serde_json::Map<_, _> =
        parts.others.into_iter().filter(|(name, _)| !base.keys.contains(name)).collect();
    if !others.is_empty() {
        add(Key::settings(), &Value::Object(others));
    }
    State::of(revision, keys)
}

/// Differences from the meaning in APISIX, as warnings: one entry for each key.
fn warnings(state: &State, notes: Vec<KeyNote>) -> Vec<(Severity, String, Value)> {
    let strangers = state.strangers.iter().map(|(name, (_, why))| {
        let key = printable(&String::from_utf8_lossy(name)).chars().take(200).collect();
        KeyNote { key, outcome: "dropped", code: "etcd-key-unknown", text: (*why).to_owned() }
    });
    let mut by_key: BTreeMap<String, (String, Vec<Value>)> = BTreeMap::new();
    for KeyNote { key, outcome, code, text } in strangers.chain(notes) {
        let line = format!("warning: {key}: {outcome}: {}\n", printable(&text));
        let json = json!({
            "severity": "warning", "code": code, "file": key, "line": null, "column": null, "path": "",
            "fault": format!("{outcome}: {text}"), "remedy": "", "fix": null,
        });
        let (lines, all) = by_key.entry(key).or_default();
        lines.push_str(&line);
        all.push(json);
    }
    let described = by_key.into_values().take(MOST_DESCRIBED);
    described.map(|(lines, all)| (Severity::Warning, lines, Value::from(all))).collect()
}
