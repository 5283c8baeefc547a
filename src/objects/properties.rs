//! Random objects in texts of several forms: a put object is read back as it was, and nothing else of the text changes.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::tests::{id, propose_in};
use super::{ObjectChange, read};

/// The text between the marks may change. `{}` is the object, which has another form in each text.
const TEXTS: [&str; 5] = [
    "# top\nlisteners: [{ address: 127.0.0.1:1 }]\nSECTION:\n  # a\n  first: FIRST   # b\n  # <\n  x: {}\n  # >\n  last: FIRST # d\n\n# e\nservices:\n- name: s\n  respond: { status: 204 }\n",
    "SECTION: { first: FIRST, x: {}, last: FIRST }   # why\nlisteners: [{ address: 127.0.0.1:1 }]\nservices: [{ name: s, respond: { status: 204 } }]\n",
    "{\n  \"SECTION\": {\n    \"first\": FIRST,\n    \"x\": {},\n    \"last\": FIRST\n  },\n  \"listeners\": [{ \"address\": \"127.0.0.1:1\" }],\n  \"services\": [{ \"name\": \"s\", \"respond\": { \"status\": 204 } }]\n}",
    "listeners:\r\n- address: 127.0.0.1:1\r\nservices:\r\n- name: s\r\n  respond: { status: 204 }\r\nSECTION:\r\n    first: FIRST\r\n    x: {}\r\n    last: FIRST\r\n",
    "# \u{e4}\u{1f600}\nSECTION:\n  \"first\": FIRST\n  'x'  :   {}\n  last: FIRST\nlisteners: [{ address: 127.0.0.1:1 }]\nservices:\n  - # s\n    name: s\n    respond: { status: 204 }",
];

fn origin() -> impl Strategy<Value = String> {
    prop_oneof![
        "[a-z]{1,8}".prop_map(|name| format!("https://{name}.example")),
        "[a-z]{1,8}".prop_map(|name| format!("https://*.{name}.example")),
        (1..9999u16).prop_map(|port| format!("http://localhost:{port}")),
        Just("tauri://localhost".to_owned()),
    ]
}

fn header() -> impl Strategy<Value = String> {
    "[A-Za-z!#$&'|~^`][A-Za-z0-9!#$&'|~^`_-]{0,12}".prop_filter("a value with a meaning", |name| {
        !name.to_ascii_lowercase().starts_with("access-control") && !name.contains("${")
    })
}

/// A policy, with values that need quotes in YAML.
fn policy() -> impl Strategy<Value = Value> {
    let origins = prop::collection::vec(origin(), 1..5);
    let headers = prop::option::of(prop::collection::vec(header(), 0..6));
    let methods = prop::option::of(prop::collection::vec("[A-Z]{3,7}|true|no|null|1|0x1F|1e3", 0..4));
    let nested = prop::option::of((prop::bool::ANY, prop::option::of(200..205u16)));
    (origins, headers, methods, prop::option::of(0..86400u32), prop::option::of(prop::bool::ANY), nested).prop_map(
        |(origins, headers, methods, max_age, credentials, nested)| {
            let mut policy = json!({ "allow_origins": origins });
            if let Some(headers) = headers {
                policy["allow_headers"] = headers.into();
            }
            if let Some(methods) = methods {
                policy["allow_methods"] = methods.into();
            }
            if let Some(max_age) = max_age {
                policy["max_age"] = max_age.into();
            }
            if let Some(credentials) = credentials {
                policy["allow_credentials"] = credentials.into();
            }
            if let Some((standard, status)) = nested {
                policy["preflight"] = json!({ "match": if standard { "standard" } else { "any" } });
                if let Some(status @ (200 | 204)) = status {
                    policy["preflight"]["status"] = status.into();
                }
            }
            policy
        },
    )
}

fn upstream() -> impl Strategy<Value = Value> {
    let node = (1..255u8, 1..9999u16, prop::option::of(1..100u32)).prop_map(|(host, port, weight)| {
        let mut node = json!({ "address": format!("127.0.0.{host}:{port}") });
        if let Some(weight) = weight {
            node["weight"] = weight.into();
        }
        node
    });
    (prop::collection::vec(node, 1..5), prop::option::of(0..10u8), prop::option::of("[1-9][0-9]{0,2}s")).prop_map(
        |(nodes, retries, read)| {
            let mut upstream = json!({ "nodes": nodes });
            if let Some(retries) = retries {
                upstream["retries"] = retries.into();
            }
            if let Some(read) = read {
                upstream["timeouts"] = json!({ "read": read, "write": "5s" });
            }
            upstream
        },
    )
}

fn set() -> impl Strategy<Value = Value> {
    prop::collection::vec(origin(), 1..30).prop_map(Value::from)
}

/// A section, three of its objects, and a name for a new one.
fn case() -> impl Strategy<Value = (&'static str, [Value; 3], String)> {
    let name = "[a-z][a-z0-9_.-]{0,8}|null|true|1|0x1F"
        .prop_filter("a new name", |name| !["first", "x", "last"].contains(&&**name));
    let objects = prop_oneof![
        [policy(), policy(), policy()].prop_map(|objects| ("cors_policies", objects)),
        [upstream(), upstream(), upstream()].prop_map(|objects| ("upstreams", objects)),
        [set(), set(), set()].prop_map(|objects| ("origin_sets", objects)),
    ];
    (objects, name).prop_map(|((section, objects), name)| (section, objects, name))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    #[test]
    fn a_put_object_is_read_back_and_nothing_else_changes((section, [first, old, new], name) in case(), form in 0..TEXTS.len()) {
        let text = |x: &Value| {
            let text = TEXTS[form].replace("SECTION", section).replace("FIRST", &first.to_string());
            text.replacen("{}", &x.to_string(), 1)
        };
        let before = text(&old);
        let (at, value) = (format!("{section}/x"), new.to_string());
        let put = |text: &str, at: &str, value: &str| {
            propose_in(text, at, ObjectChange::Put(value)).map(|proposal| proposal.text)
        };
        // Random methods or header names may be invalid; then nothing is to be seen here.
        prop_assume!(corsgate_accepts(&before) && corsgate_accepts(&text(&new)));
        let after = put(&before, &at, &value);
        prop_assert!(after.is_ok(), "{after:?}\n{before}\n{value}");
        let after = after.unwrap();
        prop_assert_eq!(&read(&after, &id(&at)).unwrap().value, &new);
        // The text in front of the object and behind it.
        let marked = TEXTS[form].replace("SECTION", section).replace("FIRST", &first.to_string());
        let (front, back) = marked.split_once("{}").unwrap();
        let (front, back) = (front.trim_end(), back.trim_start_matches(' '));
        prop_assert!(after.starts_with(front) && after.ends_with(back), "{before}\n---\n{after}");
        // The same object again is no change, and the old one gives its values back.
        prop_assert_eq!(&put(&after, &at, &value).unwrap(), &after);
        let back_again = put(&after, &at, &old.to_string()).unwrap();
        prop_assert_eq!(&read(&back_again, &id(&at)).unwrap().value, &old);
        // A new object that is deleted leaves no trace.
        let at = format!("{section}/{name}");
        let with = put(&before, &at, &value);
        prop_assert!(with.is_ok(), "{with:?}\n{before}\n{at}");
        let with = with.unwrap();
        prop_assert_eq!(&read(&with, &id(&at)).unwrap().value, &new);
        let without = propose_in(&with, &at, ObjectChange::Delete).map(|proposal| proposal.text);
        prop_assert_eq!(without.as_deref(), Ok(&*before));
    }
}

fn corsgate_accepts(text: &str) -> bool {
    crate::snapshot::load(text, crate::snapshot::CompileEnv::NONE).snapshot.is_some()
}
