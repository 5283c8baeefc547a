//! The schema of `corsgate schema` accepts every file that `check` accepts, and refuses files of wrong form. An
//! independent validator checks this, like an editor.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use jsonschema::Validator;
use serde_json::{Value, json};

use crate::corpus;
use crate::support::gateway::run;
use corsgate::snapshot::Loaded;

/// Codes of files of wrong form. The schema refuses every file with one of them.
const OF_FORM: &[&str] = &[
    "any-in-set",
    "bad-header-name",
    "bad-max-age",
    "bad-method",
    "bad-name",
    "bad-preflight-status",
    "bad-refused-status",
    "cors-true",
    "empty-entry",
    "empty-list",
    "hash-on-unknown",
    "http2-beside-tls",
    "key-and-alias",
    "missing",
    "needs-another",
    "no-origins",
    "null-in-set",
    "origin-bad-character",
    "origin-bad-scheme",
    "origin-empty-host",
    "origin-misplaced-wildcard",
    "origin-path",
    "origin-query",
    "origin-reflects-all",
    "origin-several",
    "origin-trailing-slash",
    "origin-unknown-placeholder",
    "origin-upper-case",
    "origin-userinfo",
    "origin-without-scheme",
    "out-of-range",
    "redirect-over-tls",
    "unknown-key",
    "unknown-word",
    "wrong-value",
];

/// Files with such a code that a readable schema cannot refuse.
const BEYOND_A_SCHEMA: &[(&str, &str)] = &[
    ("duration_over_a_day.txt", "a pattern would have to count"),
    ("expectation_file_misspelt.txt", "the mistakes are in other files"),
    ("path_restores_nothing.txt", "the short form of the key is at another place"),
    ("proxy_protocol_without_trust.txt", "two places far from each other"),
    ("size_too_large.txt", "a pattern would have to count"),
    ("unknown_tag.txt", "JSON has no tags"),
];

#[test]
fn the_schema_accepts_every_file_that_check_accepts() {
    let schema = validator();
    let mut failures = String::new();
    let mut texts: Vec<(PathBuf, String)> = Vec::new();
    let read = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        (path, text)
    };
    texts.extend(corpus::files("good", "yaml").into_iter().map(read));
    texts.extend(corpus::cases("warned").into_iter().map(|case| (case.path, case.config)));
    let examples = fs::read_dir(root().join("conf")).unwrap().map(|entry| entry.unwrap().path());
    texts.extend(examples.filter(|path| path.is_file()).map(read));
    assert!(texts.len() > 100, "only {} were found", texts.len());
    for (path, text) in texts {
        let value = value(&text).unwrap_or_else(|| panic!("{} is no YAML", path.display()));
        for error in schema.iter_errors(&value) {
            let _ = writeln!(failures, "{}: {} {error}", path.display(), error.instance_path());
        }
    }
    assert!(failures.is_empty(), "{failures}");
}

#[test]
fn the_schema_refuses_files_of_wrong_form() {
    let schema = validator();
    let (mut accepted, mut seen) = (BTreeSet::new(), BTreeSet::new());
    for case in corpus::cases("refused") {
        // An editor reports invalid YAML and repeated keys even without a schema.
        let Some(value) = value(&case.config) else { continue };
        let problems = corpus::read(&case.config).problems;
        let codes = problems.iter().map(|problem| problem.kind.code());
        let of_form: Vec<&str> = codes.filter(|code| OF_FORM.contains(code)).collect();
        if !of_form.is_empty() && schema.is_valid(&value) {
            accepted.insert(case.path.file_name().unwrap().to_string_lossy().into_owned());
        }
        seen.extend(of_form);
    }
    let beyond: BTreeSet<String> = BEYOND_A_SCHEMA.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(accepted, beyond);
    assert_eq!(seen, OF_FORM.iter().copied().collect(), "a code without a file says nothing");
}

#[test]
fn the_schema_refuses_an_unknown_key_at_each_place() {
    let schema = validator();
    let document = reference();
    let mut places = Vec::new();
    walk(&document, &mut String::new(), &mut |path, value| {
        // Below these places the keys are names.
        let names = [
            "/origin_sets",
            "/cors_policies",
            "/upstreams",
            "headers/set",
            "headers/add",
            "respond/headers",
            "expect/0/headers",
            "upstream/headers",
        ];
        if value.is_object() && !names.iter().any(|names| path.ends_with(names)) {
            places.push(path.to_owned());
        }
    });
    assert!(places.len() > 25, "only {places:?}");
    for place in places {
        let mut changed = document.clone();
        let mapping = changed.pointer_mut(&place).unwrap().as_object_mut().unwrap();
        mapping.insert("no_such_key".into(), json!(1));
        let errors: Vec<String> = schema.iter_errors(&changed).map(|error| error.to_string()).collect();
        assert_eq!(errors.len(), 1, "{place}: {errors:?}");
        assert!(corpus::read(&changed.to_string()).snapshot.is_none(), "{place}");
    }
}

/// Replaces each value in the file that has every key.
#[test]
fn the_schema_accepts_every_value_that_check_accepts() {
    let schema = validator();
    let document = reference();
    let others = [
        json!(true),
        json!(1),
        json!(204),
        json!(1.5),
        json!("7"),
        json!("*"),
        json!("a.example., b"),
        json!("[::1]:80"),
        json!("https://a.example, tauri://*:*"),
        json!("/a/{id}/*"),
        json!("007s"),
        json!("1KiB"),
        json!("path"),
        json!(["a", 7, true]),
        json!([]),
        json!({}),
        Value::Null,
    ];
    // Where a text is expected, `check` reads YAML's keywords as text; see the documentation of
    // `corsgate::config::schema`.
    let is_odd = |place: &str, is_text: bool, other: &Value| match other {
        Value::Null => is_text,
        Value::Bool(_) | Value::Number(_) => {
            let paths_of_files = ["cert", "key", "ca", "client_ca", "to", "upgrade_socket"];
            paths_of_files.contains(&place.rsplit('/').next().unwrap())
        }
        _ => false,
    };
    let mut places = Vec::new();
    walk(&document, &mut String::new(), &mut |path, value| places.push((path.to_owned(), value.is_string())));
    let (mut accepted, mut refused, mut missed) = (0, 0, 0);
    for (place, is_text) in places.into_iter().filter(|(place, _)| !place.is_empty()) {
        for other in others.iter().filter(|other| !is_odd(&place, is_text, other)) {
            let mut changed = document.clone();
            *changed.pointer_mut(&place).unwrap() = other.clone();
            let errors: Vec<String> = schema.iter_errors(&changed).map(|error| error.to_string()).collect();
            match corpus::read(&changed.to_string()).snapshot {
                Some(_) => {
                    accepted += 1;
                    assert!(errors.is_empty(), "{place}: {other}: {errors:?}");
                }
                None if errors.is_empty() => missed += 1,
                None => refused += 1,
            }
        }
    }
    assert!(accepted > 200, "only {accepted} were accepted");
    // The other differences would need names, files or two places of the file.
    assert!(refused > 10 * missed, "{refused} are refused, {missed} are not");
}

/// The same for texts with their own syntax. Valid texts get an insertion or a deletion at any position.
#[test]
fn the_schema_accepts_every_text_that_check_reads() {
    use corsgate::cors::OriginPattern;
    use corsgate::domain::Networks;
    use corsgate::notation::{Duration, Size};
    use corsgate::route::{HostPattern, PathPattern};
    type Reads = fn(&str) -> bool;
    let forms: [(&str, Reads, &[&str]); 6] = [
        (
            "Origins",
            |text| OriginPattern::parse(text).is_ok(),
            &[
                "https://*.a-b.example:8443",
                "http://localhost:*",
                "tauri://*",
                "https://[2001:db8::7]",
                "a+b.c-1://x_y",
                "https://*.a-{digits}.{label}-{hex}.b.example:8443",
            ],
        ),
        (
            "Hosts",
            |text| HostPattern::parse(text).is_ok(),
            &["*.Api-1.example.", "192.0.2.7", "[2001:db8::7]", "[::1]"],
        ),
        (
            "Paths",
            |text| PathPattern::parse(text).is_ok(),
            &["/v1/{id}/a%20b;c='d'/*", "/", "/*", "/a//b/", "/~a!$&,@"],
        ),
        ("Networks", |text| Networks::parse_entry(text).is_some(), &["10.0.0.0/8", "2001:db8::/32", "::1"]),
        ("Duration", |text| Duration::parse(text).is_some(), &["500ms", "02s", "5m", "24h"]),
        ("Size", |text| Size::parse(text).is_some(), &["512B", "064KiB", "1MiB", "2GiB"]),
    ];
    let root: Value = serde_json::from_str(&corsgate::config::schema::json()).unwrap();
    for (name, reads, texts) in forms {
        let schema = jsonschema::draft202012::new(&root["$defs"][name]).unwrap();
        let (mut read, mut tried) = (0, 0);
        for text in texts {
            let ends: Vec<usize> = (0..=text.len()).filter(|at| text.is_char_boundary(*at)).collect();
            let slips = [
                "", "*", ".", "/", ":", "://", "-", "_", "+", "[", "{", "}", "%", "#", "?", "a", "Z", "0", "1", "ü",
                " ", "\\",
            ];
            for (i, at) in ends.iter().enumerate() {
                for slip in slips {
                    for skipped in 0..=1 {
                        let Some(rest) = ends.get(i + skipped) else { continue };
                        let changed = format!("{}{slip}{}", &text[..*at], &text[*rest..]);
                        // As an entry of a list, or as the only entry in a string; durations and sizes directly.
                        let values = match name {
                            "Duration" | "Size" => vec![json!(changed)],
                            _ => vec![json!(changed), json!([changed])],
                        };
                        tried += 1;
                        if reads(&changed) {
                            read += 1;
                            for value in values {
                                // A comma in a string separates entries.
                                let is_list_only = changed.contains(',') && value.is_string();
                                assert!(is_list_only || schema.is_valid(&value), "{name}: {value}");
                            }
                        }
                    }
                }
            }
        }
        assert!(read > 10 && read < tried, "{name}: {read} of {tried}");
    }
}

/// The bounds and the defaults of the schema are those of `check`.
#[test]
fn bounds_and_defaults_of_the_schema_are_those_of_check() {
    let schema = serde_json::from_str::<Value>(&corsgate::config::schema::json()).unwrap();
    let document = reference();
    let with = |place: &str, value: &Value| {
        let mut changed = document.clone();
        *changed.pointer_mut(place).unwrap() = value.clone();
        let Loaded { snapshot, problems } = corpus::read(&changed.to_string());
        snapshot.map(drop).ok_or(problems)
    };
    let (mut bounds, mut defaults) = (0, 0);
    walk(&document, &mut String::new(), &mut |place, _| {
        let Some(property) = property(&schema, place) else { return };
        if let Some(default) = property.get("default") {
            // A policy for all services, and hashing, need changes in other places too.
            defaults += 1;
            let needs_more = place.ends_with("/balance") && document.pointer(place).unwrap() == "hash";
            assert!(
                needs_more || with(place, default).is_ok(),
                "{place}: {default}: {}",
                with(place, default).unwrap_err()
            );
        }
        if property["type"] != "integer" {
            return;
        }
        let bound = |key: &str| property.get(key).and_then(Value::as_i64);
        if let Some(most) = bound("maximum") {
            bounds += 1;
            assert!(with(place, &json!(most)).is_ok(), "{place}: {most}");
            assert!(with(place, &json!(most + 1)).is_err(), "{place}: {most} + 1");
        }
        if let Some(least) = bound("minimum") {
            bounds += 1;
            assert!(place.ends_with("/weight") || with(place, &json!(least)).is_ok(), "{place}: {least}");
            assert!(with(place, &json!(least - 1)).is_err(), "{place}: {least} - 1");
        }
    });
    assert!(bounds > 20 && defaults > 45, "{bounds} bounds, {defaults} defaults");
}

#[test]
fn the_command_prints_the_schema_and_nothing_else() {
    let output = run(&["schema"]);
    assert_eq!((output.code, &*output.stderr), (0, ""));
    assert_eq!(output.stdout, corsgate::config::schema::json());
    let schema: Value = serde_json::from_str(&output.stdout).unwrap();
    assert!(jsonschema::meta::is_valid(&schema));
    assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    assert_eq!(schema["properties"]["listeners"]["minItems"], 1);
}

/// Editors show the description of a key, so each key must have one.
#[test]
fn every_key_has_a_description() {
    let schema: Value = serde_json::from_str(&corsgate::config::schema::json()).unwrap();
    let mappings = schema["$defs"].as_object().unwrap().values().chain([&schema]);
    let mut keys = 0;
    for (key, property) in mappings.filter_map(|mapping| mapping["properties"].as_object()).flatten() {
        keys += 1;
        let about = property["description"].as_str().unwrap_or_default();
        assert!(about.ends_with('.') && !about.contains('\n') && about.len() > 8, "{key}: {about:?}");
    }
    assert!(keys > 90, "only {keys}");
}

/// `BLESS=1 cargo test --test it schema` rewrites it.
#[test]
fn the_reference_page_is_up_to_date() {
    let path = root().join("docs/reference.md");
    let page = corsgate::config::schema::reference();
    if std::env::var_os("BLESS").is_some_and(|value| value == "1") {
        fs::write(&path, &page).unwrap();
    }
    assert!(
        fs::read_to_string(&path).unwrap() == page,
        "docs/reference.md is stale: BLESS=1 cargo test --test it schema"
    );
}

/// The file that has every key.
fn reference() -> Value {
    value(&fs::read_to_string(root().join("conf/reference.yaml")).unwrap()).unwrap()
}

/// Every value with its JSON pointer, the root first.
fn walk(value: &Value, path: &mut String, look: &mut dyn FnMut(&str, &Value)) {
    look(path, value);
    let length = path.len();
    let entries: Vec<(String, &Value)> = match value {
        Value::Object(object) => object.iter().map(|(key, value)| (key.clone(), value)).collect(),
        Value::Array(list) => list.iter().enumerate().map(|(i, value)| (i.to_string(), value)).collect(),
        _ => Vec::new(),
    };
    for (step, value) in entries {
        path.push('/');
        path.push_str(&step);
        walk(value, path, look);
        path.truncate(length);
    }
}

/// The schema of the key at a place. None if there is no such key.
fn property<'s>(schema: &'s Value, place: &str) -> Option<&'s Value> {
    let mut found = Some(schema);
    let mut at = vec![schema];
    for step in place.split('/').skip(1) {
        at = at.into_iter().flat_map(|here| choices(schema, here)).collect();
        found = at.iter().find_map(|here| here.get("properties")?.get(step));
        let below = at.iter().filter_map(|here| here.get("items").or_else(|| here.get("additionalProperties")));
        at = match found {
            Some(property) => vec![property],
            None => below.collect(),
        };
    }
    found
}

/// A schema with its references resolved.
fn choices<'s>(root: &'s Value, schema: &'s Value) -> Vec<&'s Value> {
    let mut all = vec![schema];
    if let Some(name) = schema["$ref"].as_str() {
        all.extend(choices(root, root.pointer(&name[1..]).unwrap()));
    }
    for choice in schema["anyOf"].as_array().into_iter().flatten() {
        all.extend(choices(root, choice));
    }
    all
}

/// The file of a process whose services are in etcd.
#[test]
fn a_file_with_a_source_needs_no_services() {
    let schema = validator();
    for (text, valid) in [
        ("{ listeners: [{ address: '127.0.0.1:1' }], source: { etcd: { endpoints: '127.0.0.1:2379' } } }", true),
        ("{ source: { etcd: { endpoints: '127.0.0.1:2379' } } }", true),
        ("{ listeners: [{ address: '127.0.0.1:1' }] }", false),
        ("{ services: [{ respond: { status: 200 } }] }", false),
        ("{ source: { etcd: {} } }", false),
    ] {
        assert_eq!(schema.is_valid(&serde_yaml::from_str(text).unwrap()), valid, "{text}");
    }
}

fn validator() -> Validator {
    let schema: Value = serde_json::from_str(&corsgate::config::schema::json()).unwrap();
    jsonschema::draft202012::new(&schema).expect("a schema")
}

/// Returns a configuration as an editor reads it: anchors and tags are resolved, and keys are text.
fn value(text: &str) -> Option<Value> {
    let value: serde_yaml::Value = serde_yaml::from_str(text.trim_start_matches('\u{feff}')).ok()?;
    Some(as_json(value))
}

fn as_json(value: serde_yaml::Value) -> Value {
    use serde_yaml::Value as Yaml;
    match value {
        Yaml::Null => Value::Null,
        Yaml::Bool(word) => word.into(),
        Yaml::Number(number) => serde_json::to_value(number).unwrap(),
        Yaml::String(text) => text.into(),
        Yaml::Sequence(list) => list.into_iter().map(as_json).collect(),
        Yaml::Mapping(mapping) => {
            let key = |key| match as_json(key) {
                Value::String(text) => text,
                other => other.to_string(),
            };
            mapping.into_iter().map(|(k, value)| (key(k), as_json(value))).collect()
        }
        Yaml::Tagged(tagged) => as_json(tagged.value),
    }
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
