//! Converts paths of other engines to corsgate patterns. Each function returns the pattern, if there is one, and the
//! findings about it.

use super::finding::{Finding, Kind, Place};
use super::rerouted;
use super::witness::{Answer, Witness};
use crate::route::PathPattern;

/// A pattern and the findings about it. The witnesses have no host yet.
pub(super) type Converted = (Option<String>, Vec<Finding>);

/// Converts a path that must match exactly.
pub(super) fn exact(path: &str, at: Place) -> Converted {
    match literal(path) {
        Ok(()) => (Some(path.to_owned()), Vec::new()),
        Err(why) => refused(path, Some(path), why, at),
    }
}

/// Converts a prefix of whole segments: `/v1` covers `/v1` and `/v1/x`, as in Kubernetes.
pub(super) fn segments(path: &str, at: Place) -> Converted {
    let path = if path.is_empty() { "/" } else { path };
    match literal(path) {
        Ok(()) => (Some(format!("{}/*", path.trim_end_matches('/'))), Vec::new()),
        Err(why) => refused(path, Some(path), why, at),
    }
}

/// Converts a text prefix: in the source, `/v1` covers `/v1`, `/v1/x` and `/v1x`, but `/v1/` does not cover `/v1`.
pub(super) fn text_prefix(path: &str, at: Place) -> Converted {
    let (pattern, mut findings) = segments(path, at);
    if pattern.is_none() {
        return (pattern, findings);
    }
    if let Some(without) = path.strip_suffix('/').filter(|without| !without.is_empty()) {
        findings.push(without_slash(path, without, at));
    } else if !matches!(path, "" | "/") {
        let witness = Witness::route(&format!("{path}x"), Answer::Routed);
        findings.push(Finding::new(at, Kind::PathPrefixEndsInSegment { path: path.to_owned() }).with(witness));
    }
    (pattern, findings)
}

/// Returns the finding that a pattern also covers the path without its last slash.
pub(super) fn without_slash(path: &str, without: &str, at: Place) -> Finding {
    let kind = Kind::PathWithoutSlash { path: path.to_owned() };
    Finding::new(at, kind).with(Witness::route(without, Answer::NotRouted))
}

/// Returns the finding that the source also takes a pattern in other letters.
pub(super) fn without_case(pattern: &str, at: Place) -> Option<Finding> {
    let sample = pattern.split('/').map(|segment| if segment.starts_with('{') { "1" } else { segment });
    let sample = sample.collect::<Vec<_>>().join("/").trim_end_matches('*').to_owned();
    let other = sample.to_ascii_uppercase();
    let kind = Kind::PathCase { path: pattern.to_owned() };
    (other != sample).then(|| Finding::new(at, kind).with(Witness::route(&other, Answer::Routed)))
}

/// Converts the replacement of a text prefix by another text. Returns the prefix to strip and the prefix to add.
pub(super) fn replaced_prefix(
    from: &str,
    to: &str,
    at: Place,
    findings: &mut Vec<Finding>,
) -> (Option<String>, Option<String>) {
    let some = |text: &str| Some(text.trim_end_matches('/').to_owned()).filter(|text| !text.is_empty());
    let (strip, add) = (some(from), some(to));
    if from.ends_with('/') != to.ends_with('/') {
        let path = format!("{}/x", from.trim_end_matches('/'));
        let theirs = format!("{to}{}", path.strip_prefix(from).unwrap_or_default());
        let ours = format!("{}/x", to.trim_end_matches('/'));
        findings.push(Finding::new(at, Kind::PrefixReplaced { path, theirs, ours }));
    }
    (strip, add)
}

/// Converts a regular expression for the beginning of a path. Imports only the forms that a pattern can express.
pub(super) fn expression(expression: &str, at: Place) -> Converted {
    match simple(expression) {
        Some(Simple { path, end: End::Here }) => {
            let (pattern, mut findings) = checked(&path, expression, at);
            if pattern.is_some() {
                findings.push(Finding::new(at, Kind::PathExpression { expression: expression.to_owned(), path }));
            }
            (pattern, findings)
        }
        Some(Simple { path, end: End::Open }) => {
            let (pattern, mut findings) = text_prefix(&path, at);
            // `^/v1` means the same as the prefix `/v1`, so it needs no finding.
            let is_expression = expression.trim_start_matches('^') != path;
            if let Some(pattern) = pattern.clone().filter(|_| is_expression) {
                let kind = Kind::PathExpression { expression: expression.to_owned(), path: pattern };
                findings.push(Finding::new(at, kind));
            }
            (pattern, findings)
        }
        None => {
            let why = "it is a regular expression that no pattern of corsgate can say".to_owned();
            refused(expression, rerouted::sample_path(expression).as_deref(), why, at)
        }
    }
}

/// Whether every path of a pattern is also one of a wider or equal pattern.
pub(super) fn covers(wide: &str, narrow: &str) -> bool {
    let (wide, is_open) = wide.strip_suffix("/*").map_or((wide, false), |prefix| (prefix, true));
    let (narrow, narrow_is_open) = narrow.strip_suffix("/*").map_or((narrow, false), |prefix| (prefix, true));
    let is_parameter = |segment: &str| segment.starts_with('{');
    let mut segments = narrow.split('/');
    let begins = wide.split('/').all(|one| match segments.next() {
        Some(other) => one == other || (is_parameter(one) && !other.is_empty()),
        None => false,
    });
    begins && (is_open || (segments.next().is_none() && !narrow_is_open))
}

/// `sample` is a request path that the source takes.
fn refused(path: &str, sample: Option<&str>, why: String, at: Place) -> Converted {
    let finding = Finding::new(at, Kind::PathNotImported { path: path.to_owned(), why });
    let finding = match sample {
        Some(sample) => finding.with(rerouted::witness("", sample)),
        None => finding,
    };
    (None, vec![finding])
}

fn checked(pattern: &str, source: &str, at: Place) -> Converted {
    match PathPattern::parse(pattern) {
        Ok(_) => (Some(pattern.to_owned()), Vec::new()),
        Err(kind) => refused(source, rerouted::sample_path(source).as_deref(), kind.fault().into_owned(), at),
    }
}

/// Checks that corsgate reads a text as a literal path, as the source engine does.
fn literal(path: &str) -> Result<(), String> {
    if path.contains(['*', '{', '}']) {
        return Err("`*`, `{` and `}` have another meaning in corsgate".to_owned());
    }
    PathPattern::parse(path).map(drop).map_err(|kind| kind.fault().into_owned())
}

struct Simple {
    path: String,
    end: End,
}

enum End {
    /// The path ends here: `$`.
    Here,
    /// Any text may follow.
    Open,
}

/// Parses an expression that has only literals, groups for one segment, and an open or closed end. Returns `None` for
/// any other expression.
fn simple(expression: &str) -> Option<Simple> {
    let mut rest = expression.strip_prefix('^').unwrap_or(expression);
    let (mut path, mut parameters) = (String::new(), 0);
    loop {
        // The usual forms for the rest of the path.
        match rest {
            "" => return Some(Simple { path, end: End::Open }),
            "$" => return Some(Simple { path, end: End::Here }),
            ".*" | "(.*)" | ".*$" | "(.*)$" | ".+" | "(.+)" if path.ends_with('/') => {
                return Some(Simple { path: format!("{path}*"), end: End::Here });
            }
            ".*" | "(.*)" | ".*$" | "(.*)$" => return Some(Simple { path, end: End::Open }),
            "(/|$)(.*)" | "(/|$)(.*)$" | "/?(.*)" | "(/.*)?$" | "(/.*)?" if !path.is_empty() => {
                return Some(Simple { path: format!("{path}/*"), end: End::Here });
            }
            _ => {}
        }
        if let Some((name, after)) = segment(rest) {
            // In a pattern, a parameter stands for a whole segment.
            if !path.ends_with('/') || !(after.is_empty() || after.starts_with(['/', '$'])) {
                return None;
            }
            parameters += 1;
            let name = name.map_or_else(|| format!("p{parameters}"), str::to_owned);
            path.extend(["{", &name, "}"]);
            rest = after;
            continue;
        }
        let mut chars = rest.chars();
        let c = chars.next()?;
        let literal = match c {
            '\\' => chars.next().filter(|c| !c.is_ascii_alphanumeric())?,
            c if c.is_ascii_alphanumeric() || "/_-~!@%&=:;,".contains(c) => c,
            _ => return None,
        };
        rest = chars.as_str();
        if rest.starts_with(['*', '+', '?', '{']) {
            return None;
        }
        path.push(literal);
    }
}

/// Parses an expression for one segment at the start of a text. Returns the name of the group and the rest of the text.
fn segment(text: &str) -> Option<(Option<&str>, &str)> {
    const ONE: &str = "[^/]+";
    if let Some(after) = text.strip_prefix(ONE) {
        return Some((None, after));
    }
    let inside = text.strip_prefix('(')?;
    let named = inside.strip_prefix("?<").or_else(|| inside.strip_prefix("?P<"));
    let (name, body) = match named {
        Some(named) => named.split_once('>').map(|(name, body)| (Some(name), body))?,
        None => (None, inside.strip_prefix("?:").unwrap_or(inside)),
    };
    let after = body.strip_prefix(ONE)?.strip_prefix(')')?;
    Some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codes(converted: &Converted) -> (Option<&str>, Vec<&'static str>) {
        let codes =
            converted.1.iter().map(|finding| finding.kind.describe(super::super::SourceFormat::IngressNginx).code);
        (converted.0.as_deref(), codes.collect())
    }

    #[test]
    fn prefixes_become_patterns() {
        let at = Place::default();
        assert_eq!(codes(&segments("/", at)), (Some("/*"), vec![]));
        assert_eq!(codes(&segments("/v1/", at)), (Some("/v1/*"), vec![]));
        assert_eq!(codes(&text_prefix("/", at)), (Some("/*"), vec![]));
        assert_eq!(codes(&text_prefix("/v1", at)), (Some("/v1/*"), vec!["path-prefix"]));
        assert_eq!(codes(&text_prefix("/v1/", at)), (Some("/v1/*"), vec!["path-without-slash"]));
        for hostile in ["v1", "/a/../b", "/a*", "/{x}", "/a?b", "/ä"] {
            assert_eq!(codes(&text_prefix(hostile, at)), (None, vec!["path-not-imported"]), "{hostile}");
        }
    }

    #[test]
    fn a_pattern_covers_narrower_patterns() {
        for (wide, narrow, expected) in [
            ("/*", "/*", true),
            ("/*", "/", true),
            ("/*", "/a/b", true),
            ("/a/*", "/a", true),
            ("/a/*", "/a/*", true),
            ("/a/*", "/a/{x}/c", true),
            ("/a/*", "/ab", false),
            ("/a/*", "/*", false),
            ("/a", "/a/*", false),
            ("/a", "/a/b", false),
            ("/a/{x}", "/a/b", true),
            ("/a/{x}", "/a/{y}", true),
            ("/a/{x}", "/a/", false),
            ("/a/b", "/a/{x}", false),
            ("/{x}/*", "/a/b", true),
        ] {
            assert_eq!(covers(wide, narrow), expected, "{wide} {narrow}");
        }
    }

    #[test]
    fn only_expressions_that_a_pattern_can_say_are_imported() {
        let at = Place::default();
        for (text, pattern) in [
            ("^/v1/login$", Some("/v1/login")),
            ("/v1/teams/(?<id>[^/]+)$", Some("/v1/teams/{id}")),
            ("/v1/([^/]+)/x$", Some("/v1/{p1}/x")),
            ("/api(/|$)(.*)", Some("/api/*")),
            ("/api/(.*)", Some("/api/*")),
            ("/files/.*\\.png$", None),
            ("/v[12]/x", None),
            ("/a+", None),
            ("/a|/b", None),
            ("/x-([^/]+)$", None),
            ("/\\d+$", None),
            ("(?i)/x", None),
        ] {
            assert_eq!(expression(text, at).0.as_deref(), pattern, "{text}");
        }
        assert_eq!(codes(&expression("^/api", at)), (Some("/api/*"), vec!["path-prefix"]));
    }
}
