//! Translates the keys that APISIX has in etcd into one configuration.

use serde_json::{Value, json};

use crate::import::{ImportReport, Imported, NotImportable, SourceFile, SourceFormat, import_live};

/// The value of a key.
#[derive(Debug)]
pub(crate) struct ApisixObject<'k> {
    /// Kind and id, such as `routes/1`.
    key: &'k str,
    /// A document with this object only.
    document: String,
}

/// The configuration of all objects.
#[derive(Debug)]
pub(crate) struct Translated {
    /// A text that `check` accepts.
    pub(crate) text: String,
    pub(crate) notes: Vec<KeyNote>,
}

/// A difference between APISIX and the translated configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KeyNote {
    pub(crate) key: String,
    /// `unsafe`, `changed` or `dropped`.
    pub(crate) outcome: &'static str,
    pub(crate) code: &'static str,
    pub(crate) text: String,
}

/// Why no configuration can be made of the objects.
#[derive(Debug)]
pub(crate) enum Untranslatable {
    /// The value of this key cannot be read.
    Value { key: String, why: String },
    /// There is no route that can be translated.
    NoRoute(Vec<KeyNote>),
    /// The result is not valid. This is a bug in corsgate.
    Fault(String),
}

/// The kinds that are translated.
const KINDS: [&str; 6] = ["routes", "services", "upstreams", "plugin_configs", "global_rules", "plugin_metadata"];

// === impl ApisixObject ===

impl<'k> ApisixObject<'k> {
    /// Whether keys of this kind are translated.
    pub(crate) fn is_kind(kind: &str) -> bool {
        KINDS.contains(&kind)
    }

    /// Reads the value of a key. Err: why it cannot be read.
    pub(crate) fn read(key: &'k str, value: &[u8]) -> Result<Self, String> {
        let (kind, id) = key.split_once('/').unwrap_or((key, ""));
        let value = serde_json::from_slice(value).map_err(|error| format!("the value is not JSON: {error}"))?;
        let Value::Object(mut object) = value else { return Err("the value is not a JSON object".to_owned()) };
        // APISIX goes by the key.
        object.insert("id".to_owned(), id.into());
        Ok(ApisixObject { key, document: json!({ kind: [object] }).to_string() })
    }
}

/// Translates the objects of all keys.
pub(crate) fn translate(objects: &[ApisixObject<'_>]) -> Result<Translated, Untranslatable> {
    let files: Vec<SourceFile<'_>> =
        objects.iter().map(|object| SourceFile { name: object.key, text: &object.document }).collect();
    match import_live(&files, SourceFormat::Apisix) {
        Ok(Imported { text, report }) => Ok(Translated { text, notes: notes(&report) }),
        Err(NotImportable::Syntax { file, message, .. }) => Err(Untranslatable::Value { key: file, why: message }),
        Err(NotImportable::Nothing(report)) => Err(Untranslatable::NoRoute(notes(&report))),
        Err(error) => Err(Untranslatable::Fault(error.to_string())),
    }
}

fn notes(report: &ImportReport) -> Vec<KeyNote> {
    let note = |(key, outcome, code, text): (&str, &'static str, &'static str, String)| KeyNote {
        key: key.to_owned(),
        outcome,
        code,
        text,
    };
    report.changes().map(note).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn translated(objects: &[(&str, &str)]) -> Result<Translated, Untranslatable> {
        let read: Vec<_> =
            objects.iter().map(|(key, value)| ApisixObject::read(key, value.as_bytes()).unwrap()).collect();
        translate(&read)
    }

    #[test]
    fn objects_of_several_keys_are_one_configuration() {
        let all = [
            ("plugin_metadata/cors", r#"{"allow_origins":{"shop":"https://shop.example"}}"#),
            (
                "routes/1",
                r#"{"uri":"/a","service_id":"s","id":"other","plugins":{"cors":{"allow_origins_by_metadata":["shop"]}}}"#,
            ),
            ("services/s", r#"{"hosts":["a.example"],"upstream_id":"u"}"#),
            ("upstreams/u", r#"{"nodes":{"n.example:80":1},"type":"roundrobin"}"#),
        ];
        let Translated { text, notes } = translated(&all).unwrap();
        for part in ["a.example", "https://shop.example", "n.example:80", "/a"] {
            assert!(text.contains(part), "no {part} in\n{text}");
        }
        assert!(notes.iter().all(|note| all.iter().any(|(key, _)| *key == note.key)), "{notes:?}");
    }

    /// A route whose service or plugin config is missing has lost its policy. It must not be served without it, and no
    /// wider route may take its requests.
    #[test]
    fn a_route_with_a_missing_part_is_closed() {
        let wide = ("routes/all", r#"{"uri":"/*","upstream":{"nodes":{"n.example:80":1}}}"#);
        for missing in [r#""service_id":"s""#, r#""plugin_config_id":"p""#] {
            let route = format!(r#"{{"uri":"/a","upstream":{{"nodes":{{"n.example:80":1}}}},{missing}}}"#);
            let Translated { text, notes } = translated(&[wide, ("routes/1", &route)]).unwrap();
            assert!(text.contains("status: 503"), "{text}");
            assert!(notes.iter().any(|note| note.key == "routes/1"), "{notes:?}");
        }
    }

    /// The keys are served before anybody reads a report, so a route must not lose its login.
    #[test]
    fn a_route_with_a_plugin_that_may_refuse_requests_is_closed() {
        let wide = ("routes/all", r#"{"uri":"/*","upstream":{"nodes":{"n.example:80":1}}}"#);
        let upstream = r#""upstream":{"nodes":{"n.example:80":1}}"#;
        for (plugin, is_closed) in [
            (r#""key-auth":{}"#, true),
            (r#""our-own-plugin":{}"#, true),
            (r#""proxy-rewrite":{"uri":"/$1","method":"GET"}"#, true),
            (r#""key-auth":{"_meta":{"disable":true}}"#, false),
            (r#""prometheus":{}"#, false),
            (r#""kafka-logger":{}"#, false),
            (r#""ip-restriction":{"whitelist":["10.0.0.0/8"]}"#, false),
            (r#""cors":{"allow_origins":"https://a.example"}"#, false),
        ] {
            let route = format!(r#"{{"uri":"/a",{upstream},"plugins":{{{plugin}}}}}"#);
            let of_service = format!(r#"{{"plugins":{{{plugin}}},{upstream}}}"#);
            let in_service = r#"{"uri":"/a","service_id":"s"}"#;
            let of_config = format!(r#"{{"plugins":{{{plugin}}}}}"#);
            let in_config = format!(r#"{{"uri":"/a",{upstream},"plugin_config_id":"c"}}"#);
            for keys in [
                vec![wide, ("routes/1", &*route)],
                vec![wide, ("routes/1", in_service), ("services/s", &of_service)],
                vec![wide, ("routes/1", &in_config), ("plugin_configs/c", &of_config)],
            ] {
                let Translated { text, notes } = translated(&keys).unwrap();
                assert_eq!(text.contains("status: 503"), is_closed, "{plugin}: {text}");
                let is_noted = notes.iter().any(|note| note.code == "guard-missing" && note.key == "routes/1");
                assert_eq!(is_noted, is_closed, "{plugin}: {notes:?}");
            }
        }
        let script = format!(r#"{{"uri":"/a",{upstream},"script":"local _M = {{}} return _M"}}"#);
        let Translated { text, .. } = translated(&[wide, ("routes/1", &script)]).unwrap();
        assert!(text.contains("status: 503"), "{text}");
        let everywhere = [wide, ("global_rules/1", r#"{"plugins":{"key-auth":{}}}"#)];
        let found = translated(&everywhere).unwrap_err();
        assert!(
            matches!(&found, Untranslatable::NoRoute(notes) if notes.iter().any(|note| note.code == "guard-missing"))
        );
    }

    #[test]
    fn values_are_refused_with_a_reason() {
        for (value, why) in [
            ("", "the value is not JSON: EOF"),
            ("init_dir", "the value is not JSON: expected"),
            ("[]", "the value is not a JSON object"),
            ("{}]}, {\"routes\": [", "the value is not JSON: trailing"),
        ] {
            let found = ApisixObject::read("routes/1", value.as_bytes()).unwrap_err();
            assert!(found.starts_with(why), "{value}: {found}");
        }
        let found = translated(&[("upstreams/u", "{}")]).unwrap_err();
        assert!(matches!(found, Untranslatable::NoRoute(_)), "{found:?}");
    }
}
