//! The forms that values are written in, as schemas: what a text must look like so that the compiler can take it.
//!
//! A pattern is here to help whoever types: it refuses what is refused anyhow. It is wider than the compiler wherever
//! a regular expression cannot tell, and never narrower, which a test holds against every accepted file. Only what all
//! dialects of regular expressions share is used, because each editor has its own.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Declares a type that stands for a form: the fields that are written so name it in `schemars(with = …)`.
macro_rules! form {
    ($(#[doc = $doc:literal])+ $name:ident, $schema:expr) => {
        $(#[doc = $doc])+
        #[derive(Debug)]
        pub(crate) struct $name;

        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                let mut schema = $schema;
                schema.insert("description".into(), Value::from([$($doc.trim()),+].join(" ")));
                schema
            }
        }
    };
}

// === lists ===

form!(
    /// Origins: `"*"` alone for any, or patterns: `https://app.example`, `https://app.example:8443`,
    /// `http://localhost:*` (any port or none), `https://*.app.example` (one or more labels, not the bare host),
    /// `https://*` (any host). Lower case, punycode, no default port; any scheme; IPv6 in brackets.
    Origins,
    // YAML reads `null` without quotes as no value, and the compiler takes it for the word that it is here.
    with_title(list(&json!(["string", "null"]), &format!("{ORIGIN}|\\*|null"), None), "origins")
);

form!(
    /// Origins as in `allow_origins`, without `"*"` and `"null"`, which only a policy itself can say.
    NamedOrigins,
    with_title(list(&TEXT.into(), ORIGIN, None), "origins of a set")
);

form!(
    /// Methods, case-sensitive, such as `GET`, or `"*"`.
    Methods,
    with_title(list(&json!(PLAIN), &format!("{TOKEN}+"), None), "methods")
);

form!(
    /// Methods in upper case, such as `GET`.
    RouteMethods,
    with_title(list(&json!(PLAIN), "[!#$%&'*+.^_`|~0-9A-Z-]+", None), "methods of a route")
);

form!(
    /// Header names, in any case, or `"*"`.
    Headers,
    with_title(list(&json!(PLAIN), &format!("{TOKEN}+"), None), "header names")
);

form!(
    /// Names, of letters, digits, `-`, `_` and `.`.
    Names,
    with_title(list(&json!(PLAIN), NAME, None), "names")
);

form!(
    /// Hosts such as `api.example`, and `*.api.example` for one or more labels in front, not the bare host.
    Hosts,
    with_title(
        list(&json!(PLAIN), r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]", None),
        "hosts"
    )
);

form!(
    /// Paths: `/users`, `/users/{id}` for one segment, `/users/*` for `/users` and all below it.
    Paths,
    with_title(
        list(
            &TEXT.into(),
            r"/[^\x00-\x20,?#*\\\x7f-\uffff]*(/\*)?|/\*",
            // In a list a comma separates nothing.
            Some(r"/[^\x00-\x20?#*\\\x7f-\uffff]*(/\*)?|/\*"),
        ),
        "paths"
    )
);

form!(
    /// IP addresses and networks, such as `10.0.0.0/8`.
    Networks,
    with_title(list(&TEXT.into(), "[0-9A-Fa-f:.]+(/[0-9]+)?", None), "networks")
);

// === single values ===

form!(
    /// IP address and port, such as `0.0.0.0:9080`, or `[::]:9080` for all of IPv4 and IPv6.
    SocketAddress,
    with_title(text(r"([0-9.]+|\[[^\]]+\]):[0-9]+"), "IP address and port")
);

form!(
    /// A number with its unit, above 0: `500ms`, `2s`, `5m`, `1h`; at most `24h`.
    PositiveDuration,
    with_title(text("0*[1-9][0-9]*(ms|s|m|h)"), "duration above 0")
);

form!(
    /// A number with its unit, above 0: `512B`, `64KiB`, `1MiB`, `2GiB`.
    PositiveSize,
    with_title(text("0*[1-9][0-9]*(B|KiB|MiB|GiB)"), "size above 0")
);

form!(
    /// A port, 1 to 65535.
    Port,
    json_schema!({ "title": "port", "type": "integer", "minimum": 1, "maximum": 65535 })
);

form!(
    /// Host or IP address, with a port: `api.internal:8000`, `10.0.0.5:8000`, `[::1]:8000`.
    NodeAddress,
    with_title(text(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\+?[0-9]+"), "host and port")
);

form!(
    /// Letters, digits, `-`, `_` and `.`, at most 128 of them.
    Name,
    with_title(plain_text(NAME), "name")
);

form!(
    /// Host name in lower case, such as `api.internal`.
    ServerName,
    with_title(plain_text(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"), "host name")
);

form!(
    /// Host or IP address, maybe with a port: what a Host field can say.
    Authority,
    with_title(plain_text(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?"), "host")
);

form!(
    /// Path, maybe with a query, such as `/health`.
    Target,
    with_title(text(r#"/[!-"$-~]*"#), "path")
);

form!(
    /// Path that begins with a slash and does not end with one, without wildcards, such as `/v1`.
    Prefix,
    with_title(text(r"/[^\x00-\x20?#*{}\\\x7f-\uffff]*[^\x00-\x20?#*{}/\\\x7f-\uffff]"), "prefix of a path")
);

form!(
    /// Path of a file, from the directory of the configuration file.
    FilePath,
    json_schema!({ "title": "path of a file", "type": "string", "minLength": 1 })
);

form!(
    /// `header:NAME`, `cookie:NAME`, `path` or `client_address`.
    HashKey,
    with_title(text(&format!("path|client_address|(header|cookie):{TOKEN}+")), "what to hash")
);

form!(
    /// A status from 100 to 599, such as `200`, or a range of them, such as `200-399`.
    Statuses,
    json_schema!({
        "title": "statuses",
        "anyOf": [text("0*[1-5][0-9]{2}(-0*[1-5][0-9]{2})?"), { "type": "integer", "minimum": 100, "maximum": 599 }],
    })
);

form!(
    /// `"1.2"` or `"1.3"`.
    TlsVersion,
    // Without quotes YAML reads numbers, and the compiler takes them for what they are.
    json_schema!({ "title": "version of TLS", "enum": ["1.2", "1.3", 1.2, 1.3] })
);

// === what they are made of ===

const TEXT: &str = "string";
/// YAML reads `7` and `true` without quotes as no texts. The compiler takes them for texts where it wants texts.
const PLAIN: [&str; 3] = ["string", "number", "boolean"];
/// What services, policies, upstreams and sets may be called.
pub(crate) const NAME: &str = "[A-Za-z0-9._-]{1,128}";
/// A character of a token (RFC 9110 section 5.6.2).
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
/// `scheme://host:port`, host and port maybe wildcards.
const ORIGIN: &str = concat!(
    r"[a-z][a-z0-9+.-]*://",
    r"(\*|(\*\.)?[a-z0-9_-]+(\.[a-z0-9_-]+)*|\[[0-9a-f:]+\])",
    r"(:(\*|[1-9][0-9]{0,4}))?",
);

/// A list, or one comma-separated string. `entry` is a regular expression for one of them, `in_list` for one that is
/// an entry of a real list, if that can be more.
fn list(kinds: &Value, entry: &str, in_list: Option<&str>) -> Schema {
    let in_list = in_list.unwrap_or(entry);
    json_schema!({
        "anyOf": [
            { "type": "array", "minItems": 1, "items": { "type": kinds, "pattern": format!("^({in_list})$") } },
            { "type": "string", "pattern": format!(r"^\s*({entry})(\s*,\s*({entry}))*\s*$") },
        ],
    })
}

/// What is defined elsewhere in the file, by its name. A bare number is not taken for one.
pub(crate) fn by_name() -> Schema {
    with_title(text(NAME), "name")
}

fn text(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^({pattern})$") })
}

/// As [`text`], where a number or a word of YAML can be meant.
fn plain_text(pattern: &str) -> Schema {
    json_schema!({ "type": PLAIN, "pattern": format!("^({pattern})$") })
}

fn with_title(mut schema: Schema, title: &str) -> Schema {
    schema.insert("title".into(), title.into());
    schema
}
