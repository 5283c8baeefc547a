//! `corsgate check`: reports all problems of a file, or the effective settings of its routes.

use std::io::Write;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, Format, paint, print};
use crate::config::{Document, Source};
use crate::explain::effective;
use crate::problem::{At, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::Loaded;
use crate::source::{ConfigSource, SourceText, Unreadable};
use crate::terminal::Paint;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Exit with code 1 on warnings too
    #[arg(long)]
    deny_warnings: bool,
    /// Print the effective settings of each route, and the line that sets each of them
    #[arg(long)]
    effective: bool,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(Arguments { config, deny_warnings, effective, format }: &Arguments) -> ExitCode {
    let read = config.find().and_then(|path| ConfigSource::File(path).open());
    let (SourceText { name, text, .. }, Loaded { snapshot, problems }) = match read {
        Ok(read) => read,
        Err(unreadable) => {
            let name = unreadable.path.to_string_lossy();
            let _ = writeln!(std::io::stderr(), "corsgate: {unreadable}");
            // A program that parses stdout must find valid JSON.
            if let Format::Json = format {
                print(&report::json(&unreadable_problem(&unreadable), &Source::new(&name, "")));
            }
            return ExitCode::FAILURE;
        }
    };
    let source = Source::new(&name, &text);
    let in_force = snapshot.filter(|_| *effective).and_then(|snapshot| {
        let document = Document::parse(snapshot.redacted(&text), &mut Problems::default())?;
        Some(effective::routes(&document, &snapshot, &source).collect::<Vec<_>>())
    });
    match in_force {
        Some(routes) => {
            // With --effective, problems are not the result, so they go to stderr.
            let _ = std::io::stderr().write_all(report::text(&problems, &source, Paint::Plain).as_bytes());
            print(&match format {
                Format::Text => effective::text(&routes, &source, paint()),
                Format::Json => format!("{:#}\n", effective::json(&routes)),
            });
        }
        None => print(&match format {
            Format::Text => report::text(&problems, &source, paint()),
            Format::Json => report::json(&problems, &source),
        }),
    }
    let refused = problems.any_errors() || (*deny_warnings && problems.count(Severity::Warning) > 0);
    if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An unreadable file as a problem, so that the JSON output has all errors in the same form.
pub(super) fn unreadable_problem(unreadable: &Unreadable) -> Problems {
    let mut problems = Problems::default();
    problems
        .add(&At::root(), ProblemKind::Unreadable { why: unreadable.error.to_string(), remedy: unreadable.remedy() });
    problems
}
