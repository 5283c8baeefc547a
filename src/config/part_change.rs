//! The parts that differ between two configurations: what a store with one value for each part has to write.

use serde_json::Value;

use super::{PartKind, Source, values};

/// A part that differs.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct PartChange {
    pub(crate) kind: PartKind,
    pub(crate) name: String,
    /// The new values, without the name. None if the part is deleted.
    pub(crate) value: Option<Value>,
}

/// The keys of the sections, with the kinds of their parts.
const SECTIONS: [(&str, PartKind); 4] = [
    ("origin_sets", PartKind::OriginSet),
    ("cors_policies", PartKind::Policy),
    ("upstreams", PartKind::Upstream),
    ("services", PartKind::Service),
];

/// The services, upstreams, policies and origin sets that differ between two texts of a configuration. None if other keys
/// differ, or if a text cannot be read.
pub(crate) fn part_changes(old: &str, new: &str) -> Option<Vec<PartChange>> {
    let (mut old, mut new) = (values(old)?, values(new)?);
    let mut changes = Vec::new();
    for (section, kind) in SECTIONS {
        let (old, new) = (take_parts(&mut old, section)?, take_parts(&mut new, section)?);
        for (name, value) in &new {
            if find(&old, name) != Some(value) {
                changes.push(PartChange { kind, name: name.clone(), value: Some(value.clone()) });
            }
        }
        for (name, _) in old.iter().filter(|(name, _)| find(&new, name).is_none()) {
            changes.push(PartChange { kind, name: name.clone(), value: None });
        }
    }
    (old == new).then_some(changes)
}

/// The text of a part. Comments and formatting of its present text stay where values stay.
pub(crate) fn part_text(present: Option<&str>, value: &Value) -> String {
    let edited = present.and_then(|text| Source::new("", text).with_values(&values(text)?, value, 0));
    edited.unwrap_or_else(|| serde_json::to_string_pretty(value).unwrap_or_default() + "\n")
}

type Parts = Vec<(String, Value)>;

fn find<'p>(parts: &'p Parts, name: &str) -> Option<&'p Value> {
    parts.iter().find(|(found, _)| found == name).map(|(_, value)| value)
}

/// Removes a section, and returns its parts with their names.
fn take_parts(values: &mut Value, section: &str) -> Option<Parts> {
    match values.as_object_mut()?.shift_remove(section) {
        None | Some(Value::Null) => Some(Vec::new()),
        Some(Value::Object(parts)) => Some(parts.into_iter().collect()),
        Some(Value::Array(services)) => services.into_iter().map(named).collect(),
        Some(_) => None,
    }
}

/// A service: its name, and its other values.
fn named(mut service: Value) -> Option<(String, Value)> {
    let name = match service.as_object_mut()?.shift_remove("name")? {
        Value::String(name) => name,
        other => other.to_string(),
    };
    Some((name, service))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const OLD: &str = "listeners: [{ address: '127.0.0.1:1' }]
origin_sets: { apps: [https://a.example] }
cors_policies: { open: { allow_origins: '*' }, app: { allow_origins: https://a.example } }
services:
  - { name: one, hosts: [a.example], cors: open }
  - { name: two, cors: app }
";

    #[test]
    fn changed_new_and_deleted_parts_are_found() {
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
            assert_eq!(part_changes(OLD, &new), expected, "{from} -> {to}");
        }
    }

    #[test]
    fn a_text_keeps_its_comments() {
        let present = "# of the shop\nhosts: [a.example]   # the only one\ncors: open\n";
        let changed = part_text(Some(present), &json!({ "hosts": ["a.example"], "cors": false }));
        assert_eq!(changed, "# of the shop\nhosts: [a.example]   # the only one\ncors: false\n");
        let new = json!({ "hosts": ["a.example"] });
        for present in [None, Some("not: [readable"), Some("")] {
            assert_eq!(part_text(present, &new), "{\n  \"hosts\": [\n    \"a.example\"\n  ]\n}\n", "{present:?}");
        }
    }
}
