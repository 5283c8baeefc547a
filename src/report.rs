//! Problems for people and for machines: what `check` prints, and what the log of a refused reload says.

use std::fmt::Write as _;

use crate::config::{Hunk, Place, Source, hunks};
use crate::problem::{Kind, Problem, Problems, Severity};

/// How to draw on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences.
    Plain,
    /// Colours for severities and carets.
    Colour,
}

impl Paint {
    /// What is to be found first.
    pub fn bold(self, text: &str) -> String {
        self.with("1", text)
    }

    /// What can be passed over.
    pub fn dim(self, text: &str) -> String {
        self.with("2", text)
    }

    /// With the parameters of an ANSI escape sequence (ECMA-48, SGR).
    pub fn with(self, parameters: &str, text: &str) -> String {
        match self {
            Paint::Plain => text.to_owned(),
            Paint::Colour => format!("\x1b[{parameters}m{text}\x1b[0m"),
        }
    }
}

/// All problems as text, errors last, because the end is what a terminal shows, and those of one severity in the order
/// of the file; then one line that counts them.
pub fn text(problems: &Problems, source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_key(|problem| std::cmp::Reverse(problem.kind.severity()));
    ordered.truncate(MOST_SHOWN);
    ordered.sort_by_cached_key(|problem| {
        (problem.kind.severity(), place(problem, source).map(|place| (place.line, place.column)))
    });
    for problem in ordered {
        one(problem, source, paint, &mut out);
    }
    if let more @ 1.. = problems.iter().len().saturating_sub(MOST_SHOWN) {
        let _ = writeln!(out, "and {more} more, which are not shown");
    }
    out + &summary(problems, source)
}

/// More than anybody reads at once; a file that a program got wrong can have one in every line.
const MOST_SHOWN: usize = 500;

/// The line that counts: `conf/corsgate.yaml: 2 errors, 1 warning`, or `conf/corsgate.yaml: valid, 1 hint`.
fn summary(problems: &Problems, source: &Source<'_>) -> String {
    let mut counts = Vec::new();
    for (severity, name) in [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Hint, "hint")] {
        match problems.count(severity) {
            0 => {}
            1 => counts.push(format!("1 {name}")),
            n => counts.push(format!("{n} {name}s")),
        }
    }
    if !problems.any_errors() {
        counts.insert(0, "valid".to_owned());
    }
    format!("{}: {}\n", source.name(), counts.join(", "))
}

/// All problems as one JSON array of objects.
pub fn json(problems: &Problems, source: &Source<'_>) -> String {
    format!("{:#}\n", problems_json(problems, source))
}

pub(crate) fn problems_json(problems: &Problems, source: &Source<'_>) -> serde_json::Value {
    problems
        .iter()
        .map(|problem| {
            let place = place(problem, source);
            serde_json::json!({
                "severity": problem.kind.severity().to_string(),
                "code": problem.kind.code(),
                "file": source.name(),
                "line": place.as_ref().map(|place| place.line),
                "column": place.as_ref().map(|place| place.column),
                "path": problem.at.to_string(),
                "fault": problem.kind.fault(),
                "remedy": problem.kind.remedy(),
                "fix": fix(problem, source).map(|fix| hunks_json(&fix)),
            })
        })
        .collect()
}

/// The lines that mend a problem, where that is one definite edit.
pub fn fix(problem: &Problem, source: &Source<'_>) -> Option<Vec<Hunk>> {
    let mended = source.with_replacement(&problem.at, &problem.kind.replacement()?)?;
    Some(hunks(source.whole(), &mended))
}

/// Hunks, as `check` and `explain` write them: `removed` stands from `line` on, between line feeds, and `added` is to
/// stand there instead.
pub(crate) fn hunks_json(hunks: &[Hunk]) -> serde_json::Value {
    let one = |hunk: &Hunk| serde_json::json!({ "line": hunk.line, "removed": hunk.removed, "added": hunk.added });
    hunks.iter().map(one).collect()
}

fn one(problem: &Problem, source: &Source<'_>, paint: Paint, out: &mut String) {
    let severity = problem.kind.severity();
    let colour = match severity {
        Severity::Error => "31",
        Severity::Warning => "33",
        Severity::Hint => "36",
    };
    let painted = |text: &str, colour: &str| paint.with(&format!("1;{colour}"), text);
    let place = place(problem, source);
    let _ = write!(out, "{}: {}", painted(&severity.to_string(), colour), source.name());
    if let Some(place) = &place {
        let _ = write!(out, ":{}:{}", place.line, place.column);
    }
    let gap = if problem.at.0.is_empty() { ": " } else { " " };
    let _ = writeln!(out, "{gap}{}", printable(&problem.to_string()));
    if let Some(place) = place.filter(|place| !place.excerpt.is_empty()) {
        let number = place.line.to_string();
        let blank = " ".repeat(number.len());
        let (excerpt, before, width) = window(&place);
        let caret = painted(&"^".repeat(width), colour);
        let _ = writeln!(out, "  {number} | {excerpt}\n  {blank} | {}{caret}", " ".repeat(before));
    }
}

/// How many columns text for people may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Width(usize);

impl Width {
    /// Where no terminal says how wide it is.
    pub const DEFAULT: Width = Width(100);

    /// That of a terminal; sentences are not narrower than 60 columns, and not wider than 120.
    pub fn of_terminal(columns: u16) -> Self {
        Width(usize::from(columns).clamp(60, 120))
    }

    /// A text in lines, between words; those behind the first are indented by as many columns as its beginning has. A word
    /// that does not fit stays whole, so that it can be copied.
    pub(crate) fn wrap(self, beginning: &str, text: &str) -> String {
        let indent = beginning.chars().count();
        let (mut wrapped, mut column) = (beginning.to_owned(), indent);
        for word in text.split(' ') {
            let length = word.chars().count();
            if column > indent && column + 1 + length > self.0 {
                wrapped.push('\n');
                wrapped.extend(std::iter::repeat_n(' ', indent));
                column = indent;
            } else if column > indent {
                wrapped.push(' ');
                column += 1;
            }
            wrapped.push_str(word);
            column += length;
        }
        wrapped
    }
}

/// Control characters, and those that cannot be seen or turn the direction of others, written out: what somebody else has
/// sent or written must not be able to steer the terminal of whoever looks at it, nor to look like something else.
pub(crate) fn printable(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, c| {
        match is_unseen(c) {
            true => out.extend(c.escape_default()),
            false => out.push(c),
        }
        out
    })
}

/// Unicode's controls and format characters (general categories Cc and Cf), and its line and paragraph separators.
fn is_unseen(c: char) -> bool {
    c.is_control()
        || matches!(
            c,
            '\u{ad}'
                | '\u{600}'..='\u{605}'
                | '\u{61c}'
                | '\u{6dd}'
                | '\u{70f}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e0fff}'
        )
}

/// The most characters of a line that are shown: a file of one line, as programs write JSON, would fill the screen.
const WIDEST: usize = 200;

/// What is shown of a line, how many characters of it stand before what is meant, and how many that has.
fn window(place: &Place<'_>) -> (String, usize, usize) {
    // A tab is as wide as it likes; with one space for each the caret stands where the eye looks.
    let as_one = |c: char| match c {
        '\t' => ' ',
        c if is_unseen(c) => '\u{fffd}',
        c => c,
    };
    let line: Vec<char> = place.excerpt.chars().map(as_one).collect();
    let before = place.column - 1;
    if line.len() <= WIDEST {
        return (line.into_iter().collect(), before, place.width);
    }
    let first = before.saturating_sub(WIDEST / 4).min(line.len() - WIDEST);
    let last = first + WIDEST;
    let dots = |cut: bool| if cut { "…" } else { "" };
    let shown: String = line[first..last].iter().collect();
    let excerpt = format!("{}{shown}{}", dots(first > 0), dots(last < line.len()));
    let before = before - first + usize::from(first > 0);
    (excerpt, before, place.width.min(WIDEST - (before - usize::from(first > 0)).min(WIDEST - 1)))
}

fn place<'t>(problem: &Problem, source: &Source<'t>) -> Option<Place<'t>> {
    match &problem.kind {
        // There is no text to point at.
        Kind::Unreadable { .. } => None,
        // A syntax error has no key. Its own message says where it is.
        Kind::Syntax { message } => place_in_words(message, source),
        Kind::UnknownKey { .. } | Kind::KeyTwice { .. } | Kind::KeyAndAlias { .. } => {
            Some(source.place_of_key(&problem.at))
        }
        Kind::BadName { .. } | Kind::NameTwice { .. } if problem.at.names_a_key() => {
            Some(source.place_of_key(&problem.at))
        }
        _ => Some(source.place(&problem.at)),
    }
}

/// The place that a message of the YAML parser names: where it got stuck, or, when that is the end of the text, where
/// what it was reading began.
fn place_in_words<'t>(message: &str, source: &Source<'t>) -> Option<Place<'t>> {
    let number = |text: &str| -> Option<usize> { text.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok() };
    if let Some((_, position)) = message.split_once(" at position ") {
        return Some(source.at_byte(number(position)?));
    }
    let mut places = message.split(" at line ").skip(1).filter_map(|rest| {
        let column = rest.split_once(" column ").and_then(|(_, column)| number(column));
        Some(source.at_line(number(rest)?, column.unwrap_or(1)))
    });
    let stuck = places.next()?;
    match stuck.excerpt.is_empty() {
        true => Some(places.next().unwrap_or(stuck)),
        false => Some(stuck),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_broken_between_words() {
        let narrow = Width::of_terminal(1);
        let text = "one two three four five six seven eight nine ten eleven twelve thirteen";
        assert_eq!(
            narrow.wrap("  label  ", text),
            "  label  one two three four five six seven eight nine ten\n         eleven twelve thirteen"
        );
        let long = "https://a.example/".repeat(5);
        assert_eq!(narrow.wrap("", &format!("at {long} it")), format!("at\n{long}\nit"));
        assert_eq!(narrow.wrap("- ", &long), format!("- {long}"));
        assert_eq!((Width::of_terminal(80), Width::of_terminal(100)), (Width(80), Width::DEFAULT));
        assert_eq!((Width::of_terminal(20), Width::of_terminal(u16::MAX)), (Width(60), Width(120)));
    }
}
