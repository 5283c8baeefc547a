//! A configuration's text with its name: turns the path of a key into line, column and excerpt.

use saphyr_parser::{Event, Marker, Parser, Span};

use crate::problem::{KeyPath, PathStep};

/// A file's name and text, and where its keys are.
#[derive(Debug)]
pub struct Source<'t> {
    name: &'t str,
    whole: &'t str,
    /// Without the byte order mark, as the parser counts.
    pub(super) text: &'t str,
    pub(super) root: Option<Tree>,
}

/// Where something stands, for people and editors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Place<'t> {
    /// From 1.
    pub(crate) line: usize,
    /// From 1, in characters.
    pub(crate) column: usize,
    /// How many characters of the line are meant.
    pub(crate) width: usize,
    /// The line, without its end.
    pub(crate) excerpt: &'t str,
}

/// A YAML value with the spans of its keys and values. The span of a list or mapping ends where the last of it does.
#[derive(Debug)]
pub(super) enum Tree {
    Scalar(Span),
    List(Span, Vec<Tree>),
    Map(Span, Vec<(String, Span, Tree)>),
}

impl<'t> Source<'t> {
    /// Reads the positions of a text that need not be valid.
    pub fn new(name: &'t str, text: &'t str) -> Self {
        let whole = text;
        let text = super::without_mark(whole);
        Source { name, whole, text, root: Reader::read(text) }
    }

    /// The text, with its byte order mark if it has one.
    pub(crate) fn whole(&self) -> &'t str {
        self.whole
    }

    /// The file's name, as the user gave it.
    pub(crate) fn name(&self) -> &'t str {
        self.name
    }

    /// Where the value of a key is. One that is missing is where its parent is; an entry of a comma-separated string
    /// is within it.
    pub(crate) fn place(&self, path: &KeyPath) -> Place<'t> {
        self.find(path, Part::Value)
    }

    /// Where a key itself is.
    pub(crate) fn place_of_key(&self, path: &KeyPath) -> Place<'t> {
        self.find(path, Part::Key)
    }

    /// The line of a key, or of the nearest one around it that is there.
    pub(crate) fn line(&self, path: &KeyPath) -> usize {
        self.walk(path).0
    }

    /// The line of a key that is there.
    pub(crate) fn line_of_key(&self, path: &KeyPath) -> Option<usize> {
        let (line, all) = self.walk(path);
        all.then_some(line)
    }

    /// How far a path leads: to which line, and whether to its end.
    fn walk(&self, path: &KeyPath) -> (usize, bool) {
        let (mut line, mut at) = (1, self.root.as_ref());
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
        // An empty file has no root, and whatever it lacks is missing at its beginning.
        let Some(mut at) = self.root.as_ref() else { return self.at(1, 0, 1) };
        let (mut start, mut width) = at.start();
        for (i, step) in path.0.iter().enumerate() {
            match (step, at) {
                (PathStep::Key(name), Tree::Map(_, entries)) => {
                    // The last of two, because the last one is the one that should not be there.
                    let Some((_, key, value)) = entries.iter().rev().find(|(key, _, _)| key == name) else { break };
                    at = value;
                    let is_last = i + 1 == path.0.len();
                    // A mapping or list begins on a later line than its key, and the key is what people look for.
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

    /// Where a syntax error is, from its own line and column (both from 1).
    pub(crate) fn at_line(&self, line: usize, column: usize) -> Place<'t> {
        self.at(line, column.saturating_sub(1), 1)
    }

    /// Where a byte is, counted from 0.
    pub(crate) fn at_byte(&self, position: usize) -> Place<'t> {
        let before = self.text.get(..position).unwrap_or(self.text);
        let line_start = before.rfind('\n').map_or(0, |end| end + 1);
        self.at(before.matches('\n').count() + 1, before[line_start..].chars().count(), 1)
    }

    /// Keys that stand twice in one mapping: the second one's path, and the line of the first.
    pub(super) fn keys_that_stand_twice(&self) -> Vec<(KeyPath, usize)> {
        let mut found = Vec::new();
        if let Some(root) = &self.root {
            root.find_twice(&mut KeyPath::default(), &mut found);
        }
        found
    }

    /// `column` from 0.
    fn at(&self, line: usize, column: usize, width: usize) -> Place<'t> {
        let excerpt = self.text.lines().nth(line.saturating_sub(1)).unwrap_or_default();
        let room = excerpt.chars().count().saturating_sub(column).max(1);
        Place { line, column: column + 1, width: width.clamp(1, room), excerpt: excerpt.trim_end() }
    }

    /// One entry of `"a, b"`. Only for strings on one line; others are shown whole.
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

/// Which part of `key: value` is meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Part {
    Key,
    Value,
}

impl Tree {
    /// Where it begins, and how many characters to mark: of a list or mapping only the first.
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

    fn find_twice(&self, path: &mut KeyPath, found: &mut Vec<(KeyPath, usize)>) {
        match self {
            Tree::Scalar(_) => {}
            Tree::List(_, entries) => {
                for (i, entry) in entries.iter().enumerate() {
                    path.0.push(PathStep::Index(i));
                    entry.find_twice(path, found);
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
                    value.find_twice(path, found);
                    path.0.pop();
                }
            }
        }
    }
}

/// Builds the tree from the parser's events.
struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    depth: usize,
    ended: bool,
}

/// What a key is called that is a list or a mapping.
pub(super) const NO_WORD: &str = "?";

/// serde_yaml refuses what is nested deeper; until it does, nothing here may run out of stack.
const DEEPEST: usize = 128;

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

    /// None at the end, at the first error, and once the text turned out to be nested too deeply: what is open there
    /// is closed everywhere, or the rest of it would be taken for something else.
    fn next(&mut self) -> Option<(Event<'t>, Span)> {
        let event = if self.ended { None } else { self.events.next_event().and_then(Result::ok) };
        self.ended = event.is_none();
        event
    }

    /// Ends quietly at the first error: what was read until there still has its places.
    fn tree(&mut self, event: &Event<'t>, span: Span) -> Option<Tree> {
        if self.depth == DEEPEST {
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
                Tree::List(whole(span, end, entries.last()), entries)
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
                        // A key that is no string is no key of ours; serde says so.
                        other => {
                            self.tree(&other, key_span);
                            NO_WORD.into()
                        }
                    };
                    let Some((event, span)) = self.next() else { break };
                    match self.tree(&event, span) {
                        Some(value) => entries.push((key, key_span, value)),
                        None => break,
                    }
                }
                let last = entries.last().map(|(_, _, value)| value);
                Tree::Map(whole(span, end, last), entries)
            }
            Event::Scalar(..) | Event::Alias(_) => Tree::Scalar(span),
            _ => return None,
        };
        self.depth -= 1;
        Some(tree)
    }
}

/// From the start of a collection to its end: a closing bracket, or where its last entry ends.
fn whole(start: Span, end: Option<Span>, last: Option<&Tree>) -> Span {
    let bracket = end.filter(|end| !end.is_empty()).map(|end| end.end);
    let end = bracket.or(last.map(|last| last.span().end)).unwrap_or(start.end);
    Span::new(start.start, end)
}
