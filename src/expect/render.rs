//! Prints the results of expectations: as text for people, and as JSON for programs.

use std::fmt::Write as _;

use serde_json::{Value, json};

use super::suite::{Places, TestResult, Tested};
use crate::explain::json_value;
use crate::terminal::{Paint, Width, printable};

/// Returns one line for each expectation. A failed expectation also has lines with the result, the advice, and the
/// command that explains it. The last line has the counts.
pub(crate) fn text(tested: &[Tested<'_>], paint: Paint, width: Width) -> String {
    let mut places = Places::new();
    let places: Vec<String> =
        tested.iter().map(|tested| format!("{}:{}", tested.file(), places.of(tested).line)).collect();
    let longest = places.iter().map(|place| place.chars().count()).max().unwrap_or(0);
    let mut out = String::new();
    for (Tested { entry, result, .. }, place) in tested.iter().zip(&places) {
        let word = match result {
            TestResult::Holds => paint.with("32", "ok  "),
            TestResult::Fails(_) => paint.with("1;31", "FAIL"),
            TestResult::NotTested(_) => paint.with("33", "skip"),
        };
        let line = format!("{place:longest$}  {:10}  {}", entry.result.word(), entry.question);
        let _ = writeln!(out, "{word}  {}", printable(&line));
        let mut item = |label: &str, text: &str| {
            let _ = writeln!(out, "{}", width.wrap(&format!("      {label:9}"), &printable(text)));
        };
        match result {
            TestResult::Holds => {}
            TestResult::NotTested(why) => item("reason", why),
            TestResult::Fails(failure) => {
                let cause = failure.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                item("found", &format!("{} instead of {}{cause}", failure.found(), failure.expected(entry)));
                item("advice", &failure.advice);
                let _ = writeln!(out, "      {:9}{}", "explain", printable(&failure.command));
            }
        }
    }
    let Counts { holding, failing, skipped } = Counts::of(tested);
    let skipped = if skipped == 0 { String::new() } else { format!(", {skipped} not tested") };
    let _ = writeln!(out, "{holding} hold, {failing} fail{skipped}");
    out
}

/// Counts of expectations, by result.
struct Counts {
    holding: usize,
    failing: usize,
    skipped: usize,
}

impl Counts {
    fn of(tested: &[Tested<'_>]) -> Self {
        let mut counts = Counts { holding: 0, failing: 0, skipped: 0 };
        for Tested { result, .. } in tested {
            *match result {
                TestResult::Holds => &mut counts.holding,
                TestResult::Fails(_) => &mut counts.failing,
                TestResult::NotTested(_) => &mut counts.skipped,
            } += 1;
        }
        counts
    }
}

/// Returns one JSON object with the counts, and with the result of each expectation.
pub(crate) fn json(tested: &[Tested<'_>]) -> String {
    let mut places = Places::new();
    let results: Vec<Value> = tested.iter().map(|tested| result(tested, &mut places)).collect();
    let Counts { holding, failing, skipped } = Counts::of(tested);
    let object = json!({ "holding": holding, "failing": failing, "skipped": skipped, "results": results });
    format!("{object:#}\n")
}

fn result<'s>(tested: &Tested<'s>, places: &mut Places<'s>) -> Value {
    let Tested { entry, result, .. } = tested;
    let failure = tested.failure();
    let not_tested = match result {
        TestResult::NotTested(why) => Some(why),
        TestResult::Holds | TestResult::Fails(_) => None,
    };
    let place = places.of(tested);
    json!({
        "file": tested.file(),
        "line": place.line,
        "column": place.column,
        "path": entry.at.to_string(),
        "request": entry.question.to_string(),
        "expected": { "result": entry.result.word(), "reason": entry.reason },
        // Null if the expectation was not tested.
        "holds": not_tested.is_none().then_some(failure.is_none()),
        "not_tested": not_tested,
        "found": failure.map(|failure| {
            json!({ "result": failure.result.map_or("undecided", |result| result.word()), "reason": failure.code })
        }),
        "cause": failure.and_then(|failure| failure.cause.as_ref()),
        "advice": failure.map(|failure| &failure.advice),
        "command": failure.map(|failure| &failure.command),
        "explanation": failure.and_then(|failure| failure.explanation.as_deref()).map(json_value),
    })
}
