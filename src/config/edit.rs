//! Edits the text of a configuration and keeps its formatting. Also compares two texts by lines.
//!
//! An edit keeps the form of the list or mapping: flow or block style, quoted or plain, YAML or JSON. If the form is
//! not supported, the result is None. Callers parse the edited text before they offer the edit.
//!
//! ```
//! use corsgate::config::{NewValue, Source};
//! use corsgate::problem::At;
//!
//! let source = Source::new("corsgate.yaml", "cors:\n  allow_methods: [GET, PUT]   # for now\n");
//! let (root, cors) = (At::root(), "cors");
//! let cors = root.key(cors);
//! assert_eq!(
//!     source.with_entry(&cors.key("allow_methods").path(), "DELETE").unwrap(),
//!     "cors:\n  allow_methods: [GET, PUT, DELETE]   # for now\n"
//! );
//! assert_eq!(
//!     source.with_key(&cors.path(), "allow_credentials", &NewValue::Literal("true")).unwrap(),
//!     "cors:\n  allow_methods: [GET, PUT]   # for now\n  allow_credentials: true\n"
//! );
//! ```

mod change;

use std::ops::Range;

use saphyr_parser::Marker;

use super::source::{Source, Tree};
use super::yaml::reads_as_text;
use crate::problem::{KeyPath, PathStep, Replacement};

/// A value to insert into the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum NewValue {
    /// A string. It is quoted if it needs quotes.
    Text(String),
    /// A number, boolean or null, inserted unchanged.
    Literal(&'static str),
    /// A list of strings. Each is quoted if it needs quotes.
    List(Vec<String>),
    /// A mapping of keys to values.
    Mapping(Vec<(&'static str, NewValue)>),
}

/// Lines of the old text, and the lines of the new text that replace them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hunk {
    /// Number of the first removed line, from 1. If no line is removed, the number of the line before which the new
    /// ones are inserted.
    pub(crate) line: usize,
    /// The old lines, without line feeds.
    pub(crate) removed: Vec<String>,
    /// The new lines, without line feeds.
    pub(crate) added: Vec<String>,
}

/// Returns the differences between two texts, by lines. Applied to the lines of `old`, they give `new`.
pub(crate) fn hunks(old: &str, new: &str) -> Vec<Hunk> {
    // Most parts of a large file are equal, and the comparison of blocks is faster than that of lines.
    let blocks = old.as_bytes().chunks(4096).zip(new.as_bytes().chunks(4096));
    let same: usize = blocks.take_while(|(a, b)| a == b).map(|(block, _)| block.len()).sum();
    let start = old.as_bytes()[..same].iter().rposition(|byte| *byte == b'\n').map_or(0, |feed| feed + 1);
    let before = old[..start].matches('\n').count();
    let (old, new) = (&old[start..], &new[start..]);
    let (old, new): (Vec<&str>, Vec<&str>) = (old.split('\n').collect(), new.split('\n').collect());
    let own = |lines: &[&str]| lines.iter().map(|line| (*line).to_owned()).collect();
    let changes = similar::capture_diff_slices(similar::Algorithm::Myers, &old, &new);
    let changes = changes.iter().filter(|change| change.tag() != similar::DiffTag::Equal);
    let hunk = |change: &similar::DiffOp| Hunk {
        line: before + change.old_range().start + 1,
        removed: own(&old[change.old_range()]),
        added: own(&new[change.new_range()]),
    };
    changes.map(hunk).collect()
}

/// The target of a path.
enum Target<'s> {
    Value(&'s Tree),
    /// An entry of a comma-separated string.
    Part(Range<usize>),
}

/// The syntax of the text.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Notation {
    Yaml,
    Json,
}

// === impl Source ===

impl Source<'_> {
    /// Returns the text with an entry added to a list: a flow or block sequence, a single string, or a comma-separated
    /// string. None if there is no such list, or if its form is not supported.
    pub fn with_entry(&self, list: &KeyPath, entry: &str) -> Option<String> {
        let Target::Value(tree) = self.node(list)? else { return None };
        let notation = self.notation();
        match tree {
            Tree::Scalar(_) => self.with_entry_in_string(self.range(tree), entry),
            Tree::List(_, entries) => {
                let quoted = scalar(entry, notation, self.quotes(entries));
                let Some(last) = entries.last() else {
                    return Some(self.replaced(self.range(tree), &format!("[{quoted}]")));
                };
                let last = self.range(last);
                if self.is_flow(tree) {
                    return Some(self.replaced(last.end..last.end, &self.separated(last.start, &quoted)));
                }
                // The indentation and the `- ` of the last entry.
                let lead = &self.text[self.line_start(last.start)..last.start];
                let is_dash = lead.trim_start().strip_prefix('-').is_some_and(|rest| rest.trim().is_empty());
                let end = self.line_end(last.end);
                is_dash.then(|| self.replaced(end..end, &format!("{}{lead}{quoted}", self.line_break(end))))
            }
            Tree::Map(..) => None,
        }
    }

    /// Returns the text with a key of a mapping set to a value. An existing value is replaced. None if there is no such
    /// mapping, or if its form is not supported.
    pub fn with_key(&self, mapping: &KeyPath, key: &str, value: &NewValue) -> Option<String> {
        let Target::Value(tree @ Tree::Map(_, entries)) = self.node(mapping)? else { return None };
        if entries.iter().any(|(known, _, _)| known == key) {
            let mut at = mapping.clone();
            at.0.push(PathStep::Key(key.to_owned()));
            return self.with_value(&at, value);
        }
        let notation = self.notation();
        let rendered = format!("{}: {}", render_key(key, notation), value.render(notation));
        let Some((_, last_key, last_value)) = entries.last() else {
            return Some(self.replaced(self.range(tree), &format!("{{ {rendered} }}")));
        };
        if self.is_flow(tree) {
            let (start, end) = (self.byte(last_key.start), self.range(last_value).end.max(self.byte(last_key.end)));
            return Some(self.replaced(end..end, &self.separated(start, &rendered)));
        }
        // The new key is inserted after the last key with a value on a single line, before keys with longer values.
        let is_short = |(_, key, value): &&(String, _, Tree)| {
            let key: &saphyr_parser::Span = key;
            let end = self.range(value).end.max(self.byte(key.end));
            !self.text[self.byte(key.start)..end].contains('\n')
        };
        let (_, key_span, value) = entries.iter().rev().find(is_short).or(entries.last())?;
        let start = self.byte(key_span.start);
        let indent: String = self.text[self.line_start(start)..start].chars().map(|_| ' ').collect();
        let end = self.line_end(self.range(value).end.max(self.byte(key_span.end)));
        Some(self.replaced(end..end, &format!("{}{indent}{rendered}", self.line_break(end))))
    }

    /// Returns the text with a value replaced: a scalar, a flow collection, or an entry of a comma-separated string.
    pub(crate) fn with_value(&self, at: &KeyPath, value: &NewValue) -> Option<String> {
        match self.node(at)? {
            Target::Part(range) => {
                let NewValue::Text(text) = value else { return None };
                fits_in_list_string(text).then(|| self.replaced(range, text))
            }
            Target::Value(tree) if matches!(tree, Tree::Scalar(_)) || self.is_flow(tree) => {
                let range = self.range(tree);
                let rendered = value.render(self.notation());
                // An empty value has no range that could be replaced.
                (!range.is_empty() && !self.is_special(&range)).then(|| self.replaced(range, &rendered))
            }
            Target::Value(_) => None,
        }
    }

    /// Returns the text with the replacement of a problem applied.
    pub(crate) fn with_replacement(&self, at: &KeyPath, replacement: &Replacement) -> Option<String> {
        match replacement {
            Replacement::Text(text) => self.with_value(at, &NewValue::Text(text.clone())),
            Replacement::Literal(word) => self.with_value(at, &NewValue::Literal(word)),
            Replacement::Key(name) => self.with_key_renamed(at, name),
            Replacement::Nothing => self.without(at),
        }
    }

    /// Returns the text with a key renamed.
    pub(crate) fn with_key_renamed(&self, at: &KeyPath, name: &str) -> Option<String> {
        let (PathStep::Key(key), parent) = at.0.split_last()? else { return None };
        let Target::Value(Tree::Map(_, entries)) = self.node(&KeyPath(parent.to_vec()))? else { return None };
        let (_, span, _) = entries.iter().rev().find(|(known, _, _)| known == key)?;
        let range = self.byte(span.start)..self.byte(span.end);
        Some(self.replaced(range, &render_key(name, self.notation())))
    }

    /// Returns the text without an entry of a list, or without a key and its value. None if the collection has no other
    /// entry.
    pub(crate) fn without(&self, at: &KeyPath) -> Option<String> {
        let (last, parent) = at.0.split_last()?;
        let parent_path = KeyPath(parent.to_vec());
        let Target::Value(parent) = self.node(&parent_path)? else { return None };
        let (ranges, position): (Vec<Range<usize>>, usize) = match (parent, last) {
            (Tree::List(_, entries), PathStep::Index(index)) => {
                (entries.iter().map(|entry| self.range(entry)).collect(), *index)
            }
            (Tree::Map(_, entries), PathStep::Key(key)) => {
                let range = |(_, key, value): &(String, saphyr_parser::Span, Tree)| {
                    self.byte(key.start)..self.range(value).end.max(self.byte(key.end))
                };
                (entries.iter().map(range).collect(), entries.iter().rposition(|(known, _, _)| known == key)?)
            }
            (Tree::Scalar(_), PathStep::Index(index)) => {
                let Target::Part(range) = self.node(at)? else { return None };
                return self.without_part(self.range(parent), &range, *index);
            }
            _ => return None,
        };
        let range = ranges.get(position)?.clone();
        if ranges.len() < 2 {
            return None;
        }
        if self.is_flow(parent) {
            let cut = match ranges.get(position + 1) {
                Some(next) => range.start..next.start,
                None => ranges[position - 1].end..range.end,
            };
            return Some(self.replaced(cut, ""));
        }
        let line = self.line_start(range.start);
        let lead = self.text[line..range.start].trim_start();
        let is_dash = |lead: &str| lead.strip_prefix('-').is_some_and(|rest| rest.trim().is_empty());
        match (last, ranges.get(position + 1)) {
            // The first key of a block entry is on the line of the dash, so the next key moves there.
            (PathStep::Key(_), Some(next)) if is_dash(lead) => Some(self.replaced(range.start..next.start, "")),
            (PathStep::Key(_), _) if !lead.is_empty() => None,
            (PathStep::Index(_), _) if !is_dash(lead) => None,
            _ => {
                let end = self.line_end(range.end);
                let end = (end + self.line_break(end).len()).min(self.text.len());
                Some(self.replaced(line..end, ""))
            }
        }
    }

    // --- places

    fn node(&self, path: &KeyPath) -> Option<Target<'_>> {
        let mut at = self.root()?;
        for (i, step) in path.0.iter().enumerate() {
            at = match (step, at) {
                (PathStep::Key(name), Tree::Map(_, entries)) => {
                    entries.iter().rev().find(|(key, _, _)| key == name).map(|(_, _, value)| value)?
                }
                (PathStep::Index(index), Tree::List(_, entries)) => entries.get(*index)?,
                (PathStep::Index(index), Tree::Scalar(_)) if i + 1 == path.0.len() => {
                    return self.part(self.range(at), *index).map(Target::Part);
                }
                _ => return None,
            };
        }
        Some(Target::Value(at))
    }

    /// Returns the range of an entry of a comma-separated string on one line, without white space. If the string has no
    /// comma, the range is the whole string.
    fn part(&self, string: Range<usize>, index: usize) -> Option<Range<usize>> {
        let inner = self.inner(&string)?;
        let mut start = inner.start;
        for (i, part) in self.text[inner].split(',').enumerate() {
            if i == index {
                let lead = part.len() - part.trim_start().len();
                return Some(start + lead..start + lead + part.trim().len());
            }
            start += part.len() + 1;
        }
        None
    }

    /// Returns the range between the quotes of a string, or the range of a plain string. None for other forms.
    fn inner(&self, string: &Range<usize>) -> Option<Range<usize>> {
        let text = &self.text[string.clone()];
        if self.is_special(string) || text.contains(['\n', '\\']) {
            return None;
        }
        match text.as_bytes() {
            [b'"' | b'\'', .., b'"' | b'\''] => Some(string.start + 1..string.end - 1),
            [] => None,
            _ => Some(string.clone()),
        }
    }

    /// Whether a value has an alias, an anchor or a tag, or has several lines. Such a value is not edited.
    fn is_special(&self, range: &Range<usize>) -> bool {
        self.text[range.clone()].starts_with(['*', '&', '!', '|', '>']) || self.text[range.clone()].contains('\n')
    }

    fn is_flow(&self, tree: &Tree) -> bool {
        let opens = if matches!(tree, Tree::List(..)) { '[' } else { '{' };
        !matches!(tree, Tree::Scalar(_)) && self.text[self.start(tree)..].starts_with(opens)
    }

    /// Returns the start of a value, after its anchor if it has one. So an edit also applies to all aliases.
    fn start(&self, tree: &Tree) -> usize {
        let start = self.byte(tree.span().start);
        let text = &self.text[start..];
        match text.strip_prefix('&').filter(|_| !matches!(tree, Tree::Scalar(_))) {
            Some(anchored) => {
                let name = anchored.find(char::is_whitespace).unwrap_or(anchored.len());
                start + 1 + name + (anchored.len() - name - anchored[name..].trim_start().len())
            }
            None => start,
        }
    }

    fn range(&self, tree: &Tree) -> Range<usize> {
        let span = tree.span();
        let (start, end) = (self.start(tree), self.byte(span.end));
        let end = end.max(start);
        match tree {
            Tree::Scalar(_) => start..start + quoted_length(&self.text[start..end]).unwrap_or(end - start),
            // The parser's end is after the white space that follows.
            Tree::List(..) | Tree::Map(..) => start..start + self.text[start..end].trim_end().len(),
        }
    }

    /// Returns the byte offset of a marker. The parser counts characters.
    fn byte(&self, marker: Marker) -> usize {
        let index = marker.index();
        match self.text.is_ascii() {
            true => index.min(self.text.len()),
            false => self.text.char_indices().nth(index).map_or(self.text.len(), |(byte, _)| byte),
        }
    }

    fn line_start(&self, byte: usize) -> usize {
        self.text[..byte].rfind('\n').map_or(0, |feed| feed + 1)
    }

    /// Returns the end of a line: the offset of its line break, which may start with a carriage return.
    fn line_end(&self, byte: usize) -> usize {
        // A text over several lines ends at the start of the next line.
        let byte = if self.text[..byte].ends_with('\n') { byte - 1 } else { byte };
        let end = self.text[byte..].find('\n').map_or(self.text.len(), |feed| byte + feed);
        if self.text[..end].ends_with('\r') { end - 1 } else { end }
    }

    /// Returns the line break at `end`. At the end of the text it is the line break of the other lines.
    fn line_break(&self, end: usize) -> &'static str {
        match self.text[end..].starts_with("\r\n") || (end == self.text.len() && self.text.contains("\r\n")) {
            true => "\r\n",
            false => "\n",
        }
    }

    // --- writing

    fn notation(&self) -> Notation {
        if self.text.trim_start().starts_with('{') { Notation::Json } else { Notation::Yaml }
    }

    /// Returns the quotes that all strings of a list have. None if they differ.
    fn quotes(&self, entries: &[Tree]) -> Option<char> {
        let quote = |entry: &Tree| self.text[self.range(entry)].chars().next().filter(|c| matches!(c, '"' | '\''));
        let first = quote(entries.first()?)?;
        entries.iter().all(|entry| quote(entry) == Some(first)).then_some(first)
    }

    /// Returns a new entry of a flow collection with its separator. It gets its own line if the last entry has its own
    /// line.
    fn separated(&self, last_start: usize, rendered: &str) -> String {
        let lead = &self.text[self.line_start(last_start)..last_start];
        match lead.trim().is_empty() && self.line_start(last_start) > 0 {
            true => format!(",{}{lead}{rendered}", self.line_break(self.line_end(last_start))),
            false => format!(", {rendered}"),
        }
    }

    fn with_entry_in_string(&self, string: Range<usize>, entry: &str) -> Option<String> {
        let inner = self.inner(&string)?;
        let text = &self.text[string.clone()];
        // The value of a variable can have several entries.
        if (text.contains(',') || text.contains("${")) && fits_in_list_string(entry) {
            return Some(self.replaced(inner.end..inner.end, &format!(", {entry}")));
        }
        let entry = scalar(entry, self.notation(), None);
        (!text.contains(',') && !text.contains("${")).then(|| self.replaced(string, &format!("[{text}, {entry}]")))
    }

    fn without_part(&self, string: Range<usize>, part: &Range<usize>, index: usize) -> Option<String> {
        let inner = self.inner(&string)?;
        if !self.text[inner.clone()].contains(',') {
            return None;
        }
        let cut = match index {
            0 => inner.start..self.part(string, 1)?.start,
            _ => self.part(string, index - 1)?.end..part.end,
        };
        Some(self.replaced(cut, ""))
    }

    /// Returns the whole text with a range replaced. The byte order mark stays.
    fn replaced(&self, range: Range<usize>, with: &str) -> String {
        let mark = &self.whole()[..self.whole().len() - self.text.len()];
        [mark, &self.text[..range.start], with, &self.text[range.end..]].concat()
    }
}

/// Whether an entry has no character that would end the string or the entry.
fn fits_in_list_string(entry: &str) -> bool {
    !entry.is_empty() && entry.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'"' | b'\'' | b'\\' | b'#'))
}

impl NewValue {
    fn render(&self, notation: Notation) -> String {
        match self {
            NewValue::Text(text) => scalar(text, notation, None),
            NewValue::Literal(word) => (*word).to_owned(),
            NewValue::List(texts) => {
                let texts: Vec<String> = texts.iter().map(|text| scalar(text, notation, None)).collect();
                format!("[{}]", texts.join(", "))
            }
            NewValue::Mapping(entries) => {
                let entries: Vec<String> = entries
                    .iter()
                    .map(|(key, value)| format!("{}: {}", render_key(key, notation), value.render(notation)))
                    .collect();
                format!("{{ {} }}", entries.join(", "))
            }
        }
    }
}

fn render_key(key: &str, notation: Notation) -> String {
    match notation {
        Notation::Yaml => key.to_owned(),
        Notation::Json => format!("\"{key}\""),
    }
}

/// Writes a string in YAML or JSON. It is quoted if it needs quotes, or if `quotes` is set.
fn scalar(text: &str, notation: Notation, quotes: Option<char>) -> String {
    let double = || serde_json::Value::String(text.to_owned()).to_string();
    match (notation, quotes) {
        (Notation::Json, _) | (_, Some('"')) => double(),
        (_, Some('\'')) if !text.contains('\'') && !text.contains(char::is_control) => format!("'{text}'"),
        _ if is_plain(text) => text.to_owned(),
        _ => double(),
    }
}

/// Writes a string in YAML, with quotes if it needs them.
pub(super) fn yaml_scalar(text: &str) -> String {
    scalar(text, Notation::Yaml, None)
}

/// The length of a string in quotes. The parser's span of such a string may include a comment behind it. None for other
/// texts.
fn quoted_length(text: &str) -> Option<usize> {
    let quote = text.chars().next().filter(|c| matches!(c, '"' | '\''))?;
    let mut rest = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = rest.next() {
        match c {
            '\\' if quote == '"' => drop(rest.next()),
            // Two single quotes stand for one.
            '\'' if quote == '\'' && rest.peek().is_some_and(|(_, next)| *next == '\'') => drop(rest.next()),
            c if c == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// Whether a text that begins in this column ends before the column `widest`, and is one line.
fn fits_on_line(text: &str, column: usize, widest: usize) -> bool {
    !text.contains('\n') && column + text.chars().count() <= widest
}

/// Whether a string needs no quotes, also in a flow collection.
fn is_plain(text: &str) -> bool {
    let bytes_are_plain =
        text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'/' | b':' | b'~' | b'+'));
    bytes_are_plain && !text.ends_with(':') && !text.starts_with(['-', ':']) && reads_as_text(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Parses `a.b[0].c`.
    fn path(text: &str) -> KeyPath {
        let steps = text.split(['.', '[']).filter(|step| !step.is_empty());
        KeyPath(
            steps
                .map(|step| match step.strip_suffix(']') {
                    Some(index) => PathStep::Index(index.parse().unwrap()),
                    None => PathStep::Key(step.to_owned()),
                })
                .collect(),
        )
    }

    #[test]
    fn an_entry_is_added_in_the_form_of_the_list() {
        for (before, entry, after) in [
            ("a: [x, y]", "z", "a: [x, y, z]"),
            ("a: [x, y] # why", "z", "a: [x, y, z] # why"),
            ("a: [x, y,]", "z", "a: [x, y, z,]"),
            ("a: []", "z", "a: [z]"),
            ("a: &all [x] # why\nb: *all", "z", "a: &all [x, z] # why\nb: *all"),
            ("a: [\"x\", \"y\"]", "z", "a: [\"x\", \"y\", \"z\"]"),
            ("a: ['x']", "z", "a: ['x', 'z']"),
            ("a: [x]", "https://*.z", "a: [x, \"https://*.z\"]"),
            ("a: [x]", "null", "a: [x, \"null\"]"),
            ("a: [x]", "1", "a: [x, \"1\"]"),
            ("a: [\n  x,\n  y\n]", "z", "a: [\n  x,\n  y,\n  z\n]"),
            ("a:\n  - x\n  - y # why\nb: 1\n", "z", "a:\n  - x\n  - y # why\n  - z\nb: 1\n"),
            ("a:\r\n  - x\r\nb: 1\r\n", "z", "a:\r\n  - x\r\n  - z\r\nb: 1\r\n"),
            ("a:\n- x", "z", "a:\n- x\n- z"),
            ("a: x", "z", "a: [x, z]"),
            ("a: \"*\"", "z", "a: [\"*\", z]"),
            ("a: x, y # why", "z", "a: x, y, z # why"),
            ("a: \"x, y\"", "z", "a: \"x, y, z\""),
            ("é: ü\na: [x]", "z", "é: ü\na: [x, z]"),
            ("{ \"a\": [\"x\"] }", "z", "{ \"a\": [\"x\", \"z\"] }"),
            ("{\n  \"a\": \"x\"\n}", "z", "{\n  \"a\": [\"x\", \"z\"]\n}"),
            ("\u{feff}a: [x]", "z", "\u{feff}a: [x, z]"),
        ] {
            assert_eq!(Source::new("", before).with_entry(&path("a"), entry).as_deref(), Some(after), "{before}");
        }
    }

    #[test]
    fn a_form_that_is_not_understood_gives_none() {
        for before in ["b: &x [1]\na: *x", "a: |\n  x\n", "a: { x: 1 }", "b: 1", "a:", "", "a: \"x,\\\n  y\""] {
            assert_eq!(Source::new("", before).with_entry(&path("a"), "z"), None, "{before}");
        }
    }

    #[test]
    fn a_key_is_added_in_the_form_of_the_mapping() {
        let yes = NewValue::Literal("true");
        for (before, at, after) in [
            ("a: { x: 1 }", "a", "a: { x: 1, k: true }"),
            ("a: {}", "a", "a: { k: true }"),
            ("a: { x: [1] }", "a", "a: { x: [1], k: true }"),
            ("a: { x: { y: 1 } } # why", "a", "a: { x: { y: 1 }, k: true } # why"),
            ("a:\n  x: 1\n\nb: 1", "a", "a:\n  x: 1\n  k: true\n\nb: 1"),
            ("a:\n  x: 1\n  y:\n    - 1\n", "a", "a:\n  x: 1\n  k: true\n  y:\n    - 1\n"),
            ("a:\n  y:\n    - 1\n", "a", "a:\n  y:\n    - 1\n  k: true\n"),
            ("a:\n  - x: 1\n    y: 2\n", "a[0]", "a:\n  - x: 1\n    y: 2\n    k: true\n"),
            ("a:\n  - x: 1\n", "a[0]", "a:\n  - x: 1\n    k: true\n"),
            ("a: { k: false, x: 1 }", "a", "a: { k: true, x: 1 }"),
            ("a:\n  k: [x, y]\n", "a", "a:\n  k: true\n"),
            ("{\"a\":{\"x\":1}}", "a", "{\"a\":{\"x\":1, \"k\": true}}"),
            ("{\n  \"a\": {\n    \"x\": 1\n  }\n}", "a", "{\n  \"a\": {\n    \"x\": 1,\n    \"k\": true\n  }\n}"),
        ] {
            assert_eq!(Source::new("", before).with_key(&path(at), "k", &yes).as_deref(), Some(after), "{before}");
        }
    }

    #[test]
    fn a_value_is_replaced_and_a_key_is_renamed() {
        let text = |value: &str| NewValue::Text(value.to_owned());
        for (before, at, value, after) in [
            ("a: x # why", "a", "z", "a: z # why"),
            ("a: \"x\"   # why \"x\"\nb: 1", "a", "z", "a: z   # why \"x\"\nb: 1"),
            ("a: 'x''y' # why\nb: 1", "a", "z", "a: z # why\nb: 1"),
            ("a: [x, 'y']", "a[1]", "z", "a: [x, z]"),
            ("a: x, y, w", "a[1]", "z", "a: x, z, w"),
            ("a: \"x ,y\"", "a[0]", "z", "a: \"z ,y\""),
            ("a: x", "a[0]", "z", "a: z"),
            ("a:\n  - x\n", "a[0]", "z", "a:\n  - z\n"),
        ] {
            assert_eq!(Source::new("", before).with_value(&path(at), &text(value)).as_deref(), Some(after), "{before}");
        }
        let named = |before: &str| Source::new("", before).with_key_renamed(&path("a.b"), "z");
        assert_eq!(named("a: { b: 1 }").as_deref(), Some("a: { z: 1 }"));
        assert_eq!(named("{\"a\": {\"b\": 1}}").as_deref(), Some("{\"a\": {\"z\": 1}}"));
    }

    #[test]
    fn an_entry_is_removed_with_its_separator() {
        for (before, at, after) in [
            ("a: [x, y]", "a[0]", Some("a: [y]")),
            ("a: [x, y]", "a[1]", Some("a: [x]")),
            ("a: [x]", "a[0]", None),
            ("a: x, y", "a[0]", Some("a: y")),
            ("a: x, y", "a[1]", Some("a: x")),
            ("a: x,", "a[1]", Some("a: x")),
            ("a:\n  - x\n  - y\n", "a[0]", Some("a:\n  - y\n")),
            ("a: { x: 1, y: 2 }", "a.x", Some("a: { y: 2 }")),
            ("a: { x: 1, y: 2 }", "a.y", Some("a: { x: 1 }")),
            ("a:\n  x: 1\n  y:\n    z: 1\n    w: 2\n", "a.y", Some("a:\n  x: 1\n")),
            ("a:\n  - x: 1\n    y: 2\n", "a[0].x", Some("a:\n  - y: 2\n")),
            ("a:\n  - x: 1\n    y: 2\n", "a[0].y", Some("a:\n  - x: 1\n")),
            ("a:\n  x: 1\n", "a.x", None),
        ] {
            assert_eq!(Source::new("", before).without(&path(at)).as_deref(), after, "{before} without {at}");
        }
    }

    #[test]
    fn hunks_contain_the_lines_that_differ() {
        let hunk = |line, removed: &[&str], added: &[&str]| Hunk {
            line,
            removed: removed.iter().map(|line| (*line).to_owned()).collect(),
            added: added.iter().map(|line| (*line).to_owned()).collect(),
        };
        assert_eq!(hunks("a\nb\nc\n", "a\nx\nc\n"), [hunk(2, &["b"], &["x"])]);
        assert_eq!(hunks("a\nc", "a\nb\nc"), [hunk(2, &[], &["b"])]);
        assert_eq!(hunks("a", "a\nb"), [hunk(2, &[], &["b"])]);
        assert_eq!(hunks("a\nb\n", "a\n"), [hunk(2, &["b"], &[])]);
        assert_eq!(hunks("a", "a"), []);
        // A text of more than one block.
        let long = "é line\n".repeat(2000);
        assert_eq!(hunks(&format!("{long}a\nb"), &format!("{long}a\nx\nb")), [hunk(2002, &[], &["x"])]);
        assert_eq!(hunks(&long, &format!("{long}x\n")), [hunk(2001, &[], &["x"])]);
        assert_eq!(hunks(&format!("a\n{long}"), &long), [hunk(1, &["a"], &[])]);
    }
}
