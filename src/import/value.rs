//! Reads YAML and JSON texts of other products. Each value has its line number.
//!
//! The reader supports several documents, anchors and aliases, and block scalars. It keeps every scalar as text,
//! because engines disagree about `true`, `"true"` and `yes`. The reader of each format interprets the text.

use std::collections::HashMap;
use std::rc::Rc;

use saphyr_parser::{Event, Parser, ScalarStyle, Span};

/// A value and its line.
#[derive(Debug, Clone)]
pub(super) struct Value {
    /// Line number, counted from 1. The value of a key has the line of the key, because users look for the key.
    pub(super) line: usize,
    pub(super) node: Node,
}

#[derive(Debug, Clone)]
pub(super) enum Node {
    /// The text, and whether it is quoted or a block scalar.
    Scalar(Rc<str>, bool),
    List(Rc<[Value]>),
    Map(Rc<[(Rc<str>, Value)]>),
}

/// The error for a text that is neither YAML nor JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct SyntaxError {
    pub(super) line: usize,
    pub(super) message: String,
}

/// Limit of nesting. Deeper values are refused, so that a hostile text cannot overflow the stack.
const MAX_DEPTH: usize = 128;
/// Limit of the number of values in a text. Each use of an alias counts, because aliases of aliases can stand for a
/// value of any size.
const MOST_VALUES: usize = 2_000_000;

/// Parses the documents of a text. Leaves out empty documents.
pub(super) fn documents(text: &str) -> Result<Vec<Value>, SyntaxError> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut reader = Reader { events: Parser::new_from_str(text), anchors: HashMap::new(), depth: 0, values: 0 };
    let mut documents = Vec::new();
    while let Some((event, span)) = reader.next()? {
        match event {
            Event::StreamStart | Event::StreamEnd | Event::DocumentStart(_) | Event::DocumentEnd => {}
            event => {
                let value = reader.value(event, span)?;
                if !value.is_null() {
                    documents.push(value);
                }
            }
        }
    }
    Ok(documents)
}

// === impl Value ===

impl Value {
    /// Returns the value of a key. A null counts as absent, as in every engine here.
    pub(super) fn get(&self, key: &str) -> Option<&Value> {
        let Node::Map(entries) = &self.node else { return None };
        entries.iter().rev().find(|(known, _)| &**known == key).map(|(_, value)| value).filter(|value| !value.is_null())
    }

    /// Returns the value at the end of a path of keys.
    pub(super) fn at(&self, path: &[&str]) -> Option<&Value> {
        path.iter().try_fold(self, |at, key| at.get(key))
    }

    /// Returns the text of a scalar.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.node {
            Node::Scalar(text, _) => Some(text),
            Node::List(_) | Node::Map(_) => None,
        }
    }

    /// Returns the text of the scalar at a key.
    pub(super) fn text_of(&self, key: &str) -> Option<&str> {
        self.get(key)?.text()
    }

    /// Returns the boolean of a plain `true` or `false`. A quoted text is not a boolean.
    pub(super) fn truth(&self) -> Option<bool> {
        match &self.node {
            Node::Scalar(text, false) => match &**text {
                "true" | "True" | "TRUE" => Some(true),
                "false" | "False" | "FALSE" => Some(false),
                _ => None,
            },
            _ => None,
        }
    }

    pub(super) fn number(&self) -> Option<i64> {
        self.text()?.trim().parse().ok()
    }

    /// Returns the entries of a list. Any other value has no entries.
    pub(super) fn entries(&self) -> &[Value] {
        match &self.node {
            Node::List(entries) => entries,
            Node::Scalar(..) | Node::Map(_) => &[],
        }
    }

    /// Returns the entries of the list at a key.
    pub(super) fn list(&self, key: &str) -> &[Value] {
        self.get(key).map(Value::entries).unwrap_or_default()
    }

    /// Returns the texts of a list, each with its line. A scalar counts as a list with one entry.
    pub(super) fn texts(&self) -> Vec<(usize, String)> {
        match &self.node {
            Node::Scalar(text, _) => vec![(self.line, text.to_string())],
            Node::List(entries) => {
                entries.iter().filter_map(|entry| Some((entry.line, entry.text()?.to_owned()))).collect()
            }
            Node::Map(_) => Vec::new(),
        }
    }

    /// Returns the keys of a mapping with their values. Any other value has no keys.
    pub(super) fn map(&self) -> &[(Rc<str>, Value)] {
        match &self.node {
            Node::Map(entries) => entries,
            Node::Scalar(..) | Node::List(_) => &[],
        }
    }

    pub(super) fn is_map(&self) -> bool {
        matches!(self.node, Node::Map(_))
    }

    fn is_null(&self) -> bool {
        matches!(&self.node, Node::Scalar(text, false) if matches!(&**text, "" | "~" | "null" | "Null" | "NULL"))
    }
}

struct Reader<'t> {
    events: Parser<'t, saphyr_parser::StrInput<'t>>,
    /// The value of each anchor, with its depth.
    anchors: HashMap<usize, (Value, usize)>,
    depth: usize,
    values: usize,
}

impl<'t> Reader<'t> {
    fn next(&mut self) -> Result<Option<(Event<'t>, Span)>, SyntaxError> {
        match self.events.next_event() {
            None => Ok(None),
            Some(Ok(event)) => Ok(Some(event)),
            Some(Err(error)) => Err(SyntaxError { line: error.marker().line(), message: error.info().to_owned() }),
        }
    }

    fn inner(&mut self, span: Span) -> Result<(Event<'t>, Span), SyntaxError> {
        self.next()?.ok_or_else(|| SyntaxError { line: span.start.line(), message: "the text ends here".into() })
    }

    fn value(&mut self, event: Event<'t>, span: Span) -> Result<Value, SyntaxError> {
        let line = span.start.line();
        let error = |message: &str| Err(SyntaxError { line, message: message.into() });
        self.values += 1;
        if self.depth == MAX_DEPTH {
            return error("values are nested too deeply");
        }
        if self.values > MOST_VALUES {
            return error("there are too many values");
        }
        self.depth += 1;
        let (anchor, node) = match event {
            Event::Scalar(text, style, anchor, _) => {
                (anchor, Node::Scalar(Rc::from(&*text), style != ScalarStyle::Plain))
            }
            Event::Alias(anchor) => {
                self.depth -= 1;
                let Some((value, depth)) = self.anchors.get(&anchor).cloned() else {
                    return error("an alias of nothing");
                };
                // Aliases of aliases can make a deep value from a flat text.
                if self.depth + depth > MAX_DEPTH {
                    return error("values are nested too deeply");
                }
                self.values += size(&value, MOST_VALUES);
                return Ok(Value { line, ..value });
            }
            Event::SequenceStart(anchor, _) => {
                let mut entries = Vec::new();
                loop {
                    match self.inner(span)? {
                        (Event::SequenceEnd, _) => break,
                        (event, span) => entries.push(self.value(event, span)?),
                    }
                }
                (anchor, Node::List(entries.into()))
            }
            Event::MappingStart(anchor, _) => (anchor, Node::Map(self.entries(span)?.into())),
            _ => return error("a value is missing"),
        };
        self.depth -= 1;
        let value = Value { line, node };
        if anchor != 0 {
            self.anchors.insert(anchor, (value.clone(), depth(&value)));
        }
        Ok(value)
    }

    /// Reads the entries of a mapping. Adds the entries of merge keys (`<<`) that the mapping does not have itself.
    fn entries(&mut self, span: Span) -> Result<Vec<(Rc<str>, Value)>, SyntaxError> {
        let (mut entries, mut merged) = (Vec::new(), Vec::new());
        loop {
            let (event, at) = self.inner(span)?;
            if event == Event::MappingEnd {
                break;
            }
            let key = self.value(event, at)?;
            let (event, value_at) = self.inner(span)?;
            let mut value = self.value(event, value_at)?;
            value.line = key.line;
            let Node::Scalar(name, _) = key.node else { continue };
            match &value.node {
                Node::Map(inner) if &*name == "<<" => merged.extend(inner.iter().cloned()),
                Node::List(several) if &*name == "<<" => {
                    several.iter().for_each(|one| merged.extend(one.map().iter().cloned()));
                }
                _ => entries.push((name, value)),
            }
        }
        for (name, value) in merged {
            if !entries.iter().any(|(known, _)| *known == name) {
                entries.push((name, value));
            }
        }
        Ok(entries)
    }
}

/// Returns the number of levels of a value. It is at most [`MAX_DEPTH`], because the reader refuses deeper values.
fn depth(value: &Value) -> usize {
    let inner = match &value.node {
        Node::Scalar(..) => 0,
        Node::List(entries) => entries.iter().map(depth).max().unwrap_or(0),
        Node::Map(entries) => entries.iter().map(|(_, entry)| depth(entry)).max().unwrap_or(0),
    };
    inner + 1
}

/// Counts the values in a value. Stops counting above `most`.
fn size(value: &Value, most: usize) -> usize {
    match &value.node {
        Node::Scalar(..) => 1,
        Node::List(entries) => {
            entries.iter().fold(1, |sum, entry| if sum > most { sum } else { sum + size(entry, most) })
        }
        Node::Map(entries) => {
            entries.iter().fold(1, |sum, (_, entry)| if sum > most { sum } else { sum + size(entry, most) })
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Write as _;

    use super::*;

    #[test]
    fn each_value_has_the_line_of_its_key() {
        let text = "# a comment\na: 1\nb:\n  - x\n  - { y: [2,\n      3] }\n---\nc: |\n  text\n...\n---\n";
        let all = documents(text).unwrap();
        let [one, two] = &*all else { panic!("{all:?}") };
        assert_eq!(one.get("a").map(|a| (a.line, a.number())), Some((2, Some(1))));
        assert_eq!(one.get("b").unwrap().line, 3);
        let list = one.list("b");
        assert_eq!((list[0].line, list[1].line, list[1].list("y")[1].line), (4, 5, 6));
        assert_eq!(two.text_of("c"), Some("text\n"));
    }

    #[test]
    fn aliases_and_merge_keys_stand_for_their_values() {
        let text = "base: &b { x: 1, y: 2 }\none: { <<: *b, y: 3 }\ntwo: *b\n";
        let all = documents(text).unwrap();
        let texts = |path: &[&str]| all[0].at(path).and_then(|value| value.text().map(str::to_owned));
        assert_eq!(texts(&["one", "x"]).as_deref(), Some("1"));
        assert_eq!(texts(&["one", "y"]).as_deref(), Some("3"));
        assert_eq!(texts(&["two", "y"]).as_deref(), Some("2"));
        assert_eq!(all[0].get("two").unwrap().line, 3);
    }

    #[test]
    fn strings_are_not_booleans_and_nulls_are_absent() {
        let all = documents("a: 'true'\nb: true\nc: null\nd: ~\ne: ''\n").unwrap();
        let value = |key| all[0].get(key);
        assert_eq!(value("a").unwrap().truth(), None);
        assert_eq!(value("b").unwrap().truth(), Some(true));
        assert!(value("c").is_none() && value("d").is_none());
        assert_eq!(value("e").unwrap().text(), Some(""));
    }

    #[test]
    fn hostile_texts_end_with_an_error() {
        let mut bomb = String::from("a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n");
        for level in 1..12 {
            let below = format!("*a{}, ", level - 1).repeat(10);
            writeln!(bomb, "a{level}: &a{level} [{below}]").unwrap();
        }
        let mut chain = String::from("a0: &a0 x\n");
        for level in 1..500 {
            writeln!(chain, "a{level}: &a{level} {{ x: [*a{}] }}", level - 1).unwrap();
        }
        for text in ["a: [", "a: {b: *nothing}", "\"a", &"[".repeat(500), &bomb, &chain] {
            let error = documents(text).expect_err("refused");
            assert!(error.line > 0 && !error.message.is_empty());
        }
        assert_eq!(documents("a: 1\nb: [1\n").unwrap_err().line, 3);
    }
}
