//! Sample origins for a pattern or a regular expression: origins that match, and similar origins that do not match.
//!
//! A sample is a concrete example for a setting. The lint of `cors/regexes.rs` shows an origin that a mistake allows.
//! The comparison of two policies tries the samples of both policies. Samples of a pattern always match. Samples of a
//! regular expression are likely to match. Callers test them with the compiled expression.
//!
//! ```
//! use corsgate::cors::{OriginPattern, witness};
//!
//! let Ok(OriginPattern::Tuple(pattern)) = OriginPattern::parse("https://*.app.example") else { panic!() };
//! assert_eq!(witness::matching(&pattern), ["https://a.app.example", "https://a.b.app.example"]);
//! assert!(witness::neighbours(&pattern).contains(&"https://evilapp.example".to_owned()));
//! ```

use regex_syntax::ast::{Ast, GroupKind, RepetitionKind, RepetitionRange};
use regex_syntax::hir::{Class, Hir, HirKind};

use super::origin::{OriginHost, OriginPattern, PortPattern, TuplePattern};
use super::regexes::parse;

/// A host that no configuration allows by name: `test` is reserved (RFC 6761 section 6.2).
const FOREIGN_HOST: &str = "evil.test";
/// A port that is not the default port of any scheme.
const OTHER_PORT: u16 = 8443;

/// A regular expression, parsed for sampling.
#[derive(Debug)]
pub(crate) struct Expression(Ast);

// === patterns ===

/// Returns origins that a pattern matches, at least one for each form of host and port that the pattern allows.
pub fn matching(pattern: &TuplePattern) -> Vec<String> {
    let hosts: Vec<String> = match &pattern.host {
        OriginHost::Any => vec!["a.example".into(), FOREIGN_HOST.into()],
        OriginHost::Exact(host) => vec![host.to_string()],
        OriginHost::Subdomains(base) => vec![format!("a.{base}"), format!("a.b.{base}")],
        OriginHost::Template(template) => template.matching(),
    };
    let ports = match pattern.port {
        PortPattern::Any => vec![String::new(), format!(":{OTHER_PORT}")],
        PortPattern::Exact(None) => vec![String::new()],
        PortPattern::Exact(Some(port)) => vec![format!(":{port}")],
    };
    let origin = |host, port| format!("{}://{host}{port}", pattern.scheme);
    let origins = hosts.iter().flat_map(|host| ports.iter().map(move |port| (host, port)));
    origins.map(|(host, port)| origin(host, port)).filter(|origin| is_origin(origin)).collect()
}

/// Returns origins that the pattern does not match. Each of them differs from a matching origin in one part: the
/// scheme, the host or the port.
pub fn neighbours(pattern: &TuplePattern) -> Vec<String> {
    let scheme = &*pattern.scheme;
    let other_scheme = if scheme == "https" { "http" } else { "https" };
    let host = match &pattern.host {
        OriginHost::Any => "a.example".to_owned(),
        OriginHost::Exact(host) => host.to_string(),
        OriginHost::Subdomains(base) => format!("a.{base}"),
        OriginHost::Template(template) => template.matching().swap_remove(0),
    };
    let other_hosts = match &pattern.host {
        OriginHost::Any => Vec::new(),
        OriginHost::Exact(host) => {
            let without_dot = host.contains('.').then(|| host.replacen('.', "x", 1));
            let others = [format!("evil{host}"), format!("a.{host}"), format!("{host}.{FOREIGN_HOST}")];
            others.into_iter().chain(without_dot).collect()
        }
        OriginHost::Subdomains(base) => {
            vec![base.to_string(), format!("evil{base}"), format!("a.{base}.{FOREIGN_HOST}")]
        }
        OriginHost::Template(template) => template.neighbours(),
    };
    let (port, other_ports) = match pattern.port {
        PortPattern::Any => (String::new(), Vec::new()),
        PortPattern::Exact(None) => (String::new(), vec![format!(":{OTHER_PORT}")]),
        PortPattern::Exact(Some(port)) => {
            let other = if port == OTHER_PORT { OTHER_PORT + 1 } else { OTHER_PORT };
            (format!(":{port}"), vec![String::new(), format!(":{other}")])
        }
    };
    let mut origins = vec![format!("{other_scheme}://{host}{port}")];
    origins.extend(other_hosts.iter().map(|other| format!("{scheme}://{other}{port}")));
    origins.extend(other_ports.iter().map(|other| format!("{scheme}://{host}{other}")));
    origins.retain(|origin| is_origin(origin));
    origins
}

/// Whether a browser can send this origin. The extended host of a sample may be too long, or may not be an address any
/// more.
fn is_origin(text: &str) -> bool {
    matches!(OriginPattern::parse(text), Ok(OriginPattern::Tuple(_)))
}

// === regular expressions ===

impl Expression {
    /// Parses the source of an expression. Returns None if the source has a syntax error.
    pub(crate) fn parse(source: &str) -> Option<Self> {
        regex_syntax::ast::parse::Parser::new().parse(source).ok().map(Expression)
    }

    /// Returns a short, plain text that the expression is likely to match.
    pub(crate) fn sample(&self) -> String {
        sample(&self.0)
    }

    /// Returns a sample of each top-level alternative. The result is empty if the expression has only one alternative.
    pub(crate) fn alternatives(&self) -> Vec<String> {
        match &self.0 {
            Ast::Alternation(alternation) => alternation.asts.iter().map(sample).collect(),
            _ => Vec::new(),
        }
    }

    /// Returns the text of each alternative of the whole expression. The result is empty if there is only one
    /// alternative, or if a flag such as `(?i)` could change the meaning of the texts.
    pub(crate) fn alternative_sources<'s>(&self, source: &'s str) -> Vec<&'s str> {
        match without_anchors(&self.0) {
            Ast::Alternation(alternation) if !source.contains("(?") => {
                let text = |ast: &Ast| source.get(ast.span().start.offset..ast.span().end.offset);
                alternation.asts.iter().filter_map(text).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Returns a sample in which a letter replaces the first unescaped dot next to a letter or digit. None if there is
    /// no such dot.
    pub(crate) fn with_unescaped_dot(&self) -> Option<String> {
        let Ast::Concat(concat) = ungrouped(&self.0) else { return None };
        let mut dots = 0;
        let mut wrong = None;
        for (i, part) in concat.asts.iter().enumerate() {
            if let Ast::Dot(_) = part {
                let beside = |ast: Option<&Ast>| ast.is_some_and(is_letter);
                let before = i.checked_sub(1).and_then(|i| concat.asts.get(i));
                if wrong.is_none() && (beside(before) || beside(concat.asts.get(i + 1))) {
                    wrong = Some(dots);
                }
                dots += 1;
            }
        }
        let mut out = String::new();
        Sampler { wrong_dot: Some(wrong?), dots: 0 }.write(&self.0, &mut out);
        Some(out)
    }

    /// Returns a sample for an unbounded repetition of any character that is directly before a letter or digit:
    /// `evilexample` for `.*example`. None if there is no such repetition.
    pub(crate) fn with_open_prefix(&self) -> Option<String> {
        let Ast::Concat(concat) = ungrouped(&self.0) else { return None };
        let open = concat.asts.windows(2).position(|pair| is_any_run(&pair[0]) && is_letter(&pair[1]))?;
        let part = |asts: &[Ast]| asts.iter().map(sample).collect::<String>();
        let (before, after) = (part(&concat.asts[..open]), part(&concat.asts[open + 1..]));
        let scheme = if before.is_empty() { "https://" } else { "" };
        Some(format!("{scheme}{before}evil{after}"))
    }
}

fn sample(ast: &Ast) -> String {
    let mut out = String::new();
    Sampler { wrong_dot: None, dots: 0 }.write(ast, &mut out);
    out
}

fn ungrouped(ast: &Ast) -> &Ast {
    match ast {
        Ast::Group(group) => ungrouped(&group.ast),
        other => other,
    }
}

/// Returns the expression without `^`, `$` and the groups around it.
fn without_anchors(ast: &Ast) -> &Ast {
    match ungrouped(ast) {
        Ast::Concat(concat) => {
            let mut parts = concat.asts.iter().filter(|part| !matches!(part, Ast::Assertion(_)));
            match (parts.next(), parts.next()) {
                (Some(Ast::Group(group)), None) => without_anchors(&group.ast),
                _ => ast,
            }
        }
        other => other,
    }
}

fn is_letter(ast: &Ast) -> bool {
    matches!(ast, Ast::Literal(literal) if literal.c.is_ascii_alphanumeric())
}

/// Whether the expression is an unbounded repetition that can match letters or digits.
fn is_any_run(ast: &Ast) -> bool {
    let Ast::Repetition(repetition) = ast else { return false };
    let unbounded = match &repetition.op.kind {
        RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => true,
        RepetitionKind::Range(range) => matches!(range, RepetitionRange::AtLeast(_)),
        RepetitionKind::ZeroOrOne => false,
    };
    unbounded
        && match &*repetition.ast {
            Ast::Dot(_) => true,
            class @ (Ast::ClassBracketed(_) | Ast::ClassPerl(_)) => class_member(class).is_ascii_alphanumeric(),
            _ => false,
        }
}

struct Sampler {
    /// Index, in writing order, of the dot that becomes a letter.
    wrong_dot: Option<usize>,
    dots: usize,
}

impl Sampler {
    fn write(&mut self, ast: &Ast, out: &mut String) {
        match ast {
            Ast::Empty(_) | Ast::Flags(_) | Ast::Assertion(_) => {}
            Ast::Literal(literal) => out.push(literal.c),
            Ast::Dot(_) => {
                out.push(if self.wrong_dot == Some(self.dots) { 'x' } else { '.' });
                self.dots += 1;
            }
            Ast::ClassUnicode(_) | Ast::ClassPerl(_) | Ast::ClassBracketed(_) => out.push(class_member(ast)),
            Ast::Repetition(repetition) => {
                let times = match &repetition.op.kind {
                    RepetitionKind::ZeroOrOne => 0,
                    RepetitionKind::ZeroOrMore | RepetitionKind::OneOrMore => 1,
                    RepetitionKind::Range(
                        RepetitionRange::Exactly(n) | RepetitionRange::AtLeast(n) | RepetitionRange::Bounded(n, _),
                    ) => (*n).min(64),
                };
                for _ in 0..times {
                    match &*repetition.ast {
                        Ast::Dot(_) => out.push('a'),
                        other => self.write(other, out),
                    }
                }
            }
            Ast::Group(group) => match &group.kind {
                GroupKind::CaptureIndex(_) | GroupKind::CaptureName { .. } | GroupKind::NonCapturing(_) => {
                    self.write(&group.ast, out);
                }
            },
            Ast::Alternation(alternation) => {
                if let Some(first) = alternation.asts.first() {
                    self.write(first, out);
                }
            }
            Ast::Concat(concat) => concat.asts.iter().for_each(|part| self.write(part, out)),
        }
    }
}

/// Returns a character of a class: a letter if possible, else a digit, else the first character.
fn class_member(ast: &Ast) -> char {
    let hir = parse(&ast.to_string());
    let ranges: Vec<(char, char)> = match hir.as_ref().map(Hir::kind) {
        Ok(HirKind::Class(Class::Bytes(class))) => {
            class.ranges().iter().map(|r| (char::from(r.start()), char::from(r.end()))).collect()
        }
        Ok(HirKind::Class(Class::Unicode(class))) => class.ranges().iter().map(|r| (r.start(), r.end())).collect(),
        Ok(HirKind::Literal(literal)) => return literal.0.first().map_or('a', |b| char::from(*b)),
        _ => return 'a',
    };
    let has = |c: char| ranges.iter().any(|(low, high)| (*low..=*high).contains(&c));
    let preferred = ('a'..='z').chain('0'..='9').find(|c| has(*c));
    preferred.or(ranges.first().map(|(low, _)| *low)).unwrap_or('a')
}

#[cfg(test)]
mod tests {
    use super::super::OriginSet;
    use super::*;

    #[test]
    fn a_pattern_matches_its_samples_and_no_neighbour() {
        for text in [
            "https://app.example",
            "https://app.example:8443",
            "http://localhost:*",
            "https://*.app.example",
            "https://*.app.example:9000",
            "https://*",
            "https://*:*",
            "http://127.0.0.1:3000",
            "https://[2001:db8::7]",
            "tauri://localhost",
            "https://pr-{digits}.app.example",
            "https://{hex}--{label}-{digits}.app.example:8443",
            "https://*.{label}.app.{hex}.example:*",
        ] {
            let Ok(OriginPattern::Tuple(pattern)) = OriginPattern::parse(text) else { panic!("{text}") };
            let set: OriginSet = [&pattern].into_iter().collect();
            let (matching, neighbours) = (matching(&pattern), neighbours(&pattern));
            assert!(!matching.is_empty() && !neighbours.is_empty(), "{text}");
            for origin in matching {
                assert!(pattern.matches(&origin) && set.find(&origin).is_some(), "{text} must match {origin}");
            }
            for origin in neighbours {
                assert!(!pattern.matches(&origin) && set.find(&origin).is_none(), "{text} must not match {origin}");
            }
        }
    }

    #[test]
    fn an_expression_has_plain_samples() {
        let expression = |source| Expression::parse(source).unwrap();
        assert_eq!(expression(r"https://[a-z0-9]+\.app\.example").sample(), "https://a.app.example");
        assert_eq!(expression(r"https://a\.example|b\.example").alternatives(), ["https://a.example", "b.example"]);
        assert_eq!(expression("https://app.example").with_unescaped_dot().as_deref(), Some("https://appxexample"));
        assert_eq!(expression(r"https://app\.example").with_unescaped_dot(), None);
        assert_eq!(expression("https://.*example").with_open_prefix().as_deref(), Some("https://evilexample"));
    }

    #[test]
    fn a_neighbour_differs_in_one_part() {
        let of = |text: &str| match OriginPattern::parse(text) {
            Ok(OriginPattern::Tuple(pattern)) => neighbours(&pattern),
            other => panic!("{text}: {other:?}"),
        };
        for (text, expected) in [
            (
                "https://app.example",
                &[
                    "http://app.example",
                    "https://evilapp.example",
                    "https://a.app.example",
                    "https://app.example.evil.test",
                    "https://appxexample",
                    "https://app.example:8443",
                ][..],
            ),
            (
                "http://localhost:8443",
                &[
                    "https://localhost:8443",
                    "http://evillocalhost:8443",
                    "http://a.localhost:8443",
                    "http://localhost.evil.test:8443",
                    "http://localhost",
                    "http://localhost:8444",
                ],
            ),
            (
                "https://*.app.example:*",
                &[
                    "http://a.app.example",
                    "https://app.example",
                    "https://evilapp.example",
                    "https://a.app.example.evil.test",
                ],
            ),
            (
                "https://pr-{digits}.app.example",
                &[
                    "http://pr-1.app.example",
                    "https://a.pr-1.app.example",
                    "https://pr-a.b.app.example",
                    "https://pr-_.app.example",
                    "https://pr-.app.example",
                    "https://pr-1.app.example.evil.test",
                    "https://pr-1.evil.test",
                    "https://pr-1.app.example:8443",
                ],
            ),
        ] {
            assert_eq!(of(text), expected, "{text}");
        }
    }
}
