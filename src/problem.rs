//! What can be wrong with a configuration, and what to write instead.
//!
//! Every sentence that `corsgate check` or a failed reload can say about a file stands here, one [`ProblemKind`] each: the
//! fault with the user's own text in it, and the remedy. The layers above only say *where* ([`At`]) and *which*.
//! Nothing here knows files or lines: [`crate::config::Source`] turns a [`KeyPath`] into a line and a column.
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
pub use kind::{ProblemKind, SyntaxPlace};
pub use path::{At, KeyPath, PathStep};
pub use words::Known;

/// A fault, a warning or a hint about one place of a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The key it is about; the key need not exist (it may be the one that is missing).
    pub at: KeyPath,
    /// What is wrong.
    pub kind: ProblemKind,
}

/// How much a problem matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Worth knowing; never fails a check.
    Hint,
    /// Probably not what was meant; fails a check with `--deny-warnings`.
    Warning,
    /// The configuration is refused.
    Error,
}

/// What to write in place of what is wrong, for programs that mend files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Replacement {
    /// This text, instead of the value.
    Text(String),
    /// This word or number, instead of the value.
    Literal(&'static str),
    /// This name, for the key.
    Key(String),
    /// Nothing: the entry, or the key with its value, goes.
    Nothing,
}

/// All that was found, in the order in which it was found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

// === impl Problems ===

impl Problems {
    /// Notes `kind` at a place.
    pub fn add(&mut self, at: &At<'_>, kind: ProblemKind) {
        self.push(Problem { at: at.path(), kind });
    }

    /// Notes a problem whose path is already known.
    pub fn push(&mut self, problem: Problem) {
        self.0.push(problem);
    }

    /// True when something makes the configuration unusable.
    pub fn any_errors(&self) -> bool {
        self.0.iter().any(|p| p.kind.severity() == Severity::Error)
    }

    /// How many of one severity.
    pub fn count(&self, severity: Severity) -> usize {
        self.0.iter().filter(|p| p.kind.severity() == severity).count()
    }

    /// Nothing at all, not even a hint.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// In the order in which they were found.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// Keeps those for which `keep` is true.
    pub fn retain(&mut self, keep: impl FnMut(&Problem) -> bool) {
        self.0.retain(keep);
    }

    /// Adds all of `other` behind these.
    pub fn extend(&mut self, other: Problems) {
        self.0.extend(other.0);
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
    /// One line: place, fault, remedy.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.at.0.is_empty() {
            write!(f, "{}: ", self.at)?;
        }
        let Description { fault, remedy, .. } = self.kind.describe();
        write!(f, "{fault}; {remedy}")
    }
}

impl fmt::Display for Problems {
    /// One line each.
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
