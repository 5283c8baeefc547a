//! YAML to [`Document`], and every problem of a text that cannot be read as one.
//!
//! The only file that names serde_yaml and depends on the words of its messages.
//!
//! serde stops at its first error. So after an error the text is read into a tree. The tree is read as a document; the
//! value at each error becomes a problem and is removed from the tree, until the rest can be read. A broken file needs
//! some more readings, a valid file only one, and a large one in parts.

mod parts;

use std::fmt;

use serde::Deserialize;
use serde::de::{DeserializeOwned, Deserializer, EnumAccess, MapAccess, SeqAccess, VariantAccess, Visitor};
use serde_path_to_error::{Path, Segment};
use serde_yaml::value::{Tag, TaggedValue};
use serde_yaml::{Mapping, Value};

use super::source::{NON_STRING_KEY, Source};
use super::{Document, foreign};
use crate::cors::ALIAS;
use crate::notation::Duration;
use crate::problem::{KeyPath, Known, PathStep, Problem, ProblemKind, Problems, SyntaxPlace};

/// The most problems of a broken file. More than this are not useful.
const MOST: usize = 200;
/// The most bytes that all readings of a broken file may take together, which bounds the time.
const MOST_BYTES: usize = 256 << 20;

/// Reads a text. Each value that cannot be read becomes a problem and is left out of the document. None when too little
/// is left for more checks. An empty text is an empty document.
pub(super) fn parse(text: &str, problems: &mut Problems) -> Option<Document> {
    if !nests_too_deep(text)
        && let Some(document) = parts::parse(text, parts::SIZE)
    {
        return Some(document);
    }
    parse_file(text, problems)
}

/// Parses any file of this form, as [`parse`] does.
pub(super) fn parse_file<T: DeserializeOwned + Default>(text: &str, problems: &mut Problems) -> Option<T> {
    if nests_too_deep(text) {
        problems.push(syntax("recursion limit exceeded at line 1 column 1".to_owned(), text));
        return None;
    }
    match serde_yaml::from_str::<Option<T>>(text) {
        Ok(document) => Some(document.unwrap_or_default()),
        Err(error) => {
            let document = recover(text, problems);
            // A text that serde_yaml refused must not be accepted because no problem was found. Example: a duplicate key
            // behind an alias.
            if problems.is_empty() {
                problems.push(syntax(error.to_string(), text));
            }
            document
        }
    }
}

/// Finds every problem of the form, and returns the part that could be read. None when it is too small for more checks.
fn recover<T: DeserializeOwned>(text: &str, problems: &mut Problems) -> Option<T> {
    let mut tree = match serde_yaml::from_str::<Tree>(text) {
        Ok(Tree(tree)) => tree,
        Err(error) => {
            problems.push(syntax(error.to_string(), text));
            return None;
        }
    };
    note_duplicate_keys(text, problems);
    // A few readings show something of a file of any size.
    let readings = (MOST_BYTES / text.len().max(1)).clamp(4, MOST);
    mend(&mut tree, readings, problems).0
}

/// Reads a tree, and removes each value that cannot be read. A mistake that is repeated, as programs do that write large
/// files, is removed everywhere at once. Returns the document and the number of readings.
fn mend<T: DeserializeOwned>(tree: &mut Value, most: usize, problems: &mut Problems) -> (Option<T>, usize) {
    for reading in 1..=most {
        let mut track = serde_path_to_error::Track::new();
        let error = match T::deserialize(serde_path_to_error::Deserializer::new(&*tree, &mut track)) {
            Ok(document) => return (Some(document), reading),
            Err(error) => error.to_string(),
        };
        let mut at = key_path(&track.path());
        let kind = kind_of(&error);
        if let ProblemKind::UnknownKey { key, .. } | ProblemKind::KeyAndAlias { key } = &kind
            && at.0.last() != Some(&PathStep::Key(key.clone()))
        {
            at.0.push(PathStep::Key(key.clone()));
        }
        let wrong = find(tree, &at.0).map(|value| value.clone());
        // Where a string is expected, the first reading takes a plain `7` as one. The tree has a number instead.
        if matches!(&kind, ProblemKind::WrongValue { expected, .. } if expected == "a string")
            && wrong.as_ref().and_then(as_text).is_some()
        {
            for at in alike(tree, &at, usize::MAX, |value| as_text(value).is_some()) {
                if let Some(value) = find(tree, &at.0)
                    && let Some(text) = as_text(value)
                {
                    *value = Value::String(text);
                }
            }
            continue;
        }
        let places = match (&kind, &wrong) {
            // The same mistake, whatever its value is.
            (ProblemKind::UnknownKey { .. }, Some(_)) => alike(tree, &at, MOST, |_| true),
            (ProblemKind::UnknownWord { .. } | ProblemKind::WrongValue { .. }, Some(wrong)) => {
                alike(tree, &at, MOST, |value| value == wrong)
            }
            _ => vec![at],
        };
        let mut removed = true;
        for at in places {
            removed &= remove(tree, &at.0, &kind);
            problems.push(Problem { at, kind: kind.clone() });
        }
        if !removed || problems.iter().len() >= MOST {
            return (None, reading);
        }
    }
    (None, most)
}

/// The places with the keys of a path, in any entry of each list and under any name, whose value is wanted. At most
/// `most`.
fn alike(tree: &Value, path: &KeyPath, most: usize, wanted: impl Fn(&Value) -> bool) -> Vec<KeyPath> {
    let mut places = vec![(KeyPath::default(), tree)];
    for (depth, step) in path.0.iter().enumerate() {
        let is_name = depth == 1
            && matches!(&path.0[0], PathStep::Key(key) if ["upstreams", "cors_policies", "origin_sets"].contains(&&**key));
        let mut next = Vec::new();
        for (at, value) in places {
            let mut push = |step: PathStep, value| {
                let mut steps = at.0.clone();
                steps.push(step);
                next.push((KeyPath(steps), value));
            };
            match (step, value) {
                (PathStep::Index(_), Value::Sequence(entries)) => {
                    entries.iter().enumerate().for_each(|(i, entry)| push(PathStep::Index(i), entry));
                }
                (PathStep::Key(_), Value::Mapping(entries)) if is_name => {
                    let names = entries.iter().filter_map(|(name, value)| Some((name.as_str()?, value)));
                    names.for_each(|(name, value)| push(PathStep::Key(name.to_owned()), value));
                }
                (PathStep::Key(key), value) => {
                    if let Some(value) = value.get(key.as_str()) {
                        push(PathStep::Key(key.clone()), value);
                    }
                }
                (PathStep::Index(_), _) => {}
            }
        }
        places = next;
    }
    places.into_iter().filter(|(_, value)| wanted(value)).map(|(at, _)| at).take(most).collect()
}

/// Finds duplicate keys. serde_yaml stops at the first one, and does not give its path.
fn note_duplicate_keys(text: &str, problems: &mut Problems) {
    for (at, first_line) in Source::new("", text).duplicate_keys() {
        problems.push(Problem { at, kind: ProblemKind::KeyTwice { first_line } });
    }
}

/// The parser's message as a problem, with the positions that it names.
pub(super) fn syntax(message: String, text: &str) -> Problem {
    let places = places_in(&message);
    let line = |place: &SyntaxPlace| match place {
        SyntaxPlace::Line { line, .. } => text.lines().nth(line.saturating_sub(1)),
        SyntaxPlace::Byte(_) => None,
    };
    let has_variable = places.iter().filter_map(line).any(|line| line.contains("${"));
    let remedy = match indentation_remedy(&message, &places, text) {
        _ if has_variable && message.contains("flow") => {
            "inside of braces and brackets, write a variable in quotes: `\"${NAME}\"`".into()
        }
        Some(remedy) => remedy.into(),
        None => syntax_remedy(&message).into(),
    };
    Problem { at: KeyPath::default(), kind: ProblemKind::Syntax { message, remedy, places } }
}

/// The positions in a message: where the parser stopped, then where the unfinished value begins.
fn places_in(message: &str) -> Vec<SyntaxPlace> {
    let number = |text: &str| -> Option<usize> { text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok() };
    if let Some((_, position)) = message.split_once(" at position ") {
        return number(position).map(SyntaxPlace::Byte).into_iter().collect();
    }
    let place = |rest: &str| {
        let column = rest.split_once(" column ").and_then(|(_, column)| number(column));
        Some(SyntaxPlace::Line { line: number(rest)?, column: column.unwrap_or(1) })
    };
    message.split(" at line ").skip(1).filter_map(place).collect()
}

/// Takes serde's messages apart. Only these forms occur.
fn kind_of(message: &str) -> ProblemKind {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut words = quoted(rest).into_iter();
        let key = words.next().unwrap_or_default();
        let words: Vec<String> = words.filter(|word| word != ALIAS).collect();
        let known = match foreign::meant(&key, &words) {
            Some(meant) => Known::meant(meant, words),
            None => Known::instead_of(&key, words),
        };
        return ProblemKind::UnknownKey { known, key };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = quoted(rest).into_iter();
        let word = words.next().unwrap_or_default();
        return ProblemKind::UnknownWord { known: Known::instead_of(&word, words.collect()), word };
    }
    if let Some(rest) = message.strip_prefix("duplicate field ") {
        return ProblemKind::KeyAndAlias { key: quoted(rest).into_iter().next().unwrap_or_default() };
    }
    let plain = message.trim_start_matches("invalid type: ").trim_start_matches("invalid value: ");
    match plain.split_once(", expected ").or_else(|| plain.split_once(" expected ")) {
        Some((found, expected)) => {
            let text = found.strip_prefix("string \"").and_then(|text| text.strip_suffix('"'));
            let expected = text.and_then(|text| meant_by(text, expected)).unwrap_or_else(|| in_words(expected));
            ProblemKind::WrongValue { found: found_in_words(found), expected }
        }
        None => ProblemKind::WrongValue {
            found: plain.to_owned(),
            expected: "a value as docs/reference.md describes it".into(),
        },
    }
}

/// The YAML words for serde's names of types.
fn found_in_words(found: &str) -> String {
    match found.split_once(' ').unwrap_or((found, "")) {
        ("unit", _) => "no value".into(),
        ("sequence", _) => "a list".into(),
        ("map", _) => "a mapping".into(),
        ("enum", _) => "a tag".into(),
        ("string", text) => format!("the string {text}"),
        ("integer", number) => format!("the number {number}"),
        ("floating", number) => format!("the number {}", number.trim_start_matches("point ")),
        ("boolean", word) => word.to_owned(),
        _ => "a value of another type".into(),
    }
}

/// What to write instead of a string, if the string shows it. `expected` is in serde's words.
fn meant_by(text: &str, expected: &str) -> Option<String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    match expected {
        "a boolean" => match &*text.to_ascii_lowercase() {
            word @ ("true" | "false") => Some(format!("`{word}` without quotes")),
            "yes" | "on" => Some("`true`".into()),
            "no" | "off" => Some("`false`".into()),
            _ => None,
        },
        "i64" | "u16" | "u32" | "u64" | "usize" if is_number => Some(format!("`{text}` without quotes")),
        // The one signed number is `max_age`.
        "i64" => Duration::parse(text).map(|age| format!("the number of seconds: `{}`", age.get().as_secs())),
        "struct Node" | "struct Listener" => {
            let address = text.split_once("://").map_or(text, |(_, address)| address);
            Some(format!("`{{ address: \"{address}\" }}`"))
        }
        "struct Route" => Some(format!("`{{ paths: [\"{text}\"] }}`")),
        _ => None,
    }
}

fn in_words(expected: &str) -> String {
    match expected {
        "a boolean" => "`true` or `false`".into(),
        "usize" | "u32" | "u64" => "a whole number, 0 or more".into(),
        "u16" => "a whole number from 0 to 65535".into(),
        // The one signed number is `max_age`.
        "i64" => "a whole number of seconds".into(),
        "f64" => "a number such as `0.1`".into(),
        "a sequence" => "a list".into(),
        "struct ExpectationFile" => "the list under the key `expect`".into(),
        _ if expected.starts_with("struct ") => "a mapping of keys".into(),
        _ if expected.contains("variant") || expected.contains("Value::") => "one word".into(),
        _ => expected.to_owned(),
    }
}

fn key_path(path: &Path) -> KeyPath {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } | Segment::Enum { variant: key } => Some(PathStep::Key(key.clone())),
        Segment::Seq { index } => Some(PathStep::Index(*index)),
        Segment::Unknown => None,
    });
    KeyPath(steps.collect())
}

/// Removes a value and its key. A list keeps its length, so that the paths of later entries stay right: an empty value
/// of the expected type replaces the entry.
fn remove(tree: &mut Value, path: &[PathStep], kind: &ProblemKind) -> bool {
    let Some((last, front)) = path.split_last() else { return false };
    // serde counts the variant of an enum as a step of the path; the tree does not have it.
    let Some(at) = find(tree, front) else { return false };
    match (last, at) {
        (PathStep::Key(key), Value::Mapping(mapping)) => mapping.shift_remove(key.as_str()).is_some(),
        (PathStep::Index(index), Value::Sequence(list)) => {
            let filler = match kind {
                ProblemKind::UnknownWord { known, .. } => {
                    Value::String(known.words().first().cloned().unwrap_or_default())
                }
                // The words of `in_words` and of `meant_by`.
                ProblemKind::WrongValue { expected, .. }
                    if expected == "a mapping of keys" || expected.starts_with("`{ ") =>
                {
                    Value::Mapping(Mapping::new())
                }
                _ => Value::String("removed".into()),
            };
            list.get_mut(*index).is_some_and(|entry| std::mem::replace(entry, filler.clone()) != filler)
        }
        _ => false,
    }
}

fn find<'t>(tree: &'t mut Value, path: &[PathStep]) -> Option<&'t mut Value> {
    path.iter().try_fold(tree, |at, step| match step {
        PathStep::Key(key) => at.get_mut(key.as_str()),
        PathStep::Index(index) => at.get_mut(*index),
    })
}

fn as_text(scalar: &Value) -> Option<String> {
    match scalar {
        Value::Null => Some("null".into()),
        Value::Bool(word) => Some(word.to_string()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

/// What to write if a key has another indentation than the key above it. None if the error has another cause.
fn indentation_remedy(message: &str, places: &[SyntaxPlace], text: &str) -> Option<String> {
    let about_keys =
        ["mapping values are not allowed", "did not find expected '-' indicator", "did not find expected key"];
    let Some(SyntaxPlace::Line { line, .. }) =
        places.first().filter(|_| about_keys.iter().any(|m| message.contains(m)))
    else {
        return None;
    };
    // The column of the key, behind the dashes of list entries. None for other lines.
    let key_column = |line: &str| {
        let key = line.trim_start_matches([' ', '-']);
        let name = key.split(':').next().filter(|name| name.len() < key.len() && !name.is_empty())?;
        let is_name = name.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-'));
        is_name.then_some(line.len() - key.len())
    };
    let has_text = |line: &&str| !matches!(line.trim_start().chars().next(), None | Some('#'));
    let lines: Vec<&str> = text.lines().take(*line).filter(has_text).collect();
    let [.., above, wrong] = lines[..] else { return None };
    let (wrong, above) = (key_column(wrong)?, key_column(above)?);
    (wrong != above).then(|| format!("indent this key like the one above it, by {above} spaces instead of {wrong}"))
}

/// The most likely remedy of a syntax error. The parser's own messages are about its grammar.
fn syntax_remedy(message: &str) -> &'static str {
    let says = |part| message.contains(part);
    if says("duplicate field") {
        "keep one of the two (a YAML alias `*name` can be a key)"
    } else if says("while scanning an alias") {
        "write `*` in quotes, as in `\"*\"` or `\"*.example\"`: without quotes it begins a YAML alias"
    } else if says("unknown anchor") {
        "define the anchor with `&` above this line, or write a literal `*` in quotes"
    } else if says("cannot start any token") {
        "indent with spaces instead of tabs, and quote text that begins with `@`, `%` or a backtick"
    } else if says("escape character") {
        "write the text in single quotes: in double quotes a backslash begins an escape"
    } else if says("quoted scalar") {
        "close the quote"
    } else if says("mapping values are not allowed")
        || says("could not find expected ':'")
        || says("did not find expected '-' indicator")
        || says("did not find expected key")
    {
        "write a space after the colon of each key, and indent all keys of a mapping by the same number of spaces"
    } else if says("parsing a flow") {
        "separate the entries with commas, and close every bracket and brace"
    } else if says("more than one document") {
        "keep one document, and remove the `---` between documents"
    } else if says("control characters") {
        "remove the control character"
    } else if says("limit exceeded") {
        "reduce the nesting, or the number of aliases"
    } else {
        "write valid YAML or JSON"
    }
}

/// Bounds the time of the YAML parser, which grows with the square of the open brackets before the parser refuses more
/// than 128 levels. Brackets in strings are counted too; no real string has 1000 unclosed ones.
fn nests_too_deep(text: &str) -> bool {
    let mut depth = 0usize;
    text.bytes().any(|b| {
        match b {
            b'[' | b'{' => depth += 1,
            b']' | b'}' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > 1000
    })
}

/// A text in block style that reads as this value.
pub(super) fn text(value: &serde_json::Value) -> String {
    serde_yaml::to_string(value).unwrap_or_default()
}

/// The values of a text, JSON or YAML. Err: the message of the parser. A key that occurs twice is an error. Keys are
/// texts, and a mapping has no order.
pub(super) fn value(text: &str) -> Result<serde_json::Value, String> {
    if nests_too_deep(text) {
        return Err("recursion limit exceeded at line 1 column 1".to_owned());
    }
    if text.trim_start().starts_with('{')
        && let Ok(Unique(value)) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    match serde_yaml::from_str::<Option<Unique>>(text) {
        Ok(value) => Ok(value.map_or(serde_json::Value::Null, |Unique(value)| value)),
        Err(error) => Err(error.to_string()),
    }
}

/// Values in which no mapping has a key twice. JSON and YAML values with tags are not accepted.
struct Unique(serde_json::Value);

impl<'de> Deserialize<'de> for Unique {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct UniqueVisitor;
        impl<'de> Visitor<'de> for UniqueVisitor {
            type Value = serde_json::Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a value without tags")
            }
            fn visit_unit<E>(self) -> Result<Self::Value, E> {
                Ok(serde_json::Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E: serde::de::Error>(self, value: f64) -> Result<Self::Value, E> {
                match serde_json::Number::from_f64(value) {
                    Some(number) => Ok(number.into()),
                    None => Err(E::custom("a number must be finite")),
                }
            }
            fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
                Ok(text.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(Unique(entry)) = seq.next_element()? {
                    entries.push(entry);
                }
                Ok(entries.into())
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = serde_json::Map::new();
                while let Some((key, Unique(value))) = map.next_entry::<String, Unique>()? {
                    if entries.contains_key(&key) {
                        return Err(serde::de::Error::custom(format_args!("duplicate key {key:?}")));
                    }
                    entries.insert(key, value);
                }
                Ok(entries.into())
            }
        }
        deserializer.deserialize_any(UniqueVisitor).map(Unique)
    }
}

/// Whether YAML reads a text without quotes as a string, and not as a number, a date or `true`.
pub(super) fn reads_as_text(text: &str) -> bool {
    serde_yaml::from_str::<Value>(text).is_ok_and(|value| value == text)
}

/// A tree of any valid YAML. [`Value`] itself refuses duplicate keys; here the last one counts.
struct Tree(Value);

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct TreeVisitor;
        impl<'de> Visitor<'de> for TreeVisitor {
            type Value = Value;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }
            fn visit_unit<E>(self) -> Result<Value, E> {
                Ok(Value::Null)
            }
            fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
                Ok(value.into())
            }
            fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
                Ok(value.into())
            }
            // No key takes numbers of this size, so lost digits only change a message.
            #[expect(clippy::cast_precision_loss, reason = "only shown")]
            fn visit_i128<E>(self, value: i128) -> Result<Value, E> {
                Ok((value as f64).into())
            }
            #[expect(clippy::cast_precision_loss, reason = "only shown")]
            fn visit_u128<E>(self, value: u128) -> Result<Value, E> {
                Ok((value as f64).into())
            }
            fn visit_str<E>(self, text: &str) -> Result<Value, E> {
                Ok(text.into())
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
                let mut entries = Vec::new();
                while let Some(Tree(entry)) = seq.next_element()? {
                    entries.push(entry);
                }
                Ok(Value::Sequence(entries))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
                let mut entries = Mapping::new();
                while let Some((Tree(key), Tree(value))) = map.next_entry()? {
                    // No key of a configuration is a list or a mapping. `Source` gives such keys the same name.
                    let key = match key {
                        Value::String(key) => key,
                        Value::Number(key) => key.to_string(),
                        Value::Bool(key) => key.to_string(),
                        _ => NON_STRING_KEY.into(),
                    };
                    entries.insert(key.into(), value);
                }
                Ok(Value::Mapping(entries))
            }
            fn visit_enum<A: EnumAccess<'de>>(self, tagged: A) -> Result<Value, A::Error> {
                let (tag, value) = tagged.variant::<String>()?;
                let Tree(value) = value.newtype_variant()?;
                Ok(Value::Tagged(Box::new(TaggedValue { tag: Tag::new(tag), value })))
            }
        }
        deserializer.deserialize_any(TreeVisitor).map(Tree)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// One reading finds a mistake that a program repeats in each of its routes.
    #[test]
    fn a_mistake_in_100_000_routes_takes_few_readings() {
        let routes = |route: &str| {
            let route: Value = serde_yaml::from_str(route).unwrap();
            let mut tree: Value = serde_yaml::from_str("services: [{ name: api, upstream: api, routes: [] }]").unwrap();
            tree["services"][0]["routes"] = Value::Sequence(vec![route; 100_000]);
            tree
        };
        for route in [
            "{ paths: [/a], method: GET }",
            "{ paths: [/a], cors: { allow_origins: '*', max_age: 2h } }",
            "{ paths: [/a], cors: { allow_origins: '*', upstream_headers: keep } }",
        ] {
            let mut problems = Problems::default();
            let (document, readings) = mend::<Document>(&mut routes(route), MOST, &mut problems);
            assert!(document.is_none() && readings == 1, "{route}: {readings} readings");
            assert_eq!(problems.iter().len(), MOST, "{route}");
        }
        // A number where a string is expected is no problem. It must not take one reading each.
        let mut problems = Problems::default();
        let mut tree = routes("{ paths: [/a], name: 7 }");
        tree["services"][0]["colour"] = "blue".into();
        let (document, readings) = mend::<Document>(&mut tree, MOST, &mut problems);
        assert!(document.is_some() && readings <= 3 && problems.iter().len() == 1, "{readings}\n{problems}");
    }

    #[test]
    fn a_repeated_mistake_is_reported_at_each_place() {
        let text = "
upstreams:
  a: { node: [] }
  b: { node: [], balance: fastest }
  c: { balance: fastest, retries: 1 }
cors_policies:
  p: { colour: blue }
  q: { color: blue }
services:
  - { name: api, colour: red, routes: [{ paths: [/a], colour: red }] }
  - { name: web, colour: green }
";
        let mut problems = Problems::default();
        let Tree(mut tree) = serde_yaml::from_str(text).unwrap();
        let (document, readings) = mend::<Document>(&mut tree, MOST, &mut problems);
        let mut places: Vec<String> = problems.iter().map(|problem| problem.at.to_string()).collect();
        places.sort_unstable();
        let expected = [
            "cors_policies.p.colour",
            "cors_policies.q.color",
            "services[0].colour",
            "services[0].routes[0].colour",
            "services[1].colour",
            "upstreams.a.node",
            "upstreams.b.balance",
            "upstreams.b.node",
            "upstreams.c.balance",
        ];
        assert_eq!(places, expected);
        assert!(document.is_some() && readings == 7, "{readings}");
    }
}
