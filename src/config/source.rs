//! The text of a configuration with its name. It finds the line, column and excerpt of a key.

use std::sync::OnceLock;

use saphyr_parser::{Event, Marker, Parser, Span};

use crate::problem::{KeyPath, PathStep};

/// Name and text of a file, and the positions of its keys.
#[derive(Debug)]
pub struct Source<'t> {
    name: &'t str,
    whole: &'t str,
    /// The text without its byte order mark, which the parser does not count.
    pub(super) text: &'t str,
    root: OnceLock<Option<Tree>>,
}

/// A position in the text, for error messages.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place<'t> {
    /// Line number, counted from 1.
    pub(crate) line: usize,
    /// Column in characters, counted from 1.
    pub(crate) column: usize,
    /// Number of characters to mark.
    pub(crate) width: usize,
    /// Text of the line, without its line break.
    pub(crate) excerpt: &'t str,
}

/// A YAML value with the spans of its keys and values. The span of a collection ends where its last entry ends.
#[derive(Debug)]
pub(super) enum Tree {
    Scalar(Span),
    List(Span, Vec<Tree>),
    Map(Span, Vec<(String, Span, Tree)>),
}

impl<'t> Source<'t> {
    /// Creates a source. The positions are computed when the first position is needed. If the text is invalid, only the
    /// positions before the first syntax error are known.
    pub fn new(name: &'t str, text: &'t str) -> Self {
        let whole = text;
        let text = super::without_mark(whole);
        Source { name, whole, text, root: OnceLock::new() }
    }

    pub(super) fn root(&self) -> Option<&Tree> {
        self.root.get_or_init(|| Reader::read(self.text)).as_ref()
    }

    /// Returns the text, with its byte order mark if it has one.
    pub(crate) fn whole(&self) -> &'t str {
        self.whole
    }

    /// Returns the file name in the user's spelling.
    pub(crate) fn name(&self) -> &'t str {
        self.name
    }

    /// Returns the position of a value. For a missing key, it is the position of its parent. For an entry of a
    /// comma-separated string, it is the position of the entry.
    pub(crate) fn place(&self, path: &KeyPath) -> Place<'t> {
        self.find(path, Part::Value)
    }

    /// Returns the position of a key.
    pub(crate) fn place_of_key(&self, path: &KeyPath) -> Place<'t> {
        self.find(path, Part::Key)
    }

    /// Returns the line of a key, or of its nearest parent that exists.
    pub(crate) fn line(&self, path: &KeyPath) -> usize {
        self.walk(path).0
    }

    /// Returns the line of a key, if the key exists.
    pub(crate) fn line_of_key(&self, path: &KeyPath) -> Option<usize> {
        let (line, all) = self.walk(path);
        all.then_some(line)
    }

    /// Follows a path as far as it exists. Returns the line at which it ends, and whether the whole path exists.
    fn walk(&self, path: &KeyPath) -> (usize, bool) {
        let (mut line, mut at) = (1, self.root());
        for step in &path.0 {
            at = match (step, at) {
                (PathStep::Key(name), Some(Tree::Map(_, entries))) => {
                    let found = entries.iter().rev().find(|(key, _, _)| key == name);
                    found.map(|(_, key, value)| (key.start.line(), value))
                }
                (PathStep::Index(index), Some(Tree::List(_, entries))) => {
                    entries.get(*index).map(|entry| (entry.start().0.line(), entry))
                }
                _ => None,
            }
            .map(|(found, value)| {
                line = found;
                value
            });
            if at.is_none() {
                return (line, false);
            }
        }
        (line, true)
    }

    fn find(&self, path: &KeyPath, part: Part) -> Place<'t> {
        // An empty file has no root. Missing keys are reported at its first character.
        let Some(mut at) = self.root() else { return self.at(1, 0, 1) };
        let (mut start, mut width) = at.start();
        for (i, step) in path.0.iter().enumerate() {
            match (step, at) {
                (PathStep::Key(name), Tree::Map(_, entries)) => {
                    // The last of several equal keys, because the last one is the duplicate.
                    let Some((_, key, value)) = entries.iter().rev().find(|(key, _, _)| key == name) else { break };
                    at = value;
                    let is_last = i + 1 == path.0.len();
                    // A collection begins on a later line than its key. Readers look for the key.
                    let span = match value {
                        Tree::Scalar(span) if !span.is_empty() && is_last && part == Part::Value => *span,
                        _ => *key,
                    };
                    (start, width) = (span.start, span.len());
                }
                (PathStep::Index(index), Tree::List(_, entries)) => {
                    let Some(entry) = entries.get(*index) else { break };
                    at = entry;
                    (start, width) = entry.start();
                }
                (PathStep::Index(index), Tree::Scalar(scalar)) => {
                    return self.comma_entry(*scalar, *index);
                }
                _ => break,
            }
        }
        self.at(start.line(), start.col(), width)
    }

    /// The position of a syntax error. Both numbers are from 1.
    pub(crate) fn at_line(&self, line: usize, column: usize) -> Place<'t> {
        self.at(line, column.saturating_sub(1), 1)
    }

    /// The position of a byte offset, from 0.
    pub(crate) fn at_byte(&self, position: usize) -> Place<'t> {
        let before = self.text.get(..position).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        self.at(before.matches('\n').count() + 1, before[line_start..].chars().count(), 1)
    }

    /// Duplicate keys of a mapping: the path of the second one and the line of the first.
    pub(super) fn duplicate_keys(&self) -> Vec<(KeyPath, usize)> {
        let mut found = Vec::new();
        if let Some(root) = self.root() {
            root.find_duplicates(&mut KeyPath::default(), &mut found);
        }
        found
    }

    /// `column` is from 0.
    fn at(&self, line: usize, column: usize, width: usize) -> Place<'t> {
        let excerpt = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let room = excerpt.chars().count().saturating_sub(column).max(1);
        Place { line, column: column + 1, width: width.clamp(1, room), excerpt: excerpt.trim_end() }
    }

    /// The position of an entry in `"a, b"`. A string over several lines is shown as a whole.
    fn comma_entry(&self, scalar: Span, index: usize) -> Place<'t> {
        let whole = self.at(scalar.start.line(), scalar.start.col(), scalar.len());
        let text: String = whole.excerpt.chars().skip(scalar.start.col()).take(scalar.len()).collect();
        if scalar.start.line() != scalar.end.line() || !text.contains(',') {
            return whole;
        }
        let (mut column, mut entry) = (scalar.start.col(), "");
        for (i, part) in text.split(',').enumerate() {
            entry = part;
            if i == index {
                break;
            }
            column += part.chars().count() + 1;
        }
        let lead = entry.chars().take_while(|c| c.is_whitespace() || matches!(c, '"' | '\'')).count();
        let trimmed = entry.trim_matches(|c: char| c.is_whitespace() || matches!(c, '"' | '\''));
        self.at(scalar.start.line(), column + lead, trimmed.chars().count())
    }
}

/// A part of `key: value`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

impl Tree {
    /// Start of the value and number of characters to mark: one for a collection.
    fn start(&self) -> (Marker, usize) {
        match self {
            Tree::Scalar(span) => (span.start, span.len()),
            Tree::List(span, _) | Tree::Map(span, _) => (span.start, 1),
        }
    }

    pub(super) fn span(&self) -> Span {
        match self {
            Tree::Scalar(span) | Tree::List(span, _) | Tree::Map(span, _) => *span,
        }
    }

    fn find_duplicates(&self, path: &mut KeyPath, found: &mut Vec<(KeyPath, usize)>) {
        match self {
            Tree::Scalar(_) => {}
            Tree::List(_, entries) => {
                for (i, entry) in entries.iter().enumerate() {
                    path.0.push(PathStep::Index(i));
                    entry.find_duplicates(path, found);
                    path.0.pop();
                }
            }
            Tree::Map(_, entries) => {
                let mut seen = std::collections::HashMap::new();
                for (key, span, value) in entries {
                    path.0.push(PathStep::Key(key.clone()));
                    if let Some(first) = seen.insert(key, span.start.line()) {
                        found.push((path.clone(), first));
                    }
                    value.find_duplicates(path, found);
                    path.0.pop();
                }
            }
        }
    }
}

/// Builds the tree from the events of the parser.
struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    depth: usize,
    ended: bool,
}

/// Name of a key that is a collection.
pub(super) const NON_STRING_KEY: &str = "?";

/// serde_yaml refuses deeper nesting. This bound keeps the reader, which also reads refused files, from overflowing its
/// stack.
const MAX_DEPTH: usize = 128;

impl<'t> Reader<'t> {
    fn read(text: &'t str) -> Option<Tree> {
        let mut reader = Reader { events: Parser::new_from_str(text), depth: 0, ended: false };
        loop {
            match reader.next()? {
                (Event::StreamStart | Event::DocumentStart(_), _) => {}
                (event, span) => return reader.tree(&event, span),
            }
        }
    }

    /// Returns the next event. None at the end, at the first error, and after the nesting limit was reached. All open
    /// collections end there, so that the rest of the text is not read at a wrong level.
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        let event = if self.ended { None } else { self.events.next_event().and_then(Result::ok) };
        self.ended = event.is_none();
        event
    }

    /// Reads the tree of a value. Stops at the first error without a message. The positions before the error are kept.
    fn tree(&mut self, event: &Event<'t>, span: Span) -> Option<Tree> {
        if self.depth == MAX_DEPTH {
            self.ended = true;
            return None;
        }
        self.depth += 1;
        let tree = match event {
            Event::SequenceStart(..) => {
                let (mut entries, mut end) = (Vec::new(), None);
                while let Some((event, span)) = self.next() {
                    if event == Event::SequenceEnd {
                        end = Some(span);
                        break;
                    }
                    match self.tree(&event, span) {
                        Some(entry) => entries.push(entry),
                        None => break,
                    }
                }
                Tree::List(collection_span(span, end, entries.last()), entries)
            }
            Event::MappingStart(..) => {
                let (mut entries, mut end): (Vec<(String, Span, Tree)>, _) = (Vec::new(), None);
                while let Some((event, key_span)) = self.next() {
                    let key = match event {
                        Event::MappingEnd => {
                            end = Some(key_span);
                            break;
                        }
                        Event::Scalar(text, ..) => text.into_owned(),
                        // A key that is not a string; serde reports it.
                        other => {
                            self.tree(&other, key_span);
                            NON_STRING_KEY.into()
                        }
                    };
                    let Some((event, span)) = self.next() else { break };
                    match self.tree(&event, span) {
                        Some(value) => entries.push((key, key_span, value)),
                        None => break,
                    }
                }
                let last = entries.last().map(|(_, _, value)| value);
                Tree::Map(collection_span(span, end, last), entries)
            }
            Event::Scalar(..) | Event::Alias(_) => Tree::Scalar(span),
            _ => return None,
        };
        self.depth -= 1;
        Some(tree)
    }
}

/// The span from the start of a collection to its closing bracket, or to the end of its last entry.
fn collection_span(start: Span, end: Option<Span>, last: Option<&Tree>) -> Span {
    let bracket = end.filter(|end| !end.is_empty()).map(|end| end.end);
    let end = bracket.or(last.map(|last| last.span().end)).unwrap_or(start.end);
    Span::new(start.start, end)
}
