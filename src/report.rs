//! Problems as text and as JSON: the output of `check`, and the log of a refused reload.

use std::fmt::Write as _;

use crate::config::{Hunk, Place, Source, hunks};
use crate::problem::{Description, OtherFile, Problem, ProblemKind, Problems, Replacement, Severity, SyntaxPlace};
use crate::terminal::{Paint, is_invisible, printable};

/// All problems as text. Errors are last, because a terminal shows the end of the output. Problems of one severity are in
/// the order of the file, those of other files behind them. The last line has the number of problems.
pub fn text(problems: &Problems, source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_cached_key(|problem| std::cmp::Reverse(problem.kind.severity()));
    ordered.truncate(MOST_SHOWN);
    ordered.sort_by_cached_key(|problem| {
        let place = place(problem, source).map(|place| (place.line, place.column));
        (problem.kind.severity(), other_file(problem).map(|file| file.name.clone()), place)
    });
    for problem in ordered {
        one(problem, source, paint, &mut out);
    }
    if let more @ 1.. = problems.iter().len().saturating_sub(MOST_SHOWN) {
        let _ = writeln!(out, "not shown: {more} more");
    }
    out + &summary(problems, source)
}

/// The most problems that are printed. A generated file can have one in each line.
const MOST_SHOWN: usize = 500;

/// The last line: `conf/corsgate.yaml: 2 errors, 1 warning`, or `conf/corsgate.yaml: valid, 1 hint`.
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
            let Description { code, severity, fault, remedy, replacement } = problem.kind.describe();
            let fix = replacement.and_then(|replacement| fix(problem, &replacement, source));
            serde_json::json!({
                "severity": severity.to_string(),
                "code": code,
                "file": file_name(problem, source),
                "line": place.as_ref().map(|place| place.line),
                "column": place.as_ref().map(|place| place.column),
                "path": problem.path().to_string(),
                "fault": fault,
                "remedy": remedy,
                "fix": fix.map(|fix| hunks_json(&fix)),
            })
        })
        .collect()
}

/// The lines that a replacement changes. None when the edit cannot be made.
fn fix(problem: &Problem, replacement: &Replacement, source: &Source<'_>) -> Option<Vec<Hunk>> {
    let mended = source.with_replacement(&problem.at, replacement)?;
    Some(hunks(source.whole(), &mended))
}

/// Hunks in the JSON of `check` and `explain`. The text `removed` begins at `line`; `added` replaces it. Lines end with
/// line feeds.
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
    let _ = write!(out, "{}: {}", painted(&severity.to_string(), colour), file_name(problem, source));
    if let Some(place) = &place {
        let _ = write!(out, ":{}:{}", place.line, place.column);
    }
    let gap = if problem.path().0.is_empty() { ": " } else { " " };
    let _ = writeln!(out, "{gap}{}", printable(&problem.to_string()));
    if let Some(place) = place.filter(|place| !place.excerpt.is_empty()) {
        let number = place.line.to_string();
        let blank = " ".repeat(number.len());
        let (excerpt, before, width) = window(&place);
        let caret = painted(&"^".repeat(width), colour);
        let _ = writeln!(out, "  {number} | {excerpt}\n  {blank} | {}{caret}", " ".repeat(before));
    }
}

/// The most characters of a line that are printed. A generated JSON file can be one long line.
const WIDEST: usize = 200;

/// The printed part of a line, the number of characters before the caret, and the width of the caret.
fn window(place: &Place<'_>) -> (String, usize, usize) {
    // A terminal decides how wide a tab is. With one space for each tab the caret is at the right place.
    let as_one = |c: char| match c {
        '\t' => ' ',
        c if is_invisible(c) => '\u{fffd}',
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

/// The file with the problem.
fn file_name<'t>(problem: &'t Problem, source: &Source<'t>) -> &'t str {
    other_file(problem).map_or(source.name(), |file| &file.name)
}

fn other_file(problem: &Problem) -> Option<&OtherFile> {
    match &problem.kind {
        ProblemKind::InOtherFile(file) => Some(file),
        _ => None,
    }
}

/// The place of a problem in the text of its file. None if it has none.
pub(crate) fn place<'t>(problem: &'t Problem, source: &Source<'t>) -> Option<Place<'t>> {
    match &problem.kind {
        ProblemKind::InOtherFile(file) => {
            let OtherFile { line, column, width, excerpt, .. } = &**file;
            Some(Place { line: *line, column: *column, width: *width, excerpt })
        }
        // The file has no text.
        ProblemKind::Unreadable { .. } => None,
        // A syntax error has no key.
        ProblemKind::Syntax { places, .. } => syntax_place(places, source),
        ProblemKind::UnknownKey { .. } | ProblemKind::KeyTwice { .. } | ProblemKind::KeyAndAlias { .. } => {
            Some(source.place_of_key(&problem.at))
        }
        ProblemKind::BadName { .. } | ProblemKind::NameTwice { .. } if problem.at.names_a_key() => {
            Some(source.place_of_key(&problem.at))
        }
        _ => Some(source.place(&problem.at)),
    }
}

/// Where the parser stopped. At the end of the text: where the unfinished value begins.
fn syntax_place<'t>(places: &[SyntaxPlace], source: &Source<'t>) -> Option<Place<'t>> {
    let mut places = places.iter().map(|place| match place {
        SyntaxPlace::Byte(byte) => source.at_byte(*byte),
        SyntaxPlace::Line { line, column } => source.at_line(*line, *column),
    });
    let stopped = places.next()?;
    match stopped.excerpt.is_empty() {
        true => Some(places.next().unwrap_or(stopped)),
        false => Some(stopped),
    }
}
