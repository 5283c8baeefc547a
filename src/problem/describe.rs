//! The messages of all kinds of problems. One match arm has the code, severity, fault, remedy and replacement of a
//! kind.

use std::borrow::Cow;

use super::{ProblemKind, RemovedBecause, Replacement, Severity};

/// The complete message of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// Stable name for programs (`check --format json`), in kebab-case. `docs/codes.md` lists all codes.
    pub code: &'static str,
    /// Whether the problem is an error, a warning or a hint.
    pub severity: Severity,
    /// The fault, with the user's text. Lower case, without a full stop.
    pub fault: Cow<'static, str>,
    /// The remedy. Imperative, lower case, without a full stop.
    pub remedy: Cow<'static, str>,
    /// The edit that the remedy describes. None if the remedy leaves a choice.
    pub replacement: Option<Replacement>,
}

impl ProblemKind {
    /// Returns the code of the message, see [`Description::code`].
    pub fn code(&self) -> &'static str {
        self.describe().code
    }

    /// Returns the severity of the message, see [`Description::severity`].
    pub fn severity(&self) -> Severity {
        self.describe().severity
    }

    /// Returns the fault that the message states, see [`Description::fault`].
    pub fn fault(&self) -> Cow<'static, str> {
        self.describe().fault
    }

    /// Returns the remedy that the message states, see [`Description::remedy`].
    pub fn remedy(&self) -> Cow<'static, str> {
        self.describe().remedy
    }

    /// Returns the edit of the remedy, see [`Description::replacement`].
    pub fn replacement(&self) -> Option<Replacement> {
        self.describe().replacement
    }

    /// Returns the message. Accessors such as [`Self::severity`] build the whole message too, because most messages are
    /// short and a valid file has no problems. `tests/it/codes.rs` reads the codes from the text of this function.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each kind")]
    pub fn describe(&self) -> Description {
        use ProblemKind::*;
        match self {
            // --- the text
            Unreadable { why, remedy } => error("unreadable", format!("cannot be read: {why}"), *remedy),
            Syntax { message, remedy, .. } => error("syntax", message.clone(), remedy.clone()),
            Variable { text } => error(
                "variable",
                match text.starts_with("${") {
                    true => format!("`{text}` is a variable, and this file has no `environment: true`"),
                    false => format!("`{text}` is a variable, and corsgate fills in only `${{NAME}}`"),
                },
                "write the value, or write `environment: true` at the top level and `${NAME}` here",
            ),
            VariableNotFilled { text } => hint(
                "variable-not-filled",
                format!("`{text}` is text here"),
                "to fill in environment variables, write `environment: true` at the top level",
            ),
            VariableNotSet { name } => error(
                "variable-not-set",
                format!("the environment variable `{name}` is not set, or is not UTF-8"),
                format!("set it for corsgate, or write `$${{{name}}}` for this text"),
            ),
            VariableInBlock => error(
                "variable-in-block",
                "a text in a block (`|` or `>`) has no variables",
                "write the text in double quotes, or `environment: false`",
            ),
            BadVariable { text } => error(
                "bad-variable",
                format!(
                    "`{text}` is not a variable: a name has only letters, digits and `_`, and no digit at its start"
                ),
                "write `${NAME}`, or `$${` for the text `${`",
            ),
            WrongValue { found, expected } => {
                error("wrong-value", format!("found {found}"), format!("write {expected}"))
            }
            UnknownKey { key, .. } if key == "<<" => error(
                "unknown-key",
                "merge keys (`<<`) are not supported",
                "write the keys out, or use an alias for the complete value",
            ),
            UnknownKey { key, known } => {
                let fault = format!("unknown key `{key}`");
                match known.nearest() {
                    Some(near) => error("unknown-key", fault, did_you_mean(near)).renamed(near),
                    None => error("unknown-key", fault, format!("write one of {}", known.listed())),
                }
            }
            UnknownWord { word, known } => {
                let fault = format!("unknown value `{word}`");
                match (known.nearest(), known.words()) {
                    (Some(near), _) => error("unknown-word", fault, did_you_mean(near)).replaced(near),
                    (None, [only]) => error("unknown-word", fault, format!("write `{only}`")).replaced(only),
                    (None, _) => error("unknown-word", fault, format!("write one of {}", known.listed())),
                }
            }
            KeyTwice { first_line } => {
                error("key-twice", format!("duplicate key, first on line {first_line}"), "keep one of the two")
            }
            KeyAndAlias { key } => {
                let alias = if key == "allow_credentials" { "`allow_credential`" } else { "its alias" };
                error("key-and-alias", format!("both `{key}` and {alias} are set"), "keep one")
            }
            Missing { example } => error("missing", "is missing", format!("write for example `{example}`")),
            NoKeys { example } => error("missing", "has no key", format!("write for example `{example}`")),
            EmptyList { required: true } => error("empty-list", "the list is empty", "add at least one entry"),
            EmptyList { required: false } => {
                error("empty-list", "the list is empty", "add at least one entry, or remove the key")
            }
            EmptyEntry => error("empty-entry", "the entry is empty", "remove the entry, or the extra comma").removed(),
            EmptyPath { most } => {
                error("out-of-range", "the path is empty", format!("write a path of 1 to {most} bytes"))
            }
            OutOfRange { value, range, write } => {
                error("out-of-range", format!("{value} is out of range: it must be {range}"), format!("write {write}"))
            }

            // --- names
            UnknownName { what, name, known } => {
                let fault = format!("there is no {what} named `{name}`");
                // Such a name probably means that the route has no policy.
                let means_off = *what == "policy" && ["off", "no", "none", "disabled"].contains(&&**name);
                match known.nearest() {
                    Some(near) => error("unknown-name", fault, did_you_mean(near)).replaced(near),
                    None if means_off => error("unknown-name", fault, "write `false` to turn CORS handling off")
                        .replaced_literally("false"),
                    None if known.words().is_empty() => {
                        error("unknown-name", fault, format!("define the {what} first"))
                    }
                    None => {
                        error("unknown-name", fault, format!("define it, or write a defined name: {}", known.listed()))
                    }
                }
            }
            NameTwice { what, name } => error(
                "name-twice",
                format!("duplicate {what} name `{name}`"),
                format!("give each {what} a unique name"),
            ),
            BadName { what, name } => error(
                "bad-name",
                format!("`{name}` is not a valid {what} name"),
                "use 1 to 128 ASCII letters, digits, `-`, `_` or `.`",
            ),

            // --- origin patterns
            OriginReflectsAll => error(
                "origin-reflects-all",
                "`**` would allow every origin with credentials, which is never safe",
                "list the origins, or write `*` without allow_credentials",
            ),
            OriginSeveral { text } => error(
                "origin-several",
                format!("`{text}` is more than one origin"),
                "write each origin as a separate list entry",
            ),
            OriginWithoutScheme { text, write } => error(
                "origin-without-scheme",
                format!("`{text}` has no scheme, but an origin always has one"),
                format!("write `{write}`"),
            )
            .replaced(write),
            OriginBadScheme { text, write } => {
                let fault = format!("`{text}` does not begin with a valid scheme");
                match write {
                    Some(write) => error("origin-bad-scheme", fault, format!("write `{write}`")).replaced(write),
                    None => error("origin-bad-scheme", fault, "write `https://` and the host"),
                }
            }
            OriginUpperCase { text, origin } => error(
                "origin-upper-case",
                format!("`{text}` has upper-case letters, but browsers send origins in lower case"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginTrailingSlash { text, origin } => error(
                "origin-trailing-slash",
                format!("`{text}` ends with a slash, but an origin never does"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginPath { text, origin } => error(
                "origin-path",
                format!("`{text}` has a path, but an origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginQuery { text, origin } => error(
                "origin-query",
                format!("`{text}` has a query or fragment, but an origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginUserinfo { text, origin } => error(
                "origin-userinfo",
                format!("`{text}` has a user name, but an origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginNonAscii { text } => error(
                "origin-non-ascii",
                format!("`{text}` has a host that is not ASCII, but browsers send punycode"),
                "write the host in punycode (`xn--…`), as copied from the browser's address bar",
            ),
            OriginBadCharacter { text, character } => {
                // ASCII punctuation is visible. Other characters, such as control characters, may need an escape.
                let shown = match character.is_ascii_punctuation() {
                    true => character.to_string(),
                    false => character.escape_debug().to_string(),
                };
                error(
                    "origin-bad-character",
                    format!("`{text}` has the character `{shown}`, which is not allowed in an origin"),
                    match character {
                        '\\' => "write a regular expression in allow_origins_by_regex",
                        _ => "write `scheme://host` or `scheme://host:port`",
                    },
                )
            }
            OriginEmptyHost { text } => error(
                "origin-empty-host",
                format!("`{text}` has no host"),
                "write the host, or `scheme://*` for any host",
            ),
            OriginOpaque { text } => error(
                "origin-opaque",
                format!("no browser sends `{text}`: such pages send the origin `null`"),
                "remove it",
            )
            .removed(),
            OriginOfWebSocket { text, write } => error(
                "origin-of-websocket",
                format!("no browser sends `{text}`: a WebSocket has the origin of its page"),
                format!("write `{write}`"),
            )
            .replaced(write),
            OriginBadHost { text, why } => error(
                "origin-bad-host",
                format!("`{text}` has an invalid host: {why}"),
                "write the host as the browser sends it",
            ),
            OriginNotCanonical { text, canonical } => error(
                "origin-not-canonical",
                format!("`{text}` is not the form in which browsers send this address"),
                format!("write `{canonical}`"),
            )
            .replaced(canonical),
            OriginDefaultPort { text, write } => error(
                "origin-default-port",
                format!("`{text}` has the default port of its scheme, which browsers omit"),
                format!("write `{write}`"),
            )
            .replaced(write),
            OriginBadPort { text, port } => error(
                "origin-bad-port",
                format!("`{text}` has the invalid port `{port}`"),
                "write a port from 1 to 65535, or `*` for any port",
            ),
            OriginMisplacedWildcard { text, write } => {
                let fault = format!("`{text}` has a misplaced `*`");
                match write {
                    Some(write) => {
                        error("origin-misplaced-wildcard", fault, format!("write `{write}`")).replaced(write)
                    }
                    None => error(
                        "origin-misplaced-wildcard",
                        fault,
                        "write `*` only as the whole entry, the whole host or the port, or `*.` before a host",
                    ),
                }
            }
            OriginUnknownPlaceholder { text, name, known } => {
                let fault = format!("`{text}` has the unknown placeholder `{{{name}}}`");
                match known.nearest() {
                    Some(near) => {
                        let write = text.replacen(&format!("{{{name}}}"), &format!("{{{near}}}"), 1);
                        let others = "the placeholders are `{digits}`, `{hex}` and `{label}`";
                        error("origin-unknown-placeholder", fault, format!("{} {others}", did_you_mean(&write)))
                            .replaced(&write)
                    }
                    None => error("origin-unknown-placeholder", fault, "write `{digits}`, `{hex}` or `{label}`"),
                }
            }
            OriginBadPlaceholder { text, why, remedy } => {
                error("origin-bad-placeholder", format!("`{text}` has a bad placeholder: {why}"), *remedy)
            }
            OriginTooLong { limit } => {
                error("origin-too-long", format!("longer than {limit} bytes, the limit for an origin"), "shorten it")
            }

            // --- policies
            NoOrigins => error(
                "no-origins",
                "the policy does not say which origins are allowed",
                "write allow_origins, allow_origins_by_regex or allow_origin_sets, or `cors: false` to turn CORS handling off",
            ),
            AnyWithOthers => error(
                "any-with-others",
                "`*` already allows every origin, so it cannot be combined with others",
                "remove the other origins, or the `*`",
            ),
            AnyInSet => {
                error("any-in-set", "an origin set cannot contain `*`", "write `allow_origins: \"*\"` in the policy")
            }
            NullInSet => error(
                "null-in-set",
                "an origin set cannot contain `null`",
                "write `null` in allow_origins of the policy that needs it",
            ),
            NullOrigin => error(
                "null-origin",
                "every sandboxed frame sends `null`, so any site can send it",
                "remove it, or accept the risk with `dangerously_allow: [null_origin]`",
            ),
            AnyOriginWithCredentials => error(
                "any-origin-with-credentials",
                "\"*\" cannot be combined with allow_credentials: true",
                "list the origins, or remove allow_credentials",
            ),
            AnyExposedWithCredentials => error(
                "any-exposed-with-credentials",
                "\"*\" cannot be combined with allow_credentials: true, because browsers then read it as a header named `*`",
                "list the header names",
            ),
            InsecureOriginWithCredentials { pattern } => error(
                "insecure-origin-with-credentials",
                format!(
                    "`{pattern}` is not encrypted, so an attacker on the network could read responses with credentials"
                ),
                match pattern.contains("://*:") || pattern.ends_with("://*") {
                    true => {
                        Cow::from("list https origins, or accept the risk with `dangerously_allow: [insecure_origins]`")
                    }
                    false => Cow::from(format!(
                        "write `{}`, or accept the risk with `dangerously_allow: [insecure_origins]`",
                        pattern.replacen("http:", "https:", 1)
                    )),
                },
            ),
            PublicSuffixWithCredentials { pattern, suffix } => error(
                "public-suffix-with-credentials",
                match &**suffix {
                    "*" => format!("`{pattern}` allows every host with credentials"),
                    suffix => format!(
                        "`{pattern}` allows foreign sites with credentials: `{suffix}` is a public suffix, open for registration"
                    ),
                },
                "list your own hosts, or accept the risk with `dangerously_allow: [public_suffix_subdomains]`",
            ),
            AnyOriginRegexWithCredentials { witness } => error(
                "any-origin-with-credentials",
                format!("matches every origin: allows `{witness}` with credentials"),
                "match only your own hosts, or accept the risk with `dangerously_allow: [any_origin_with_credentials]`",
            ),
            InsecureRegexWithCredentials { witness } => error(
                "insecure-origin-with-credentials",
                format!(
                    "allows `{witness}`, which is not encrypted, so an attacker on the network could read responses with credentials"
                ),
                "match only `https://`, or accept the risk with `dangerously_allow: [insecure_origins]`",
            ),
            PublicSuffixRegexWithCredentials { witness, suffix } => error(
                "public-suffix-with-credentials",
                match &**suffix {
                    "*" => format!("matches every host: allows `{witness}` with credentials"),
                    suffix => format!(
                        "allows the foreign site `{witness}` with credentials: `{suffix}` is a public suffix, open for registration"
                    ),
                },
                "match only your own hosts, or accept the risk with `dangerously_allow: [public_suffix_subdomains]`",
            ),
            RegexDoesNotCompile { message, is_pattern } => error(
                "regex-does-not-compile",
                format!("the regular expression does not compile: {message}"),
                match is_pattern {
                    true => "it is a pattern: write it in allow_origins, with its scheme",
                    false => "correct it; look-around and backreferences are not supported",
                },
            ),
            RegexTooLarge { limit } => error(
                "regex-too-large",
                format!("the regular expression needs more than {} KiB when compiled", limit / 1024),
                "shorten it, or list the origins",
            ),
            BadMethod { text } => error(
                "bad-method",
                format!("`{text}` is not a method"),
                "write a method such as `PUT`, and separate several methods with commas",
            ),
            BadHeaderName { text } => error(
                "bad-header-name",
                format!("`{text}` is not a header name"),
                match text.contains(',') {
                    true => "write one name in each list entry, for example `X-Request-Id`",
                    false => "write a name such as `X-Request-Id`, and separate several names with commas",
                },
            ),
            WordForAny { text } => {
                error("word-for-any", format!("`{text}` is a name here, not a wildcard"), "write `*`").replaced("*")
            }
            BadMaxAge { value } => error(
                "bad-max-age",
                format!("{value} is out of range: it must be 0 to 86400 seconds, or -1, which means 0"),
                "write `86400` for the longest time, or `0` for no caching",
            )
            .replaced_literally(if value.starts_with('-') { "0" } else { "86400" }),
            BadPreflightStatus { value } => error(
                "bad-preflight-status",
                format!("{value} is not a valid status for an allowed preflight"),
                "write 200 or 204",
            ),
            BadRefusedStatus { value } => error(
                "bad-refused-status",
                format!("{value} is not a valid status for a refused preflight"),
                "write 200, 204 or 403",
            ),
            NothingToExpose { set } => error(
                "nothing-to-expose",
                format!("the set `{set}` has no response headers"),
                "remove it here; `allow_header_sets` allows its request headers",
            )
            .removed(),
            CorsTrue => error(
                "cors-true",
                "`true` does not say which origins are allowed",
                "write a policy, the name of a policy, or `false`",
            ),
            UnusedDanger { word } => hint(
                "unused-danger",
                format!("this policy does not need `{word}`"),
                format!("remove `{word}`, because it could hide a later mistake"),
            )
            .removed(),

            // --- policies: warnings and hints
            RegexIsPattern { text } => warning(
                "regex-is-pattern",
                format!("`{text}` is a pattern, and means something else as a regular expression"),
                "write it in allow_origins, or `[a-z0-9-]+` for `*` and `\\.` for each dot",
            ),
            RegexUnescapedDot { witness } => warning(
                "regex-unescaped-dot",
                format!("unescaped `.` matches any character: allows `{witness}`"),
                "write `\\.` for a dot",
            ),
            RegexOpenPrefix { witness } => warning(
                "regex-open-prefix",
                format!("no dot is required before the host name: allows `{witness}`"),
                "write `([a-z0-9-]+\\.)*` for any subdomains",
            ),
            RegexAlternation { witness } => warning(
                "regex-alternation",
                format!("`|` outside parentheses splits the whole expression: allows `{witness}`"),
                "put the alternatives in parentheses, as in `https://(a|b)\\.example`",
            ),
            RegexWithoutScheme { witness } => warning(
                "regex-without-scheme",
                format!("the scheme is not restricted: allows `{witness}`"),
                "begin it with `https://`",
            ),
            RegexMatchesAll { witness } => warning(
                "regex-matches-all",
                format!("matches every host: allows `{witness}`"),
                "restrict it, or write `allow_origins: \"*\"` to allow every origin",
            ),
            RegexNeverMatches { part: Some(part), .. } => warning(
                "regex-never-matches",
                format!("the alternative `{part}` matches no origin that an expression can allow"),
                match &**part {
                    "null" => "remove it: only allow_origins can allow the origin `null`",
                    _ => "remove it, or write a whole origin: `https://`, the host, and no path",
                },
            ),
            RegexNeverMatches { part: None, write } => {
                let fault = "matches no origin that a browser sends";
                match write {
                    Some(write) => warning("regex-never-matches", fault, format!("write `{write}`")).replaced(write),
                    None => warning(
                        "regex-never-matches",
                        fault,
                        "write an expression for a whole origin, such as `https://([a-z0-9-]+\\.)*app\\.example`",
                    ),
                }
            }
            PublicSuffixRegex { witness, suffix } => warning(
                "public-suffix",
                format!("allows the foreign site `{witness}`: `{suffix}` is a public suffix, open for registration"),
                "match only your own hosts",
            ),
            PublicSuffix { pattern, suffix } => warning(
                "public-suffix",
                format!("`{pattern}` allows foreign sites: `{suffix}` is a public suffix, open for registration"),
                "list your own hosts",
            ),
            OddSchemeWithCredentials { pattern } => warning(
                "odd-scheme-with-credentials",
                format!("`{pattern}` is not an https origin, but the policy allows credentials"),
                "remove it, or make sure that only your own application can send this origin",
            ),
            MethodNeverSent { method } => {
                warning("method-never-sent", format!("browsers never let a page send `{method}`"), "remove it")
                    .removed()
            }
            MethodCase { method, upper } => hint(
                "method-case",
                format!("methods are case-sensitive: this entry allows `{method}`, but not `{upper}`"),
                format!("write `{upper}`, or both if pages send both"),
            )
            .replaced(upper),
            HeaderNeverSent { name } => {
                warning("header-never-sent", format!("browsers never let a page set `{name}`"), "remove it").removed()
            }
            HeaderNeverRead { name } => {
                warning("header-never-read", format!("browsers never let a page read `{name}`"), "remove it").removed()
            }
            HeaderOtherDirection { name, key, move_to } => {
                let (is, lists) = match *key == "allow_headers" {
                    true => ("response", "request"),
                    false => ("request", "response"),
                };
                warning(
                    "header-other-direction",
                    format!("`{name}` is a {is} header, but {key} lists {lists} headers"),
                    match move_to {
                        Some(other) => format!("remove it, or move it to {other}"),
                        None => "remove it".to_owned(),
                    },
                )
                .removed()
            }
            ExposedWithoutUse { name } => warning(
                "exposed-without-use",
                format!("`{name}` is for the browser, so no page needs to read it"),
                "remove it",
            )
            .removed(),
            ExposedAnyway { name } => {
                hint("exposed-anyway", format!("pages can read `{name}` without this entry"), "remove it").removed()
            }
            RejectsNothing => warning(
                "rejects-nothing",
                "the policy allows every origin, so `reject` rejects nothing, not even WebSockets of foreign sites",
                "list the allowed origins, or remove this key",
            ),
            NestedReportOnly => error(
                "nested-report-only",
                "a `report_only` policy cannot have a `report_only` itself",
                "remove the inner `report_only`, or name a policy without one",
            ),
            ReportsNothing => warning(
                "reports-nothing",
                "`report_only` has the same settings as the policy, so it reports nothing",
                "change it, or remove `report_only`",
            ),
            OpenByOmission { keys } => {
                let (what, example) = match keys {
                    ["allow_methods"] => ("any method", "`allow_methods: [PUT, DELETE]`"),
                    ["allow_headers"] => ("any request header", "`allow_headers: [Content-Type]`"),
                    _ => (
                        "any method and any request header",
                        "`allow_methods: [PUT]` and `allow_headers: [Content-Type]`",
                    ),
                };
                hint(
                    "open-by-omission",
                    format!("without {}, pages may send {what} with credentials", keys.join(" and ")),
                    format!("list what they need, for example {example}; `[]` allows none"),
                )
            }
            MeaninglessBesideAny { text } => {
                warning("meaningless-beside-any", format!("`{text}` has no effect beside `*`"), "remove it, or the `*`")
            }
            PrivateNetworkGone => warning(
                "private-network-gone",
                "browsers removed Private Network Access and ask the user instead, so this has no effect",
                "remove it",
            )
            .removed(),
            CachedLongerThanMaxAge { directive, max_age } => warning(
                "cached-longer-than-max-age",
                format!(
                    "`{directive}` lets a shared cache send an answer that is older than max_age allows: {max_age} seconds"
                ),
                format!("write at most {max_age} seconds, or a longer `max_age`"),
            ),
            MaxAgeLeftOut => hint(
                "max-age-left-out",
                "not set, so browsers repeat a preflight after 5 s",
                "write for example `max_age: 7200`",
            ),
            AnyHeaderWithoutAuthorization => hint(
                "any-header-without-authorization",
                "`*` does not cover `Authorization`",
                "if pages send it, write `allow_headers: [\"*\", Authorization]`",
            ),

            // --- hosts, paths, methods of routes
            BadHost { text, why, write } => {
                let fault = format!("`{text}` is not a valid host: {why}");
                match write {
                    Some(write) => error("bad-host", fault, format!("write `{write}`")).replaced(write),
                    None if text == "*" => error("bad-host", fault, "remove `hosts`"),
                    None => error("bad-host", fault, "write `api.example` or `*.example`"),
                }
            }
            PathWithScheme { text, path } => error(
                "bad-path",
                format!("`{text}` is not a valid path: it must not have a scheme or a host"),
                format!("write `{path}`, and the host in `hosts`"),
            )
            .replaced(path),
            BadPrefix { text, why, remedy } => {
                error("bad-path", format!("`{text}` is not a valid path: {why}"), *remedy)
            }
            BadPath { text, why, write } => {
                let fault = format!("`{text}` is not a valid path: {why}");
                match write {
                    Some(write) => error("bad-path", fault, format!("write `{write}`")).replaced(write),
                    None => error("bad-path", fault, "write `/users`, `/users/{id}` or `/users/*`"),
                }
            }
            HostTwice { host } => error("host-twice", format!("duplicate host `{host}`"), "remove it").removed(),
            AnyMethodInRoute => {
                error("any-method-in-route", "`*` is not a method", "remove `methods` to match any method")
            }
            RouteTwice { host, path, other } => error(
                "route-twice",
                match &**host {
                    "*" => format!("path `{path}` of any host already belongs to {other}"),
                    host => format!("path `{path}` of host `{host}` already belongs to {other}"),
                },
                "remove one of the two, or give them different hosts, paths or `methods`",
            ),
            NeverReached => warning(
                "never-reached",
                "CONNECT requests are never forwarded, so this route is unused",
                "remove the route",
            ),
            PoliciesShareAPath { shared, more } => {
                let named = shared.iter().map(|(path, [one, other])| format!("`{path}` ({one} and {other})"));
                let named = named.collect::<Vec<_>>().join(", ");
                let more = if *more > 0 { format!(" and {more} more") } else { String::new() };
                hint(
                    "policies-share-a-path",
                    format!(
                        "browsers send a preflight each time, because routes with the same path have different policies: {named}{more}"
                    ),
                    "if this is too slow, give these routes the same policy, or different paths",
                )
            }
            StripPrefixMismatch { prefix, path } => warning(
                "strip-prefix-mismatch",
                format!("`{prefix}` is not a prefix of the path `{path}`, so it is not stripped from that path"),
                "write a prefix of every path of this route",
            ),

            // --- behaviors of routes
            ExclusiveKeys { one, other } => {
                error("exclusive-keys", format!("`{one}` and `{other}` cannot be combined"), "keep one of them")
            }
            AllowedButDenied { network, by } => warning(
                "allowed-but-denied",
                format!("`{network}` is allowed here, but `deny` contains it in `{by}`, and `deny` wins"),
                "remove it here, or remove the denied network",
            ),
            HeaderOfCors { name } => error(
                "header-of-cors",
                format!("`{name}` is a CORS header, and only the policy decides about it"),
                "set it in `cors`, and remove it here",
            ),
            HeaderOfConnection { name } => error(
                "header-of-connection",
                format!("`{name}` belongs to the connection or frames the message"),
                "remove it; corsgate sets it for each connection",
            ),
            HeaderOfUpstreamHost => error(
                "header-of-upstream-host",
                "`Host` cannot be edited here",
                "use `upstream_host`, and remove it here",
            ),
            BadHeaderValue { text } => error(
                "bad-header-value",
                format!("`{text}` is not a header value"),
                "write visible ASCII characters, without line breaks and without spaces at the ends",
            ),
            UnknownVariable { name, known } => {
                let fault = format!("there is no variable `{{{name}}}`");
                match known.nearest() {
                    Some(near) => error("unknown-variable", fault, did_you_mean(&format!("{{{near}}}"))),
                    None => error("unknown-variable", fault, format!("write one of {}", known.listed())),
                }
            }
            PathRegexTooLarge { limit } => error(
                "regex-too-large",
                format!("the regular expression needs more than {} KiB when compiled", limit / 1024),
                "shorten it, or write several routes",
            ),
            BadReplacement { text, why } => error(
                "bad-replacement",
                format!("`{text}` cannot replace a part of a path: {why}"),
                "write a path such as `/accounts/$1`",
            ),
            StatusWithoutBody { status } => error(
                "status-without-body",
                format!("a response with status {status} has no body"),
                "remove `body`, or write another status",
            ),
            BadRedirectStatus { value } => error(
                "bad-redirect-status",
                format!("{value} is not the status of a redirect"),
                "write 301, 302, 303, 307 or 308",
            ),
            BadRedirect { text, why } => error(
                "bad-redirect",
                format!("`{text}` is not the target of a redirect: {why}"),
                "write for example `https://www.example{uri}` or `/login`",
            ),

            // --- listeners, upstreams
            BadAddress { text, what, example } => {
                error("bad-address", format!("`{text}` is not {what}"), format!("write for example `{example}`"))
            }
            NodeUrl { text, write, needs_tls } => error(
                "bad-address",
                format!("`{text}` is a URL, but an address is a host with a port"),
                match needs_tls {
                    true => format!("write `{write}`, and `tls: {{}}` in the upstream"),
                    false => format!("write `{write}`"),
                },
            )
            .replaced(write),
            BadSocketPath { text, why, write } => {
                let fault = format!("`{text}` is not the address of a socket: {why}");
                match write {
                    Some(write) => error("bad-socket-path", fault, format!("write `{write}`")).replaced(write),
                    None => error("bad-socket-path", fault, "write for example `unix:/run/app.sock`"),
                }
            }
            NodeWithoutTls { address } => warning(
                "node-without-tls",
                format!("`{address}` is the port of https, but without `tls` corsgate speaks plain HTTP to it"),
                "add `tls: {}` to the upstream, or write the port for plain HTTP",
            ),
            AddressTwice { address, other } => {
                let message = match address == other {
                    true => format!("duplicate listen address {address}"),
                    false => format!("{address} overlaps with the listen address {other}"),
                };
                error("address-twice", message, "remove one of the two")
            }
            ModeWithoutUnix => error(
                "mode-without-unix",
                "only a Unix-domain socket has a mode",
                "remove it, or write an address such as `unix:/run/corsgate/edge.sock`",
            )
            .removed(),
            UnixNotTrusted => error(
                "unix-not-trusted",
                "`proxy_protocol` on a Unix-domain socket requires that its peers are trusted",
                "add `unix` to `trusted_proxies`, or remove `proxy_protocol`",
            ),
            AllWeightsZero { what } => error(
                "all-weights-zero",
                format!("every {what} has weight 0, so no {what} can be chosen"),
                format!("give at least one {what} a weight of 1 or more"),
            ),
            AdminExposed { address } => hint(
                "admin-exposed",
                format!("{address} is reachable from other machines, but its pages need no authentication"),
                "write `127.0.0.1:9180`, or make sure that only your monitoring can reach it",
            ),
            RemoteWrite { address } => error(
                "remote-write",
                format!(
                    "other machines can reach {address}, so the write API and its tokens would be open to the network"
                ),
                "write `address: 127.0.0.1:9180` and use an ssh tunnel, remove `write`, or accept the danger with \
                 `dangerously_allow_remote_write: true`",
            ),
            BadTokenFile { path, line, why } => error(
                "bad-token-file",
                format!("line {line} of `{path}` cannot be used: {why}"),
                "write one line for each token, as `corsgate token --name NAME --role write` prints it",
            ),
            NeedsAnother { key, other } => error(
                "needs-another",
                format!("`{key}` requires `{other}`"),
                match *other {
                    "trusted_proxies" => format!("list your proxies in `trusted_proxies`, or remove `{key}`"),
                    other => format!("add `{other}`, or remove `{key}`"),
                },
            ),
            HeaderRemoved { name, by } => warning(
                "header-removed",
                match by {
                    RemovedBecause::Underscore => format!("`{name}` is dropped, because its name has an underscore"),
                    RemovedBecause::Lookalike => {
                        format!("`{name}` is dropped, because it looks like a forwarding field")
                    }
                    RemovedBecause::NoTrustedProxy => format!("`{name}` is accepted from `trusted_proxies` only"),
                },
                match by {
                    RemovedBecause::Underscore => "use another header, or set `underscores_in_headers: keep`",
                    RemovedBecause::Lookalike => "use another header",
                    RemovedBecause::NoTrustedProxy => "list your proxies in `trusted_proxies`, or use another header",
                },
            ),
            HashOnUnknown { key, text } => error(
                "hash-on-unknown",
                format!("`{text}` is not a valid {key}"),
                "write `header:NAME`, `cookie:NAME`, `path` or `client_address`",
            ),
            RateKeyUnknown { text } => error(
                "rate-key-unknown",
                format!("`{text}` is not a valid key of a rate limit"),
                "write `client_ip`, `header:NAME`, `cookie:NAME` or `route`",
            ),
            SniMissing { node, what } => error(
                "sni-missing",
                format!("the node {node} is {what}, so TLS has no server name to verify"),
                "set `sni` to the name from the node's certificate, for example `sni: api.internal`",
            ),
            BadStatusRange { text } => error(
                "bad-status-range",
                format!("`{text}` is neither a status nor a range of statuses"),
                "write `200` or `200-399`",
            ),
            RedirectOverTls => error(
                "redirect-over-tls",
                "the listener itself uses TLS, so there is nothing to redirect",
                "remove it here, and write it in the listener for plain HTTP",
            )
            .removed(),
            Http2BesideTls => error(
                "http2-beside-tls",
                "this key is for listeners without `tls`",
                "write it in `tls`, such as `tls: { http2: false }`; HTTP/2 over TLS is on by default",
            ),
            TrustsEveryone { text } => warning(
                "trusts-everyone",
                format!("`{text}` matches every address, so any client can spoof its own"),
                "write the addresses of your proxies",
            ),
            DebugHeader => {
                hint("debug-header", "`X-Corsgate-Reason` shows each decision to the client", "remove it in production")
            }
            FolderMissing { path } => warning(
                "folder-missing",
                format!("the directory of `{path}` does not exist, and corsgate cannot start without it"),
                "create it, or write a path in an existing directory, relative to the directory of this file",
            ),

            // --- expectations
            BadExpectation { why, remedy } => error("bad-expectation", why.clone(), remedy.clone()),
            ExpectationFailed { request, expected, found, cause, remedy } => {
                let cause = cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                let fault = format!("expected {expected} for {request}, but found {found}{cause}");
                error("expectation-failed", fault, remedy.clone())
            }
            MoreExpectationsFailed { count } => error(
                "expectation-failed",
                format!("{count} more expectations fail"),
                "run `corsgate test` to see all of them",
            ),

            // --- compression
            ListedTwice { text } => {
                error("listed-twice", format!("`{text}` is listed twice"), "remove the second entry").removed()
            }
            BadMediaType { text } => error(
                "bad-media-type",
                format!("`{text}` is not a media type"),
                match text.contains(';') {
                    true => "write the type without parameters, such as `text/html`",
                    false => "write a type such as `text/html`, `text/*` for all texts, or `application/*+json`",
                },
            ),
            NeverCompressed { text } => error(
                "never-compressed",
                format!("`{text}` is never compressed"),
                "remove it: events must not wait for each other, and gRPC has a compression of its own",
            )
            .removed(),

            // --- certificates
            FileUnreadable { path, why } => error(
                "file-unreadable",
                format!("cannot read `{path}`: {why}"),
                "write a path relative to the directory of this file, and give the user that runs corsgate read permission",
            ),
            NoPem { path, what } => error(
                "no-pem",
                format!("`{path}` contains no {what} in PEM format"),
                format!("write the path of a file with a {what}, which begins with `-----BEGIN`"),
            ),
            BadCertificate { path, why } => error(
                "bad-certificate",
                format!("the certificate in `{path}` cannot be used: {why}"),
                "write the path of a file with an X.509 version 3 certificate",
            ),
            BadKey { path, why } => error(
                "bad-key",
                format!("the private key in `{path}` cannot be used: {why}"),
                "write the path of a file with an RSA key of at least 2048 bits, an ECDSA key of P-256 or P-384, or an Ed25519 key",
            ),
            KeyMismatch { cert, key } => error(
                "key-mismatch",
                format!("the key in `{key}` does not belong to the first certificate in `{cert}`"),
                "use a certificate and key that match, and put the leaf certificate first in its file",
            ),
            CertificateExpired { path, when } => {
                error("certificate-expired", format!("the certificate in `{path}` expired on {when}"), "renew it")
            }
            CertificateNotYetValid { path, when } => error(
                "certificate-not-yet-valid",
                format!("the certificate in `{path}` is not valid before {when}"),
                "wait until then, or correct the clock of this machine",
            ),
            CertificateEndsSoon { path, days } => warning(
                "certificate-ends-soon",
                match days {
                    0 => format!("the certificate in `{path}` expires today"),
                    1 => format!("the certificate in `{path}` expires in 1 day"),
                    days => format!("the certificate in `{path}` expires in {days} days"),
                },
                "renew it, then reload with SIGHUP",
            ),
            VerifyOff => warning(
                "verify-off",
                "the upstream's certificate is not verified, so an attacker on the network can read and change all traffic",
                "remove `verify: false`; if you use your own CA, write `ca: FILE`",
            ),
            NoRoots { why } => warning(
                "no-roots",
                match why {
                    Some(why) => format!(
                        "the root certificates of this machine cannot be loaded ({why}), so no node can be verified"
                    ),
                    None => "this machine has no root certificates, so no node can be verified".to_owned(),
                },
                "write `ca: FILE`, or install the system package ca-certificates, or set SSL_CERT_FILE to a PEM file with the roots, and restart corsgate",
            ),

            // --- another file: an edit of the configuration does not change it
            InOtherFile(file) => Description { replacement: None, ..file.kind.describe() },
        }
    }
}

// === building a description ===

type Text = Cow<'static, str>;

fn error(code: &'static str, fault: impl Into<Text>, remedy: impl Into<Text>) -> Description {
    let (fault, remedy) = (fault.into(), remedy.into());
    Description { code, severity: Severity::Error, fault, remedy, replacement: None }
}

fn warning(code: &'static str, fault: impl Into<Text>, remedy: impl Into<Text>) -> Description {
    Description { severity: Severity::Warning, ..error(code, fault, remedy) }
}

fn hint(code: &'static str, fault: impl Into<Text>, remedy: impl Into<Text>) -> Description {
    Description { severity: Severity::Hint, ..error(code, fault, remedy) }
}

fn did_you_mean(near: &str) -> String {
    format!("did you mean `{near}`?")
}

impl Description {
    /// Adds the text that replaces the value.
    fn replaced(self, text: &str) -> Self {
        Description { replacement: Some(Replacement::Text(text.to_owned())), ..self }
    }

    fn replaced_literally(self, word: &'static str) -> Self {
        Description { replacement: Some(Replacement::Literal(word)), ..self }
    }

    fn renamed(self, key: &str) -> Self {
        Description { replacement: Some(Replacement::Key(key.to_owned())), ..self }
    }

    fn removed(self) -> Self {
        Description { replacement: Some(Replacement::Nothing), ..self }
    }
}
