//! Prints the results of expectations: as text for people, and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::suite::{Places, Tested};
use crate::explain::json_value;
use crate::terminal::{Paint, Width, printable};

/// One line for each expectation, and for a failed one also what is found, what to do, and the command that explains it.
/// The last line has the numbers.
pub(crate) fn text(tested: &[Tested<'_>], paint: Paint, width: Width) -> String {
    let mut places = Places::new();
    let places: Vec<String> =
        tested.iter().map(|tested| format!("{}:{}", tested.file(), places.of(tested).line)).collect();
    let longest = places.iter().map(|place| place.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (Tested { entry, failure, .. }, place) in tested.iter().zip(&places) {
        let word = match failure {
            None => paint.with("32", "ok  "),
            Some(_) => paint.with("1;31", "FAIL"),
        };
        let line = format!("{place:longest$}  {:10}  {}", entry.result.word(), entry.question);
        let _ = writeln!(out, "{word}  {}", printable(&line));
        if let Some(failure) = failure {
            let cause = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
            let found = format!("{} instead of {}{cause}", failure.found(), failure.expected(entry));
            for (label, text) in [("found", &found), ("advice", &failure.advice)] {
                let _ = writeln!(out, "{}", width.wrap(&format!("      {label:9}"), &printable(text)));
            }
            let _ = writeln!(out, "      {:9}{}", "explain", printable(&failure.command));
        }
    }
    let failed = tested.iter().filter(|tested| tested.failure.is_some()).count();
    let _ = writeln!(out, "{} hold, {failed} fail", tested.len() - failed);
    out
}

/// One JSON object: the numbers, and each expectation with its result.
pub(crate) fn json(tested: &[Tested<'_>]) -> String {
    let mut places = Places::new();
    let results: Vec<Value> = tested.iter().map(|tested| result(tested, &mut places)).collect();
    let failed = tested.iter().filter(|tested| tested.failure.is_some()).count();
    let object = json!({ "holding": tested.len() - failed, "failing": failed, "results": results });
    format!("{object:#}\n")
}

fn result<'s>(tested: &Tested<'s>, places: &mut Places<'s>) -> Value {
    let Tested { entry, failure, .. } = tested;
    let place = places.of(tested);
    json!({
        "file": tested.file(),
        "line": place.line,
        "column": place.column,
        "path": entry.at.to_string(),
        "request": entry.question.to_string(),
        "expected": { "result": entry.result.word(), "reason": entry.reason },
        "holds": failure.is_none(),
        "found": failure.as_ref().map(|failure| {
            json!({ "result": failure.result.map_or("undecided", |result| result.word()), "reason": failure.code })
        }),
        "cause": failure.as_ref().and_then(|failure| failure.cause.as_ref()),
        "advice": failure.as_ref().map(|failure| &failure.advice),
        "command": failure.as_ref().map(|failure| &failure.command),
        "explanation": failure.as_ref().and_then(|failure| failure.explanation.as_deref()).map(json_value),
    })
}
