//! A policy in the form of the configuration. The doc comments are the reference for users: `docs/reference.md` and the
//! JSON schema are made from them.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::notation::forms;
use crate::notation::{List, Use, given};

/// The origins whose pages may read responses, and the requests that these pages may send. At least one of
/// `allow_origins`, `allow_origins_by_regex` and `allow_origin_sets` is required: a missing key never allows an origin.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "CORS policy", transform = some_origins, transform = with_alias)]
pub struct Settings {
    /// Origins whose pages may read responses: `"*"` for any origin, or patterns such as `https://app.example`,
    /// `https://*.app.example`, `https://pr-{digits}.app.example`, `http://localhost:*`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Origins")]
    pub allow_origins: Option<List>,
    /// Regular expressions for origins. An expression must match the whole Origin, from its first byte to its last.
    /// There is no look-around; matching takes linear time.
    #[serde(deserialize_with = "given")]
    pub allow_origins_by_regex: Option<Patterns>,
    /// Names of lists in the top level's `origin_sets`. Their origins are allowed too.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Names")]
    pub allow_origin_sets: Option<List>,
    /// Methods that pages may use. GET, HEAD and POST are always allowed and need no entry; `[]` allows only these.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Methods", extend("default" = "*"))]
    pub allow_methods: Option<List>,
    /// Request headers that pages may set. `*` does not include `Authorization`: write `["*", Authorization]` to allow
    /// it. `[]` allows only the safelisted ones, which need no permission.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::AllowedHeaders", extend("default" = "*"))]
    pub allow_headers: Option<List>,
    /// Built-in sets of request headers that pages may set, in addition to `allow_headers`: `mcp`, `grpc-web`, `tracing`,
    /// `tus`. With this key a missing `allow_headers` allows no others. No set contains `Authorization`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::HeaderSets")]
    pub allow_header_sets: Option<List>,
    /// Response headers that pages may read, in addition to the safelisted ones. Without this key and
    /// `expose_header_sets` the upstream's own list stays, for allowed origins.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Headers")]
    pub expose_headers: Option<List>,
    /// Built-in sets of response headers that pages may read, in addition to `expose_headers`: `mcp`, `grpc-web`, `tus`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::ExposedHeaderSets")]
    pub expose_header_sets: Option<List>,
    /// Seconds for which a browser may cache the answer to a preflight, as a plain number. -1 means 0.
    #[serde(deserialize_with = "given")]
    #[schemars(range(min = -1, max = 86_400), extend("default" = Settings::DEFAULT_MAX_AGE))]
    pub max_age: Option<i64>,
    /// Allows requests with cookies and other credentials, and lets pages read the responses.
    #[serde(alias = "allow_credential")]
    pub allow_credentials: bool,
    /// Origins that get a `Timing-Allow-Origin` header, in the forms of `allow_origins`. Without this key and
    /// `timing_allow_origins_by_regex` the upstream's header stays.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Origins")]
    pub timing_allow_origins: Option<List>,
    /// Regular expressions for origins that get a `Timing-Allow-Origin` header, in the form of
    /// `allow_origins_by_regex`.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins_by_regex: Option<Patterns>,
    /// `Cross-Origin-Resource-Policy` of every response, except answers to preflights: the pages that may load it
    /// without CORS, for example as an image. It replaces the upstream's header. Without this key the upstream's header
    /// stays.
    #[serde(deserialize_with = "given")]
    pub cross_origin_resource_policy: Option<ResourcePolicy>,
    /// Answers `Access-Control-Request-Private-Network` in preflights. Browsers no longer send it.
    pub allow_private_network: bool,
    /// The OPTIONS requests that corsgate answers itself, and the statuses of the answers.
    pub preflight: PreflightSettings,
    /// Handling of the CORS headers of the upstream's response.
    pub upstream_headers: UpstreamHeaders,
    /// Handling of a request with an Origin that is not allowed.
    pub disallowed_origins: DisallowedOrigins,
    /// Handling of a request that may change state, from a page of another origin that the policy does not allow. These
    /// are requests with any method except GET, HEAD and OPTIONS, and WebSockets. CORS does not stop forms of other
    /// sites.
    pub cross_site: CrossSite,
    /// Accepts settings that are otherwise refused as unsafe when the file is loaded. Each entry names one danger.
    #[serde(deserialize_with = "given")]
    #[schemars(extend("minItems" = 1))]
    pub dangerously_allow: Option<Vec<Danger>>,
    /// A policy, or the name of one, that corsgate compares with this one for each request. It changes no response.
    /// Metrics, the access log and the admin listener report the requests that it would refuse or allow. It cannot have
    /// a `report_only` itself.
    #[serde(deserialize_with = "given")]
    pub report_only: Option<Use<Settings>>,
}

/// The OPTIONS requests that corsgate answers itself, and the statuses of the answers.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PreflightSettings {
    /// The OPTIONS requests that corsgate answers as preflights. All others go to the upstream.
    #[serde(rename = "match")]
    pub matches: PreflightMatch,
    /// Status of the answer to an allowed preflight.
    #[schemars(extend("enum" = [200, 204]))]
    pub status: u16,
    /// Status of the answer to a refused preflight.
    #[schemars(extend("enum" = [200, 204, 403]))]
    pub refused_status: u16,
    /// `Cache-Control` of the answers to preflights of allowed origins, for shared caches. The answers that such a cache must
    /// not keep have `no-store`. Without this key no answer has `Cache-Control`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::FieldValue")]
    pub cache_control: Option<String>,
}

/// The pages that may load a response without CORS (Fetch, "cross-origin resource policy check").
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum ResourcePolicy {
    /// Pages of the same origin.
    SameOrigin,
    /// Pages of the same site: the same registrable domain. A page over `http` cannot load a response over `https`.
    SameSite,
    /// All pages. A page with `Cross-Origin-Embedder-Policy: require-corp` can load only responses that have this value, or
    /// that CORS allows.
    CrossOrigin,
}

/// The OPTIONS requests that corsgate answers as preflights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum PreflightMatch {
    /// Requests with an Origin and an `Access-Control-Request-Method`, as browsers send them (Fetch, "CORS-preflight
    /// request").
    Standard,
    /// Requests with an Origin.
    #[default]
    Origin,
    /// All OPTIONS requests.
    Any,
}

/// Handling of the CORS headers of the upstream's response.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHeaders {
    /// The headers that the policy sets are replaced or removed. `Access-Control-Allow-Credentials` and
    /// `Access-Control-Expose-Headers` stay for an allowed origin if the policy does not set them.
    #[default]
    Override,
    /// All `Access-Control-*` headers are removed.
    Replace,
}

/// Handling of a request with an Origin that is not allowed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum DisallowedOrigins {
    /// It goes to the upstream. The browser does not show the response to the page.
    #[default]
    Forward,
    /// It gets 403 and does not reach the upstream.
    Reject,
}

/// Handling of a request that may change state, from a page of another origin that the policy does not allow.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CrossSite {
    /// It goes to the upstream.
    #[default]
    Forward,
    /// It gets 403 and does not reach the upstream. With `allow_origins: "*"` and no credentials, pages of other
    /// origins can read responses, but cannot change state.
    Reject,
}

/// A combination that is refused unless `dangerously_allow` names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Danger {
    /// Allows the origin `null`.
    NullOrigin,
    /// Allows any origin together with credentials.
    AnyOriginWithCredentials,
    /// Allows `http:` origins together with credentials.
    InsecureOrigins,
    /// Allows wildcards and placeholders directly under a public suffix, such as `https://*.github.io` and
    /// `https://{label}.github.io`, together with credentials.
    PublicSuffixSubdomains,
}

/// Regular expressions: one, or a list. A string is never split at commas, because an expression may contain them.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Deserialize, Serialize)]
#[serde(untagged, expecting = "invalid value, expected a regular expression or a list of regular expressions")]
pub enum Patterns {
    /// A single expression.
    One(String),
    /// A list of expressions.
    Many(Vec<String>),
}

// === defaults and words ===

impl Settings {
    /// Default of `max_age` in seconds. Browsers use 5 s without `Access-Control-Max-Age` (Fetch, "CORS-preflight
    /// fetch"), and APISIX has the same default.
    pub(crate) const DEFAULT_MAX_AGE: i64 = 5;

    /// Returns the settings without `report_only`.
    pub(crate) fn without_report_only(&self) -> Cow<'_, Settings> {
        match self.report_only {
            None => Cow::Borrowed(self),
            Some(_) => Cow::Owned(Settings { report_only: None, ..self.clone() }),
        }
    }
}

impl Default for PreflightSettings {
    fn default() -> Self {
        PreflightSettings { matches: PreflightMatch::default(), status: 200, refused_status: 200, cache_control: None }
    }
}

impl Patterns {
    pub(crate) fn sources(&self) -> &[String] {
        match self {
            Patterns::One(source) => std::slice::from_ref(source),
            Patterns::Many(sources) => sources,
        }
    }
}

impl ResourcePolicy {
    /// The value in the configuration and in the header.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            ResourcePolicy::SameOrigin => "same-origin",
            ResourcePolicy::SameSite => "same-site",
            ResourcePolicy::CrossOrigin => "cross-origin",
        }
    }
}

impl Danger {
    /// The name in the configuration.
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
            "description": "One regular expression, or a list of them. Commas do not separate entries.",
            "anyOf": [{ "type": "array", "minItems": 1, "items": one }, one],
        })
    }
}

fn some_origins(schema: &mut Schema) {
    let keys = ["allow_origins", "allow_origins_by_regex", "allow_origin_sets"];
    schema.insert("anyOf".into(), keys.iter().map(|key| json!({ "required": [key] })).collect());
}

/// Adds the alias of `allow_credentials` to the schema. schemars does not read the aliases of serde.
fn with_alias(schema: &mut Schema) {
    let alias = json!({ "description": "APISIX's spelling of `allow_credentials`.", "type": "boolean" });
    if let Some(properties) = schema.get_mut("properties").and_then(serde_json::Value::as_object_mut) {
        properties.insert(ALIAS.into(), alias);
    }
    schema.insert("not".into(), json!({ "required": ["allow_credentials", ALIAS] }));
}

/// Alias of the key `allow_credentials`, which is its name in APISIX.
pub(crate) const ALIAS: &str = "allow_credential";
