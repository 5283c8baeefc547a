//! Refused keys: the errors of their newest values, as `check` prints them.

use serde_json::{Value, json};

use super::keys::Key;
use crate::config::Source;
use crate::problem::Problems;
use crate::report;
use crate::terminal::Paint;

/// A key whose newest value is refused, with the errors.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct KeyRefusal {
    /// Without the prefix.
    pub(crate) key: String,
    pub(crate) revision: i64,
    /// The errors, as `check` prints them.
    pub(crate) text: String,
    /// The same, as the JSON of `check`.
    pub(super) json: Value,
    pub(crate) kept: Kept,
}

/// The version that replaces the refused value of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kept {
    /// The version of this revision.
    Revision(i64),
    Nothing,
}

// === impl KeyRefusal ===

impl KeyRefusal {
    /// The errors, as the JSON of `check`, with the revision.
    pub(crate) fn json_of_check(&self) -> Vec<Value> {
        let with_revision = |mut problem: Value| {
            problem["revision"] = self.revision.into();
            problem
        };
        self.json.as_array().into_iter().flatten().cloned().map(with_revision).collect()
    }
}

pub(super) fn refusal(key: &Key, revision: i64, text: &str, problems: &Problems) -> KeyRefusal {
    let name = key.to_string();
    let source = Source::new(&name, text);
    KeyRefusal {
        revision,
        text: report::text(problems, &source, Paint::Plain),
        json: report::problems_json(problems, &source),
        kept: Kept::Nothing,
        key: name,
    }
}

/// A fault that is of etcd, not of the text.
pub(super) fn self_fault(key: &str, revision: i64, code: &str, fault: &str, remedy: &str) -> KeyRefusal {
    let json = json!([{
        "severity": "error", "code": code, "file": key, "line": null, "column": null, "path": "",
        "fault": fault, "remedy": remedy, "fix": null,
    }]);
    let remedy = if remedy.is_empty() { String::new() } else { format!("; {remedy}") };
    KeyRefusal {
        key: key.to_owned(),
        revision,
        text: format!("error: {key}: {fault}{remedy}\n{key}: 1 error\n"),
        json,
        kept: Kept::Nothing,
    }
}
