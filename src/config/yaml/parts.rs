//! Reads a YAML text with long lists in parts, without a list of all its events.
//!
//! serde_yaml keeps the events of the whole text. They take 30 times the memory of the text, which each reload would
//! allocate and free. For a text in parts, the same parser reuses the memory of one part.
//!
//! A part is a range of whole lines. It begins at a line that looks like the start of a list entry: only `- ` and the
//! indentation are compared. A line inside of a quoted text can look the same. So the result is checked:
//!
//! - The frame is the text with a marker in place of each long list. It must be valid, and each marker must be an entry of
//!   a list. So each list begins outside of quotes and brackets.
//! - Each part must be valid, and a list. So no part ends inside of quotes or brackets, and the next one begins outside.
//!
//! Therefore the state of the parser at the start of each part is the same as in a reading of the whole text. If a
//! check fails, the text is read as a whole.

use std::hash::{BuildHasher, RandomState};
use std::ops::Range;

use serde::de::DeserializeOwned;

use crate::config::Document;

/// Minimum size in bytes of a list that is read in parts, and of each part. The events of such a part fit into the
/// cache of a core.
pub(super) const SIZE: usize = 16 << 10;

/// Reads a valid text with long lists of services or routes. None if the text must be read as a whole. The document
/// equals that of a reading as a whole.
pub(super) fn parse(text: &str, size: usize) -> Option<Document> {
    let Parts { frame, marker, lists } = Parts::of(text, size)?;
    let mut document: Document = serde_yaml::from_str(&frame).ok()?;
    let mut lists = lists.into_iter();
    let mut services = Vec::new();
    for mut service in document.services.take()? {
        if service.name.as_ref() == Some(&marker) {
            read(&lists.next()?, &mut services)?;
            continue;
        }
        if let Some(routes) = &mut service.routes {
            for route in std::mem::take(routes) {
                match route.name.as_ref() == Some(&marker) {
                    true => read(&lists.next()?, routes)?,
                    false => routes.push(route),
                }
            }
        }
        services.push(service);
    }
    document.services = Some(services);
    lists.next().is_none().then_some(document)
}

/// Reads the parts of a list. None if one of them is not a list of such entries.
fn read<T: DeserializeOwned>(parts: &[&str], entries: &mut Vec<T>) -> Option<()> {
    for part in parts {
        entries.append(&mut serde_yaml::from_str(part).ok()?);
    }
    Some(())
}

/// A text whose long lists are cut out.
struct Parts<'t> {
    /// The text, with a marker in place of each list: an entry with this name.
    frame: String,
    /// A random text, so that it does not occur in the file.
    marker: String,
    /// The parts of each list, in the order of the text.
    lists: Vec<Vec<&'t str>>,
}

/// A list whose end is not reached yet.
struct List {
    column: usize,
    /// Start of the first entry. After an inner list was cut out, it is None until the next entry.
    start: Option<usize>,
    /// Start of the latest entry.
    entry: usize,
    /// Starts of the parts, without the first one.
    cuts: Vec<usize>,
}

/// A list to cut out: its start, the starts of its other parts, and its end.
type Cut = (usize, Vec<usize>, usize);

// === impl Parts ===

impl<'t> Parts<'t> {
    /// Cuts out the lists of at least `size` bytes, in parts of at least `size` bytes. None if there is no such list, or
    /// if its meaning may depend on another part.
    fn of(text: &'t str, size: usize) -> Option<Self> {
        // `&` may be an anchor, for aliases in other parts. `%TAG` changes the meaning of all tags.
        if text.len() < size || text.contains('&') || text.contains("%TAG") {
            return None;
        }
        let mut found = find(text, size);
        let services = services(text);
        found.retain(|(start, ..)| services.contains(start));
        if found.is_empty() {
            return None;
        }
        found.sort_unstable();
        let marker = format!("list {:016x}", RandomState::new().hash_one(()));
        let entry = format!("- {{ name: {marker} }}\n");
        let (mut frame, mut lists, mut copied) = (String::new(), Vec::new(), 0);
        for (start, cuts, end) in found {
            let dash = start + text[start..].find('-')?;
            frame.push_str(&text[copied..dash]);
            frame.push_str(&entry);
            copied = end;
            let starts = [start].into_iter().chain(cuts.iter().copied());
            let ends = cuts.iter().copied().chain([end]);
            lists.push(starts.zip(ends).map(|(start, end)| &text[start..end]).collect());
        }
        frame.push_str(&text[copied..]);
        Some(Parts { frame, marker, lists })
    }
}

/// Returns the range from the key `services` to the next key of the top level. Other long lists, such as `expect`, have
/// entries without names, which a marker cannot replace.
fn services(text: &str) -> Range<usize> {
    let (mut offset, mut start) = (0, None);
    for line in text.split_inclusive('\n') {
        match start {
            None if line.starts_with("services:") => start = Some(offset),
            Some(start) if !line.starts_with([' ', '-', '#', '\r', '\n']) => return start..offset,
            _ => {}
        }
        offset += line.len();
    }
    start.unwrap_or(offset)..offset
}

/// Finds the lists of at least `size` bytes, in any order. None of them contains another one.
fn find(text: &str, size: usize) -> Vec<Cut> {
    let (mut open, mut found) = (Vec::<List>::new(), Vec::new());
    let mut offset = 0;
    for line in text.split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        let column = line.len() - content.len();
        let has_content = !content.trim_ascii_end().is_empty() && !content.starts_with('#');
        if has_content {
            let is_entry = content.starts_with("- ") || content == "-\n";
            while open.last().is_some_and(|list| column < list.column || (column == list.column && !is_entry)) {
                close(&mut open, offset, size, &mut found);
            }
            match open.last_mut() {
                Some(list) if list.column == column => list.entry_at(offset, size),
                _ if is_entry => open.push(List { column, start: Some(offset), entry: offset, cuts: Vec::new() }),
                _ => {}
            }
        }
        offset += line.len();
    }
    while !open.is_empty() {
        close(&mut open, offset, size, &mut found);
    }
    found
}

/// Closes the innermost list. If it is long, it is cut out. Then only the entries before and after it are cut out of
/// the lists around it.
fn close(open: &mut Vec<List>, end: usize, size: usize, found: &mut Vec<Cut>) {
    let Some(mut list) = open.pop() else { return };
    if list.take(end, size, found) {
        for parent in open {
            parent.take(parent.entry, size, found);
        }
    }
}

// === impl List ===

impl List {
    fn entry_at(&mut self, offset: usize, size: usize) {
        self.entry = offset;
        match self.start {
            None => self.start = Some(offset),
            Some(start) if offset - self.cuts.last().unwrap_or(&start) >= size => self.cuts.push(offset),
            Some(_) => {}
        }
    }

    /// Cuts out the entries before `end`, if they are long enough. Returns true if they are.
    fn take(&mut self, end: usize, size: usize, found: &mut Vec<Cut>) -> bool {
        let mut cuts = std::mem::take(&mut self.cuts);
        cuts.retain(|cut| *cut < end);
        match self.start.take() {
            Some(start) if end - start >= size => {
                found.push((start, cuts, end));
                true
            }
            _ => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Reads a text as a whole and in parts of several sizes, and compares the documents. Returns true if it was read in
    /// parts.
    fn is_read_in_parts(text: &str) -> bool {
        let whole = serde_yaml::from_str::<Option<Document>>(text).ok().map(Option::unwrap_or_default);
        let results = [1, 20, 60, 200].map(|size| parse(text, size));
        for result in results.iter().flatten() {
            assert_eq!(Some(result), whole.as_ref(), "in parts and as a whole:\n{text}");
        }
        results.iter().any(Option::is_some)
    }

    #[test]
    fn lists_of_services_and_routes_are_read_in_parts() {
        for text in [
            "services:\n- name: a\n- name: b",
            "services:         # required\n\n# first\n  - name: a\n# second\n\n  -\n    name: b\n\n",
            "services:\n- name: a\n  routes:\n  - paths: [/a]\n  - { name: b,\n      paths: [/b] }\n  cors: p\n- name: b\n",
            "services:\n- { name: a }\n- name: b\n  routes: [{ paths: [/a] }]\nlisteners: [{ address: 127.0.0.1:1 }]\n",
            "services:\n- name: \"a\n\n    # b\"\n- name: c\n",
            "services:\n- name: |\n    a\n    - b\n- name: c\n",
            "---\nservices:\n- name: a\n- name: b\n...\n",
            "services:\n- \n- name: b\n",
            "expect:\n- page: a\n- page: b\nservices:\n- name: a\n- name: b\nexpect_files:\n- a\n- b\n",
        ] {
            assert!(is_read_in_parts(text), "{text}");
        }
    }

    #[test]
    fn text_that_has_another_meaning_in_parts_is_read_as_a_whole() {
        for text in [
            // Lines that are no entries of a list.
            "cors: \"\nservices:\n- name: a\n- name: b\n\"\n",
            "services:\n- name: \"\n- name: a\n- name: b\n  \"\n",
            "services: [\n- name: a\n- name: b\n]\n",
            "services: |\n  - name: a\n  - name: b\n",
            "services:\n- name: a\n    - name: b\n    - name: c\n",
            // Anchors, and tags with another meaning.
            "services:\n- name: &a b\n- name: *a\n",
            "%TAG !! tag:example,2026:\n---\nservices:\n- name: !!str a\n- name: b\n",
            // More than one document.
            "services:\n- name: a\n...\n- name: b\n",
            "services:\n- name: a\n---\nservices:\n- name: b\n",
            // Errors.
            "services:\n- name: a\n  name: b\n- name: b\n",
            "services:\n- name: a\n- name: b\nservices:\n- name: c\n",
            "services:\n  - name: a\n - name: b\n",
            "services:\n\t- name: a\n\t- name: b\n",
            "services:\n- name: a\n- colour: b\n",
            // Lists of something else.
            "listeners:\n- address: 127.0.0.1:1\n- address: 127.0.0.1:2\n",
            "services: [{ name: a }]\n",
        ] {
            assert!(!is_read_in_parts(text), "{text}");
        }
    }

    #[test]
    fn every_configuration_of_the_tests_has_the_same_meaning_in_parts() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let (mut files, mut in_parts) = (0, 0);
        for folder in ["conf", "tests/config/good", "tests/config/refused", "tests/config/warned"] {
            for entry in std::fs::read_dir(root.join(folder)).unwrap() {
                let path = entry.unwrap().path();
                if path.extension().is_none_or(|extension| extension != "yaml" && extension != "txt") {
                    continue;
                }
                let text = std::fs::read_to_string(&path).unwrap();
                let config = text.split("----\n").next().unwrap_or_default();
                files += 1;
                in_parts += usize::from(is_read_in_parts(config));
            }
        }
        assert!(files > 300 && in_parts > 100, "{in_parts} of {files} files");
    }

    /// Valid and invalid texts from lines whose meaning depends on their neighbours.
    #[test]
    fn random_lines_have_the_same_meaning_in_parts() {
        const LINES: &[&str] = &[
            "services:",
            "- name: a",
            "- name: b",
            "  routes:",
            "  - paths: [/a]",
            "  - paths:",
            "    - /b",
            "    - /c",
            "  hosts:",
            "  - b.example",
            "- { name: c }",
            "- { name: d,",
            "    upstream: u }",
            "  cors: p",
            "cors: p",
            "-",
            "- name: \"",
            "\"",
            "  \"",
            "- name: '",
            "'",
            "  name: |",
            "  upstream: >-",
            "    text",
            "  text",
            "    - text",
            "  # comment",
            "# comment",
            "",
            "---",
            "...",
            "- &a",
            "  upstream: *a",
            "- name: !!str x",
            "-\tname: x",
            "\t",
            "    routes:",
            "    - name: a",
            "      paths: /a",
            "  - name: a",
            "upstreams: {}",
            "upstreams: {",
            "}",
            "[",
            "]",
            "- - name: a",
            "? name",
            ": a",
            "- ? name",
            "  : a",
            "- name: a\r",
            "\u{2028}- name: b",
        ];
        let mut random = fastrand::Rng::with_seed(14);
        let mut in_parts = 0;
        for _ in 0..100_000 {
            let mut text = String::from("services:\n");
            for _ in 0..random.usize(1..9) {
                text.push_str(random.choice(LINES).unwrap());
                text.push('\n');
            }
            in_parts += usize::from(is_read_in_parts(&text));
        }
        assert!(in_parts > 1000, "{in_parts} texts");
    }
}
