//! Problems for people and for machines: what `check` prints, and what the log of a refused reload says.

use std::fmt::Write as _;

use crate::config::Source;
use crate::problem::{Kind, Problem, Problems, Severity};

/// How to draw on a terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Paint {
    /// No escape sequences.
    Plain,
    /// Colours for severities and carets.
    Colour,
}

/// All problems as text, errors last, because the end is what a terminal shows; then one line that counts them.
pub fn text(problems: &Problems, source: &Source<'_>, paint: Paint) -> String {
    let mut out = String::new();
    let mut ordered: Vec<&Problem> = problems.iter().collect();
    ordered.sort_by_key(|problem| problem.kind.severity());
    for problem in ordered {
        one(problem, source, paint, &mut out);
    }
    out + &summary(problems, source)
}

/// The line that counts: `conf/corsgate.yaml: 2 errors, 1 warning`.
pub fn summary(problems: &Problems, source: &Source<'_>) -> String {
    let mut counts = Vec::new();
    for (severity, name) in [(Severity::Error, "error"), (Severity::Warning, "warning"), (Severity::Hint, "hint")] {
        match problems.count(severity) {
            0 => {}
            1 => counts.push(format!("1 {name}")),
            n => counts.push(format!("{n} {name}s")),
        }
    }
    match counts.is_empty() {
        true => format!("{}: valid\n", source.name()),
        false => format!("{}: {}\n", source.name(), counts.join(", ")),
    }
}

/// All problems as one JSON array of objects.
pub fn json(problems: &Problems, source: &Source<'_>) -> String {
    let entries: Vec<_> = problems
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
            })
        })
        .collect();
    format!("{:#}\n", serde_json::Value::Array(entries))
}

fn one(problem: &Problem, source: &Source<'_>, paint: Paint, out: &mut String) {
    let severity = problem.kind.severity();
    let colour = match severity {
        Severity::Error => "31",
        Severity::Warning => "33",
        Severity::Hint => "36",
    };
    let painted = |text: &str, colour: &str| match paint {
        Paint::Plain => text.to_owned(),
        Paint::Colour => format!("\x1b[1;{colour}m{text}\x1b[0m"),
    };
    let place = place(problem, source);
    let _ = write!(out, "{}: {}", painted(&severity.to_string(), colour), source.name());
    if let Some(place) = &place {
        let _ = write!(out, ":{}:{}", place.line, place.column);
    }
    let gap = if problem.at.0.is_empty() { ": " } else { " " };
    let _ = writeln!(out, "{gap}{problem}");
    if let Some(place) = place.filter(|place| !place.excerpt.is_empty()) {
        let number = place.line.to_string();
        let blank = " ".repeat(number.len());
        // A tab is as wide as it likes; with one space for each the caret stands where the eye looks.
        let excerpt = place.excerpt.replace('\t', " ");
        let caret = painted(&"^".repeat(place.width), colour);
        let _ = writeln!(out, "  {number} | {excerpt}\n  {blank} | {}{caret}", " ".repeat(place.column - 1));
    }
}

fn place<'t>(problem: &Problem, source: &Source<'t>) -> Option<crate::config::Place<'t>> {
    // A syntax error has no key. Its own message says where it is.
    match &problem.kind {
        Kind::Syntax { message } => {
            let number = |name: &str| -> Option<usize> {
                let digits = message.rsplit_once(name)?.1;
                digits.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
            };
            Some(source.at_line(number(" at line ")?, number(" column ").unwrap_or(1)))
        }
        _ => source.place(&problem.at),
    }
}
