//! Edits a text so that it has other values, and keeps the text of all values that stay.
//!
//! The old and the new values are compared. Each difference becomes an edit of a range of the text: a value is replaced,
//! a key or an entry is added or removed. Comments and formatting around the edits stay. At the end the new text is read
//! again; if it does not have exactly the new values, the edits are not used.

use std::ops::Range;

use saphyr_parser::Span;
use serde_json::{Map, Value};

use super::{Notation, fits_on_line, is_plain};
use crate::config::source::{Source, Tree};
use crate::config::yaml;
use crate::notation::quoted;

/// Longest line that is written for a collection in flow style, such as `{ a: 1 }`.
const WIDEST: usize = 100;
/// Spaces by which a block is indented.
const STEP: usize = 2;

/// The edits of a text. They do not overlap.
struct Edits<'s, 't> {
    source: &'s Source<'t>,
    notation: Notation,
    /// Depth from which a value whose form is not understood may be replaced as a whole.
    floor: usize,
    /// Whether the value at this depth is replaced even if its form is understood.
    whole: bool,
    made: Vec<(Range<usize>, String)>,
}

/// An entry of a mapping.
type Entry = (String, Span, Tree);

/// Whether an edit could be made.
type Done = Option<()>;

impl Source<'_> {
    /// The text with other values. `old` are the values that it has. The text of all values above `floor`, which is the
    /// number of steps to a value, is kept byte by byte. None if the form of the text is not understood.
    pub(crate) fn with_values(&self, old: &Value, new: &Value, floor: usize) -> Option<String> {
        let attempt = |whole| {
            let mut edits = Edits { source: self, notation: self.notation(), floor, whole, made: Vec::new() };
            match self.root() {
                Some(root) => edits.change(root, None, old, new, 0)?,
                None => return None,
            }
            let text = edits.apply()?;
            (yaml::value(crate::config::without_mark(&text)).ok()? == *new).then_some(text)
        };
        attempt(false).or_else(|| attempt(true))
    }
}

// === impl Edits ===

impl Edits<'_, '_> {
    /// Changes a value. `colon` is the position behind the colon of its key.
    fn change(&mut self, tree: &Tree, colon: Option<usize>, old: &Value, new: &Value, depth: usize) -> Done {
        if old == new {
            return Some(());
        }
        let made = self.made.len();
        let is_whole = self.whole && depth == self.floor;
        let changed = match (tree, old, new) {
            _ if is_whole => None,
            (Tree::Map(_, entries), Value::Object(old), Value::Object(new)) if !new.is_empty() => {
                self.mapping(tree, entries, old, new, depth)
            }
            (Tree::List(_, entries), Value::Array(old), Value::Array(new)) if !new.is_empty() => {
                self.list(tree, entries, old, new, depth)
            }
            _ => None,
        };
        changed.or_else(|| {
            self.made.truncate(made);
            // Above the floor, only a collection without other entries may be replaced.
            let is_alone = is_empty(old) || (depth + 1 == self.floor && is_empty(new));
            (depth >= self.floor || is_alone).then(|| self.replace(tree, colon, new))?
        })
    }

    fn mapping(
        &mut self,
        tree: &Tree,
        entries: &[Entry],
        old: &Map<String, Value>,
        new: &Map<String, Value>,
        depth: usize,
    ) -> Done {
        if entries.len() != old.len() || entries.iter().any(|(key, ..)| !old.contains_key(key)) {
            return None;
        }
        let ranges: Vec<Range<usize>> = entries.iter().map(|entry| self.entry(entry)).collect();
        let kept: Vec<bool> = entries.iter().map(|(key, ..)| new.contains_key(key)).collect();
        for (key, span, tree) in entries {
            if let (Some(old), Some(new)) = (old.get(key), new.get(key)) {
                let colon = self.colon(*span);
                self.change(tree, colon, old, new, depth + 1)?;
            }
        }
        let added: Vec<(&String, &Value)> = new.iter().filter(|(key, _)| !old.contains_key(*key)).collect();
        if self.is_flow(tree) {
            let added = added.iter().map(|(key, value)| self.flow_entry(key, value)).collect::<Vec<_>>();
            return self.flow_collection(&ranges, &kept, &added);
        }
        let column = self.column(ranges.first()?.start);
        self.remove_keys(&ranges, &kept)?;
        if added.is_empty() {
            return Some(());
        }
        // Behind the last key on a single line, before keys with longer values. At the top level behind the last key.
        let is_short = |at: &usize| depth > 0 && !self.source.text[ranges[*at].clone()].contains('\n');
        let all = || (0..ranges.len()).rev().filter(|at| kept[*at]);
        let after = all().find(is_short).or_else(|| all().next());
        // A section of the file gets its objects on lines of their own.
        let may_be_leaf = depth > 0;
        let text: Vec<String> =
            added.iter().map(|(key, value)| self.block_entry(key, value, column, may_be_leaf)).collect();
        let indent = " ".repeat(column);
        let text = text.join(&format!("\n{indent}"));
        let end = self.source.line_end(ranges[after?].end);
        self.add(end..end, format!("\n{indent}{text}"));
        Some(())
    }

    /// Removes the keys of a block mapping that are not kept, with their lines.
    fn remove_keys(&mut self, ranges: &[Range<usize>], kept: &[bool]) -> Done {
        for (at, range) in ranges.iter().enumerate().filter(|(at, _)| !kept[*at]) {
            let start = self.source.line_start(range.start);
            if self.source.text[start..range.start].trim().is_empty() {
                let lines = self.lines(range);
                self.add(lines, String::new());
                continue;
            }
            // The first key of an entry is on the line of its dash. The next key moves there.
            let next = ranges.get(at + 1).filter(|_| at == 0 && kept[1])?;
            self.add(range.start..next.start, String::new());
        }
        Some(())
    }

    fn list(&mut self, tree: &Tree, entries: &[Tree], old: &[Value], new: &[Value], depth: usize) -> Done {
        if entries.len() != old.len() {
            return None;
        }
        // The equal entries at both ends stay.
        let same = |(a, b): &(&Value, &Value)| a == b;
        let front = old.iter().zip(new).take_while(same).count();
        let most = old.len().min(new.len()) - front;
        let back = old.iter().rev().zip(new.iter().rev()).take_while(same).count().min(most);
        let (old_middle, new_middle) = (&old[front..old.len() - back], &new[front..new.len() - back]);
        let texts = |values: &[Value]| values.iter().map(Value::to_string).collect::<Vec<_>>();
        let changes = similar::capture_diff_slices(similar::Algorithm::Myers, &texts(old_middle), &texts(new_middle));
        let mut kept = vec![true; entries.len()];
        // New entries, and the entry before which each is written.
        let mut inserted: Vec<(usize, &Value)> = Vec::new();
        for change in changes {
            let (old_range, new_range) = (change.old_range(), change.new_range());
            if change.tag() == similar::DiffTag::Equal {
                continue;
            }
            let pairs = old_range.len().min(new_range.len());
            for pair in 0..pairs {
                let (at, of_new) = (front + old_range.start + pair, new_range.start + pair);
                self.change(&entries[at], None, &old[at], &new_middle[of_new], depth + 1)?;
            }
            old_range.skip(pairs).for_each(|at| kept[front + at] = false);
            let before = front + change.old_range().end;
            inserted.extend(new_range.skip(pairs).map(|at| (before, &new_middle[at])));
        }
        if self.is_flow(tree) {
            let ranges: Vec<Range<usize>> = entries.iter().map(|entry| self.source.range(entry)).collect();
            let (between, at_end): (Vec<_>, Vec<_>) = inserted.into_iter().partition(|(at, _)| *at < entries.len());
            for (at, value) in between {
                let start = ranges[at].start;
                let text = self.flow(value);
                self.add(start..start, format!("{text}, "));
            }
            let added: Vec<String> = at_end.iter().map(|(_, value)| self.flow(value)).collect();
            return self.flow_collection(&ranges, &kept, &added);
        }
        for (entry, _) in entries.iter().zip(&kept).filter(|(_, kept)| !**kept) {
            let (_, range) = self.block_item(entry)?;
            let lines = self.lines(&range);
            self.add(lines, String::new());
        }
        let Some((at, _)) = inserted.first().copied() else { return Some(()) };
        if inserted.iter().any(|(other, _)| *other != at) {
            return None;
        }
        let (column, _) = self.block_item(entries.first()?)?;
        let indent = " ".repeat(column);
        let items: Vec<String> =
            inserted.iter().map(|(_, value)| format!("{indent}{}", self.block_of_item(value, column))).collect();
        match entries.get(at) {
            Some(entry) => {
                let (_, range) = self.block_item(entry)?;
                let start = self.source.line_start(range.start);
                self.add(start..start, items.join("\n") + "\n");
            }
            None => {
                let last = (0..entries.len()).rev().find(|at| kept[*at])?;
                let (_, range) = self.block_item(&entries[last])?;
                let end = self.source.line_end(range.end);
                self.add(end..end, format!("\n{}", items.join("\n")));
            }
        }
        Some(())
    }

    /// Removes the entries of a flow collection that are not kept, and adds entries at its end.
    fn flow_collection(&mut self, ranges: &[Range<usize>], kept: &[bool], added: &[String]) -> Done {
        let last_kept = (0..ranges.len()).rev().find(|at| kept[*at])?;
        for at in (0..last_kept).filter(|at| !kept[*at]) {
            self.add(ranges[at].start..ranges[at + 1].start, String::new());
        }
        let end = ranges.last()?.end;
        let start = ranges[last_kept].end;
        let separated: String = added.iter().map(|text| self.source.separated(ranges[last_kept].start, text)).collect();
        if start != end || !separated.is_empty() {
            // A change of the last entry ends where this edit begins.
            self.add(start..end, separated);
        }
        Some(())
    }

    /// Replaces a value.
    fn replace(&mut self, tree: &Tree, colon: Option<usize>, new: &Value) -> Done {
        let source = self.source;
        let mut range = source.range(tree);
        let text = &source.text[range.clone()];
        // A text over several lines ends at the start of the next line.
        range.end = range.start + text.trim_end().len();
        let is_block = !range.is_empty() && !matches!(tree, Tree::Scalar(_)) && !self.is_flow(tree);
        let column = self.column(range.start);
        let flow = self.flow(new);
        if self.notation == Notation::Json {
            self.add(range, flow);
            return Some(());
        }
        if is_block && !is_empty(new) {
            match (tree, new) {
                (Tree::Map(..), Value::Object(_)) | (Tree::List(..), Value::Array(_)) => {
                    let text = self.block(new, column);
                    self.add(range, text);
                    return Some(());
                }
                _ => {}
            }
        }
        let is_one_line = is_leaf(new) && fits_on_line(&flow, column, WIDEST);
        let inside_flow = self.is_flow(tree) || self.is_inside_flow(range.start);
        if !is_block && !range.is_empty() && (is_one_line || inside_flow || colon.is_none()) {
            self.add(range, flow);
            return Some(());
        }
        let colon = colon?;
        let range = colon..range.end.max(colon);
        let line = source.line_start(colon);
        let indent = source.text[line..colon].chars().take_while(|c| matches!(c, ' ' | '-')).count() + STEP;
        match is_empty(new) || !is_collection(new) || inside_flow || is_one_line {
            true => self.add(range, format!(" {flow}")),
            false => {
                let text = format!("\n{}{}", " ".repeat(indent), self.block(new, indent));
                self.add(range, text);
            }
        }
        Some(())
    }

    // --- places

    fn is_flow(&self, tree: &Tree) -> bool {
        self.source.is_flow(tree)
    }

    /// Whether a bracket or brace is open on the line of a position, before it.
    fn is_inside_flow(&self, position: usize) -> bool {
        let line = &self.source.text[self.source.line_start(position)..position];
        line.matches(['{', '[']).count() > line.matches(['}', ']']).count()
    }

    fn entry(&self, (_, key, value): &Entry) -> Range<usize> {
        let start = self.source.byte(key.start);
        let key_end = self.source.byte(key.end);
        let end = self.source.range(value).end.max(key_end);
        // A text over several lines ends at the start of the next line.
        start..start + self.source.text[start..end].trim_end().len()
    }

    /// The position behind the colon of a key.
    fn colon(&self, key: Span) -> Option<usize> {
        let end = self.source.byte(key.end);
        let rest = &self.source.text[end..];
        let spaces = rest.len() - rest.trim_start_matches(' ').len();
        rest[spaces..].starts_with(':').then(|| end + spaces + 1)
    }

    /// The column of the dash of an entry of a block list, and the range from the dash to the end of the entry.
    fn block_item(&self, entry: &Tree) -> Option<(usize, Range<usize>)> {
        let range = self.source.range(entry);
        let before = self.source.text[..range.start].trim_end();
        let dash = before.strip_suffix('-')?.len();
        let line = self.source.line_start(dash);
        let is_indent = self.source.text[line..dash].bytes().all(|b| b == b' ');
        let end = range.start + self.source.text[range.clone()].trim_end().len();
        is_indent.then_some((dash - line, dash..end))
    }

    /// The whole lines of a range.
    fn lines(&self, range: &Range<usize>) -> Range<usize> {
        let end = self.source.line_end(range.end);
        let end = end + self.source.text[end..].find('\n').map_or(0, |feed| feed + 1);
        self.source.line_start(range.start)..end
    }

    fn column(&self, position: usize) -> usize {
        self.source.text[self.source.line_start(position)..position].chars().count()
    }

    // --- writing

    fn key(&self, key: &str) -> String {
        self.scalar(key)
    }

    fn scalar(&self, text: &str) -> String {
        match self.notation {
            Notation::Json => Value::from(text).to_string(),
            Notation::Yaml if is_plain(text) => text.to_owned(),
            Notation::Yaml => quoted(text),
        }
    }

    fn flow_entry(&self, key: &str, value: &Value) -> String {
        format!("{}: {}", self.key(key), self.flow(value))
    }

    /// A value on one line.
    fn flow(&self, value: &Value) -> String {
        match value {
            Value::String(text) => self.scalar(text),
            Value::Array(entries) => {
                let entries: Vec<String> = entries.iter().map(|entry| self.flow(entry)).collect();
                format!("[{}]", entries.join(", "))
            }
            Value::Object(entries) if entries.is_empty() => "{}".to_owned(),
            Value::Object(entries) => {
                let entries: Vec<String> = entries.iter().map(|(key, value)| self.flow_entry(key, value)).collect();
                format!("{{ {} }}", entries.join(", "))
            }
            other => other.to_string(),
        }
    }

    /// A collection in block style. The first line has no indentation, because it is behind a dash or an indentation.
    fn block(&self, value: &Value, column: usize) -> String {
        let lines: Vec<String> = match value {
            Value::Object(entries) if !entries.is_empty() => {
                entries.iter().map(|(key, value)| self.block_entry(key, value, column, true)).collect()
            }
            Value::Array(entries) if !entries.is_empty() => {
                entries.iter().map(|entry| self.block_of_item(entry, column)).collect()
            }
            other => vec![self.flow(other)],
        };
        lines.join(&format!("\n{}", " ".repeat(column)))
    }

    fn block_entry(&self, key: &str, value: &Value, column: usize, may_be_leaf: bool) -> String {
        let key = self.key(key);
        let flow = self.flow(value);
        let may_be_flow = !is_collection(value) || is_empty(value) || (may_be_leaf && is_leaf(value));
        match may_be_flow && fits_on_line(&flow, column + key.chars().count() + 2, WIDEST) {
            true => format!("{key}: {flow}"),
            false => {
                let column = column + STEP;
                format!("{key}:\n{}{}", " ".repeat(column), self.block(value, column))
            }
        }
    }

    fn block_of_item(&self, value: &Value, column: usize) -> String {
        let flow = self.flow(value);
        match is_leaf(value) && fits_on_line(&flow, column + STEP, WIDEST) {
            true => format!("- {flow}"),
            false => format!("- {}", self.block(value, column + STEP)),
        }
    }

    fn add(&mut self, range: Range<usize>, text: String) {
        self.made.push((range, text));
    }

    /// The whole text, byte order mark included, with the edits. None if two of them overlap.
    fn apply(mut self) -> Option<String> {
        let (whole, text) = (self.source.whole(), self.source.text);
        let line_break = if text.contains("\r\n") { "\r\n" } else { "\n" };
        self.made.sort_by_key(|(range, _)| (range.start, range.end));
        let mut edited = whole[..whole.len() - text.len()].to_owned();
        let mut copied = 0;
        for (range, with) in &self.made {
            if range.start < copied {
                return None;
            }
            edited.push_str(&text[copied..range.start]);
            edited.push_str(&with.replace('\n', line_break));
            copied = range.end;
        }
        edited.push_str(&text[copied..]);
        Some(edited)
    }
}

fn is_collection(value: &Value) -> bool {
    matches!(value, Value::Array(_) | Value::Object(_))
}

/// An empty collection, or no value.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(entries) => entries.is_empty(),
        Value::Object(entries) => entries.is_empty(),
        _ => false,
    }
}

/// A value that is written on one line if it fits: a scalar, or a collection without collections of collections.
fn is_leaf(value: &Value) -> bool {
    let is_flat = |value: &Value| match value {
        Value::Array(entries) => !entries.iter().any(is_collection),
        Value::Object(entries) => entries.is_empty(),
        _ => true,
    };
    match value {
        Value::Array(entries) => !entries.iter().any(is_collection),
        Value::Object(entries) => entries.values().all(is_flat),
        _ => true,
    }
}
