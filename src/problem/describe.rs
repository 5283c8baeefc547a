//! Each kind of problem in words: one arm has its code, severity, fault, remedy and replacement.

use std::borrow::Cow;

use super::{ProblemKind, Replacement, Severity};

/// All that is to be said about one kind of problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description {
    /// A stable name for machines (`check --format json`). Listed in `docs/codes.md`; it never changes.
    pub code: &'static str,
    /// Whether the problem refuses the file, warns, or only hints.
    pub severity: Severity,
    /// What is wrong. Begins in lower case and has no full stop.
    pub fault: Cow<'static, str>,
    /// What to write instead, as an order. Begins in lower case and has no full stop.
    pub remedy: Cow<'static, str>,
    /// The edit that the remedy names. None when the remedy leaves a choice.
    pub replacement: Option<Replacement>,
}

impl ProblemKind {
    /// As [`Description::code`].
    pub fn code(&self) -> &'static str {
        self.describe().code
    }

    /// As [`Description::severity`].
    pub fn severity(&self) -> Severity {
        self.describe().severity
    }

    /// As [`Description::fault`].
    pub fn fault(&self) -> Cow<'static, str> {
        self.describe().fault
    }

    /// As [`Description::remedy`].
    pub fn remedy(&self) -> Cow<'static, str> {
        self.describe().remedy
    }

    /// As [`Description::replacement`].
    pub fn replacement(&self) -> Option<Replacement> {
        self.describe().replacement
    }

    /// The message of this kind. `tests/it/codes.rs` finds the codes in the text of this function.
    #[expect(clippy::too_many_lines, reason = "a table: one arm for each kind")]
    pub fn describe(&self) -> Description {
        use ProblemKind::*;
        match self {
            // --- the text
            Unreadable { why } => {
                error("unreadable", format!("cannot be read: {why}"), "name the file with `--config FILE`")
            }
            Syntax { message, remedy, .. } => error("syntax", message.clone(), *remedy),
            WrongValue { found, expected } => {
                error("wrong-value", format!("found {found}"), format!("write {expected}"))
            }
            UnknownKey { key, .. } if key == "<<" => error(
                "unknown-key",
                format!("unknown key `{key}`"),
                "merge keys are not supported; write the keys out, or give the whole value an alias or a name",
            ),
            UnknownKey { key, known } => {
                let fault = format!("unknown key `{key}`");
                match known.nearest() {
                    Some(near) => error("unknown-key", fault, did_you_mean(near)).renamed(near),
                    None => error("unknown-key", fault, format!("the keys here are {}", known.listed())),
                }
            }
            UnknownWord { word, known } => {
                let fault = format!("`{word}` is not known here");
                match (known.nearest(), known.words()) {
                    (Some(near), _) => error("unknown-word", fault, did_you_mean(near)).replaced(near),
                    (None, [only]) => error("unknown-word", fault, format!("write one of `{only}`")).replaced(only),
                    (None, _) => error("unknown-word", fault, format!("write one of {}", known.listed())),
                }
            }
            KeyTwice { first_line } => error(
                "key-twice",
                format!("the key stands here a second time, first on line {first_line}"),
                "keep one of the two",
            ),
            KeyAndAlias { key } => {
                error("key-and-alias", format!("`{key}` and its alias are the same key"), "keep one of the two")
            }
            Missing { example } => error("missing", "is missing", format!("write for example `{example}`")),
            EmptyList => error("empty-list", "the list is empty", "list at least one entry, or remove the key"),
            EmptyEntry => {
                error("empty-entry", "the entry is empty", "remove it, or the comma that makes it").removed()
            }
            OutOfRange { value, range, write } => error(
                "out-of-range",
                format!("{value} is out of range, it must be {range}"),
                format!("write {write}"),
            ),

            // --- names
            UnknownName { what, name, known } => {
                let fault = format!("there is no {what} named `{name}`");
                // A name that was meant to say that there is no policy.
                let means_off = *what == "policy" && ["off", "no", "none", "disabled"].contains(&&**name);
                match known.nearest() {
                    Some(near) => error("unknown-name", fault, did_you_mean(near)).replaced(near),
                    None if means_off => {
                        error("unknown-name", fault, "write `false` for no CORS handling").replaced_literally("false")
                    }
                    None if known.words().is_empty() => {
                        error("unknown-name", fault, format!("define the {what} first"))
                    }
                    None => error("unknown-name", fault, format!("the names are {}", known.listed())),
                }
            }
            NameTwice { what, name } => error(
                "name-twice",
                format!("a second {what} named `{name}`"),
                format!("give each {what} a name of its own"),
            ),
            BadName { what, name } => error(
                "bad-name",
                format!("`{name}` is not a usable {what} name"),
                "use letters, digits, `-`, `_` and `.`",
            ),

            // --- origin patterns
            OriginReflectsAll => error(
                "origin-reflects-all",
                "`**` means: reflect any origin, also with credentials, which no safe policy does",
                "list the origins, or write `*` without allow_credentials",
            ),
            OriginSeveral { text } => error(
                "origin-several",
                format!("`{text}` is more than one origin"),
                "write each as an entry of its own, or all in one string with commas between",
            ),
            OriginWithoutScheme { text, write } => error(
                "origin-without-scheme",
                format!("`{text}` has no scheme, and an Origin always has one"),
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
                format!("`{text}` has upper-case letters, which browsers never send in an Origin"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginTrailingSlash { text, origin } => error(
                "origin-trailing-slash",
                format!("`{text}` ends with a slash, and an Origin never does"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginPath { text, origin } => error(
                "origin-path",
                format!("`{text}` has a path, and an Origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginQuery { text, origin } => error(
                "origin-query",
                format!("`{text}` has a query or fragment, and an Origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginUserinfo { text, origin } => error(
                "origin-userinfo",
                format!("`{text}` has a user part, and an Origin has none"),
                format!("write `{origin}`"),
            )
            .replaced(origin),
            OriginNonAscii { text } => error(
                "origin-non-ascii",
                format!("`{text}` has a host that is not ASCII, and browsers send punycode"),
                "write the host in its punycode form (`xn--…`), as the browser's address bar copies it",
            ),
            OriginBadCharacter { text, character } => error(
                "origin-bad-character",
                format!("`{text}` has the character {character:?}, which no Origin contains"),
                "write `scheme://host` or `scheme://host:port`",
            ),
            OriginEmptyHost { text } => error(
                "origin-empty-host",
                format!("`{text}` has no host"),
                "write the host, or `scheme://*` for any",
            ),
            OriginBadHost { text, why } => error(
                "origin-bad-host",
                format!("`{text}` has an invalid host: {why}"),
                "write the host as the browser sends it",
            ),
            OriginNotCanonical { text, canonical } => error(
                "origin-not-canonical",
                format!("`{text}` is not how browsers write this address"),
                format!("write `{canonical}`"),
            )
            .replaced(canonical),
            OriginDefaultPort { text, write } => error(
                "origin-default-port",
                format!("`{text}` has the default port of its scheme, which browsers leave out"),
                format!("write `{write}`"),
            )
            .replaced(write),
            OriginBadPort { text, port } => error(
                "origin-bad-port",
                format!("`{text}` has the bad port `{port}`"),
                "write a number from 1 to 65535, or `*` for any",
            ),
            OriginMisplacedWildcard { text } => error(
                "origin-misplaced-wildcard",
                format!("`{text}` has a `*` where none can be"),
                "`*` may stand alone, for the port, for the whole host, or as `*.` in front of a host",
            ),
            OriginTooLong { limit } => error(
                "origin-too-long",
                format!("longer than {limit} bytes, the longest Origin that is looked at"),
                "shorten it",
            ),

            // --- policies
            NoOrigins => error(
                "no-origins",
                "the policy allows no origin, and nothing opens by omission",
                "write allow_origins, allow_origins_by_regex or allow_origin_sets; or `cors: false` for no CORS handling",
            ),
            AnyWithOthers => error(
                "any-with-others",
                "`*` cannot be combined with other origins, it already allows them",
                "remove the other origins, or the `*`",
            ),
            AnyInSet => error(
                "any-in-set",
                "`*` cannot be in an origin set",
                "write `allow_origins: \"*\"` in the policy itself",
            ),
            NullInSet => error(
                "null-in-set",
                "`null` cannot be in an origin set",
                "write `null` in allow_origins of the policy that needs it",
            ),
            NullOrigin => error(
                "null-origin",
                "`null` is sent by every sandboxed frame, so any site can send it",
                "remove it, or accept that with `dangerously_allow: [null_origin]`",
            ),
            AnyOriginWithCredentials => error(
                "any-origin-with-credentials",
                "\"*\" cannot be combined with allow_credentials: true",
                "list the origins, or remove allow_credentials",
            ),
            AnyExposedWithCredentials => error(
                "any-exposed-with-credentials",
                "\"*\" cannot be combined with allow_credentials: true: Fetch then reads it as a header named `*`",
                "list the header names",
            ),
            InsecureOriginWithCredentials { pattern } => error(
                "insecure-origin-with-credentials",
                format!(
                    "`{pattern}` is not encrypted, so whoever sits on the network could read responses with credentials"
                ),
                match pattern.contains("://*:") || pattern.ends_with("://*") {
                    true => Cow::from(
                        "list https origins, or accept that with `dangerously_allow: [insecure_origins]`",
                    ),
                    false => Cow::from(format!(
                        "write `{}`, or accept that with `dangerously_allow: [insecure_origins]`",
                        pattern.replacen("http:", "https:", 1)
                    )),
                },
            ),
            PublicSuffixWithCredentials { pattern, suffix } => error(
                "public-suffix-with-credentials",
                match &**suffix {
                    "*" => format!("`{pattern}` trusts every host there is with credentials"),
                    suffix => format!(
                        "`{pattern}` trusts with credentials everyone who can register a name under the public suffix `{suffix}`"
                    ),
                },
                "list the hosts that are yours, or accept that with `dangerously_allow: [public_suffix_subdomains]`",
            ),
            RegexDoesNotCompile { message } => error(
                "regex-does-not-compile",
                format!("the regular expression does not compile: {message}"),
                "correct it; look-around and backreferences are not supported, matching takes linear time",
            ),
            RegexTooLarge { limit } => error(
                "regex-too-large",
                format!("the regular expression needs more than {} KiB when compiled", limit / 1024),
                "shorten it, or list the origins",
            ),
            BadMethod { text } => error(
                "bad-method",
                format!("`{text}` is not a method"),
                "write a method such as `PUT`; separate several with commas",
            ),
            BadHeaderName { text } => error(
                "bad-header-name",
                format!("`{text}` is not a header name"),
                "write a name such as `X-Request-Id`; separate several with commas",
            ),
            BadMaxAge { value } => error(
                "bad-max-age",
                format!("{value} is out of range, it must be 0 to 86400 seconds, or -1 for 0"),
                "write `86400` for the longest, `0` for no caching",
            )
            .replaced_literally(if value.starts_with('-') { "0" } else { "86400" }),
            BadPreflightStatus { value } => error(
                "bad-preflight-status",
                format!("{value} cannot be the status of an answered preflight"),
                "write 200 or 204",
            ),
            BadRefusedStatus { value } => error(
                "bad-refused-status",
                format!("{value} cannot be the status of a refused preflight"),
                "write 200, 204 or 403",
            ),
            CorsTrue => error(
                "cors-true",
                "`true` says nothing about who is allowed",
                "write a policy, the name of one, or `false`",
            ),
            UnusedDanger { word } => hint(
                "unused-danger",
                format!("`{word}` is not needed by this policy"),
                format!("remove `{word}`, so that it cannot hide a later mistake"),
            )
            .removed(),

            // --- policies: warnings and hints
            RegexUnescapedDot { witness } => warning(
                "regex-unescaped-dot",
                format!("a dot that is not escaped stands for any character: lets in `{witness}`"),
                "write `\\.` for a dot",
            ),
            RegexOpenPrefix { witness } => warning(
                "regex-open-prefix",
                format!("anything may stand directly in front of the name, without a dot between: lets in `{witness}`"),
                "write `([a-z0-9-]+\\.)*` for the subdomains",
            ),
            RegexAlternation { witness } => warning(
                "regex-alternation",
                format!("an alternative at the top stands for a whole Origin of its own: lets in `{witness}`"),
                "put the alternatives in parentheses, `https://(a|b)\\.example`",
            ),
            RegexWithoutScheme { witness } => warning(
                "regex-without-scheme",
                format!("no scheme is asked for: lets in `{witness}`"),
                "begin it with `https://`",
            ),
            RegexMatchesAll { witness } => warning(
                "regex-matches-all",
                format!("matches every host: lets in `{witness}`"),
                "narrow it, or write `allow_origins: \"*\"` if that is meant",
            ),
            PublicSuffix { pattern, suffix } => warning(
                "public-suffix",
                format!("`{pattern}` trusts everyone who can register a name under the public suffix `{suffix}`"),
                "list the hosts that are yours",
            ),
            OddSchemeWithCredentials { pattern } => warning(
                "odd-scheme-with-credentials",
                format!("`{pattern}` is neither https nor http on loopback, and gets responses with credentials"),
                "make sure that only your own program can send it, or remove it",
            ),
            MethodNeverSent { method } => warning(
                "method-never-sent",
                format!("`{method}` can never be sent by a page, browsers forbid it"),
                "remove it",
            )
            .removed(),
            MethodCase { method, upper } => hint(
                "method-case",
                format!(
                    "`{method}` allows only that spelling: methods are case-sensitive, and Fetch does not normalise this one"
                ),
                format!("write `{upper}`, or both if pages send both"),
            )
            .replaced(upper),
            HeaderNeverSent { name } => warning(
                "header-never-sent",
                format!("`{name}` can never be set by a page, browsers forbid it"),
                "remove it",
            )
            .removed(),
            HeaderNeverRead { name } => warning(
                "header-never-read",
                format!("`{name}` can never be read by a page, browsers hide it"),
                "remove it",
            )
            .removed(),
            HeaderOtherDirection { name, key } => {
                let (is, lists, other) = match *key == "allow_headers" {
                    true => ("response", "request", "expose_headers"),
                    false => ("request", "response", "allow_headers"),
                };
                warning(
                    "header-other-direction",
                    format!("`{name}` is a {is} header, and {key} lists {lists} headers"),
                    format!("remove it, or move it to {other}"),
                )
                .removed()
            }
            MeaninglessBesideAny { text } => warning(
                "meaningless-beside-any",
                format!("`{text}` changes nothing beside `*`"),
                "remove it, or the `*`",
            ),
            PrivateNetworkGone => warning(
                "private-network-gone",
                "browsers gave up Private Network Access and ask the user instead, so this answers nobody",
                "remove it",
            )
            .removed(),
            MaxAgeLeftOut => hint(
                "max-age-left-out",
                "left out, so browsers ask again after 5 s",
                "write for example `max_age: 7200`",
            ),
            AnyHeaderWithoutAuthorization => hint(
                "any-header-without-authorization",
                "`*` does not cover `Authorization`",
                "if pages send it, write `allow_headers: [\"*\", Authorization]`",
            ),

            // --- hosts, paths, methods of routes
            BadHost { text, why, write } => {
                let fault = format!("`{text}` is not a host: {why}");
                match write {
                    Some(write) => error("bad-host", fault, format!("write `{write}`")).replaced(write),
                    None if text == "*" => error("bad-host", fault, "remove `hosts`"),
                    None => error("bad-host", fault, "write `api.example` or `*.example`"),
                }
            }
            BadPath { text, why, write } => {
                let fault = format!("`{text}` is not a path pattern: {why}");
                match write {
                    Some(write) => error("bad-path", fault, format!("write `{write}`")).replaced(write),
                    None => error("bad-path", fault, "write `/users`, `/users/{id}` or `/users/*`"),
                }
            }
            HostTwice { host } => {
                error("host-twice", format!("the host `{host}` stands here a second time"), "remove it").removed()
            }
            AnyMethodInRoute => {
                error("any-method-in-route", "`*` is not a method", "leave `methods` out for any")
            }
            RouteTwice { host, path, other } => error(
                "route-twice",
                match &**host {
                    "*" => format!("path `{path}` of any host is already taken by {other}"),
                    host => format!("path `{path}` of host `{host}` is already taken by {other}"),
                },
                "remove one, or tell them apart by host, path or `methods`",
            ),
            NeverReached { why } => {
                warning("never-reached", format!("this route can never be reached: {why}"), "remove it")
            }
            StripPrefixMismatch { prefix, path } => warning(
                "strip-prefix-mismatch",
                format!("`{prefix}` is not a prefix of the path `{path}`, so nothing is stripped there"),
                "write a prefix that the paths of this route begin with",
            ),

            // --- listeners, upstreams
            BadAddress { text, what, example } => error(
                "bad-address",
                format!("`{text}` is not {what}"),
                format!("write for example `{example}`"),
            ),
            AddressTwice { address } => {
                error("address-twice", format!("{address} is already listened on"), "remove one of the two")
            }
            AllWeightsZero => error(
                "all-weights-zero",
                "every node has weight 0, so none could be chosen",
                "give at least one node a weight of 1 or more",
            ),
            AdminExposed { address } => hint(
                "admin-exposed",
                format!("{address} is reachable from other machines, and the admin listener asks for no password"),
                "write `127.0.0.1:9180`, or make sure that only your monitoring can reach it",
            ),
            NeedsAnother { key, other } => error(
                "needs-another",
                format!("`{key}` without `{other}`"),
                format!("write `{other}` too, or remove `{key}`"),
            ),
            HashOnUnknown { text } => error(
                "hash-on-unknown",
                format!("`{text}` is nothing that a node can be chosen by"),
                "write `header:NAME`, `cookie:NAME`, `path` or `client_address`",
            ),
            SniMissing { node } => error(
                "sni-missing",
                format!("the node {node} is an address, so there is no name to ask for and to verify"),
                "write `sni: api.internal`, the name in its certificate",
            ),
            BadStatusRange { text } => error(
                "bad-status-range",
                format!("`{text}` is neither a status nor a range of them"),
                "write `200` or `200-399`",
            ),
            RedirectOverTls => error(
                "redirect-over-tls",
                "the listener speaks TLS itself, so there is nothing to redirect",
                "remove it here, and write it at the listener for plain HTTP",
            )
            .removed(),
            TrustsEveryone { text } => warning(
                "trusts-everyone",
                format!("`{text}` is everybody, so that every client can claim to be any other one"),
                "write the addresses of your proxies",
            ),
            DebugHeader => hint(
                "debug-header",
                "every client is told in `X-Corsgate-Reason` what was decided",
                "leave it out in production",
            ),
            FolderMissing { path } => warning(
                "folder-missing",
                format!("the folder of `{path}` is not there, and without it nothing starts"),
                "make it, or write a path in a folder that is there, from the directory of this file",
            ),

            // --- certificates
            FileUnreadable { path, why } => error(
                "file-unreadable",
                format!("cannot read `{path}`: {why}"),
                "write a path from the directory of this file, and let the user that runs corsgate read it",
            ),
            NoPem { path, what } => error(
                "no-pem",
                format!("`{path}` holds no {what} in PEM form"),
                format!("name a file with a {what}, which begins with `-----BEGIN`"),
            ),
            BadCertificate { path, why } => error(
                "bad-certificate",
                format!("the certificate in `{path}` cannot be used: {why}"),
                "name a file with an X.509 certificate, version 3",
            ),
            BadKey { path, why } => error(
                "bad-key",
                format!("the private key in `{path}` cannot be used: {why}"),
                "name a file with an RSA key from 2048 bits, an ECDSA key of P-256 or P-384, or Ed25519",
            ),
            KeyMismatch { cert, key } => error(
                "key-mismatch",
                format!("the key in `{key}` does not belong to the first certificate in `{cert}`"),
                "name the two files of one pair; the certificate of the server itself comes first",
            ),
            CertificateExpired { path, when } => error(
                "certificate-expired",
                format!("the certificate in `{path}` has expired on {when}"),
                "renew it",
            ),
            CertificateNotYetValid { path, when } => error(
                "certificate-not-yet-valid",
                format!("the certificate in `{path}` is not valid before {when}"),
                "wait until then, or set the clock of this machine",
            ),
            CertificateEndsSoon { path, days } => warning(
                "certificate-ends-soon",
                match days {
                    0 => format!("the certificate in `{path}` ends today"),
                    days => format!("the certificate in `{path}` ends in {days} d"),
                },
                "renew it, then reload with SIGHUP",
            ),
            VerifyOff => warning(
                "verify-off",
                "the upstream's certificate is not verified, so whoever sits between can read and change everything",
                "remove `verify: false`; for an authority of your own write `ca: FILE`",
            ),
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
    /// With the text that replaces the value.
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
