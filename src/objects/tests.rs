//! Changes of texts.

use serde_json::json;

use super::*;
use crate::snapshot::{CompileEnv, load};

const TEXT: &str = "\
# The gateway of the shop.
listeners:
  - address: 127.0.0.1:9080   # behind the load balancer

origin_sets:
  partners: [https://a.example, https://b.example]   # two

cors_policies:
  # Anybody may read.
  public:
    allow_origins: \"*\"   # really anybody
    allow_methods:
      - GET    # read
      - PUT    # write
    max_age: 60

upstreams:
  api: { nodes: [{ address: 127.0.0.1:8000 }] }

services:
  # The shop.
  - name: shop
    hosts: [shop.example]
    upstream: api
    cors: public
    routes:
      # Orders of customers.
      - name: orders
        paths: [/orders/*]   # all
        # Only some.
        methods: [GET]
      - { paths: [/health], cors: false }
  # Everything else.
  - name: rest
    upstream: api
# The end.
";

fn present<'a>(text: &'a str, snapshot: &'a Snapshot) -> Present<'a> {
    Present { text, snapshot }
}

pub(super) fn id(text: &str) -> ObjectId {
    let mut parts = text.splitn(4, '/');
    let (section, name) = (parts.next().unwrap(), parts.next().unwrap().to_owned());
    match parts.nth(1) {
        Some(route) => ObjectId::Route { service: name, route: route.to_owned() },
        None => ObjectId::Named { section: Section::of(section).unwrap(), name },
    }
}

pub(super) fn propose_in(text: &str, at: &str, change: ObjectChange<'_>) -> Result<Proposal, ChangeRefusal> {
    let load = |text: &str| load(text, CompileEnv::NONE);
    let snapshot = load(text).snapshot.expect("the text is valid");
    propose(present(text, &snapshot), &id(at), change, &Condition::Always, &load)
}

/// The lines that a change removes and adds, each with `-` or `+`.
fn lines(at: &str, change: ObjectChange<'_>) -> String {
    lines_in(TEXT, at, change)
}

fn lines_in(text: &str, at: &str, change: ObjectChange<'_>) -> String {
    let proposal = propose_in(text, at, change).unwrap_or_else(|refusal| panic!("{at} {change:?}: {refusal:?}"));
    let mut out = String::new();
    for hunk in crate::config::hunks(text, &proposal.text) {
        let lines =
            |mark: &str, lines: &[String]| lines.iter().map(|line| format!("{mark}{line}\n")).collect::<String>();
        out += &lines("-", &hunk.removed);
        out += &lines("+", &hunk.added);
    }
    out
}

#[test]
fn only_the_changed_values_get_another_text() {
    for (at, change, expected) in [
        ("cors_policies/public", ObjectChange::Patch("max_age: 7200"), "-    max_age: 60\n+    max_age: 7200\n"),
        ("cors_policies/public", ObjectChange::Patch("max_age: null"), "-    max_age: 60\n"),
        ("cors_policies/public", ObjectChange::Patch("allow_methods: [GET, PUT, DELETE]"), "+      - DELETE\n"),
        ("cors_policies/public", ObjectChange::Patch("allow_methods: [PUT]"), "-      - GET    # read\n"),
        (
            "cors_policies/public",
            ObjectChange::Patch("allow_methods: [GET, DELETE]"),
            "-      - PUT    # write\n+      - DELETE    # write\n",
        ),
        (
            "cors_policies/public",
            ObjectChange::Patch("allow_credentials: true\nallow_origins: https://a.example"),
            "-    allow_origins: \"*\"   # really anybody\n+    allow_origins: https://a.example   # really anybody\n\
             +    allow_credentials: true\n",
        ),
        (
            "cors_policies/private",
            ObjectChange::Put("{\"allow_origins\": [\"https://a.example\"], \"max_age\": 5}"),
            "+  private: { allow_origins: [https://a.example], max_age: 5 }\n",
        ),
        (
            "origin_sets/partners",
            ObjectChange::Put("[https://a.example, https://c.example, https://d.example]"),
            "-  partners: [https://a.example, https://b.example]   # two\n\
             +  partners: [https://a.example, https://c.example, https://d.example]   # two\n",
        ),
        ("origin_sets/ours", ObjectChange::Put("[https://a.example]"), "+  ours: [https://a.example]\n"),
        (
            "origin_sets/partners",
            ObjectChange::Delete,
            "-origin_sets:\n-  partners: [https://a.example, https://b.example]   # two\n+origin_sets: {}\n",
        ),
        (
            "services/shop/routes/orders",
            ObjectChange::Patch("methods: [GET, POST]"),
            "-        methods: [GET]\n+        methods: [GET, POST]\n",
        ),
        ("services/shop/routes/cart", ObjectChange::Put("paths: [/cart]"), "+      - { name: cart, paths: [/cart] }\n"),
        (
            "services/shop/routes//health",
            ObjectChange::Patch("cors: public"),
            "-      - { paths: [/health], cors: false }\n+      - { paths: [/health], cors: public }\n",
        ),
        ("services/shop/routes//health", ObjectChange::Delete, "-      - { paths: [/health], cors: false }\n"),
        (
            "services/shop/routes/orders",
            ObjectChange::Delete,
            "-      - name: orders\n-        paths: [/orders/*]   # all\n-        # Only some.\n-        methods: [GET]\n",
        ),
        (
            "services/new",
            ObjectChange::Put(
                "{hosts: [new.example], upstream: {nodes: [{address: '127.0.0.1:1', weight: 2}]}, routes: [{paths: [/a]}]}",
            ),
            "+  - name: new\n+    hosts: [new.example]\n+    upstream:\n+      nodes:\n\
             +        - { address: 127.0.0.1:1, weight: 2 }\n+    routes:\n+      - { paths: [/a] }\n",
        ),
        ("services/rest", ObjectChange::Patch("cors: false"), "+    cors: false\n"),
        ("services/rest", ObjectChange::Delete, "-  - name: rest\n-    upstream: api\n"),
        (
            "services/shop",
            ObjectChange::Patch("{upstream: {nodes: [{address: '127.0.0.1:1'}]}}"),
            "-    upstream: api\n+    upstream:\n+      nodes:\n+        - { address: 127.0.0.1:1 }\n",
        ),
        (
            "upstreams/api",
            ObjectChange::Patch("{retries: 3}"),
            "-  api: { nodes: [{ address: 127.0.0.1:8000 }] }\n+  api: { nodes: [{ address: 127.0.0.1:8000 }], retries: 3 }\n",
        ),
        ("upstreams/api", ObjectChange::Patch("{}"), ""),
    ] {
        assert_eq!(lines(at, change), expected, "{at} {change:?}");
    }
}

#[test]
fn a_section_that_is_empty_or_missing_gets_its_first_object() {
    let text = "listeners: [{ address: 127.0.0.1:1 }]\nservices:\n- name: a\n  upstream: { nodes: [{ address: 127.0.0.1:2 }] }\n";
    let put = ObjectChange::Put("[https://a.example]");
    assert_eq!(lines_in(text, "origin_sets/a", put), "+origin_sets:\n+  a: [https://a.example]\n");
    for (section, expected) in [
        ("origin_sets: {}", "origin_sets: { a: [https://a.example] }"),
        ("origin_sets:", "origin_sets: { a: [https://a.example] }"),
        ("origin_sets:   # none", "origin_sets: { a: [https://a.example] }   # none"),
    ] {
        let text = format!("{section}\n{text}");
        let expected = format!("-{section}\n+{expected}\n");
        assert_eq!(lines_in(&text, "origin_sets/a", put), expected);
    }
    // And the reverse.
    let with = format!("origin_sets:\n  a: [https://a.example]\n{text}");
    let expected = "-origin_sets:\n-  a: [https://a.example]\n+origin_sets: {}\n";
    assert_eq!(lines_in(&with, "origin_sets/a", ObjectChange::Delete), expected);
}

#[test]
fn json_stays_json_and_line_ends_and_marks_stay() {
    let json = "{\n  \"listeners\": [{ \"address\": \"127.0.0.1:1\" }],\n  \"cors_policies\": {\n    \"p\": { \"allow_origins\": \"*\" }\n  },\n  \"services\": [{ \"name\": \"a\", \"upstream\": { \"nodes\": [{ \"address\": \"127.0.0.1:2\" }] } }]\n}\n";
    let expected =
        "-    \"p\": { \"allow_origins\": \"*\" }\n+    \"p\": { \"allow_origins\": \"*\", \"max_age\": 5 }\n";
    assert_eq!(lines_in(json, "cors_policies/p", ObjectChange::Patch("{\"max_age\": 5}")), expected);
    let added = "-    \"p\": { \"allow_origins\": \"*\" }\n+    \"p\": { \"allow_origins\": \"*\" },\n+    \"q\": { \"allow_origins\": \"*\" }\n";
    assert_eq!(lines_in(json, "cors_policies/q", ObjectChange::Put("{\"allow_origins\": \"*\"}")), added);
    let windows = format!("\u{feff}{}", TEXT.replace('\n', "\r\n"));
    let proposal =
        propose_in(&windows, "services/new", ObjectChange::Put("{hosts: [new.example], upstream: api}")).unwrap();
    let expected =
        windows.replace("# The end.", "  - { name: new, hosts: [new.example], upstream: api }\r\n# The end.");
    assert_eq!(proposal.text, expected);
}

/// A text that has no place for the change is not edited: nothing outside of the object may change.
#[test]
fn a_form_that_is_not_understood_is_refused() {
    let text = "listeners: [{ address: 127.0.0.1:1 }]\nupstreams:\n  a: &a { nodes: [{ address: 127.0.0.1:2 }] }\n  b: *a\nservices: [{ name: s, upstream: a }]\n";
    // The anchor is part of the object, and another object uses it.
    let change = ObjectChange::Patch("{retries: 2}");
    assert_eq!(propose_in(text, "upstreams/a", change).unwrap_err(), ChangeRefusal::Form);
    // An alias is replaced by the values.
    assert_eq!(
        lines_in(text, "upstreams/b", change),
        "-  b: *a\n+  b:\n+    nodes:\n+      - { address: 127.0.0.1:2 }\n+    retries: 2\n"
    );
}

#[test]
fn names_and_conditions_are_checked() {
    let load = |text: &str| load(text, CompileEnv::NONE);
    let snapshot = load(TEXT).snapshot.unwrap();
    let present = present(TEXT, &snapshot);
    let version = read(TEXT, &id("cors_policies/public")).unwrap().version;
    let put = ObjectChange::Put("{\"allow_origins\": \"*\"}");
    let stale = || ChangeRefusal::Condition { version: Some(version.clone()) };
    for (at, condition, expected) in [
        ("cors_policies/public", Condition::Absent, Some(stale())),
        ("cors_policies/public", Condition::Exists, None),
        ("cors_policies/public", Condition::Version(vec!["x".into(), version.clone()]), None),
        ("cors_policies/public", Condition::Version(vec!["x".into()]), Some(stale())),
        ("cors_policies/new", Condition::Absent, None),
        ("cors_policies/new", Condition::Exists, Some(ChangeRefusal::Condition { version: None })),
        ("services/none/routes/a", Condition::Always, Some(ChangeRefusal::NotFound)),
        (
            "services/shop/routes/orders",
            Condition::Absent,
            Some(ChangeRefusal::Condition {
                version: read(TEXT, &id("services/shop/routes/orders")).map(|object| object.version),
            }),
        ),
    ] {
        let result = propose(present, &id(at), put, &condition, &load);
        assert_eq!(result.err(), expected, "{at} {condition:?}");
    }
    let other = propose(present, &id("services/shop"), ObjectChange::Put("{name: other}"), &Condition::Always, &load);
    assert_eq!(other.err(), Some(ChangeRefusal::Name { found: "other".into() }));
    for change in [ObjectChange::Delete, ObjectChange::Patch("{}")] {
        assert_eq!(
            propose(present, &id("upstreams/x"), change, &Condition::Always, &load).err(),
            Some(ChangeRefusal::NotFound)
        );
    }
}

#[test]
fn problems_have_places_in_the_sent_object() {
    let refused = |at: &str, change| match propose_in(TEXT, at, change).unwrap_err() {
        ChangeRefusal::Invalid { problems }
        | ChangeRefusal::Syntax { problems }
        | ChangeRefusal::InUse { problems } => {
            let one = |problem: &Value| {
                let part = |key: &str| problem[key].as_str().unwrap_or("-").to_owned();
                let number = |key: &str| problem[key].to_string();
                format!("{} {} {} {}:{}", part("in"), part("code"), part("path"), number("line"), number("column"))
            };
            problems.iter().map(one).collect::<Vec<_>>()
        }
        other => panic!("{other:?}"),
    };
    let put = ObjectChange::Put(
        "{\n  \"allow_origins\": [\"https://a.example/\"],\n  \"max_age\": \"x\",\n  \"colour\": 1\n}",
    );
    let mut found = refused("cors_policies/public", put);
    found.sort();
    assert_eq!(
        found,
        [
            "object origin-trailing-slash allow_origins[0] 2:21",
            "object unknown-key colour 4:3",
            "object wrong-value max_age 3:14",
        ]
    );
    assert_eq!(
        refused("upstreams/api", ObjectChange::Delete),
        [
            "configuration unknown-name services[0].upstream null:null",
            "configuration unknown-name services[1].upstream null:null",
        ]
    );
    assert_eq!(refused("cors_policies/public", ObjectChange::Put("{a: 1, a: 2}")), ["object key-twice a 1:8"]);
    assert_eq!(refused("cors_policies/public", ObjectChange::Put("a: &x 1")), ["object syntax  1:4"]);
    assert_eq!(refused("cors_policies/public", ObjectChange::Put("a: [")), ["object syntax  2:1"]);
    let found = refused("cors_policies/public", ObjectChange::Put("[]"));
    assert_eq!(found, ["object wrong-value  1:1"]);
    let found = refused("services/shop", ObjectChange::Patch("routes: []"));
    assert_eq!(found, ["object empty-list routes 1:1"]);
}

#[test]
fn paths_of_private_keys_are_redacted_and_kept() {
    let text = TEXT.replace(
        "{ nodes: [{ address: 127.0.0.1:8000 }] }",
        "{ nodes: [{ address: 127.0.0.1:8000 }], tls: { cert: a.crt, key: a.key } }",
    );
    let shown = read(&text, &id("upstreams/api")).unwrap();
    assert_eq!(shown.value["tls"], json!({"cert": "a.crt", "key": "[redacted]"}));
    let values = values(&text).unwrap();
    let old = &values["upstreams"]["api"];
    let mut new = shown.value.clone();
    redact::restore(&mut new, Some(old)).unwrap();
    assert_eq!(new, *old);
    let mut new = shown.value;
    assert_eq!(redact::restore(&mut new, None).unwrap_err().to_string(), "tls.key");
}

/// A client that may write must not read the environment of the process in an error message.
#[test]
fn values_of_variables_are_in_no_problem() {
    let text = format!("environment: true\n{TEXT}");
    let env = CompileEnv { variable: &|name| (name == "SECRET").then(|| "s3cret".to_owned()), ..CompileEnv::NONE };
    let load = |text: &str| load(text, env);
    let snapshot = load(&text).snapshot.unwrap();
    for sent in [
        "{allow_origins: ['${SECRET}']}",
        "{allow_origins: 'https://a.example, ${SECRET}'}",
        "{allow_origins: '*', max_age: '${SECRET}'}",
        "{allow_origins: '*', allow_methods: ['a b${SECRET}']}",
        "{allow_origins: '*', upstream_headers: '${SECRET}'}",
    ] {
        let change = ObjectChange::Put(sent);
        let refused = propose(present(&text, &snapshot), &id("cors_policies/p"), change, &Condition::Always, &load);
        let refused = format!("{:?}", refused.expect_err(sent));
        assert!(!refused.contains("s3cret"), "{sent}: {refused}");
    }
    // The object has the variable, not its value.
    let change = ObjectChange::Put("['https://${SECRET}.example']");
    let proposal = propose(present(&text, &snapshot), &id("origin_sets/p"), change, &Condition::Always, &load).unwrap();
    assert_eq!(proposal.after.unwrap().value, json!(["https://${SECRET}.example"]));
    assert!(proposal.text.contains("  p: [\"https://${SECRET}.example\"]\n"), "{}", proposal.text);
}
