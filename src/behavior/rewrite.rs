//! `path` and `upstream_host`: change the path and `Host` of the request for the upstream, and undo the change of the
//! path in the response. The query is never changed.

use std::borrow::Cow;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};
use regex::bytes::{Regex, RegexBuilder};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::{HostName, OwnOrigin, Scheme};
use crate::notation::{forms, given};
use crate::per_thread::{FinishedValue, PerThread};
use crate::problem::{At, ProblemKind, Problems};
use crate::route::{PathPattern, is_ambiguous};

/// Changes the path for the upstream, in this order: `strip_prefix`, `replace`, `add_prefix`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Path", extend("minProperties" = 1))]
pub(crate) struct PathSettings {
    /// Prefix to remove. Only whole segments match: `/v1` does not match `/v1x`. The upstream gets the removed prefix
    /// in `X-Forwarded-Prefix`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Prefix")]
    pub(crate) strip_prefix: Option<String>,
    /// Replaces the part of the path that matches a regular expression.
    #[serde(deserialize_with = "given")]
    pub(crate) replace: Option<ReplaceSettings>,
    /// Prefix to add.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Prefix")]
    pub(crate) add_prefix: Option<String>,
    /// Undoes `strip_prefix` and `add_prefix` in responses: in `Location` and `Content-Location`, if they lead to the
    /// host of the request, and in the paths of cookies.
    pub(crate) restore_prefix: bool,
}

/// A replacement in the path. The path is used as received: percent-encoded, and without the query.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["pattern", "with"]))]
pub(crate) struct ReplaceSettings {
    /// A regular expression, such as `^/users/(\d+)$`. Only the first match is replaced. Look-around is not supported,
    /// and matching takes linear time.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PlainText")]
    pub(crate) pattern: Option<String>,
    /// The replacement text. `$1` and `${1}` mean the first group, `${name}` means a named group, and `$$` means `$`.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::PlainText", extend("maxLength" = 256))]
    pub(crate) with: Option<String>,
}

/// Changes of the path for the upstream.
#[derive(Debug, Default, PartialEq)]
pub(crate) struct Rewrite {
    strip: Option<Box<str>>,
    replace: Option<Replace>,
    add: Option<Box<str>>,
    restore: bool,
}

#[derive(Debug)]
struct Replace {
    /// Each thread has its own copy, because threads that share a `Regex` contend for its scratch memory.
    pattern: PerThread<Regex>,
    with: Box<str>,
}

/// The `Host` field that the upstream gets.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum UpstreamHost {
    /// The address of the node, as written in the configuration.
    Node,
    Name(Arc<FinishedValue>),
}

/// Why a rewritten path cannot be forwarded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BadRewrite {
    /// The path has dot segments or other parts that servers interpret differently.
    Ambiguous,
    TooLong,
}

/// Maximum size of a compiled `pattern`, in bytes.
const PATTERN_SIZE: usize = 64 << 10;
/// Maximum length of `with`, in bytes.
const WITH_LENGTH: u64 = 256;
/// Maximum length of a rewritten path with its query, in bytes. It is the same as the maximum of `limits.uri`.
const TARGET_LENGTH: usize = 63 << 10;
/// Prefix of the names of cookies that must have `Path=/`.
const HOST_PREFIX: &[u8] = b"__Host-";

// === compile ===

impl Rewrite {
    /// Compiles the settings of the service or route at `at`. `short` is its key `strip_prefix`, and `settings` is its
    /// key `path`.
    pub(crate) fn compile(
        short: Option<&str>,
        settings: Option<&PathSettings>,
        at: &At<'_>,
        problems: &mut Problems,
    ) -> Self {
        let at_path = at.key("path");
        let none = PathSettings::default();
        let PathSettings { strip_prefix, replace, add_prefix, restore_prefix } = settings.unwrap_or(&none);
        if settings == Some(&none) {
            problems.add(&at_path, ProblemKind::NoKeys { example: "strip_prefix: /v1" });
        }
        if short.is_some() && strip_prefix.is_some() {
            problems.add(
                &at.key("strip_prefix"),
                ProblemKind::ExclusiveKeys { one: "strip_prefix", other: "path.strip_prefix" },
            );
        }
        let strip = match (short, strip_prefix) {
            (Some(short), _) => prefix(short, &at.key("strip_prefix"), problems),
            (None, Some(long)) => prefix(long, &at_path.key("strip_prefix"), problems),
            (None, None) => None,
        };
        let add = add_prefix.as_deref().and_then(|add| prefix(add, &at_path.key("add_prefix"), problems));
        if *restore_prefix && strip_prefix.is_none() && short.is_none() && add_prefix.is_none() {
            let kind = ProblemKind::NeedsAnother { key: "restore_prefix", other: "strip_prefix" };
            problems.add(&at_path.key("restore_prefix"), kind);
        }
        let replace = replace.as_ref().and_then(|replace| Replace::compile(replace, &at_path.key("replace"), problems));
        Rewrite { strip, replace, add, restore: *restore_prefix }
    }

    /// Returns the prefix that is removed.
    pub(crate) fn stripped(&self) -> Option<&str> {
        self.strip.as_deref()
    }
}

/// Checks that the text is a literal prefix that ends at the end of a segment.
fn prefix(text: &str, at: &At<'_>, problems: &mut Problems) -> Option<Box<str>> {
    let why = match PathPattern::parse(text) {
        Err(kind) => {
            problems.add(at, kind);
            return None;
        }
        Ok(_) if text.contains(['*', '{']) => "a prefix cannot have parameters or wildcards",
        Ok(_) if text.ends_with('/') => "a prefix must not end with a slash",
        Ok(_) => return Some(text.into()),
    };
    let write = text.trim_end_matches(['*', '/']);
    let remedy = match text {
        "/" => "remove it",
        _ => "write for example `/v1`",
    };
    let text = text.to_owned();
    let kind = match write.is_empty() || write.contains('{') {
        true => ProblemKind::BadPrefix { text, why, remedy },
        false => ProblemKind::BadPath { text, why, write: Some(write.to_owned()) },
    };
    problems.add(at, kind);
    None
}

impl PartialEq for Replace {
    fn eq(&self, other: &Self) -> bool {
        self.pattern.shared().as_str() == other.pattern.shared().as_str() && self.with == other.with
    }
}

impl Replace {
    fn compile(settings: &ReplaceSettings, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let ReplaceSettings { pattern, with } = settings;
        for (key, value, example) in
            [("pattern", pattern, r"pattern: '^/users/(\d+)$'"), ("with", with, "with: /accounts/$1")]
        {
            if value.is_none() {
                problems.add(&at.key(key), ProblemKind::Missing { example });
            }
        }
        let (pattern, with) = (pattern.as_deref()?, with.as_deref()?);
        // The expression matches bytes, because a received path may not be valid UTF-8.
        let regex = match RegexBuilder::new(pattern).unicode(false).size_limit(PATTERN_SIZE).build() {
            Ok(regex) => regex,
            Err(regex::Error::CompiledTooBig(limit)) => {
                problems.add(&at.key("pattern"), ProblemKind::PathRegexTooLarge { limit });
                return None;
            }
            Err(error) => {
                let message = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
                let message = message.strip_prefix("error: ").map_or(message.clone(), str::to_owned);
                problems.add(&at.key("pattern"), ProblemKind::RegexDoesNotCompile { message, is_pattern: false });
                return None;
            }
        };
        let at = at.key("with");
        if with.len() as u64 > WITH_LENGTH {
            let (value, range) = (format!("{} bytes", with.len()), format!("at most {WITH_LENGTH} bytes"));
            problems.add(&at, ProblemKind::OutOfRange { value, range, write: "a shorter text".into() });
            return None;
        }
        let why = match references(with, &regex) {
            Err(group) => Some(format!("`pattern` has no group `{group}`")),
            Ok(()) if with.bytes().any(|b| !b.is_ascii_graphic() || b"?#\\\"<>".contains(&b)) => {
                Some("it has a character that a path cannot have".to_owned())
            }
            Ok(()) => None,
        };
        if let Some(why) = why {
            problems.add(&at, ProblemKind::BadReplacement { text: with.to_owned(), why });
            return None;
        }
        Some(Replace { pattern: PerThread::new(regex), with: with.into() })
    }

    /// Returns the path after the replacement. The result is borrowed if nothing matches.
    fn path<'a>(&self, path: &'a [u8]) -> Cow<'a, [u8]> {
        let regex = self.pattern.get(|_| self.pattern.shared().clone());
        let Some(groups) = regex.captures(path) else { return Cow::Borrowed(path) };
        let all = groups.get(0).map_or(0..0, |all| all.range());
        let mut new = path[..all.start].to_vec();
        groups.expand(self.with.as_bytes(), &mut new);
        new.extend_from_slice(&path[all.end..]);
        Cow::Owned(new)
    }
}

/// Checks that each `$1`, `$name` and `${name}` is a group of the expression. The error is the first name that is not a
/// group.
fn references(with: &str, regex: &Regex) -> Result<(), String> {
    let mut rest = with;
    while let Some((_, after)) = rest.split_once('$') {
        if let Some(after) = after.strip_prefix('$') {
            rest = after;
            continue;
        }
        let (name, after) = match after.strip_prefix('{').and_then(|inner| inner.split_once('}')) {
            Some(found) => found,
            None => {
                let end = after.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(after.len());
                after.split_at(end)
            }
        };
        let known = match name.parse::<usize>() {
            Ok(number) => number < regex.captures_len(),
            Err(_) => regex.capture_names().flatten().any(|known| known == name),
        };
        if !known {
            return Err(name.to_owned());
        }
        rest = after;
    }
    Ok(())
}

impl UpstreamHost {
    /// Compiles the setting. Returns None for `pass` and for an invalid value.
    pub(crate) fn compile(text: &str, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        match text {
            "pass" => None,
            "node" => Some(UpstreamHost::Node),
            name => {
                let value = HeaderValue::from_str(name).ok().filter(|_| HostName::parse(name).is_some());
                if value.is_none() {
                    let why = "it cannot be the value of a Host header";
                    let write = Some("node".to_owned());
                    problems.add(at, ProblemKind::BadHost { text: name.to_owned(), why, write });
                }
                value.map(|value| UpstreamHost::Name(Arc::new(FinishedValue::new(value))))
            }
        }
    }
}

// === changes of a request ===

impl Rewrite {
    /// Checks the path that the upstream would get. `query` is the length of the query with its question mark.
    pub(crate) fn check(&self, path: &[u8], query: usize) -> Result<(), BadRewrite> {
        let added = self.add.as_deref().map_or(0, str::len);
        if self.replace.is_none() {
            return if path.len() + added + query > TARGET_LENGTH { Err(BadRewrite::TooLong) } else { Ok(()) };
        }
        match self.path(path) {
            Some(path) if path.len() + query > TARGET_LENGTH => Err(BadRewrite::TooLong),
            Some(path) if is_ambiguous(&path) => Err(BadRewrite::Ambiguous),
            _ => Ok(()),
        }
    }

    /// Returns the path for the upstream, or None if it does not change.
    pub(crate) fn path(&self, path: &[u8]) -> Option<Vec<u8>> {
        // `OPTIONS *` has no path.
        if !path.starts_with(b"/") {
            return None;
        }
        let stripped = self.strip.as_deref().and_then(|prefix| after_prefix(path, prefix));
        let rest = stripped.map(rooted);
        let replaced = self.replace.as_ref().and_then(|replace| match replace.path(rest.as_deref().unwrap_or(path)) {
            Cow::Borrowed(_) => None,
            Cow::Owned(new) => Some(rooted(&new).into_owned()),
        });
        let rest = replaced.or_else(|| rest.map(Cow::into_owned));
        match &self.add {
            Some(prefix) => Some([prefix.as_bytes(), rest.as_deref().unwrap_or(path)].concat()),
            None => rest,
        }
    }

    /// Returns the prefix that is removed from this path: the value of `X-Forwarded-Prefix`.
    pub(crate) fn prefix_of(&self, path: &[u8]) -> Option<&str> {
        self.strip.as_deref().filter(|prefix| after_prefix(path, prefix).is_some())
    }
}

/// Returns the rest of a path after the prefix, if the prefix ends at the end of a segment.
fn after_prefix<'a>(path: &'a [u8], prefix: &str) -> Option<&'a [u8]> {
    path.strip_prefix(prefix.as_bytes()).filter(|rest| rest.is_empty() || rest.starts_with(b"/"))
}

/// Returns the path with exactly one slash at its start. If the upstream redirected to a path with two slashes, such as
/// `//host/path`, the client would go to another host.
fn rooted(path: &[u8]) -> Cow<'_, [u8]> {
    let slashes = path.iter().take_while(|b| **b == b'/').count();
    match slashes {
        0 => Cow::Owned([b"/", path].concat()),
        slashes => Cow::Borrowed(&path[slashes - 1..]),
    }
}

// === changes of a response ===

impl Rewrite {
    /// Undoes the change of prefixes in `Location`, `Content-Location` and `Set-Cookie`. `own` is the origin of the
    /// client's URL.
    pub(crate) fn restore_prefix(&self, headers: &mut HeaderMap, own: OwnOrigin<'_>) {
        if !self.restore {
            return;
        }
        for name in [header::LOCATION, header::CONTENT_LOCATION] {
            if let Some(value) = headers.get(&name)
                && let Some(restored) = self.restored_url(value.as_bytes(), own)
                && let Ok(restored) = HeaderValue::from_bytes(&restored)
            {
                headers.insert(name, restored);
            }
        }
        let restored = |cookie: &HeaderValue| HeaderValue::from_bytes(&self.restored_cookie(cookie.as_bytes())?).ok();
        if headers.get_all(header::SET_COOKIE).iter().any(|cookie| restored(cookie).is_some()) {
            let cookies: Vec<_> = (headers.get_all(header::SET_COOKIE).iter())
                .map(|cookie| restored(cookie).unwrap_or_else(|| cookie.clone()))
                .collect();
            headers.remove(header::SET_COOKIE);
            for cookie in cookies {
                headers.append(header::SET_COOKIE, cookie);
            }
        }
    }

    /// Returns the URL with the restored path. Returns None if the URL leads to another host, or has no absolute path.
    fn restored_url(&self, url: &[u8], own: OwnOrigin<'_>) -> Option<Vec<u8>> {
        let text = std::str::from_utf8(url).ok()?;
        let (start, path) = match text.split_once("://") {
            // The scheme may differ: an upstream without TLS may not know that the client uses https.
            Some((scheme, rest)) if scheme.eq_ignore_ascii_case("http") || scheme.eq_ignore_ascii_case("https") => {
                let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
                let target = OwnOrigin::of(Scheme::parse(scheme)?, &rest[..end]);
                if !target.host.eq_ignore_ascii_case(own.host) || target.port != own.port {
                    return None;
                }
                text.split_at(text.len() - rest.len() + end)
            }
            _ => ("", text),
        };
        if path.starts_with("//") || !path.starts_with('/') {
            return None;
        }
        let end = path.find(['?', '#']).unwrap_or(path.len());
        let restored = self.restored_path(&path.as_bytes()[..end])?;
        // If the prefix `/api` is removed from `/api//host`, the rest leads to another host. Browsers read a backslash
        // as a slash, and ignore tabs.
        let leads_away = start.is_empty() && matches!(restored.get(1), Some(b'/' | b'\\'));
        if leads_away || text.contains('\t') {
            return None;
        }
        Some([start.as_bytes(), &restored, &path.as_bytes()[end..]].concat())
    }

    /// Returns the cookie with the restored path. Returns None if the cookie has no path below the added prefix.
    fn restored_cookie(&self, cookie: &[u8]) -> Option<Vec<u8>> {
        // Browsers accept such a cookie only with `Path=/` (RFC 6265bis, cookie name prefixes).
        if cookie.get(..HOST_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(HOST_PREFIX)) {
            return None;
        }
        let mut parts = cookie.split(|b| *b == b';');
        let mut at = parts.next()?.len();
        // If a cookie has several attributes with the same name, the last one counts (RFC 6265 section 5.3).
        let mut path = None;
        for part in parts {
            let from = at + 1;
            at = from + part.len();
            let Some(equals) = part.iter().position(|b| *b == b'=') else { continue };
            if part[..equals].trim_ascii().eq_ignore_ascii_case(b"path") {
                path = Some(from + equals + 1..at);
            }
        }
        let path = path?;
        let value = cookie[path.clone()].trim_ascii();
        if !value.starts_with(b"/") {
            return None;
        }
        let restored = self.restored_path(value)?;
        // A cookie for `/v1/` would not be sent to `/v1`.
        let restored = match value {
            b"/" => restored.strip_suffix(b"/").filter(|path| !path.is_empty()).unwrap_or(&restored),
            _ => &restored,
        };
        Some([&cookie[..path.start], restored, &cookie[path.end..]].concat())
    }

    fn restored_path(&self, path: &[u8]) -> Option<Vec<u8>> {
        let rest = match &self.add {
            Some(prefix) => after_prefix(path, prefix)?,
            None => path,
        };
        let rest = if rest.is_empty() && self.strip.is_none() { b"/" } else { rest };
        Some([self.strip.as_deref().unwrap_or_default().as_bytes(), rest].concat())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rewrite(settings: &str) -> Result<Rewrite, String> {
        let settings: PathSettings = serde_json::from_str(settings).map_err(|error| error.to_string())?;
        let mut problems = Problems::default();
        let rewrite = Rewrite::compile(None, Some(&settings), &At::root(), &mut problems);
        if problems.is_empty() { Ok(rewrite) } else { Err(problems.to_string()) }
    }

    #[test]
    fn the_path_is_stripped_then_replaced_then_extended() {
        let strip = r#"{ "strip_prefix": "/v1" }"#;
        let add = r#"{ "add_prefix": "/api" }"#;
        let both = r#"{ "strip_prefix": "/v1", "add_prefix": "/api" }"#;
        let users = r#"{ "replace": { "pattern": "^/users/(\\d+)$", "with": "/accounts/$1" } }"#;
        let first = r#"{ "replace": { "pattern": "a", "with": "b" } }"#;
        let named = r#"{ "replace": { "pattern": "^/(?<lang>[a-z]{2})(?<rest>/.*)$", "with": "${rest}/${lang}$$" } }"#;
        let all = r#"{ "strip_prefix": "/v1", "replace": { "pattern": "^/x", "with": "/y" }, "add_prefix": "/api" }"#;
        #[rustfmt::skip]
        let cases: [(&str, &str, Option<&str>); 22] = [
            (strip, "/v1/x",         Some("/x")),
            (strip, "/v1",           Some("/")),
            (strip, "/v1/",          Some("/")),
            (strip, "/v1//host/x",   Some("/host/x")),
            (strip, "/v1x",          None),
            (strip, "/",             None),
            (strip, "*",             None),
            (add,   "/x",            Some("/api/x")),
            (add,   "/",             Some("/api/")),
            (add,   "*",             None),
            (both,  "/v1/x",         Some("/api/x")),
            (both,  "/v1",           Some("/api/")),
            (both,  "/v2",           Some("/api/v2")),
            (users, "/users/42",     Some("/accounts/42")),
            (users, "/users/x",      None),
            (users, "/users/42/",    None),
            (first, "/aa",           Some("/ba")),
            (named, "/de/shop",      Some("/shop/de$")),
            (all,   "/v1/x/x",       Some("/api/y/x")),
            (r#"{ "replace": { "pattern": "^/", "with": "" } }"#,   "/a",   Some("/a")),
            (r#"{ "replace": { "pattern": "^/", "with": "//" } }"#, "/a",   Some("/a")),
            (r#"{ "replace": { "pattern": ".+", "with": "/" } }"#,  "/\u{fc}", Some("/")),
        ];
        for (settings, path, changed) in cases {
            let changed = changed.map(|path| path.as_bytes().to_vec());
            assert_eq!(rewrite(settings).unwrap().path(path.as_bytes()), changed, "{settings} {path}");
        }
    }

    #[test]
    fn a_rewritten_path_is_checked() {
        let removes = rewrite(r#"{ "replace": { "pattern": "x", "with": "" } }"#).unwrap();
        assert_eq!(removes.check(b"/.x./secret", 0), Err(BadRewrite::Ambiguous));
        assert_eq!(removes.check(b"/a%2x5c", 0), Ok(()), "not a backslash");
        assert_eq!(removes.check(b"/a%x5cb", 0), Err(BadRewrite::Ambiguous));
        let doubles = rewrite(r#"{ "replace": { "pattern": ".*", "with": "$0$0$0$0$0$0$0$0$0$0" } }"#).unwrap();
        assert_eq!(doubles.check(&[b"/", &[b'a'; 8000][..]].concat(), 0), Err(BadRewrite::TooLong));
        assert_eq!(doubles.check(&[b"/", &[b'a'; 4000][..]].concat(), 0), Ok(()));
        assert_eq!(doubles.check(&[b"/", &[b'a'; 4000][..]].concat(), 30_000), Err(BadRewrite::TooLong));
        assert_eq!(doubles.check(b"/a", 0), Ok(()));
        let adds = rewrite(r#"{ "add_prefix": "/api" }"#).unwrap();
        assert_eq!(adds.check(b"/", TARGET_LENGTH - 5), Ok(()));
        assert_eq!(adds.check(b"/", TARGET_LENGTH - 4), Err(BadRewrite::TooLong));
    }

    #[test]
    fn prefixes_are_restored_in_the_response() {
        let both = r#"{ "strip_prefix": "/v1", "add_prefix": "/api", "restore_prefix": true }"#;
        let strip = r#"{ "strip_prefix": "/v1", "restore_prefix": true }"#;
        let add = r#"{ "add_prefix": "/api", "restore_prefix": true }"#;
        let off = r#"{ "strip_prefix": "/v1" }"#;
        let own = OwnOrigin::of(Scheme::Https, "api.example");
        #[rustfmt::skip]
        let cases = [
            (strip, "location",         "/x?y=/z#w",                 "/v1/x?y=/z#w"),
            (strip, "location",         "/",                         "/v1/"),
            (strip, "content-location", "/x",                        "/v1/x"),
            (strip, "location",         "x",                         "x"),
            (strip, "location",         "?x",                        "?x"),
            (strip, "location",         "//other.example/x",         "//other.example/x"),
            (strip, "location",         "https://api.example/x",     "https://api.example/v1/x"),
            (strip, "location",         "http://API.example:80/x",   "http://API.example:80/v1/x"),
            (strip, "location",         "https://api.example",       "https://api.example"),
            (strip, "location",         "https://api.example:444/x", "https://api.example:444/x"),
            (strip, "location",         "https://api.example@o.example/x", "https://api.example@o.example/x"),
            (strip, "location",         "ftp://api.example/x",       "ftp://api.example/x"),
            (both,  "location",         "/api/x",                    "/v1/x"),
            (both,  "location",         "/api",                      "/v1"),
            (both,  "location",         "/apix",                     "/apix"),
            (add,   "location",         "/api/x",                    "/x"),
            (add,   "location",         "/api",                      "/"),
            (add,   "location",         "/api//evil.example/x",      "/api//evil.example/x"),
            (add,   "location",         "/api/\\evil.example/x",     "/api/\\evil.example/x"),
            (add,   "location",         "/api/\t/evil.example/x",    "/api/\t/evil.example/x"),
            (strip, "location",         "/\\evil.example",           "/v1/\\evil.example"),
            (strip, "set-cookie",       "__Host-a=b; Path=/; Secure", "__Host-a=b; Path=/; Secure"),
            (off,   "location",         "/x",                        "/x"),
            (strip, "set-cookie",       "a=b; Path=/; Secure",       "a=b; Path=/v1; Secure"),
            (strip, "set-cookie",       "a=b; path = /x",            "a=b; path =/v1/x"),
            (strip, "set-cookie",       "a=b; Secure",               "a=b; Secure"),
            (strip, "set-cookie",       "path=/; Secure",            "path=/; Secure"),
            (strip, "set-cookie",       "a=b; Path=/a; Path=/b",     "a=b; Path=/a; Path=/v1/b"),
            (strip, "set-cookie",       "a=b; Path=",                "a=b; Path="),
            (add,   "set-cookie",       "a=b; Path=/api",            "a=b; Path=/"),
            (add,   "set-cookie",       "a=b; Path=/",               "a=b; Path=/"),
        ];
        for (settings, name, value, restored) in cases {
            let name = http::HeaderName::from_static(name);
            let mut headers = HeaderMap::from_iter([(name.clone(), HeaderValue::from_static(value))]);
            rewrite(settings).unwrap().restore_prefix(&mut headers, own);
            assert_eq!(headers[&name], restored, "{settings} {value}");
        }
    }
}
