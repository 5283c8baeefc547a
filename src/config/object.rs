//! The values of a text without types: of a whole configuration, and of an object that a client sent.

use saphyr_parser::{Event, Parser};
use serde_json::Value;

use super::source::Source;
use super::{without_mark, yaml};
use crate::problem::{KeyPath, Problem, ProblemKind, Problems, SyntaxPlace};

/// The values of a configuration that was accepted. None if it has tags, or numbers that JSON cannot have.
pub(crate) fn values(text: &str) -> Option<Value> {
    yaml::value(without_mark(text)).ok()
}

/// The values of a text from a client, JSON or YAML. Err: what is wrong with its syntax. Anchors, aliases and tags are
/// not accepted: an alias of an alias makes a short text large, and the values are written into another text.
pub(crate) fn client_values(text: &str) -> Result<Value, Problems> {
    let text = without_mark(text);
    let mut problems = Problems::default();
    for (at, first_line) in Source::new("", text).duplicate_keys() {
        problems.push(Problem { at, kind: ProblemKind::KeyTwice { first_line } });
    }
    problems.extend(special_nodes(text).into_iter().collect());
    if !problems.is_empty() {
        return Err(problems);
    }
    let value = yaml::value(text).map_err(|message| Problems::from_iter([yaml::syntax(message, text)]))?;
    match depth(&value) <= DEEPEST {
        true => Ok(value),
        false => {
            Err(Problems::from_iter([yaml::syntax("recursion limit exceeded at line 1 column 1".to_owned(), text)]))
        }
    }
}

/// Most levels of a sent object. No key of a configuration is as deep.
const DEEPEST: usize = 32;

fn depth(value: &Value) -> usize {
    match value {
        Value::Array(entries) => 1 + entries.iter().map(depth).max().unwrap_or(0),
        Value::Object(entries) => 1 + entries.values().map(depth).max().unwrap_or(0),
        _ => 0,
    }
}

/// The first anchor, alias or tag.
fn special_nodes(text: &str) -> Option<Problem> {
    // Strings of JSON may contain these characters.
    if !text.contains(['&', '*', '!']) {
        return None;
    }
    let mut events = Parser::new_from_str(text);
    while let Some(Ok((event, span))) = events.next_event() {
        let is_special = match event {
            Event::Alias(_) => true,
            Event::Scalar(_, _, anchor, tag) => anchor != 0 || tag.is_some(),
            Event::SequenceStart(anchor, tag) | Event::MappingStart(anchor, tag) => anchor != 0 || tag.is_some(),
            _ => false,
        };
        if is_special {
            let place = SyntaxPlace::Line { line: span.start.line(), column: span.start.col() + 1 };
            let (message, remedy) =
                ("anchors, aliases and tags are not accepted here".to_owned(), "write the value itself".into());
            let kind = ProblemKind::Syntax { message, remedy, places: vec![place] };
            return Some(Problem { at: KeyPath::default(), kind });
        }
    }
    None
}
