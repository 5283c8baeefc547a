//! Problems of a configuration, and their remedies.
//!
//! This module has every message of `corsgate check` and of a refused reload. Each [`ProblemKind`] has one arm in
//! [`ProblemKind::describe`], with its code, severity, fault, remedy and replacement. Other modules add a kind at a
//! place ([`At`]). [`crate::config::Source`] finds the line and the column of a [`KeyPath`]. Files and lines are not
//! available here.
//!
//! ```
//! use corsgate::problem::{At, ProblemKind, Problems};
//!
//! let mut problems = Problems::default();
//! let root = At::root();
//! let services = root.key("services");
//! problems.add(&services.index(0).key("upstream"), ProblemKind::Missing { example: "upstream: api" });
//! assert_eq!(
//!     problems.iter().next().unwrap().to_string(),
//!     "services[0].upstream: is missing; write for example `upstream: api`",
//! );
//! ```

mod describe;
mod kind;
mod path;
mod words;

use std::fmt;

pub use describe::Description;
pub use kind::{OtherFile, ProblemKind, RemovedBecause, SyntaxPlace};
pub use path::{At, KeyPath, PathStep};
pub use words::Known;
pub(crate) use words::nearest;

/// An error, a warning or a hint about one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The path of the key with the problem. The key may be missing in the file.
    pub at: KeyPath,
    /// The kind of the problem, with the user's text.
    pub kind: ProblemKind,
}

/// How serious a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Information. A hint never fails a check.
    Hint,
    /// A probable mistake. A warning fails a check only with `--deny-warnings`.
    Warning,
    /// An error. The configuration is refused.
    Error,
}

/// The edit that solves a problem, for programs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// Replaces the value with this string.
    Text(String),
    /// Replaces the value with this YAML word or number.
    Literal(&'static str),
    /// Renames the key to this name.
    Key(String),
    /// Removes the list entry, or the key with its value.
    Nothing,
}

/// A list of problems, in the order in which they were found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

// === impl Problem, Problems ===

impl Problem {
    /// Returns the path of the key with the problem, from the top of the file that contains the key.
    pub(crate) fn path(&self) -> &KeyPath {
        match &self.kind {
            ProblemKind::InOtherFile(file) => &file.at,
            _ => &self.at,
        }
    }
}

impl Problems {
    /// Adds a problem at a place.
    pub fn add(&mut self, at: &At<'_>, kind: ProblemKind) {
        self.push(Problem { at: at.path(), kind });
    }

    /// Adds a problem that already has its path.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// Returns true if at least one problem is an error.
    pub fn any_errors(&self) -> bool {
        self.0.iter().any(|p| p.kind.severity() == Severity::Error)
    }

    /// Returns the number of problems with this severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|p| p.kind.severity() == severity).count()
    }

    /// Returns true if there is no problem, not even a hint.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Returns all problems in the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Keeps only the problems for which `keep` returns true.
    pub fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.0.retain(keep);
    }

    /// Appends the problems of `other`.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
    }
}

impl FromIterator<Problem> for Problems {
    fn from_iter<I: IntoIterator<Item = Problem>>(problems: I) -> Self {
        Problems(problems.into_iter().collect())
    }
}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl IntoIterator for Problems {
    type Item = Problem;
    type IntoIter = std::vec::IntoIter<Problem>;
    fn into_iter(self) -> Self::IntoIter {
        self.0.into_iter()
    }
}

impl fmt::Display for Problem {
    /// Writes one line: `place: fault; remedy`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.path();
        if !at.0.is_empty() {
            write!(f, "{at}: ")?;
        }
        let Description { fault, remedy, .. } = self.kind.describe();
        write!(f, "{fault}; {remedy}")
    }
}

impl fmt::Display for Problems {
    /// Writes one line for each problem.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|problem| writeln!(f, "{problem}"))
    }
}

impl fmt::Display for Severity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Severity::Hint => "hint",
            Severity::Warning => "warning",
            Severity::Error => "error",
        })
    }
}
