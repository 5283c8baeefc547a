//! Hosts with placeholders, such as `pr-{digits}.app.example`.
//!
//! A placeholder stands for one or more characters of one label, never for a dot. So the labels of a template and of a
//! host are compared one by one. A label has at most 63 bytes (RFC 1035 section 2.3.4), and each byte of a host label
//! takes one step of a bit-parallel automaton. A step costs the same for every template and every host.

use std::fmt;

use super::origin::OriginHost;
use crate::problem::{Known, ProblemKind};

/// A host with at least one placeholder.
#[derive(Debug, Clone)]
pub(super) struct HostTemplate {
    /// The text in the configuration, without a leading `*.`.
    text: Box<str>,
    /// True for a leading `*.`: one or more labels come before the text.
    has_subdomains: bool,
    /// The labels up to the last one with a placeholder, from right to left.
    labels: Box<[Label]>,
    /// The rest of the text, with its leading dot: `.app.example`.
    tail: Box<str>,
}

/// One label of a template.
#[derive(Debug, Clone)]
enum Label {
    Fixed(Box<str>),
    WithPlaceholders(Box<LabelMatcher>),
}

/// An automaton for one label. Each character and each placeholder is a state, and a state is a bit. A label has at
/// most [`MAX_LABEL`] characters, so all states fit into one number.
#[derive(Debug, Clone)]
struct LabelMatcher {
    /// The states that accept a byte. [`symbol`] gives the index of the byte.
    accepted: [u64; SYMBOLS],
    /// The states of placeholders. They accept more than one byte.
    repeated: u64,
    /// The last state.
    end: u64,
}

/// A part of a host label with a fixed set of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Placeholder {
    /// `{digits}`: one or more of `0-9`.
    Digits,
    /// `{hex}`: one or more of `0-9` and `a-f`.
    Hex,
    /// `{label}`: one or more of `a-z`, `0-9` and `-`.
    Label,
}

/// A part of the text of a template.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'t> {
    Text(&'t str),
    Placeholder(Placeholder),
}

/// The maximum length of a label, in bytes.
const MAX_LABEL: usize = 63;
/// Number of different bytes in labels: `a-z`, `0-9`, `-` and `_`.
const SYMBOLS: usize = 38;

// === impl HostTemplate ===

impl HostTemplate {
    /// Parses a host with braces. `name` has no leading `*.`, and `text` is the whole entry, for messages.
    pub(super) fn parse(name: &str, has_subdomains: bool, text: &str) -> Result<Self, ProblemKind> {
        let pieces = split(name, text)?;
        // The rules for host names must hold for the shortest host that the template matches.
        let shortest = join(&pieces, |placeholder| placeholder.samples()[0]);
        OriginHost::parse(&shortest, text).map_err(|kind| match kind {
            ProblemKind::OriginNotCanonical { text, .. } => {
                ProblemKind::OriginBadHost { text, why: "it is not the form in which browsers send a host" }
            }
            kind => kind,
        })?;
        let last = name.rfind('}').unwrap_or(0);
        let end = name[last..].find('.').map(|dot| last + dot).filter(|dot| dot + 1 < name.len());
        let Some(end) = end else {
            return Err(ProblemKind::OriginBadPlaceholder {
                text: text.to_owned(),
                why: "a placeholder cannot be in the last label of the host",
                remedy: "write the end of the host without a placeholder, such as `.app.example`",
            });
        };
        if shortest.parse::<std::net::Ipv4Addr>().is_ok() {
            return Err(ProblemKind::OriginBadPlaceholder {
                text: text.to_owned(),
                why: "an IP address cannot have a placeholder",
                remedy: "list the addresses",
            });
        }
        let labels = name[..end].rsplit('.').map(|label| Label::parse(label, text)).collect::<Result<_, _>>()?;
        Ok(HostTemplate { text: name.into(), has_subdomains, labels, tail: name[end..].into() })
    }

    /// Returns the fixed labels at the end, with the leading dot. Every matching host ends with this text.
    pub(super) fn tail(&self) -> &str {
        &self.tail
    }

    /// Returns the text without a leading `*.`.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    /// Whether a host matches. The host must be an IPv6 address or non-empty labels.
    pub(super) fn matches(&self, host: &str) -> bool {
        let Some(front) = host.strip_suffix(&*self.tail) else { return false };
        let mut given = front.rsplit('.');
        self.labels.iter().all(|label| given.next().is_some_and(|text| label.matches(text)))
            && given.next().is_some() == self.has_subdomains
    }

    /// Whether this template matches every host that the other template matches. False if only a search can show it.
    pub(super) fn covers(&self, other: &Self) -> bool {
        self.text == other.text && self.has_subdomains == other.has_subdomains
    }

    /// Returns the regular expression of the host. `subdomains` is the expression of one or more labels with their
    /// dots.
    ///
    /// The expression has no limit for the length of a label, but [`Self::matches`] has one. No page has a host with a
    /// longer label, so the expression and the template give the same result for every page.
    pub(super) fn expression(&self, subdomains: &str) -> String {
        let front = if self.has_subdomains { subdomains } else { "" };
        let part = |piece: &Piece<'_>| match piece {
            Piece::Text(text) => regex_syntax::escape(text),
            Piece::Placeholder(placeholder) => format!("[{}]+", placeholder.class()),
        };
        front.to_owned() + &self.pieces().iter().map(part).collect::<String>()
    }

    /// Returns the public suffix if a placeholder is in the registrable domain: `github.io` for `{label}.github.io`.
    pub(super) fn public_suffix(&self) -> Option<&str> {
        let shortest = join(&self.pieces(), |placeholder| placeholder.samples()[0]);
        let suffix = psl::suffix(shortest.trim_end_matches('.').as_bytes())?;
        let tail = self.tail.trim_matches('.');
        // A rule such as `*.ck` makes the label before the tail a part of the suffix.
        (suffix.is_known() && suffix.as_bytes().len() >= tail.len()).then_some(tail)
    }

    /// Returns hosts that match, with a short and with a longer text for each placeholder.
    pub(super) fn matching(&self) -> Vec<String> {
        let front = if self.has_subdomains { "a." } else { "" };
        [0, 1].map(|i| front.to_owned() + &join(&self.pieces(), |placeholder| placeholder.samples()[i])).to_vec()
    }

    /// Returns hosts that are similar to matching hosts, but do not match.
    pub(super) fn neighbours(&self) -> Vec<String> {
        let front = if self.has_subdomains { "a." } else { "" };
        let with = |other: &'static str| front.to_owned() + &join(&self.pieces(), |_| other);
        let host = &self.matching()[0];
        let own = &host[front.len()..];
        // With a leading `*.`, more labels in front are allowed.
        let [one, other] = match self.has_subdomains {
            true => [own.to_owned(), format!("a.evil{}", self.tail)],
            false => [format!("a.{own}"), with("a.b")],
        };
        vec![one, other, with("_"), with(""), format!("{host}.evil.test"), host.replacen(&*self.tail, ".evil.test", 1)]
    }

    /// Returns the first placeholder that does not match its part of a host, with that part. None if the host does not
    /// have the texts between the placeholders.
    pub(super) fn mismatch<'h>(&self, host: &'h str) -> Option<(Placeholder, &'h str)> {
        let mut rest = host;
        if self.has_subdomains {
            let labels = self.text.split('.').count();
            rest = &host[host.rmatch_indices('.').nth(labels - 1)?.0 + 1..];
        }
        let pieces = self.pieces();
        let (last, mut pieces) = (pieces.last()?, pieces.iter().peekable());
        if let Some(Piece::Text(first)) = pieces.peek() {
            rest = rest.strip_prefix(first)?;
            pieces.next();
        }
        let Piece::Text(end) = last else { return None };
        let mut rest = rest.strip_suffix(end)?;
        let mut mismatch = None;
        while let (Some(Piece::Placeholder(placeholder)), Some(Piece::Text(text))) = (pieces.next(), pieces.next()) {
            let length = if pieces.peek().is_none() { rest.len() } else { rest.find(text)? };
            let part = &rest[..length];
            rest = rest.get(length + text.len()..).unwrap_or_default();
            if part.is_empty() || !part.bytes().all(|b| placeholder.accepts(b)) {
                mismatch = mismatch.or(Some((*placeholder, part)));
            }
        }
        mismatch
    }

    fn pieces(&self) -> Vec<Piece<'_>> {
        // The text was parsed when the template was made, so this cannot fail.
        split(&self.text, &self.text).unwrap_or_default()
    }
}

impl fmt::Display for HostTemplate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let front = if self.has_subdomains { "*." } else { "" };
        write!(f, "{front}{}", self.text)
    }
}

// === impl Label, LabelMatcher ===

impl Label {
    fn parse(label: &str, text: &str) -> Result<Self, ProblemKind> {
        let pieces = split(label, text)?;
        Ok(match &*pieces {
            [Piece::Text(fixed)] => Label::Fixed((*fixed).into()),
            pieces => Label::WithPlaceholders(Box::new(LabelMatcher::of(pieces))),
        })
    }

    fn matches(&self, label: &str) -> bool {
        match self {
            Label::Fixed(fixed) => **fixed == *label,
            Label::WithPlaceholders(matcher) => matcher.matches(label.as_bytes()),
        }
    }
}

impl LabelMatcher {
    fn of(pieces: &[Piece<'_>]) -> Self {
        let mut matcher = LabelMatcher { accepted: [0; SYMBOLS], repeated: 0, end: 0 };
        for piece in pieces {
            match piece {
                Piece::Text(text) => text.bytes().for_each(|b| matcher.add_state([b].into_iter(), false)),
                Piece::Placeholder(placeholder) => matcher.add_state(placeholder.characters(), true),
            }
        }
        matcher
    }

    fn add_state(&mut self, accepted: impl Iterator<Item = u8>, is_repeated: bool) {
        self.end = if self.end == 0 { 1 } else { self.end << 1 };
        for symbol in accepted.filter_map(symbol) {
            self.accepted[symbol] |= self.end;
        }
        if is_repeated {
            self.repeated |= self.end;
        }
    }

    /// Whether the automaton accepts a label.
    fn matches(&self, label: &[u8]) -> bool {
        if label.len() > MAX_LABEL {
            return false;
        }
        // `states` is a set of states. The first byte enters the first state.
        let (mut states, mut entered) = (0, 1);
        for b in label {
            let Some(symbol) = symbol(*b) else { return false };
            states = ((states << 1) | entered | (states & self.repeated)) & self.accepted[symbol];
            entered = 0;
        }
        states & self.end != 0
    }
}

/// Returns the index of a byte in [`LabelMatcher::accepted`]. None if a label cannot have this byte.
fn symbol(b: u8) -> Option<usize> {
    Some(usize::from(match b {
        b'a'..=b'z' => b - b'a',
        b'0'..=b'9' => b - b'0' + 26,
        b'-' => 36,
        b'_' => 37,
        _ => return None,
    }))
}

// === impl Placeholder ===

impl Placeholder {
    /// All placeholders, with their names.
    pub(super) const ALL: [(Self, &'static str); 3] =
        [(Placeholder::Digits, "digits"), (Placeholder::Hex, "hex"), (Placeholder::Label, "label")];

    /// Returns the characters of the placeholder, sorted.
    pub(super) fn characters(self) -> impl Iterator<Item = u8> {
        (0..=u8::MAX).filter(move |b| self.accepts(*b))
    }

    fn accepts(self, b: u8) -> bool {
        match self {
            Placeholder::Digits => b.is_ascii_digit(),
            Placeholder::Hex => matches!(b, b'0'..=b'9' | b'a'..=b'f'),
            Placeholder::Label => matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'),
        }
    }

    /// Returns the characters of the placeholder as a class of a regular expression.
    fn class(self) -> &'static str {
        match self {
            Placeholder::Digits => "0-9",
            Placeholder::Hex => "0-9a-f",
            Placeholder::Label => "a-z0-9-",
        }
    }

    /// Returns two texts that the placeholder matches: one character, and a longer text.
    fn samples(self) -> [&'static str; 2] {
        match self {
            Placeholder::Digits => ["1", "42"],
            Placeholder::Hex => ["a", "4f2a"],
            Placeholder::Label => ["a", "a-1"],
        }
    }
}

impl fmt::Display for Placeholder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = Self::ALL.iter().find(|(placeholder, _)| placeholder == self).map_or("", |(_, name)| name);
        write!(f, "{{{name}}}")
    }
}

// --- the text of a template

/// Splits a text at its placeholders.
fn split<'t>(name: &'t str, text: &str) -> Result<Vec<Piece<'t>>, ProblemKind> {
    let bad = |why, remedy| ProblemKind::OriginBadPlaceholder { text: text.to_owned(), why, remedy };
    let unbalanced = || bad("a brace has no counterpart", "write a placeholder as `{digits}`, `{hex}` or `{label}`");
    let mut pieces = Vec::new();
    let mut rest = name;
    while let Some(open) = rest.find(['{', '}']) {
        let (before, braced) = rest.split_at(open);
        let inner = braced.strip_prefix('{').ok_or_else(unbalanced)?;
        let close = inner.find(['{', '}']).ok_or_else(unbalanced)?;
        let (word, after) = (&inner[..close], inner[close..].strip_prefix('}').ok_or_else(unbalanced)?);
        let known = Placeholder::ALL.iter().find(|(_, name)| *name == word);
        let (placeholder, _) = known.ok_or_else(|| {
            let words = Placeholder::ALL.map(|(_, name)| name.to_owned()).to_vec();
            let known = Known::instead_of(word, words);
            ProblemKind::OriginUnknownPlaceholder { text: text.to_owned(), name: word.to_owned(), known }
        })?;
        match (before, pieces.last()) {
            ("", Some(_)) => {
                return Err(bad(
                    "two placeholders have no text between them",
                    "write one placeholder, or text between the two, such as `{label}-{digits}`",
                ));
            }
            ("", None) => {}
            _ => pieces.push(Piece::Text(before)),
        }
        pieces.push(Piece::Placeholder(*placeholder));
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    Ok(pieces)
}

/// Writes a text for each placeholder.
fn join(pieces: &[Piece<'_>], text_for: impl Fn(Placeholder) -> &'static str) -> String {
    let part = |piece: &Piece<'_>| match *piece {
        Piece::Text(text) => text.to_owned(),
        Piece::Placeholder(placeholder) => text_for(placeholder).to_owned(),
    };
    pieces.iter().map(part).collect()
}

#[cfg(test)]
mod tests {
    use super::super::{OriginPattern, OriginSet, TuplePattern};
    use crate::problem::ProblemKind;

    fn pattern(text: &str) -> TuplePattern {
        match OriginPattern::parse(text) {
            Ok(OriginPattern::Tuple(pattern)) => pattern,
            other => panic!("{text}: {other:?}"),
        }
    }

    /// Each pattern with origins that match, and with similar origins that do not match.
    #[test]
    fn a_placeholder_stands_for_its_characters_in_one_label() {
        let label = |length: usize| "a".repeat(length);
        let [most, more] = [60, 61].map(|length| format!("https://pr-{}.app.example", "1".repeat(length)));
        let [most_label, more_label] = [63, 64].map(|length| format!("https://{}.app.example", label(length)));
        let long_in_front = format!("https://{}.b.app.example", label(64));
        #[rustfmt::skip]
        let cases: [(&str, &[&str], &[&str]); 12] = [
            ("https://{label}-{label}.app.example",
                &["https://a-b.app.example", "https://a---.app.example", "https://-----.app.example"],
                &["https://ab.app.example", "https://--.app.example"]),
            ("https://a_b-{digits}.app.example", &["https://a_b-1.app.example"], &["https://a-b-1.app.example", "https://b_b-1.app.example"]),
            ("https://v1-{label}.app.example", &["https://v1-a.app.example"], &["https://v2-a.app.example", "https://w1-a.app.example"]),
            ("https://pr-{digits}.app.example",
                &["https://pr-7.app.example", "https://pr-0042.app.example", &most],
                &["https://pr-.app.example", "https://pr-x.app.example", "https://pr-7x.app.example", "https://pr-7.7.app.example",
                  "https://PR-7.app.example", "https://pr-7.app.example.", "https://pr-7.app.example:8443", "http://pr-7.app.example",
                  "https://a.pr-7.app.example", "https://apr-7.app.example", "https://pr-7.app.example.evil.test",
                  "https://pr-7.evilapp.example", "https://pr-7.evil.test", "https://pr-7-app.example", "https://pr-7.app.example/",
                  "https://user@pr-7.app.example", "https://pr-7%2e.app.example", "https://pr-٧.app.example",
                  "https://pr-{digits}.app.example", "pr-7.app.example", "null", &more]),
            ("https://{hex}.app.example",
                &["https://c0ffee.app.example", "https://7.app.example", "https://f.app.example"],
                &["https://coffee.app.example", "https://c0-ffee.app.example", "https://0x7.app.example",
                  "https://app.example", "https://.app.example", "https://C0FFEE.app.example", "https://xn--a.app.example"]),
            ("https://{label}.app.example",
                &["https://a.app.example", "https://feature-7.app.example", "https://-.app.example", "https://xn--bcher-kva.app.example", &most_label],
                &["https://a.b.app.example", "https://a_b.app.example", "https://app.example", "https://evilapp.example",
                  "https://a@b.app.example", "https://a%41.app.example", &more_label]),
            // Text before and after, in one label.
            ("https://shop-git-{label}-team.vercel.app",
                &["https://shop-git-main-team.vercel.app", "https://shop-git-fix-7-team.vercel.app", "https://shop-git---team.vercel.app",
                  "https://shop-git-x-team-team.vercel.app"],
                &["https://shop-git-team.vercel.app", "https://shop-git--team.vercel.app", "https://shop-git-main-teams.vercel.app",
                  "https://shop-git-main.team.vercel.app", "https://evil-shop-git-main-team.vercel.app"]),
            // A text that also occurs in its neighbours.
            ("https://{label}-{digits}.app.example",
                &["https://a-1.app.example", "https://a-b-1-2.app.example", "https://--1.app.example", "https://1-1.app.example"],
                &["https://a-b.app.example", "https://-1.app.example", "https://a-1-.app.example", "https://a1.app.example"]),
            ("https://{hex}--{label}--{hex}.app.example",
                &["https://a--b--c.app.example", "https://a-----c.app.example", "https://a--b--c--d.app.example"],
                &["https://a--b--g.app.example", "https://a----c.app.example", "https://g--b--c.app.example"]),
            // Several labels, with fixed labels between them.
            ("https://{digits}.{label}.eu.{hex}.app.example",
                &["https://1.a.eu.f.app.example"],
                &["https://1.a.us.f.app.example", "https://1.eu.f.app.example", "https://1.a.b.eu.f.app.example", "https://a.a.eu.f.app.example"]),
            ("https://*.{label}.app.example:*",
                &["https://a.b.app.example", "https://a_b.c.d.app.example:8443", &long_in_front],
                &["https://b.app.example", "https://a.b_c.app.example", "https://a.b.app.example:443", "https://.b.app.example"]),
            ("https://pr-{digits}.app.example.:8443",
                &["https://pr-7.app.example.:8443"],
                &["https://pr-7.app.example:8443", "https://pr-7.app.example."]),
        ];
        for (text, matching, others) in cases {
            let pattern = pattern(text);
            let set: OriginSet = [&pattern].into_iter().collect();
            assert_eq!(pattern.to_string(), text);
            let is_found = |origin: &str| {
                assert_eq!(
                    pattern.matches(origin),
                    set.find(origin).is_some(),
                    "{text}, {origin}: set and pattern differ"
                );
                set.find(origin).is_some()
            };
            matching.iter().for_each(|origin| assert!(is_found(origin), "{text} must match {origin}"));
            others.iter().for_each(|origin| assert!(!is_found(origin), "{text} must not match {origin}"));
        }
    }

    #[test]
    fn a_placeholder_in_the_registrable_domain_is_below_a_public_suffix() {
        for (text, suffix) in [
            ("https://{label}.github.io", Some("github.io")),
            ("https://pr-{digits}.vercel.app", Some("vercel.app")),
            ("https://*.{label}.co.uk", Some("co.uk")),
            ("https://shop-{digits}.example", None),
            ("https://shop-{digits}.example.com", None),
            ("https://{label}.shop.github.io", None),
            ("https://{label}.{label}.github.io.", Some("github.io")),
            ("https://{label}.internal", None),
            // The rule of the list is `*.ck`.
            ("https://shop.{label}.ck", Some("ck")),
        ] {
            assert_eq!(pattern(text).public_suffix(), suffix, "{text}");
        }
    }

    #[test]
    fn a_mismatch_names_the_placeholder_and_its_text() {
        for (text, host, mismatch) in [
            ("https://pr-{digits}.app.example", "pr-x1.app.example", Some("{digits} x1")),
            ("https://pr-{digits}.app.example", "pr-.app.example", Some("{digits} ")),
            ("https://pr-{digits}.app.example", "pr-1.2.app.example", Some("{digits} 1.2")),
            ("https://pr-{digits}.app.example", "pr-1.app.example", None),
            ("https://pr-{digits}.app.example", "mr-1.app.example", None),
            ("https://pr-{digits}.app.example", "pr-x.evil.test", None),
            ("https://pr-{digits}.app.example", "pr-app.example", None),
            ("https://{label}--{hex}.app.example", "a--xyz.app.example", Some("{hex} xyz")),
            ("https://{label}--{hex}.app.example", "a_b--7.app.example", Some("{label} a_b")),
            ("https://*.pr-{digits}.app.example", "a.b.pr-x.app.example", Some("{digits} x")),
            ("https://*.pr-{digits}.app.example", "pr-x.app.example", None),
            ("https://app.example", "app.example", None),
        ] {
            let found =
                pattern(text).unmatched_placeholder(host).map(|(placeholder, part)| format!("{placeholder} {part}"));
            assert_eq!(found.as_deref(), mismatch, "{text} {host}");
        }
    }

    #[test]
    fn a_placeholder_in_the_last_label_is_refused() {
        for text in
            ["https://{label}", "https://{label}.", "https://*.{label}", "https://a.{label}.", "https://a-{label}"]
        {
            let Err(ProblemKind::OriginBadPlaceholder { why, .. }) = OriginPattern::parse(text) else {
                panic!("{text}")
            };
            assert_eq!(why, "a placeholder cannot be in the last label of the host", "{text}");
        }
    }
}
