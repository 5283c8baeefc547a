//! Environment variables in the values of a configuration: `${NAME}`, with `environment: true` at the top level.
//!
//! The variables are replaced in the text, before it is parsed. No line is added or removed, so the places of problems
//! are those of the file. In a value without quotes, YAML reads the result as a number, `true` or text, but never as a
//! list or a mapping.

use std::borrow::Cow;
use std::ops::Range;

use saphyr_parser::{Event, Parser, ScalarStyle};

use super::Document;
use super::source::NON_STRING_KEY;
use super::yaml::reads_as_text;
use crate::problem::{KeyPath, PathStep, Problem, ProblemKind, Problems};

/// The value of an environment variable. None if it is not set.
pub(crate) type Variables<'a> = &'a dyn Fn(&str) -> Option<String>;

/// A text with the values of its variables.
#[derive(Debug)]
pub(crate) struct FilledText {
    pub(crate) text: String,
    /// The text for output. It equals `text`, except that values of free form have the names of the variables.
    pub(crate) redacted: String,
}

/// A value that contains `${`.
struct Value {
    at: KeyPath,
    text: String,
    style: ScalarStyle,
    /// The bytes of the value, with its quotes.
    range: Range<usize>,
}

/// The values of a text that contain `${`.
struct Values {
    /// Whether the top level has `environment: true`.
    is_on: bool,
    values: Vec<Value>,
}

/// Maximum size of a text with the values of its variables, in bytes. A file has the same limit.
const LONGEST: usize = 64 << 20;
/// Maximum nesting of collections. serde_yaml refuses deeper nesting.
const MAX_DEPTH: usize = 128;

/// Replaces the variables of a text by their values. None if the text has no `environment: true`, if no value contains
/// `${`, or if the text is not valid. Values with a problem stay as they are.
pub(crate) fn fill(text: &str, variables: Variables<'_>, problems: &mut Problems) -> Option<FilledText> {
    let text = super::without_mark(text);
    if !text.contains("${") || !text.contains("environment") {
        return None;
    }
    let Values { is_on: true, values } = Values::read(text)? else { return None };
    let mut length = text.len();
    let mut filled = Vec::with_capacity(values.len());
    for value in values {
        let expanded = match value.style {
            ScalarStyle::Literal | ScalarStyle::Folded => Err(ProblemKind::VariableInBlock),
            ScalarStyle::Plain | ScalarStyle::SingleQuoted | ScalarStyle::DoubleQuoted => {
                expand(&value.text, variables, LONGEST.saturating_sub(length))
            }
        };
        match expanded {
            Ok(expanded) => {
                length += expanded.len();
                let written = value.written(&expanded);
                filled.push((value, written));
            }
            Err(kind) => problems.push(Problem { at: value.at, kind }),
        }
    }
    let whole = with(text, filled.iter().map(|(value, written)| (value, &**written)));
    // Values of a fixed form, such as durations, are not secret. They stay, so that the text for output is valid.
    let shown: Vec<Cow<'_, str>> = (filled.iter())
        .map(|(value, written)| match written.starts_with('"') {
            true => quoted(&value.text).into(),
            false => written.into(),
        })
        .collect();
    let redacted = with(text, filled.iter().zip(&shown).map(|((value, _), shown)| (value, &**shown)));
    let mut of_form = Problems::default();
    let _ = Document::parse(&redacted, &mut of_form);
    let has_form = |value: &Value| of_form.iter().any(|problem| value.at.is_within(&problem.at));
    let redacted = with(
        text,
        filled.iter().zip(&shown).map(|((value, written), shown)| match has_form(value) {
            true => (value, &**written),
            false => (value, &**shown),
        }),
    );
    Some(FilledText { text: whole, redacted })
}

/// Returns the values that look like an environment variable in a text without `environment: true`. Each has its place
/// and the variable.
pub(crate) fn looks_meant(text: &str) -> Vec<(KeyPath, String)> {
    let text = super::without_mark(text);
    if first_variable(text).is_none() {
        return Vec::new();
    }
    let values = Values::read(text).map(|values| values.values).unwrap_or_default();
    values.into_iter().filter_map(|value| Some((value.at, first_variable(&value.text)?))).collect()
}

/// Returns the first `${NAME}` with a name in upper case.
fn first_variable(text: &str) -> Option<String> {
    text.match_indices("${").find_map(|(start, _)| {
        let name = &text[start + 2..][..text[start + 2..].find('}')?];
        let is_upper = is_name(name) && !name.bytes().any(|b| b.is_ascii_lowercase());
        is_upper.then(|| format!("${{{name}}}"))
    })
}

/// Returns the text with some values replaced.
fn with<'v>(text: &str, values: impl Iterator<Item = (&'v Value, &'v str)>) -> String {
    let (mut out, mut copied) = (String::with_capacity(text.len()), 0);
    for (value, written) in values {
        out.push_str(&text[copied..value.range.start]);
        out.push_str(written);
        // Line breaks of the value stay, so that later lines keep their numbers.
        out.extend(text[value.range.clone()].chars().filter(|c| *c == '\n'));
        copied = value.range.end;
    }
    out.push_str(&text[copied..]);
    out
}

/// Replaces `${NAME}` by the value of the variable, and `$${` by `${`. Values of variables are not expanded again. The
/// result has at most `most` bytes.
fn expand(text: &str, variables: Variables<'_>, most: usize) -> Result<String, ProblemKind> {
    let (mut out, mut rest) = (String::new(), text);
    while let Some(start) = rest.find("${") {
        let (before, after) = (&rest[..start], &rest[start + 2..]);
        if let Some(before) = before.strip_suffix('$') {
            out.push_str(before);
            out.push_str("${");
            rest = after;
            continue;
        }
        let end = after.find('}').map_or(after.len(), |end| end + 1);
        let name = after[..end].trim_end_matches('}');
        if !is_name(name) || !after[..end].ends_with('}') {
            return Err(ProblemKind::BadVariable { text: format!("${{{}", &after[..end]) });
        }
        let value = variables(name).ok_or_else(|| ProblemKind::VariableNotSet { name: name.to_owned() })?;
        out.push_str(before);
        out.push_str(&value);
        if out.len() > most {
            return Err(ProblemKind::OutOfRange {
                value: "the size of the file with its variables".to_owned(),
                range: "at most 64 MiB".to_owned(),
                write: "shorter values".to_owned(),
            });
        }
        rest = &after[end..];
    }
    out.push_str(rest);
    Ok(out)
}

/// Whether a text is the name of an environment variable, as POSIX defines it.
fn is_name(name: &str) -> bool {
    name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && name.bytes().next().is_some_and(|first| !first.is_ascii_digit())
}

/// Returns a text as a quoted string that is valid in YAML and in JSON.
fn quoted(text: &str) -> String {
    let json = serde_json::Value::from(text).to_string();
    // The YAML parser refuses control characters beyond those that JSON escapes.
    if !json.contains(char::is_control) {
        return json;
    }
    let escaped = |c: char| match c.is_control() {
        true => format!("\\u{:04x}", u32::from(c)),
        false => c.to_string(),
    };
    json.chars().map(escaped).collect()
}

// === impl Value, Values ===

impl Value {
    /// Returns the value with its variables replaced, in the notation of the file.
    fn written(&self, expanded: &str) -> String {
        let is_word = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'+' | b'-' | b'.' | b'_' | b'~');
        let reads_as_word = !expanded.is_empty() && expanded.bytes().all(is_word) && !reads_as_text(expanded);
        match self.style {
            ScalarStyle::Plain if reads_as_word => expanded.to_owned(),
            _ => quoted(expanded),
        }
    }
}

/// A collection that is being read.
enum Open {
    /// The index of the next entry.
    List(usize),
    /// The key of the next value. None before the key.
    Map(Option<String>),
}

impl Values {
    /// Finds the values with variables. None if the text is not valid.
    fn read(text: &str) -> Option<Self> {
        let (mut is_on, mut values, mut open) = (false, Vec::new(), Vec::new());
        // Number of open collections around a key that is a collection.
        let mut in_key: Option<usize> = None;
        let mut characters = text.char_indices().map(|(byte, _)| byte).chain([text.len()]).enumerate();
        // The parser counts characters.
        let mut byte = |index: usize| characters.find(|(at, _)| *at == index).map(|(_, byte)| byte);
        let mut events = Parser::new_from_str(text);
        while let Some(event) = events.next_event() {
            let (event, span) = event.ok()?;
            match event {
                Event::SequenceStart(..) | Event::MappingStart(..) => {
                    if in_key.is_none() && matches!(open.last(), Some(Open::Map(None))) {
                        in_key = Some(open.len());
                    }
                    open.push(match event {
                        Event::SequenceStart(..) => Open::List(0),
                        _ => Open::Map(None),
                    });
                    if open.len() > MAX_DEPTH {
                        return None;
                    }
                }
                Event::SequenceEnd | Event::MappingEnd => {
                    open.pop();
                    if in_key == Some(open.len()) {
                        in_key = None;
                        name_key(&mut open, NON_STRING_KEY);
                    } else {
                        next(&mut open);
                    }
                }
                Event::Scalar(value, style, ..) => {
                    if name_key(&mut open, &value) {
                        continue;
                    }
                    let at = in_key.is_none().then(|| path(&open));
                    next(&mut open);
                    let Some(at) = at else { continue };
                    if let [PathStep::Key(key)] = &at.0[..] {
                        is_on |= key == "environment" && style == ScalarStyle::Plain && value == "true";
                    }
                    if value.contains("${") {
                        let range = byte(span.start.index())?..byte(span.end.index())?;
                        let range = without_properties(text, range);
                        values.push(Value { at, text: value.into_owned(), style, range });
                    }
                }
                Event::Alias(_) if name_key(&mut open, NON_STRING_KEY) => {}
                Event::Alias(_) => next(&mut open),
                _ => {}
            }
        }
        Some(Values { is_on, values })
    }
}

/// Returns the range of a value without its anchor and its tag. The parser includes them in the value.
fn without_properties(text: &str, range: Range<usize>) -> Range<usize> {
    let mut rest = &text[range.clone()];
    while rest.starts_with(['&', '!']) {
        rest = rest.split_once(char::is_whitespace).map_or("", |(_, rest)| rest.trim_start());
    }
    range.end - rest.len()..range.end
}

/// Sets the next key of a mapping. Returns false if a value is expected, not a key.
fn name_key(open: &mut [Open], name: &str) -> bool {
    match open.last_mut() {
        Some(Open::Map(key @ None)) => {
            *key = Some(name.to_owned());
            true
        }
        _ => false,
    }
}

/// Moves to the next entry after a value.
fn next(open: &mut [Open]) {
    match open.last_mut() {
        Some(Open::List(index)) => *index += 1,
        Some(Open::Map(key)) => *key = None,
        None => {}
    }
}

fn path(open: &[Open]) -> KeyPath {
    let step = |open: &Open| match open {
        Open::List(index) => PathStep::Index(*index),
        Open::Map(key) => PathStep::Key(key.clone().unwrap_or_default()),
    };
    KeyPath(open.iter().map(step).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(name: &str) -> Option<String> {
        Some(match name {
            "A" => "a".into(),
            "NUMBER" => "42".into(),
            "TRUE" => "true".into(),
            "EMPTY" => String::new(),
            "HOSTILE" => "x: [1]\n- \"y\\ # ${A}\u{85}\u{7f}".into(),
            "COMMENT" => "4 # four".into(),
            "LIST" => "[a, b]".into(),
            _ => return None,
        })
    }

    fn filled(text: &str) -> Result<serde_yaml::Value, String> {
        let mut problems = Problems::default();
        let filled = fill(&format!("environment: true\n{text}"), &variables, &mut problems);
        match problems.is_empty() {
            true => Ok(serde_yaml::from_str(&filled.expect("a text").text).unwrap()),
            false => Err(problems.iter().map(|problem| format!("{} {}", problem.at, problem.kind.code())).collect()),
        }
    }

    #[test]
    fn a_value_is_a_word_without_quotes_and_a_string_with_them() {
        for (text, expected) in [
            ("v: ${A}", "v: a"),
            ("v: ${NUMBER}  # comment", "v: 42"),
            ("v: \"${NUMBER}\"", "v: '42'"),
            ("v: '${NUMBER}'", "v: '42'"),
            ("v: 1${NUMBER}", "v: 142"),
            ("v: ${NUMBER}s", "v: 42s"),
            ("v: ${TRUE}", "v: true"),
            ("v: \"${TRUE}\"", "v: 'true'"),
            ("v: ${EMPTY}", "v: ''"),
            ("v: é${A}é ${A}", "v: éaé a"),
            ("v: [ \"${A}\", é, \"${A}${NUMBER}\" ]", "v: [a, é, 'a42']"),
            ("v: { a: \"${A}\" }", "v: { a: a }"),
            ("v: &x ${A}\nw: *x", "v: a\nw: a"),
            ("v: !!str ${NUMBER}", "v: '42'"),
            ("v: 'it''s ${A}'", "v: it's a"),
            ("v: plain\n  ${A}\nw: x", "v: plain a\nw: x"),
            // The value does not become structure, and is not read again.
            ("v: ${LIST}", "v: '[a, b]'"),
            ("v: ${COMMENT}", "v: '4 # four'"),
            ("v: ${HOSTILE}", "v: \"x: [1]\\n- \\\"y\\\\ # ${A}\\u0085\\u007f\""),
            ("v: x ${HOSTILE} y", "v: \"x x: [1]\\n- \\\"y\\\\ # ${A}\\u0085\\u007f y\""),
            // Escapes, and texts that are no variables.
            ("v: $${A}", "v: '${A}'"),
            ("v: $$${A} ${A}", "v: '$${A} a'"),
            ("v: $A $1 $ ${A}", "v: '$A $1 $ a'"),
            // Keys are not expanded.
            ("'${A}': ${A}", "'${A}': a"),
        ] {
            let expected = serde_yaml::from_str(&format!("environment: true\n{expected}")).unwrap();
            assert_eq!(filled(text), Ok(expected), "{text}");
        }
    }

    #[test]
    fn a_fault_has_the_place_of_its_value() {
        for (text, expected) in [
            ("a: [x, { b: \"${NONE}\" }]", "a[1].b variable-not-set"),
            ("a: ${}", "a bad-variable"),
            ("a: ${A:-b}", "a bad-variable"),
            ("a: ${1}", "a bad-variable"),
            ("a: ${A", "a bad-variable"),
            ("a: |\n  x\n  ${A}\n", "a variable-in-block"),
            ("[k]: ${A}\n? { x: \"${NONE}\" }\n: ${NONE}", "? variable-not-set"),
        ] {
            assert_eq!(filled(text), Err(expected.to_owned()), "{text}");
        }
    }

    #[test]
    fn without_the_key_nothing_is_filled_in() {
        for text in [
            "v: ${A}",
            "environment: false\nv: ${A}",
            "environment: 'true'\nv: ${A}",
            "v: { environment: true, a: \"${A}\" }",
        ] {
            assert!(fill(text, &variables, &mut Problems::default()).is_none(), "{text}");
        }
        assert_eq!(looks_meant("v: [\"x ${A_1}\", ${, \"${a}\"]").len(), 0, "not valid");
        let found = looks_meant("v: [\"x ${A_1}\", \"${a}\", \"${1}\"]");
        assert_eq!(found.iter().map(|(at, name)| format!("{at} {name}")).collect::<Vec<_>>(), ["v[0] ${A_1}"]);
    }

    #[test]
    fn a_bounded_text_stays_bounded() {
        let long = "x".repeat(1 << 20);
        let text = format!("environment: true\nv: [{}]", "\"${LONG}\",".repeat(100));
        let mut problems = Problems::default();
        let filled = fill(&text, &|_| Some(long.clone()), &mut problems).unwrap();
        assert!(filled.text.len() < LONGEST + (1 << 20) && problems.iter().all(|p| p.kind.code() == "out-of-range"));
        assert!(!problems.is_empty());
    }
}
