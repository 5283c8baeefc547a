//! A part of a configuration that has a text of its own: one service, upstream, policy or origin set, or the other
//! settings. The parsers are those of the file.

use std::fmt::Write as _;

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::{Document, Limits, Server, Service, UnderscoresInHeaders, Upstream, json, values, without_mark, yaml};
use crate::cors::Settings;
use crate::notation::{List, Named};
use crate::problem::Problems;

/// The kinds of parts, in the order of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum PartKind {
    /// All keys that the other kinds do not have.
    Settings,
    OriginSet,
    Policy,
    Upstream,
    Service,
}

/// A part that was read.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Part {
    Settings(Box<Document>),
    OriginSet(List),
    Policy(Box<Settings>),
    Upstream(Box<Upstream>),
    Service(Box<Service>),
}

/// Most bytes of a part whose text is kept. Others get the keys that corsgate knows.
const LONGEST_JSON: usize = 4 << 20;

// === impl Part ===

impl Part {
    /// Reads a text. The places of its problems are relative to the text. None if it has any error.
    pub(crate) fn parse(kind: PartKind, text: &str, problems: &mut Problems) -> Option<Self> {
        let part = match kind {
            PartKind::Settings => Document::parse(text, problems).map(|document| Part::Settings(Box::new(document))),
            PartKind::OriginSet => parse(text, problems).map(Part::OriginSet),
            PartKind::Policy => parse(text, problems).map(|policy| Part::Policy(Box::new(policy))),
            PartKind::Upstream => parse(text, problems).map(|upstream| Part::Upstream(Box::new(upstream))),
            PartKind::Service => parse(text, problems).map(|service| Part::Service(Box::new(service))),
        };
        part.filter(|_| !problems.any_errors())
    }

    /// The part as one line of JSON that reads as the same part, with the keys of its text. Empty for settings.
    pub(crate) fn json(&self, text: &str) -> String {
        self.as_written(text).unwrap_or_else(|| self.with_defaults())
    }

    /// None if JSON cannot express the text.
    fn as_written(&self, text: &str) -> Option<String> {
        let mut value = values(text)?;
        let kind = match self {
            Part::Settings(_) => return None,
            Part::OriginSet(_) => PartKind::OriginSet,
            Part::Policy(_) => PartKind::Policy,
            Part::Upstream(_) => PartKind::Upstream,
            Part::Service(service) => {
                let name = service.name.iter().map(|name| ("name".to_owned(), Value::from(name.as_str())));
                let others = value.as_object_mut().map(std::mem::take)?.into_iter().filter(|(key, _)| key != "name");
                value = Value::Object(name.chain(others).collect());
                PartKind::Service
            }
        };
        let json = value.to_string();
        // Aliases can make a short text large.
        let is_same =
            json.len() <= LONGEST_JSON && Part::parse(kind, &json, &mut Problems::default()).as_ref() == Some(self);
        is_same.then_some(json)
    }

    /// All keys that corsgate knows, whatever form the text has.
    pub(crate) fn with_defaults(&self) -> String {
        match self {
            Part::Settings(_) => String::new(),
            Part::OriginSet(list) => line(list),
            Part::Policy(policy) => line(policy),
            Part::Upstream(upstream) => line(upstream),
            Part::Service(service) => line(service),
        }
    }
}

fn parse<T: DeserializeOwned + Default>(text: &str, problems: &mut Problems) -> Option<T> {
    let text = without_mark(text);
    if text.trim_start().starts_with(['{', '['])
        && let Ok(part) = json::parse(text)
    {
        return Some(part);
    }
    yaml::parse_file(text, problems)
}

/// JSON on one line, without the keys that have no value.
fn line(value: &impl Serialize) -> String {
    without_nulls(serde_json::to_value(value).unwrap_or_default()).to_string()
}

fn without_nulls(mut value: Value) -> Value {
    match &mut value {
        Value::Object(entries) => {
            entries.retain(|_, value| !value.is_null());
            entries.values_mut().for_each(|value| *value = without_nulls(value.take()));
        }
        Value::Array(entries) => entries.iter_mut().for_each(|value| *value = without_nulls(value.take())),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
    value
}

// === impl Document ===

impl Document {
    /// The keys of the top level that differ from their defaults.
    pub(crate) fn keys_set(&self) -> Vec<String> {
        let (here, default) = (serde_json::to_value(self), serde_json::to_value(Document::default()));
        match (here, default) {
            (Ok(Value::Object(here)), Ok(default)) => {
                here.into_iter().filter(|(key, value)| *value != default[key]).map(|(key, _)| key).collect()
            }
            _ => Vec::new(),
        }
    }

    /// These settings, with those of `other` for the keys that are not set here.
    pub(crate) fn or(&self, other: &Document) -> Document {
        fn first<T: Default + PartialEq + Clone>(one: &T, other: &T) -> T {
            if *one == T::default() { other.clone() } else { one.clone() }
        }
        Document {
            source: self.source.clone(),
            listeners: first(&self.listeners, &other.listeners),
            admin: first(&self.admin, &other.admin),
            access_log: first(&self.access_log, &other.access_log),
            environment: self.environment,
            debug_header: self.debug_header || other.debug_header,
            server: first::<Server>(&self.server, &other.server),
            limits: first::<Limits>(&self.limits, &other.limits),
            trusted_proxies: first(&self.trusted_proxies, &other.trusted_proxies),
            underscores_in_headers: first::<UnderscoresInHeaders>(
                &self.underscores_in_headers,
                &other.underscores_in_headers,
            ),
            origin_sets: Named::default(),
            cors_policies: Named::default(),
            upstreams: Named::default(),
            cors: first(&self.cors, &other.cors),
            services: None,
            expect: None,
            expect_files: None,
        }
    }

    /// The text of this document, whose named parts and services are already written: each as its name and its
    /// [`Part::json`]. Each part has a line of its own.
    pub(crate) fn text_with<'p>(&self, parts: impl Iterator<Item = (PartKind, &'p str, &'p str)>) -> String {
        // Without the parts. A clone of 10,000 services would take as long as their compilation.
        let mut own = self.or(&Document::default());
        // The values are filled in.
        (own.source, own.environment) = (None, false);
        let mut out = String::from("{\n");
        let default = serde_json::to_value(Document::default()).map(without_nulls).unwrap_or_default();
        if let Ok(Value::Object(own)) = serde_json::to_value(&own).map(without_nulls) {
            for (key, value) in own.iter().filter(|(key, value)| default.get(key) != Some(*value)) {
                let _ = writeln!(out, "  {}: {value},", Value::from(key.as_str()));
            }
        }
        let mut open: Option<PartKind> = None;
        for (kind, name, json) in parts {
            if open == Some(kind) {
                out.push_str(",\n    ");
            } else {
                close(open, &mut out);
                let (key, bracket) = match kind {
                    PartKind::Settings => continue,
                    PartKind::OriginSet => ("origin_sets", '{'),
                    PartKind::Policy => ("cors_policies", '{'),
                    PartKind::Upstream => ("upstreams", '{'),
                    PartKind::Service => ("services", '['),
                };
                let _ = write!(out, "{}  \"{key}\": {bracket}\n    ", if open.is_some() { ",\n" } else { "" });
                open = Some(kind);
            }
            if kind != PartKind::Service {
                let _ = write!(out, "{}: ", Value::from(name));
            }
            out.push_str(json);
        }
        close(open, &mut out);
        out.push_str("\n}\n");
        out
    }
}

fn close(open: Option<PartKind>, out: &mut String) {
    match open {
        None | Some(PartKind::Settings) => {}
        Some(PartKind::Service) => out.push_str("\n  ]"),
        Some(PartKind::OriginSet | PartKind::Policy | PartKind::Upstream) => out.push_str("\n  }"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a process runs is written as one text, which the admin listener reads again.
    #[test]
    fn the_text_of_the_parts_reads_as_the_same_document() {
        let text = include_str!("../../conf/reference.yaml");
        let mut problems = Problems::default();
        let whole = Document::parse(text, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems}");
        let whole = Document { expect: None, expect_files: None, source: None, ..whole };
        let mut parts = Vec::new();
        let named = |kind, name: &String, part: Part| (kind, name.clone(), part);
        let sets = whole.origin_sets.0.iter().map(|(n, v)| named(PartKind::OriginSet, n, Part::OriginSet(v.clone())));
        parts.extend(sets);
        let policies = whole.cors_policies.0.iter();
        parts.extend(policies.map(|(n, v)| named(PartKind::Policy, n, Part::Policy(Box::new(v.clone())))));
        let upstreams = whole.upstreams.0.iter();
        parts.extend(upstreams.map(|(n, v)| named(PartKind::Upstream, n, Part::Upstream(Box::new(v.clone())))));
        let services = whole.services.iter().flatten();
        parts.extend(services.map(|v| (PartKind::Service, String::new(), Part::Service(Box::new(v.clone())))));
        let written: Vec<_> =
            parts.iter().map(|(kind, name, part)| (*kind, name.clone(), part.with_defaults())).collect();
        let text = whole.text_with(written.iter().map(|(kind, name, json)| (*kind, &**name, &**json)));
        let again = Document::parse(&text, &mut problems).unwrap();
        assert!(problems.is_empty(), "{problems}\n{text}");
        assert_eq!(again, whole, "{text}");
    }

    #[test]
    fn a_part_keeps_the_keys_of_its_text() {
        let (policy, service, set) = (PartKind::Policy, PartKind::Service, PartKind::OriginSet);
        #[rustfmt::skip]
        let rows = [
            (policy, "# all\nallow_origins: '*'\nmax_age: 60", r#"{"allow_origins":"*","max_age":60}"#),
            (policy, r#"{ "allow_origins": ["https://a.example"] }"#, r#"{"allow_origins":["https://a.example"]}"#),
            (set, "[https://a.example]", r#"["https://a.example"]"#),
            (set, "https://a.example, https://b.example", r#""https://a.example, https://b.example""#),
            (service, "{ hosts: [a.example], name: api, routes: [{ paths: &p [/], methods: [GET] }, { name: b, paths: *p }] }",
                r#"{"name":"api","hosts":["a.example"],"routes":[{"paths":["/"],"methods":["GET"]},{"name":"b","paths":["/"]}]}"#),
        ];
        for (kind, text, expected) in rows {
            let mut problems = Problems::default();
            let part = Part::parse(kind, text, &mut problems).unwrap_or_else(|| panic!("{text}: {problems}"));
            assert_eq!(part.json(text), expected, "{text}");
            // A text that means something else.
            assert_eq!(part.json("max_age: 1"), part.with_defaults(), "{text}");
        }
    }
}
