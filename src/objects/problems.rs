//! Problems of a change as JSON. A place inside of the object is a place of what the client has sent.

use serde_json::{Value, json};

use crate::config::Source;
use crate::problem::{Description, KeyPath, Problem};
use crate::report;

/// The problems, with their places. `object` is the place of the object in the configuration, and `sent` the text that
/// the client has sent. A problem of another object has only its place in the configuration.
pub(crate) fn problems_json<'p>(
    problems: &mut dyn Iterator<Item = &'p Problem>,
    object: &KeyPath,
    sent: Option<&str>,
) -> Vec<Value> {
    let source = sent.map(|text| Source::new("", text));
    let one = |problem: &Problem| {
        let Description { code, severity, fault, remedy, .. } = problem.kind.describe();
        let path = problem.path();
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
