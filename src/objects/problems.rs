//! Problems of a change as JSON. A place inside of the object is a place of what the client has sent.

use serde_json::{Value, json};

use crate::config::Source;
use crate::problem::{Description, KeyPath, PathStep, Problem};
use crate::report;

/// The problems, with their places. `object` is the place of the object in the configuration, and `sent` the text that
/// the client has sent. A problem of another object has only its place in the configuration. `values` are those of the
/// configuration: a text about a value with variables is not shown, because it may contain their values.
pub(crate) fn problems_json(
    problems: &mut dyn Iterator<Item = &Problem>,
    object: &KeyPath,
    sent: Option<&str>,
    values: &Value,
) -> Vec<Value> {
    let source = sent.map(|text| Source::new("", text));
    let one = |problem: &Problem| {
        let Description { code, severity, fault, remedy, .. } = problem.kind.describe();
        let path = problem.path();
        let (fault, remedy) = match values["environment"] == true && has_variable(values, path) {
            true => (VARIABLE.into(), "correct the variable, or write another value".into()),
            false => (fault, remedy),
        };
        let inside = sent.is_some() && path == &problem.at && path.is_within(object);
        let (path, place) = match (&source, inside) {
            (Some(source), true) => {
                let own = Problem { at: KeyPath(path.0[object.0.len()..].to_vec()), kind: problem.kind.clone() };
                let place = report::place(&own, source).map(|place| (place.line, place.column));
                (own.at.to_string(), place)
            }
            _ => (path.to_string(), None),
        };
        json!({
            "severity": severity.to_string(),
            "code": code,
            "in": if inside { "object" } else { "configuration" },
            "path": path,
            "line": place.map(|(line, _)| line),
            "column": place.map(|(_, column)| column),
            "fault": fault,
            "remedy": remedy,
        })
    };
    problems.map(one).collect()
}

const VARIABLE: &str = "the value is not accepted with its variables filled in";

/// Whether the value at a path, or the string that contains it, has a variable.
fn has_variable(values: &Value, path: &KeyPath) -> bool {
    let mut value = values;
    for step in &path.0 {
        let inner = match step {
            PathStep::Key(key) => value.get(key.as_str()),
            PathStep::Index(index) => value.get(*index),
        };
        match inner {
            Some(inner) => value = inner,
            None => break,
        }
    }
    value.as_str().is_some_and(|text| text.contains("${"))
}
