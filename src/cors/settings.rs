//! A policy as it is written. The documentation of a key is its comment here.

use serde::Deserialize;

use crate::list::{List, given};

/// A CORS policy, as written. Every key is optional, but at least one of the three that allow origins must be there.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// Origins that may read responses: `"*"` for any, or patterns such as `https://app.example`,
    /// `https://*.app.example`, `http://localhost:*`.
    #[serde(deserialize_with = "given")]
    pub allow_origins: Option<List>,
    /// Regular expressions that must match an Origin from its first byte to its last.
    #[serde(deserialize_with = "given")]
    pub allow_origins_by_regex: Option<Patterns>,
    /// Names from `origin_sets`.
    #[serde(deserialize_with = "given")]
    pub allow_origin_sets: Option<List>,
    /// Methods that a page may use; default `*`. GET, HEAD and POST always pass and need no listing.
    #[serde(deserialize_with = "given")]
    pub allow_methods: Option<List>,
    /// Request headers that a page may set; default `*`.
    #[serde(deserialize_with = "given")]
    pub allow_headers: Option<List>,
    /// Response headers that a page may read besides the safelisted ones; default none.
    #[serde(deserialize_with = "given")]
    pub expose_headers: Option<List>,
    /// Seconds for which a browser may remember a preflight's answer, 0 to 86400; default 5; -1 means 0.
    #[serde(deserialize_with = "given")]
    pub max_age: Option<i64>,
    /// Whether pages may send cookies and other credentials and still read the response; default false.
    #[serde(alias = "allow_credential")]
    pub allow_credentials: bool,
    /// Origins for `Timing-Allow-Origin`, in the forms of `allow_origins`; default: the header is left alone.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins: Option<List>,
    /// As `allow_origins_by_regex`, for `Timing-Allow-Origin`.
    #[serde(deserialize_with = "given")]
    pub timing_allow_origins_by_regex: Option<Patterns>,
    /// Answers `Access-Control-Request-Private-Network`; default false.
    pub allow_private_network: bool,
    /// Which OPTIONS requests are answered here, and with what status.
    pub preflight: PreflightSettings,
    /// What happens to the upstream's own CORS headers; default `override`.
    pub upstream_headers: UpstreamHeaders,
    /// What happens to a request whose Origin is refused; default `forward`.
    pub disallowed_origins: DisallowedOrigins,
    /// Accepts what is otherwise refused at load.
    #[serde(deserialize_with = "given")]
    pub dangerously_allow: Option<Vec<Danger>>,
}

/// `preflight` of a policy.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PreflightSettings {
    /// Which OPTIONS requests are taken for preflights; default `origin`.
    #[serde(rename = "match")]
    pub matches: PreflightMatch,
    /// Status of an allowed preflight: 200 (default) or 204.
    pub status: u16,
    /// Status of a refused one: 200 (default), 204 or 403.
    pub refused_status: u16,
}

/// Which OPTIONS requests the gateway answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UpstreamHeaders {
    /// Those that the policy speaks of are replaced or removed.
    #[default]
    Override,
    /// All `Access-Control-*` are removed first.
    Replace,
}

/// What happens to a request whose Origin is refused.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DisallowedOrigins {
    /// It goes to the upstream; the browser withholds the response from the page.
    #[default]
    Forward,
    /// It gets 403 and never reaches the upstream.
    Reject,
}

/// What a policy may do only when it says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "invalid value, expected a regular expression or a list of them")]
pub enum Patterns {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

// === defaults and words ===

impl Settings {
    /// What browsers take when there is no `Access-Control-Max-Age`, and APISIX's default.
    pub const DEFAULT_MAX_AGE: i64 = 5;
}

impl Default for PreflightSettings {
    fn default() -> Self {
        PreflightSettings { matches: PreflightMatch::default(), status: 200, refused_status: 200 }
    }
}

impl Patterns {
    /// In order.
    pub fn sources(&self) -> &[String] {
        match self {
            Patterns::One(source) => std::slice::from_ref(source),
            Patterns::Many(sources) => sources,
        }
    }
}

impl Danger {
    /// As a configuration writes it.
    pub const fn word(self) -> &'static str {
        match self {
            Danger::NullOrigin => "null_origin",
            Danger::AnyOriginWithCredentials => "any_origin_with_credentials",
            Danger::InsecureOrigins => "insecure_origins",
            Danger::PublicSuffixSubdomains => "public_suffix_subdomains",
        }
    }
}
