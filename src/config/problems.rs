//! What is wrong with a text that is no [`Document`], all of it.
//!
//! serde stops at its first error. So the text is read into a tree, the tree is tried, and whatever an error points
//! at is noted and taken out of the tree, until the rest can be read. A broken file costs a few readings more; a good
//! one never comes here.

use serde::Deserialize;
use serde_path_to_error::{Path, Segment};
use serde_yaml::Value;

use super::Document;
use super::source::Source;
use crate::problem::{KeyPath, Kind, Problem, Problems, Step};

/// After so many the rest would not be read by anybody.
const MOST: usize = 200;

/// Notes every problem of the form, and gives what could be read. `error` is what the first reading said.
pub(super) fn recover(text: &str, error: &serde_yaml::Error, problems: &mut Problems) -> Document {
    if note_keys_that_stand_twice(text, problems) {
        return Document::default();
    }
    let mut tree: Value = match serde_yaml::from_str(text) {
        Ok(tree) => tree,
        Err(error) => {
            problems.push(syntax(&error));
            return Document::default();
        }
    };
    for _ in 0..MOST {
        let mut track = serde_path_to_error::Track::new();
        let error = match Document::deserialize(serde_path_to_error::Deserializer::new(&tree, &mut track)) {
            Ok(document) => return document,
            Err(error) => error.to_string(),
        };
        let mut at = key_path(&track.path());
        let kind = kind_of(&error);
        if let Kind::UnknownKey { key, .. } = &kind
            && at.0.last() != Some(&Step::Key(key.clone()))
        {
            at.0.push(Step::Key(key.clone()));
        }
        let removed = remove(&mut tree, &at.0);
        problems.push(Problem { at, kind });
        if !removed {
            return Document::default();
        }
    }
    // Only reached with more problems than anybody reads at once.
    problems.push(syntax(error));
    Document::default()
}

/// serde_yaml stops at a key that stands twice, and without its path.
fn note_keys_that_stand_twice(text: &str, problems: &mut Problems) -> bool {
    let twice = Source::new("", text).keys_that_stand_twice();
    let any = !twice.is_empty();
    for (at, first_line) in twice {
        problems.push(Problem { at, kind: Kind::KeyTwice { first_line } });
    }
    any
}

fn syntax(error: &serde_yaml::Error) -> Problem {
    Problem { at: KeyPath::default(), kind: Kind::Syntax { message: error.to_string() } }
}

/// serde's errors are sentences. These are the few forms that say more when they are taken apart.
fn kind_of(message: &str) -> Kind {
    let quoted = |text: &str| -> Vec<String> { text.split('`').skip(1).step_by(2).map(str::to_owned).collect() };
    if let Some(rest) = message.strip_prefix("unknown field ") {
        let mut words = quoted(rest).into_iter();
        return Kind::UnknownKey { key: words.next().unwrap_or_default(), known: words.collect() };
    }
    if let Some(rest) = message.strip_prefix("unknown variant ") {
        let mut words = quoted(rest).into_iter();
        return Kind::UnknownWord { word: words.next().unwrap_or_default(), known: words.collect() };
    }
    let plain = message
        .trim_start_matches("invalid type: ")
        .trim_start_matches("invalid value: ")
        .replace("unit value", "no value")
        .replace("expected a boolean", "expected `true` or `false`")
        .replace("expected usize", "expected a number")
        .replace("expected u32", "expected a number")
        .replace("expected u16", "expected a number")
        .replace("expected i64", "expected a number")
        .replace("expected a sequence", "expected a list")
        .replace("expected unit variant, ", "expected one word, ");
    let plain = match plain.split_once("expected struct ") {
        Some((front, _)) => format!("{front}expected a mapping of keys"),
        None => plain,
    };
    Kind::WrongValue { message: plain }
}

fn key_path(path: &Path) -> KeyPath {
    let steps = path.iter().filter_map(|segment| match segment {
        Segment::Map { key } | Segment::Enum { variant: key } => Some(Step::Key(key.clone())),
        Segment::Seq { index } => Some(Step::Index(*index)),
        Segment::Unknown => None,
    });
    KeyPath(steps.collect())
}

/// Takes a value out, with its key. A list keeps its length, so that the places of what follows stay right; the hole
/// is filled with the emptiest thing of the same kind that its neighbours have.
fn remove(tree: &mut Value, path: &[Step]) -> bool {
    let Some((last, front)) = path.split_last() else { return false };
    let mut at = tree;
    for step in front {
        let next = match step {
            Step::Key(key) => at.get_mut(key.as_str()),
            Step::Index(index) => at.get_mut(*index),
        };
        match next {
            Some(next) => at = next,
            // An enum's variant is a step to serde, but not in the tree.
            None => return false,
        }
    }
    match (last, at) {
        (Step::Key(key), Value::Mapping(mapping)) => mapping.shift_remove(key.as_str()).is_some(),
        (Step::Index(index), Value::Sequence(list)) => {
            let empty = Value::Mapping(serde_yaml::Mapping::new());
            let filler = match list.iter().any(Value::is_string) {
                true => Value::String("removed".into()),
                false => empty,
            };
            list.get_mut(*index).is_some_and(|entry| std::mem::replace(entry, filler.clone()) != filler)
        }
        _ => false,
    }
}
