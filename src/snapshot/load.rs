//! Text to snapshot: the same function for start, reload, `check` and `explain`.

use super::Snapshot;
use crate::config::Document;
use crate::problem::{KeyPath, PathStep, Problem, ProblemKind, Problems};

/// What came of a text.
#[derive(Debug)]
pub struct Loaded {
    /// None when one of the problems is an error.
    pub snapshot: Option<Snapshot>,
    /// All problems; warnings and hints are there beside a snapshot too.
    pub problems: Problems,
}

/// What a configuration refers to outside of its text.
#[derive(Clone, Copy)]
pub struct CompileEnv<'a> {
    /// The contents of a file, by its path as written, or why it cannot be read.
    pub file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// Whether the folder is there in which a file is to be, by the path of that file as written.
    pub has_folder: &'a dyn Fn(&str) -> bool,
    /// Seconds since 1970.
    pub now: i64,
}

/// Reads and compiles a text. Pure: everything outside of the text comes from `env`.
pub fn load(text: &str, env: CompileEnv<'_>) -> Loaded {
    let mut problems = Problems::default();
    let Some(document) = Document::parse(text, &mut problems) else { return Loaded { snapshot: None, problems } };
    let mut compiled = Problems::default();
    let snapshot = Snapshot::compile(&document, env, &mut compiled);
    compiled.retain(|problem| !problems.iter().any(|cause| follows_from(problem, cause)));
    problems.extend(compiled);
    let usable = !problems.any_errors();
    Loaded { snapshot: snapshot.filter(|_| usable), problems }
}

impl CompileEnv<'static> {
    /// For a configuration that refers to nothing.
    pub const NONE: Self =
        CompileEnv { file: &|_| Err("there are no files here".to_owned()), has_folder: &|_| true, now: 0 };
}

/// Whether a problem is only what an unreadable value leaves behind: the reader has been told the cause already.
fn follows_from(problem: &Problem, cause: &Problem) -> bool {
    let is_left_out = matches!(
        problem.kind,
        ProblemKind::Missing { .. }
            | ProblemKind::MaxAgeLeftOut
            | ProblemKind::AnyHeaderWithoutAuthorization
            | ProblemKind::NoOrigins
    );
    problem.at.is_within(&cause.at)
        || match &problem.kind {
            _ if is_left_out && cause.kind.may_stand_for(&problem.at, &cause.at) => true,
            ProblemKind::Missing { .. } | ProblemKind::NoOrigins | ProblemKind::EmptyList => {
                cause.at.is_within(&problem.at)
            }
            ProblemKind::UnknownName { name, what, .. } => {
                let section = KeyPath(vec![PathStep::Key(section_of(what).into())]);
                cause.at == section
                    || cause.kind.may_stand_for(&section, &cause.at)
                    || cause.at.0.last() == Some(&PathStep::Key(name.clone()))
            }
            _ => false,
        }
}

/// Where things with a name are defined.
fn section_of(what: &str) -> &'static str {
    match what {
        "upstream" => "upstreams",
        "policy" => "cors_policies",
        _ => "origin_sets",
    }
}
