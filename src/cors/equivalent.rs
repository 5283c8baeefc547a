//! Finds the pattern that allows the same origins as a regular expression.
//!
//! A candidate is read from the syntax of the expression. Then a search over automata proves that the expression and
//! the candidate allow the same origins. So the candidate may be a guess.

use regex_syntax::hir::{Class, Hir, HirKind};

use super::host_template::Placeholder;
use super::language;
use super::origin::{OriginPattern, TuplePattern};
use super::regexes::{anchored, parse};

/// Returns the pattern with placeholders that allows the same origins as an expression, for all origins that a browser
/// can send. None if there is no such pattern, or if the proof is too large.
pub(crate) fn equivalent_pattern(source: &str) -> Option<TuplePattern> {
    let mut text = String::new();
    write(&parse(source).ok()?, &mut text)?;
    if !text.contains('{') {
        return None;
    }
    let OriginPattern::Tuple(pattern) = OriginPattern::parse(&text).ok()? else { return None };
    language::are_equal(&anchored(source)?, &format!("^(?:{})$", pattern.expression())).then_some(pattern)
}

/// Appends a part of an expression in the form of a pattern. None if a pattern cannot express it.
fn write(hir: &Hir, out: &mut String) -> Option<()> {
    match hir.kind() {
        HirKind::Empty | HirKind::Look(_) => {}
        HirKind::Literal(literal) => out.push_str(std::str::from_utf8(&literal.0).ok()?),
        HirKind::Capture(capture) => write(&capture.sub, out)?,
        HirKind::Concat(parts) => parts.iter().try_for_each(|part| write(part, out))?,
        // One letter, in both cases.
        HirKind::Class(class) => match &*characters(class)? {
            [only] => out.push(char::from(*only)),
            _ => return None,
        },
        HirKind::Repetition(repetition) => match (repetition.min, repetition.max, repetition.sub.kind()) {
            (1, None, HirKind::Class(class)) => {
                let own = characters(class)?;
                let of = |(placeholder, _): &(Placeholder, _)| *placeholder;
                let placeholder = Placeholder::ALL.iter().map(of).find(|p| p.characters().eq(own.iter().copied()))?;
                out.push_str(&placeholder.to_string());
            }
            // Only the port can be absent from an origin.
            (0, Some(1), _) => out.push_str(":*"),
            _ => return None,
        },
        HirKind::Alternation(_) => return None,
    }
    Some(())
}

/// Returns the characters of a class without upper-case letters, which browsers never send.
fn characters(class: &Class) -> Option<Vec<u8>> {
    let ranges: Vec<(u8, u8)> = match class {
        Class::Bytes(class) => class.ranges().iter().map(|range| (range.start(), range.end())).collect(),
        Class::Unicode(class) => {
            let byte = |c: char| u8::try_from(c).ok();
            class
                .ranges()
                .iter()
                .map(|range| Some((byte(range.start())?, byte(range.end())?)))
                .collect::<Option<_>>()?
        }
    };
    let is_in = |b: &u8| ranges.iter().any(|(low, high)| (low..=high).contains(&b));
    Some((0..=u8::MAX).filter(|b| is_in(b) && !b.is_ascii_uppercase()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_expression_becomes_a_pattern_only_if_both_allow_the_same_origins() {
        for (source, pattern) in [
            (r"https://pr-[0-9]+\.app\.example", Some("https://pr-{digits}.app.example")),
            (r"^https://pr-(\d+)\.app\.example$", Some("https://pr-{digits}.app.example")),
            (r"(?i)https://PR-[0-9A-F]+\.app\.example", Some("https://pr-{hex}.app.example")),
            (r"https://[A-Za-z0-9-]+\.app\.example(:[0-9]+)?", Some("https://{label}.app.example:*")),
            (
                r"https://[a-z0-9-]+-[0-9]+\.[a-f0-9]+\.app\.example:8443",
                Some("https://{label}-{digits}.{hex}.app.example:8443"),
            ),
            // An underscore, an empty text, a limit, a dot, another scheme, a part of the port.
            (r"https://[a-z0-9_-]+\.app\.example", None),
            (r"https://\w+\.app\.example", None),
            (r"https://[^.]+\.app\.example", None),
            (r"https://pr-[0-9]*\.app\.example", None),
            (r"https://pr-[0-9]{1,3}\.app\.example", None),
            (r"https://pr-[0-9]+.app\.example", None),
            (r"https://[a-z0-9.-]+\.app\.example", None),
            (r"https?://pr-[0-9]+\.app\.example", None),
            (r"https://pr-[0-9]+\.app\.example(:80[0-9]+)?", None),
            (r"https://pr-[0-9]+(\.app)?\.example", None),
            (r"https://pr-[0-9]+\.app\.example|https://a\.example", None),
            (r"pr-[0-9]+\.app\.example", None),
            (r"https://app\.example", None),
            // The last label cannot be a placeholder.
            (r"https://app\.[a-z0-9-]+", None),
            (r"https://[0-9]+[0-9a-f]+\.app\.example", None),
        ] {
            let found = equivalent_pattern(source).map(|pattern| pattern.to_string());
            assert_eq!(found.as_deref(), pattern, "{source}");
        }
    }
}
