//! The parts of a configuration without their order: services, upstreams, policies and origin sets by their names, and
//! the changes between two sets of parts. A store with one value for each part writes only these changes.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::{PartKind, Source, values, yaml};

/// The parts of a configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct Parts {
    /// Values by kind and name. The value of a service has no name.
    pub(crate) named: BTreeMap<(PartKind, String), Value>,
    /// All other keys of the top level.
    pub(crate) others: Map<String, Value>,
}

/// A part that differs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartChange {
    pub(crate) kind: PartKind,
    /// Empty for settings.
    pub(crate) name: String,
    /// The new value. None if the part is deleted.
    pub(crate) value: Option<Value>,
}

impl PartKind {
    /// The kinds with names, in the order of a file.
    pub(crate) const NAMED: [Self; 4] = [Self::OriginSet, Self::Policy, Self::Upstream, Self::Service];

    /// The key in a configuration.
    pub(crate) const fn section(self) -> &'static str {
        match self {
            PartKind::Settings => "settings",
            PartKind::OriginSet => "origin_sets",
            PartKind::Policy => "cors_policies",
            PartKind::Upstream => "upstreams",
            PartKind::Service => "services",
        }
    }
}

// === impl Parts ===

impl Parts {
    /// Reads the parts of a configuration text. Returns None if the text cannot be parsed, or if a section is neither a
    /// mapping nor, for `services`, a list.
    pub(crate) fn of(text: &str) -> Option<Self> {
        let mut others = match values(text)? {
            Value::Object(keys) => keys,
            Value::Null => Map::new(),
            _ => return None,
        };
        let mut named = BTreeMap::new();
        for kind in PartKind::NAMED {
            let parts: Vec<(String, Value)> = match others.shift_remove(kind.section()) {
                None | Some(Value::Null) => Vec::new(),
                Some(Value::Object(parts)) if kind != PartKind::Service => parts.into_iter().collect(),
                Some(Value::Array(services)) if kind == PartKind::Service => {
                    services.into_iter().map(without_name).collect::<Option<_>>()?
                }
                Some(_) => return None,
            };
            named.extend(parts.into_iter().map(|(name, value)| ((kind, name), value)));
        }
        Some(Parts { named, others })
    }

    /// The changes that make these parts from `old`. Parts that are only in `old` are deleted.
    pub(crate) fn changes_from(&self, old: &Self) -> Vec<PartChange> {
        let change = |(kind, name): &(PartKind, String), value: Option<&Value>| PartChange {
            kind: *kind,
            name: name.clone(),
            value: value.cloned(),
        };
        let new = self.named.iter().filter(|(key, value)| old.named.get(key) != Some(value));
        let deleted = old.named.keys().filter(|key| !self.named.contains_key(key));
        new.map(|(key, value)| change(key, Some(value))).chain(deleted.map(|key| change(key, None))).collect()
    }

    /// These parts as a configuration in YAML.
    pub(crate) fn text(&self) -> String {
        let mut out = String::new();
        if !self.others.is_empty() {
            out.push_str(&yaml::text(&Value::Object(self.others.clone())));
        }
        for kind in PartKind::NAMED {
            let of_kind = self.named.iter().filter(|((of, _), _)| *of == kind);
            let section = match kind {
                PartKind::Service => of_kind.map(|((_, name), value)| with_name(name, value)).collect::<Value>(),
                _ => Value::Object(of_kind.map(|((_, name), value)| (name.clone(), value.clone())).collect()),
            };
            if section != Value::Array(Vec::new()) && section != Value::Object(Map::new()) {
                out.push_str(&yaml::text(&Value::Object(Map::from_iter([(kind.section().to_owned(), section)]))));
            }
        }
        out
    }
}

/// The parts that differ between two texts of a configuration. None if other keys differ, or if a text cannot be read.
pub(crate) fn part_changes(old: &str, new: &str) -> Option<Vec<PartChange>> {
    let (old, new) = (Parts::of(old)?, Parts::of(new)?);
    (old.others == new.others).then(|| new.changes_from(&old))
}

/// The text of a configuration with these changes. Comments and formatting stay where values stay. None if the form of the
/// text is not understood.
pub(crate) fn with_part_changes(text: &str, changes: &[PartChange]) -> Option<String> {
    let old = values(text)?;
    let mut new = old.clone();
    for PartChange { kind, name, value } in changes {
        let section = new.as_object_mut()?.entry(kind.section()).or_insert(Value::Null);
        match kind {
            PartKind::Settings => return None,
            PartKind::Service => {
                if section.is_null() {
                    *section = Value::Array(Vec::new());
                }
                let services = section.as_array_mut()?;
                let at = services.iter().position(|service| name_of(service).as_ref() == Some(name));
                match (at, value) {
                    (Some(at), Some(value)) => services[at] = with_name(name, value),
                    (Some(at), None) => drop(services.remove(at)),
                    (None, Some(value)) => services.push(with_name(name, value)),
                    (None, None) => {}
                }
            }
            PartKind::OriginSet | PartKind::Policy | PartKind::Upstream => {
                if section.is_null() {
                    *section = Value::Object(Map::new());
                }
                let parts = section.as_object_mut()?;
                match value {
                    Some(value) => drop(parts.insert(name.clone(), value.clone())),
                    None => drop(parts.shift_remove(name)),
                }
            }
        }
    }
    if old == new { Some(text.to_owned()) } else { Source::new("", text).with_values(&old, &new, 1) }
}

/// The text of a part. Comments and formatting of its present text stay where values stay.
pub(crate) fn part_text(present: Option<&str>, value: &Value) -> String {
    let edited = present.and_then(|text| Source::new("", text).with_values(&values(text)?, value, 0));
    edited.unwrap_or_else(|| yaml::text(value))
}

/// A service: its name, and its other values.
fn without_name(mut service: Value) -> Option<(String, Value)> {
    let name = name_of(&service)?;
    service.as_object_mut()?.shift_remove("name");
    Some((name, service))
}

fn with_name(name: &str, service: &Value) -> Value {
    let first = std::iter::once(("name".to_owned(), Value::from(name)));
    let others = service.as_object().into_iter().flatten().map(|(key, value)| (key.clone(), value.clone()));
    Value::Object(first.chain(others).collect())
}

/// The name of a service. Names such as `7` are numbers for YAML.
fn name_of(service: &Value) -> Option<String> {
    match &service["name"] {
        Value::String(name) => Some(name.clone()),
        name @ (Value::Number(_) | Value::Bool(_)) => Some(name.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: &str = "listeners: [{ address: '127.0.0.1:1' }]
origin_sets: { apps: [https://a.example] }
cors_policies: { open: { allow_origins: '*' }, app: { allow_origins: https://a.example } }   # both
services:
  - { name: one, hosts: [a.example], cors: open }
  - { name: two, cors: app }
";

    #[test]
    fn changed_new_and_deleted_parts_are_found_and_made_again() {
        let change = |kind, name: &str, value| PartChange { kind, name: name.to_owned(), value };
        let (policy, service) = (PartKind::Policy, PartKind::Service);
        let set = change(PartKind::OriginSet, "apps", Some(json!(["https://b.example"])));
        #[rustfmt::skip]
        let cases: [(&str, &str, Option<Vec<PartChange>>); 8] = [
            ("", "", Some(vec![])),
            ("[https://a.example]", "[https://b.example]", Some(vec![set])),
            ("{ allow_origins: '*' }", "{ allow_origins: null }", Some(vec![change(policy, "open", Some(json!({ "allow_origins": null })))])),
            ("cors: open", "cors: false", Some(vec![change(service, "one", Some(json!({ "hosts": ["a.example"], "cors": false })))])),
            ("  - { name: two, cors: app }\n", "", Some(vec![change(service, "two", None)])),
            ("name: two", "name: three", Some(vec![change(service, "three", Some(json!({ "cors": "app" }))), change(service, "two", None)])),
            // Another key, and a text that is no configuration.
            ("127.0.0.1:1", "127.0.0.1:2", None),
            ("services:", "services: x #", None),
        ];
        for (from, to, expected) in cases {
            let new = if from.is_empty() { OLD.to_owned() } else { OLD.replacen(from, to, 1) };
            let found = part_changes(OLD, &new);
            assert_eq!(found, expected, "{from} -> {to}");
            if let Some(changes) = found {
                let made = with_part_changes(OLD, &changes).unwrap_or_else(|| panic!("{from} -> {to}"));
                assert_eq!(Parts::of(&made), Parts::of(&new), "{made}");
                assert!(made.contains("# both"), "{made}");
            }
        }
    }

    #[test]
    fn the_text_of_parts_has_the_same_parts() {
        let parts = Parts::of(OLD).unwrap();
        assert_eq!(Parts::of(&parts.text()), Some(parts.clone()), "{}", parts.text());
        let whole = include_str!("../../conf/reference.yaml");
        let parts = Parts::of(whole).unwrap();
        assert_eq!(Parts::of(&parts.text()), Some(parts.clone()), "{}", parts.text());
        assert_eq!(Parts::default().text(), "");
    }

    #[test]
    fn a_text_keeps_its_comments() {
        let present = "# of the shop\nhosts: [a.example]   # the only one\ncors: open\n";
        let changed = part_text(Some(present), &json!({ "hosts": ["a.example"], "cors": false }));
        assert_eq!(changed, "# of the shop\nhosts: [a.example]   # the only one\ncors: false\n");
        let new = json!({ "hosts": ["a.example"] });
        for present in [None, Some("not: [readable"), Some("")] {
            assert_eq!(part_text(present, &new), "hosts:\n- a.example\n", "{present:?}");
        }
    }
}
