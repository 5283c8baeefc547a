//! Findings of an audit: the fault, its severity, and the remedy.

use super::LookAlike;

/// The severity of a finding, from the lowest to the highest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum FindingSeverity {
    /// A fact that may be intended.
    Info,
    /// A fault that exposes no data by itself.
    Low,
    /// A fault that exposes data under a condition, or that breaks pages.
    Medium,
    /// A fault that lets a foreign page read responses with the user's credentials.
    High,
}

/// A fault of a server, with the exchange that shows it.
#[derive(Debug)]
pub(crate) struct Finding {
    pub(crate) kind: FindingKind,
    pub(crate) severity: FindingSeverity,
    /// One sentence about the fault.
    pub(crate) fault: String,
    /// Index of the sample that proves the fault.
    pub(super) sample: usize,
}

/// The kind of a finding. Each kind has a code and a remedy.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FindingKind {
    /// The server allows a foreign origin by name.
    ReflectedOrigin,
    /// The server allows all origins with `*`.
    AnyOrigin,
    /// The response has `*` and `Access-Control-Allow-Credentials: true`.
    WildcardWithCredentials,
    /// The server allows the origin `null`.
    NullOrigin,
    /// The server allows an origin that begins with the trusted one.
    PrefixMatch,
    /// The server allows a host that ends with the trusted host.
    SuffixMatch,
    /// The server accepts any character in place of a dot of the host.
    UnescapedDot,
    /// The server allows an origin that is a part of the trusted one.
    PartMatch,
    /// The server allows a host with a special character before another domain.
    SpecialCharacter,
    /// The server allows every subdomain.
    AnySubdomain,
    /// The server allows the `http` origin of a trusted https origin.
    HttpOrigin,
    /// The server allows every port of a trusted host.
    AnyPort,
    /// The server allows a site on which everybody can publish pages.
    SharedHost,
    /// The server allows pages of the user's own machine.
    LocalhostOrigin,
    /// The response depends on the Origin, but has no `Vary: Origin`.
    MissingVary,
    /// The response to a refused origin has CORS headers.
    HeadersOnRefusal,
    /// The server does not allow the trusted origin.
    TrustedRefused,
    /// The preflight of the trusted origin fails.
    PreflightRefused,
    /// `Access-Control-Allow-Origin` is not one serialised origin, `*` or `null`.
    MalformedAllowOrigin,
    /// `Access-Control-Allow-Credentials` is not `true`.
    MalformedAllowCredentials,
    /// A list in the response to a preflight is malformed.
    MalformedList,
    /// `Access-Control-Allow-Methods` has a name in lower case that browsers send in upper case.
    MethodCase,
    /// A list has `*`, which is an ordinary name with credentials.
    LiteralWildcard,
    /// `Access-Control-Max-Age` is not a number of seconds.
    MalformedMaxAge,
    /// `Access-Control-Max-Age` is above the limits of browsers.
    LongMaxAge,
    /// The response to a preflight allows every requested header.
    ReflectedHeaders,
    /// The server answers OPTIONS without `Access-Control-Request-Method` as a preflight.
    OptionsSwallowed,
}

impl FindingSeverity {
    /// Returns the name of the severity in the output.
    pub(crate) fn word(self) -> &'static str {
        match self {
            FindingSeverity::Info => "info",
            FindingSeverity::Low => "low",
            FindingSeverity::Medium => "medium",
            FindingSeverity::High => "high",
        }
    }
}

impl LookAlike {
    pub(super) fn kind(self) -> FindingKind {
        match self {
            LookAlike::Prefix => FindingKind::PrefixMatch,
            LookAlike::Suffix => FindingKind::SuffixMatch,
            LookAlike::Dot => FindingKind::UnescapedDot,
            LookAlike::Part => FindingKind::PartMatch,
            LookAlike::Special => FindingKind::SpecialCharacter,
            LookAlike::Subdomain => FindingKind::AnySubdomain,
            LookAlike::Downgrade => FindingKind::HttpOrigin,
            LookAlike::Port => FindingKind::AnyPort,
            LookAlike::SharedHost => FindingKind::SharedHost,
            LookAlike::Localhost => FindingKind::LocalhostOrigin,
        }
    }

    /// Returns the severity if the server allows the origin, with or without credentials.
    pub(super) fn severity(self, with_credentials: bool) -> FindingSeverity {
        use FindingSeverity::{High, Info, Low, Medium};
        let (with, without) = match self {
            LookAlike::Prefix | LookAlike::Suffix | LookAlike::Dot | LookAlike::Part | LookAlike::Special => {
                (High, Medium)
            }
            LookAlike::SharedHost => (High, Medium),
            LookAlike::Downgrade | LookAlike::Localhost => (Medium, Low),
            LookAlike::Subdomain => (Medium, Low),
            LookAlike::Port => (Low, Info),
        };
        if with_credentials { with } else { without }
    }
}

impl FindingKind {
    /// Returns the code of the finding in the output.
    pub(crate) fn code(self) -> &'static str {
        match self {
            FindingKind::ReflectedOrigin => "reflected_origin",
            FindingKind::AnyOrigin => "any_origin",
            FindingKind::WildcardWithCredentials => "wildcard_with_credentials",
            FindingKind::NullOrigin => "null_origin",
            FindingKind::PrefixMatch => "prefix_match",
            FindingKind::SuffixMatch => "suffix_match",
            FindingKind::UnescapedDot => "unescaped_dot",
            FindingKind::PartMatch => "part_match",
            FindingKind::SpecialCharacter => "special_character",
            FindingKind::AnySubdomain => "any_subdomain",
            FindingKind::HttpOrigin => "http_origin",
            FindingKind::AnyPort => "any_port",
            FindingKind::SharedHost => "shared_host",
            FindingKind::LocalhostOrigin => "localhost_origin",
            FindingKind::MissingVary => "missing_vary",
            FindingKind::HeadersOnRefusal => "headers_on_refusal",
            FindingKind::TrustedRefused => "trusted_refused",
            FindingKind::PreflightRefused => "preflight_refused",
            FindingKind::MalformedAllowOrigin => "malformed_allow_origin",
            FindingKind::MalformedAllowCredentials => "malformed_allow_credentials",
            FindingKind::MalformedList => "malformed_list",
            FindingKind::MethodCase => "method_case",
            FindingKind::LiteralWildcard => "literal_wildcard",
            FindingKind::MalformedMaxAge => "malformed_max_age",
            FindingKind::LongMaxAge => "long_max_age",
            FindingKind::ReflectedHeaders => "reflected_headers",
            FindingKind::OptionsSwallowed => "options_swallowed",
        }
    }

    /// Returns the remedy, as one or more sentences.
    pub(crate) fn remedy(self) -> &'static str {
        const COMPARE: &str = "Compare the whole Origin with a list of origins, byte by byte. In a regular expression, \
                               begin with `^`, end with `$`, and escape each dot.";
        match self {
            FindingKind::ReflectedOrigin => {
                "Do not copy the Origin into the response. Compare it with a list of origins first."
            }
            FindingKind::AnyOrigin => "Change nothing if the data is public. Otherwise list the origins.",
            FindingKind::WildcardWithCredentials => {
                "Remove `Access-Control-Allow-Credentials`, or send the one origin that you trust instead of `*`. Browsers \
                 refuse the combination."
            }
            FindingKind::NullOrigin => "Do not allow `null`: every site gets this origin with a sandboxed iframe.",
            FindingKind::PrefixMatch
            | FindingKind::SuffixMatch
            | FindingKind::UnescapedDot
            | FindingKind::PartMatch
            | FindingKind::SpecialCharacter => COMPARE,
            FindingKind::AnySubdomain => {
                "List the subdomains that need access. An attacker on any other subdomain can read the responses."
            }
            FindingKind::HttpOrigin => {
                "Allow the `https:` origin only. Anybody on the user's network can send a page as `http:`."
            }
            FindingKind::AnyPort => "Allow the origin with its port only.",
            FindingKind::SharedHost => "Remove the origin: everybody can publish a page there.",
            FindingKind::LocalhostOrigin => "Remove origins of development machines in production.",
            FindingKind::MissingVary => {
                "Add `Vary: Origin` to every response of this URL, also to those without CORS headers. Otherwise a cache \
                 gives the response for one origin to another."
            }
            FindingKind::HeadersOnRefusal => "Send no CORS headers to origins that are not allowed.",
            FindingKind::TrustedRefused => "Allow the origin, or audit with an origin that the server allows.",
            FindingKind::PreflightRefused => {
                "Answer OPTIONS with 204 and the CORS headers, before authentication and routing. Without that, pages can \
                 send only simple requests."
            }
            FindingKind::MalformedAllowOrigin => {
                "Send exactly one `Access-Control-Allow-Origin`: an origin as browsers write it, or `*`."
            }
            FindingKind::MalformedAllowCredentials => {
                "Write `true` in lower case, or leave the header out. Browsers ignore every other value."
            }
            FindingKind::MalformedList => "Write a list of names, separated by commas.",
            FindingKind::MethodCase => "Write methods in upper case. Browsers compare them case-sensitively.",
            FindingKind::LiteralWildcard => {
                "List the names. With credentials, browsers treat `*` as the name of a method or header."
            }
            FindingKind::MalformedMaxAge => "Write a number of seconds. Browsers ignore other values.",
            FindingKind::LongMaxAge => "Write at most 86400. Chromium uses at most 7200, Firefox at most 86400.",
            FindingKind::ReflectedHeaders => {
                "List the headers that pages may send, instead of copying the request's list."
            }
            FindingKind::OptionsSwallowed => {
                "Answer OPTIONS as a preflight only with `Origin` and `Access-Control-Request-Method`, if the application \
                 handles other OPTIONS requests."
            }
        }
    }
}
