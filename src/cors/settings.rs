//! A policy as it is written. The documentation of a key is its comment here.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::notation::forms;
use crate::notation::{List, given};

/// Who may read responses from pages of other origins, and what pages may send. At least one of `allow_origins`,
/// `allow_origins_by_regex` and `allow_origin_sets` must be there: nothing opens by omission.
#[derive(Debug, Clone, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "CORS policy", transform = some_origins, transform = with_alias)]
pub struct Settings {
    /// Origins that may read responses: `"*"` for any, or patterns such as `https://app.example`,
    /// `https://*.app.example`, `http://localhost:*`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Origins")]
    pub allow_origins: Option<List>,
    /// Regular expressions that must match an Origin from its first byte to its last. Matching takes linear time; there
    /// is no look-around.
    #[serde(deserialize_with = "given")]
    pub allow_origins_by_regex: Option<Patterns>,
    /// Names from the top level's `origin_sets`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Names")]
    pub allow_origin_sets: Option<List>,
    /// Methods that a page may use. GET, HEAD and POST always pass and need no listing.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Methods", extend("default" = "*"))]
    pub allow_methods: Option<List>,
    /// Request headers that a page may set. `*` does not cover `Authorization`: list it beside, `["*", Authorization]`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Headers", extend("default" = "*"))]
    pub allow_headers: Option<List>,
    /// Response headers that a page may read besides the safelisted ones. Without it the upstream's own list stays, for
    /// allowed origins.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Headers")]
    pub expose_headers: Option<List>,
    /// Seconds for which a browser may remember a preflight's answer, a plain number; -1 means 0.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = -1, max = 86_400), extend("default" = Settings::DEFAULT_MAX_AGE))]
    pub max_age: Option<i64>,
    /// Whether pages may send cookies and other credentials and still read the response.
    #[serde(alias = "allow_credential")]
    pub allow_credentials: bool,
    /// Origins for `Timing-Allow-Origin`, in the forms of `allow_origins`. Without it and
    /// `timing_allow_origins_by_regex` the header is left alone.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Origins")]
    pub timing_allow_origins: Option<List>,
    /// As `allow_origins_by_regex`, for `Timing-Allow-Origin`.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins_by_regex: Option<Patterns>,
    /// Whether `Access-Control-Request-Private-Network` is answered. Browsers gave it up.
    pub allow_private_network: bool,
    /// Which OPTIONS requests are answered here, and with what status.
    pub preflight: PreflightSettings,
    /// What happens to the upstream's own CORS headers.
    pub upstream_headers: UpstreamHeaders,
    /// What happens to a request whose Origin is refused.
    pub disallowed_origins: DisallowedOrigins,
    /// Accepts what is otherwise refused at load.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub dangerously_allow: Option<Vec<Danger>>,
}

/// Which OPTIONS requests corsgate answers itself, and how.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreflightSettings {
    /// Which OPTIONS requests are taken for preflights. Others go to the upstream.
    #[serde(rename = "match")]
    pub matches: PreflightMatch,
    /// Status of an allowed preflight.
    #[schemars(extend("enum" = [200, 204]))]
    pub status: u16,
    /// Status of a refused preflight.
    #[schemars(extend("enum" = [200, 204, 403]))]
    pub refused_status: u16,
}

/// Which OPTIONS requests the gateway answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreflightMatch {
    /// With an Origin and a requested method: what browsers send.
    Standard,
    /// With an Origin.
    #[default]
    Origin,
    /// All.
    Any,
}

/// What happens to the upstream's own CORS headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHeaders {
    /// Those that the policy speaks of are replaced or removed.
    #[default]
    Override,
    /// All `Access-Control-*` are removed first.
    Replace,
}

/// What happens to a request whose Origin is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisallowedOrigins {
    /// It goes to the upstream; the browser withholds the response from the page.
    #[default]
    Forward,
    /// It gets 403 and never reaches the upstream.
    Reject,
}

/// What a policy may do only when it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// Allow the origin `null`.
    NullOrigin,
    /// Combine any origin with credentials.
    AnyOriginWithCredentials,
    /// Combine `http:` origins with credentials.
    InsecureOrigins,
    /// Combine wildcards directly under a public suffix with credentials.
    PublicSuffixSubdomains,
}

/// Regular expressions: a list, or one. A comma separates nothing here, it may be part of an expression.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
#[serde(untagged, expecting = "invalid value, expected a regular expression or a list of regular expressions")]
pub enum Patterns {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

// === defaults and words ===

impl Settings {
    /// What browsers take when there is no `Access-Control-Max-Age`, and APISIX's default.
    pub(crate) const DEFAULT_MAX_AGE: i64 = 5;
}

impl Default for PreflightSettings {
    fn default() -> Self {
        PreflightSettings { matches: PreflightMatch::default(), status: 200, refused_status: 200 }
    }
}

impl Patterns {
    /// In order.
    pub(crate) fn sources(&self) -> &[String] {
        match self {
            Patterns::One(source) => std::slice::from_ref(source),
            Patterns::Many(sources) => sources,
        }
    }
}

impl Danger {
    /// As a configuration writes it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Danger::NullOrigin => "null_origin",
            Danger::AnyOriginWithCredentials => "any_origin_with_credentials",
            Danger::InsecureOrigins => "insecure_origins",
            Danger::PublicSuffixSubdomains => "public_suffix_subdomains",
        }
    }
}

// === schemas of what cannot be derived ===

impl JsonSchema for Patterns {
    fn schema_name() -> Cow<'static, str> {
        "RegularExpressions".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let one = json!({ "type": "string", "minLength": 1 });
        json_schema!({
            "title": "regular expressions",
            "description": "One regular expression, or a list of them. A comma separates nothing here.",
            "anyOf": [{ "type": "array", "minItems": 1, "items": one }, one],
        })
    }
}

fn some_origins(schema: &mut Schema) {
    let keys = ["allow_origins", "allow_origins_by_regex", "allow_origin_sets"];
    schema.insert("anyOf".into(), keys.iter().map(|key| json!({ "required": [key] })).collect());
}

/// serde knows the alias of `allow_credentials`; schemars does not.
fn with_alias(schema: &mut Schema) {
    let alias = json!({ "description": "APISIX's spelling of `allow_credentials`.", "type": "boolean" });
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.insert(ALIAS.into(), alias);
    }
    schema.insert("not".into(), json!({ "required": ["allow_credentials", ALIAS] }));
}

/// Of `allow_credentials`.
pub(crate) const ALIAS: &str = "allow_credential";
