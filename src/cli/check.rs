//! `corsgate check`: every problem of a file, or what is in force for each of its routes.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{DEFAULT_CONFIG, Format, paint, print};
use crate::config::{Document, Source};
use crate::explain::effective;
use crate::problem::{At, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::Loaded;
use crate::source::{ConfigSource, Unreadable};
use crate::terminal::Paint;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// Exit with 1 on warnings too
    #[arg(long)]
    deny_warnings: bool,
    /// Print what is in force for every route, and where each value is written
    #[arg(long)]
    effective: bool,
    /// How to print it
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(Arguments { config, deny_warnings, effective, format }: &Arguments) -> ExitCode {
    let name = config.to_string_lossy();
    let (text, Loaded { snapshot, problems }) = match ConfigSource::File(config.clone()).open() {
        Ok((text, loaded)) => (text.text, loaded),
        Err(unreadable) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {unreadable}");
            // A program that reads the array must not find nothing there.
            if let Format::Json = format {
                print(&report::json(&unreadable_problem(&unreadable), &Source::new(&name, "")));
            }
            return ExitCode::FAILURE;
        }
    };
    let source = Source::new(&name, &text);
    let in_force = snapshot.filter(|_| *effective).and_then(|snapshot| {
        let document = Document::parse(&text, &mut Problems::default())?;
        Some(effective::routes(&document, &snapshot, &source).collect::<Vec<_>>())
    });
    match in_force {
        Some(routes) => {
            // Beside what was asked for, problems are messages.
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

/// For programs, which want to find a file that cannot be read where they find everything else.
pub(super) fn unreadable_problem(unreadable: &Unreadable) -> Problems {
    let mut problems = Problems::default();
    problems.add(&At::root(), ProblemKind::Unreadable { why: unreadable.error.to_string() });
    problems
}
