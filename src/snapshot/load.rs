//! Makes a snapshot from a text: one function for start, reload, `check` and `explain`.

use std::path::PathBuf;

use super::Snapshot;
use crate::config::{Document, environment};
use crate::problem::{KeyPath, PathStep, Problem, ProblemKind, Problems, Severity};

/// The result of loading a text.
#[derive(Debug)]
pub struct Loaded {
    /// The snapshot. None if one of the problems is an error.
    pub snapshot: Option<Snapshot>,
    /// All problems. A usable snapshot may have warnings and hints.
    pub problems: Problems,
}

/// Access to everything outside of the text of a configuration: files, sockets, environment variables, root
/// certificates and the time.
#[derive(Clone, Copy)]
pub struct CompileEnv<'a> {
    /// Reads a file. The argument is the path in the spelling of the configuration. The error is the reason in words.
    pub file: &'a dyn Fn(&str) -> Result<Vec<u8>, String>,
    /// Whether the directory of a file exists. The argument is the path of the file in the spelling of the
    /// configuration.
    pub has_folder: &'a dyn Fn(&str) -> bool,
    /// The path of a socket. The argument is the path in the spelling of the configuration.
    pub socket: &'a dyn Fn(&str) -> PathBuf,
    /// The value of an environment variable. None if it is not set.
    pub variable: &'a dyn Fn(&str) -> Option<String>,
    /// Number of root certificates that this machine has for TLS to upstreams. The error is the reason in words why
    /// they cannot be loaded.
    pub roots: &'a dyn Fn() -> Result<usize, String>,
    /// The current time in seconds since 1970.
    pub now: i64,
}

/// Parses and compiles a text. The function does no I/O itself: files, root certificates and the time come from `env`.
pub fn load(text: &str, env: CompileEnv<'_>) -> Loaded {
    load_with_document(text, env).0
}

/// Loads a text as [`load`] does, and also returns the document. Callers that need both parse a large text only once.
pub(crate) fn load_with_document(text: &str, env: CompileEnv<'_>) -> (Loaded, Option<Document>) {
    match load_as_written(text, env) {
        (Loaded { snapshot: None, problems }, document) => {
            let fills_in = document.as_ref().is_some_and(|document| document.environment);
            let about = |problem| if fills_in { problem } else { about_variable(problem) };
            (Loaded { snapshot: None, problems: problems.into_iter().map(about).collect() }, document)
        }
        (Loaded { snapshot, mut problems }, document) => {
            if !document.as_ref().is_some_and(|document| document.environment) {
                for (at, text) in environment::looks_meant(text) {
                    problems.push(Problem { at, kind: ProblemKind::VariableNotFilled { text } });
                }
            }
            (Loaded { snapshot, problems }, document)
        }
    }
}

fn load_as_written(text: &str, env: CompileEnv<'_>) -> (Loaded, Option<Document>) {
    let mut problems = Problems::default();
    let filled = environment::fill(text, env.variable, &mut problems);
    let mut of_text = Problems::default();
    let document = Document::parse(filled.as_ref().map_or(text, |filled| &filled.text), &mut of_text);
    of_text.retain(|problem| !problems.iter().any(|cause| problem.at.is_within(&cause.at)));
    problems.extend(of_text);
    let Some(document) = document else {
        return (Loaded { snapshot: None, problems }, None);
    };
    let mut compiled = Problems::default();
    let snapshot = Snapshot::compile(&document, env, &mut compiled);
    extend_with_causes(&mut problems, compiled);
    let usable = !problems.any_errors();
    let snapshot = snapshot.filter(|_| usable).map(|snapshot| Snapshot { filled, ..snapshot });
    (Loaded { snapshot, problems }, Some(document))
}

/// Adds problems, except those that only follow from a value that could not be read.
pub(crate) fn extend_with_causes(problems: &mut Problems, mut found: Problems) {
    found.retain(|problem| !problems.iter().any(|cause| follows_from(problem, cause)));
    problems.extend(found);
}

impl CompileEnv<'static> {
    /// Environment without files and variables, for a configuration that refers to no files. It has a root certificate,
    /// and its time is the start of 1970.
    pub const NONE: Self = CompileEnv {
        file: &|_| Err("there are no files here".to_owned()),
        has_folder: &|_| true,
        socket: &|path| PathBuf::from(path),
        variable: &|_| None,
        roots: &|| Ok(1),
        now: 0,
    };
}

/// Replaces an error about a value that contains a variable, such as `${ORIGIN}`, by an error about the variable.
/// Errors about paths stay, because `/users/${id}` means a parameter.
fn about_variable(problem: Problem) -> Problem {
    let description = problem.kind.describe();
    if description.severity != Severity::Error || description.code == "bad-path" {
        return problem;
    }
    let variable = variable_in(&description.fault).map(str::to_owned);
    match variable {
        Some(text) => Problem { at: problem.at, kind: ProblemKind::Variable { text } },
        None => problem,
    }
}

/// Returns the first variable of a text: `${NAME}`, `{{ name }}`, `$(NAME)`, `$NAME` or `%NAME%`.
fn variable_in(text: &str) -> Option<&str> {
    let enclosed = [("${", "}"), ("{{", "}}"), ("$(", ")")].iter().find_map(|(open, close)| {
        let start = text.find(open)?;
        let end = start + text[start..].find(close)? + close.len();
        Some(&text[start..end])
    });
    enclosed.or_else(|| {
        text.match_indices(['$', '%']).find_map(|(start, mark)| {
            let name = text[start + 1..].bytes().take_while(|b| b.is_ascii_uppercase() || *b == b'_').count();
            let end = start + 1 + name;
            match mark {
                "$" => (name > 1).then(|| &text[start..end]),
                // `%AB%` may be percent-encoded.
                _ => (name > 2 && text[end..].starts_with('%')).then(|| &text[start..=end]),
            }
        })
    })
}

/// Whether a problem only follows from a value that could not be read. That value is reported already.
fn follows_from(problem: &Problem, cause: &Problem) -> bool {
    let is_left_out = matches!(
        problem.kind,
        ProblemKind::Missing { .. }
            | ProblemKind::MaxAgeLeftOut
            | ProblemKind::AnyHeaderWithoutAuthorization
            | ProblemKind::OpenByOmission { .. }
            | ProblemKind::NoOrigins
    );
    problem.at.is_within(&cause.at)
        || match &problem.kind {
            _ if is_left_out && cause.kind.may_stand_for(&problem.at, &cause.at) => true,
            ProblemKind::Missing { .. } | ProblemKind::NoOrigins | ProblemKind::EmptyList { .. } => {
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

/// Returns the top-level key that defines the names of a kind.
fn section_of(what: &str) -> &'static str {
    match what {
        "upstream" => "upstreams",
        "policy" => "cors_policies",
        _ => "origin_sets",
    }
}
