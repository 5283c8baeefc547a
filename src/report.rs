//! Problems for people and for machines: what `check` prints, and what the log of a refused reload says.

use std::fmt::Write as _;

use crate::config::{Hunk, Place, Source, hunks};
use crate::problem::{Description, Problem, ProblemKind, Problems, Replacement, Severity, SyntaxPlace};
use crate::terminal::{Paint, is_unseen, printable};

/// All problems as text, errors last, because the end is what a terminal shows, and those of one severity in the order
/// of the file; then one line that counts them.
pub fn text(problems: &Problems, source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_cached_key(|problem| std::cmp::Reverse(problem.kind.severity()));
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
            let Description { code, severity, fault, remedy, replacement } = problem.kind.describe();
            let fix = replacement.and_then(|replacement| fix(problem, &replacement, source));
            serde_json::json!({
                "severity": severity.to_string(),
                "code": code,
                "file": source.name(),
                "line": place.as_ref().map(|place| place.line),
                "column": place.as_ref().map(|place| place.column),
                "path": problem.at.to_string(),
                "fault": fault,
                "remedy": remedy,
                "fix": fix.map(|fix| hunks_json(&fix)),
            })
        })
        .collect()
}

/// The lines that a replacement changes. None where it cannot be written.
fn fix(problem: &Problem, replacement: &Replacement, source: &Source<'_>) -> Option<Vec<Hunk>> {
    let mended = source.with_replacement(&problem.at, replacement)?;
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

/// Where the parser stopped; at the end of the text, where the value began that it was reading.
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
