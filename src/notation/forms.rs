//! JSON Schemas for the forms of values. They describe the strings that the compiler accepts.
//!
//! Editors check values with these patterns. A pattern may accept a value that the compiler refuses, because a regular
//! expression cannot check everything. It must not refuse a value that the compiler accepts: tests compare both for
//! every accepted file. The patterns use only syntax that all regex dialects share, because editors have different
//! dialects.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

/// Declares a type for a form. Fields refer to it with `schemars(with = …)`.
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
    /// Origins: `"*"` alone for any origin, or patterns: `https://app.example`, `https://app.example:8443`,
    /// `http://localhost:*` (any port or none), `https://*.app.example` (one or more labels, not `app.example` itself),
    /// `https://*` (any host), `https://pr-{digits}.app.example` (a placeholder for a part of one label: `{digits}` is one
    /// or more of `0-9`, `{hex}` of `0-9` and `a-f`, `{label}` of `a-z`, `0-9` and `-`). Lower case, punycode, no default port, any scheme, IPv6 in brackets.
    Origins,
    // YAML reads `null` without quotes as an empty value. The compiler accepts it here as the origin `null`.
    with_title(list(&json!(["string", "null"]), &format!("{ORIGIN}|\\*|null"), None), "origins")
);

form!(
    /// Origins as in `allow_origins`, except `"*"` and `"null"`: only a policy can have these.
    NamedOrigins,
    with_title(list(&TEXT.into(), ORIGIN, None), "origins of a set")
);

form!(
    /// Methods, case-sensitive, such as `PUT`, or `"*"`. `[]` for none.
    Methods,
    with_title(or_none(list(&json!(PLAIN), &format!("{TOKEN}+"), None)), "methods")
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
    /// Names of request headers, in any case, or `"*"`. `[]` for none.
    AllowedHeaders,
    with_title(or_none(list(&json!(PLAIN), &format!("{TOKEN}+"), None)), "request header names")
);

form!(
    /// Header names, in any case.
    FieldNames,
    with_title(list(&json!(PLAIN), &format!("{TOKEN}+"), None), "header names")
);

form!(
    /// Built-in sets of request headers.
    HeaderSets,
    with_title(list(&TEXT.into(), "mcp|grpc-web|tracing|tus", None), "sets of header names")
);

form!(
    /// Built-in sets of response headers.
    ExposedHeaderSets,
    with_title(list(&TEXT.into(), "mcp|grpc-web|tus", None), "sets of header names")
);

form!(
    /// Media types: `text/html`, `text/*` for all of a kind, `application/*+json` for all with a suffix.
    MediaTypes,
    with_title(list(&TEXT.into(), &format!(r"{MEDIA}+/({MEDIA}+|\*|\*\+{MEDIA}+)"), None), "media types")
);

form!(
    /// Header names, in any case. `[]` for none.
    FieldNamesOrNone,
    with_title(or_none(list(&json!(PLAIN), &format!("{TOKEN}+"), None)), "header names")
);

form!(
    /// Names of letters, digits, `-`, `_` and `.`.
    Names,
    with_title(list(&json!(PLAIN), NAME, None), "names")
);

form!(
    /// Hosts such as `api.example`; `*.api.example` stands for one or more labels in front, not for `api.example`
    /// itself.
    Hosts,
    with_title(
        list(&json!(PLAIN), r"(\*\.)?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*\.?|\[[0-9A-Fa-f:.]+\]", None),
        "hosts"
    )
);

form!(
    /// Paths: `/users`, `/users/{id}` with any one segment, `/users/*` for `/users` and everything below it. At most
    /// 256 segments.
    Paths,
    with_title(
        list(
            &TEXT.into(),
            r"/[^\x00-\x20,?#*\\\x7f-\uffff]*(/\*)?|/\*",
            // In a sequence, a comma belongs to the entry.
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

form!(
    /// IP addresses and networks, such as `10.0.0.0/8`, and `unix`.
    TrustedPeers,
    with_title(list(&TEXT.into(), "[0-9A-Fa-f:.]+(/[0-9]+)?|unix", None), "networks or `unix`")
);

// === single values ===

form!(
    /// IP address and port, such as `0.0.0.0:9080`, or `[::]:9080` for all addresses of IPv4 and IPv6.
    SocketAddress,
    with_title(text(r"([0-9.]+|\[[^\]]+\]):[0-9]+"), "IP address and port")
);

form!(
    /// IP address and port: `0.0.0.0:9080`, or `[::]:9080` for all addresses of IPv4 and IPv6. Or the path of a
    /// Unix-domain socket: `unix:/run/corsgate/edge.sock`.
    ListenAddress,
    with_title(
        text(&format!(r"([0-9.]+|\[[^\]]+\]):[0-9]+|{UNIX_SOCKET}")),
        "IP address and port, or path of a socket"
    )
);

form!(
    /// Permissions of a file in octal, with a leading zero: `"0660"`.
    FileMode,
    with_title(text("0[0-7]{3}"), "permissions")
);

form!(
    /// An integer with a unit, above 0: `500ms`, `2s`, `5m`, `1h`; at most `24h`.
    PositiveDuration,
    with_title(text("0*[1-9][0-9]*(ms|s|m|h)"), "duration above 0")
);

form!(
    /// An integer with a unit, above 0: `512B`, `64KiB`, `1MiB`, `2GiB`.
    PositiveSize,
    with_title(text("0*[1-9][0-9]*(B|KiB|MiB|GiB)"), "size above 0")
);

form!(
    /// A port, 1 to 65535.
    Port,
    json_schema!({ "title": "port", "type": "integer", "minimum": 1, "maximum": 65535 })
);

form!(
    /// Host name or IP address, with a port: `api.internal:8000`, `10.0.0.5:8000`, `[::1]:8000`. Or the path of a
    /// Unix-domain socket: `unix:/run/app.sock`.
    NodeAddress,
    with_title(
        text(&format!(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\]):\+?[0-9]+|{UNIX_SOCKET}")),
        "host and port, or path of a socket"
    )
);

form!(
    /// 1 to 128 letters, digits, `-`, `_` and `.`.
    Name,
    with_title(plain_text(NAME), "name")
);

form!(
    /// Host name in lower case, such as `api.internal`.
    ServerName,
    with_title(plain_text(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*"), "host name")
);

form!(
    /// Host name or IP address, optionally with a port: a value of the `Host` header.
    Authority,
    with_title(plain_text(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?"), "host")
);

form!(
    /// Path, optionally with a query, such as `/health`.
    Target,
    with_title(text(r#"/[!-"$-~]*"#), "path")
);

form!(
    /// Path that begins with a slash and does not end with one, without wildcards, such as `/v1`.
    Prefix,
    with_title(text(r"/[^\x00-\x20?#*{}\\\x7f-\uffff]*[^\x00-\x20?#*{}/\\\x7f-\uffff]"), "prefix of a path")
);

form!(
    /// A text.
    PlainText,
    json_schema!({ "type": PLAIN })
);

form!(
    /// An http URL, or a path.
    RedirectTarget,
    with_title(text(r"(https?://|/)[!-~]*"), "target of a redirect")
);

form!(
    /// Value of a header field.
    FieldValue,
    with_title(plain_text(r"([!-~]([\t -~]*[!-~])?)?"), "header value")
);

form!(
    /// `pass` for the client's `Host`, `node` for the address of the node, or a host name, optionally with a port.
    UpstreamHost,
    with_title(plain_text(r"([A-Za-z0-9_.-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]*)?"), "host for the upstream")
);

form!(
    /// Paths of files, relative to the directory of the configuration file.
    FilePaths,
    with_title(list(&TEXT.into(), "[^,]+", Some(".+")), "paths of files")
);

form!(
    /// Members of a cluster.
    Endpoints,
    with_title(list(&TEXT.into(), "[^,]+", Some(".+")), "HOST:PORT of each member")
);

form!(
    /// Path of a file, relative to the directory of the configuration file.
    FilePath,
    json_schema!({ "title": "path of a file", "type": "string", "minLength": 1 })
);

form!(
    /// Origin of a page, as browsers send it, such as `https://app.example`; or `null`.
    PageOrigin,
    // YAML reads `null` without quotes as an empty value. The compiler accepts it here as the origin `null`.
    json_schema!({ "title": "origin of a page", "type": ["string", "null"], "pattern": format!("^({ORIGIN}|null)$") })
);

form!(
    /// Absolute URL, such as `https://api.example/orders`; for a WebSocket also with `wss:`.
    PageUrl,
    with_title(text(r"[A-Za-z]+:[^\x00-\x20]+"), "URL")
);

form!(
    /// Method, case-sensitive, such as `PUT`.
    Method,
    with_title(plain_text(&format!("{TOKEN}+")), "method")
);

form!(
    /// Name of a header field, or `Name: value`.
    FieldLine,
    with_title(plain_text(&format!(r"{TOKEN}+\s*(:.*)?")), "header")
);

form!(
    /// `header:NAME`, `cookie:NAME`, `path` or `client_address`.
    HashKey,
    with_title(text(&format!("path|client_address|(header|cookie):{TOKEN}+")), "hash key")
);

form!(
    /// `client_ip`, `header:NAME`, `cookie:NAME` or `route`.
    RateKey,
    with_title(text(&format!("client_ip|route|(header|cookie):{TOKEN}+")), "budget key")
);

form!(
    /// Status of a final response, 200 to 999; for a WebSocket also 101.
    FinalStatus,
    json_schema!({
        "title": "status",
        "anyOf": [{ "const": 101 }, { "type": "integer", "minimum": 200, "maximum": 999 }],
    })
);

form!(
    /// A status from 100 to 599, such as `200`, or a range, such as `200-399`.
    Statuses,
    json_schema!({
        "title": "statuses",
        "anyOf": [text("0*[1-5][0-9]{2}(-0*[1-5][0-9]{2})?"), { "type": "integer", "minimum": 100, "maximum": 599 }],
    })
);

form!(
    /// `"1.2"` or `"1.3"`.
    TlsVersion,
    // YAML reads `1.2` without quotes as a number. The compiler accepts the number too.
    json_schema!({ "title": "version of TLS", "enum": ["1.2", "1.3", 1.2, 1.3] })
);

// === patterns and parts of schemas ===

const TEXT: &str = "string";
/// Types of a value that the compiler reads as a string. YAML reads `7` and `true` without quotes as a number and a
/// boolean, so these types are accepted too.
const PLAIN: [&str; 3] = ["string", "number", "boolean"];
/// Pattern for names of services, routes, policies, upstreams and origin sets.
pub(crate) const NAME: &str = "[A-Za-z0-9._-]{1,128}";
/// Pattern for `unix:` and a path.
const UNIX_SOCKET: &str =
    concat!(r#"unix:(/[^\x00-\x20\x7f/:"$\\{}]|[^\x00-\x20\x7f/@:"$\\{}])"#, r#"[^\x00-\x20\x7f:"$\\{}]*"#,);
/// Pattern for one character of a token (RFC 9110 section 5.6.2).
const TOKEN: &str = "[!#$%&'*+.^_`|~0-9A-Za-z-]";
/// Pattern for one character of a media type (RFC 6838 section 4.2).
const MEDIA: &str = "[A-Za-z0-9!#$&^_.+-]";
/// Pattern for `scheme://host:port`. Host and port may be wildcards, and labels of the host may have placeholders.
const ORIGIN: &str = concat!(
    r"[a-z][a-z0-9+.-]*://",
    r"(\*|(\*\.)?(([a-z0-9_-]|\{(digits|hex|label)\})+\.)*[a-z0-9_-]+\.?|\[[0-9a-f:]+\])",
    r"(:(\*|[1-9][0-9]{0,4}))?",
);

/// Returns the schema of a list: a sequence, or one comma-separated string. `entry` is the pattern of an entry.
/// `in_list` is a less strict pattern for the entries of a sequence. None uses `entry`.
fn list(kinds: &Value, entry: &str, in_list: Option<&str>) -> Schema {
    let in_list = in_list.unwrap_or(entry);
    json_schema!({
        "anyOf": [
            { "type": "array", "minItems": 1, "items": { "type": kinds, "pattern": format!("^({in_list})$") } },
            { "type": "string", "pattern": format!(r"^\s*({entry})(\s*,\s*({entry}))*\s*$") },
        ],
    })
}

/// Changes the schema of a [`list`] so that the sequence may be empty.
fn or_none(mut list: Schema) -> Schema {
    if let Some(sequence) = list.pointer_mut("/anyOf/0").and_then(Value::as_object_mut) {
        sequence.remove("minItems");
    }
    list
}

/// Returns the schema for the name of a definition elsewhere in the file. A number without quotes is not accepted.
pub(crate) fn by_name() -> Schema {
    with_title(text(NAME), "name")
}

fn text(pattern: &str) -> Schema {
    json_schema!({ "type": "string", "pattern": format!("^({pattern})$") })
}

/// Like [`text`], but also accepts a number or boolean that YAML reads without quotes.
fn plain_text(pattern: &str) -> Schema {
    json_schema!({ "type": PLAIN, "pattern": format!("^({pattern})$") })
}

fn with_title(mut schema: Schema, title: &str) -> Schema {
    schema.insert("title".into(), title.into());
    schema
}
