//! `corsgate check`: reports all problems of a file, or the effective settings of its routes.

use std::fmt::Write as _;
use std::io::Write;
use std::process::ExitCode;

use clap::Args;
use serde_json::json;

use super::{ConfigFile, Format, paint, print};
use crate::config::{Document, Source};
use crate::explain::effective;
use crate::problem::{At, ProblemKind, Problems, Severity};
use crate::report;
use crate::snapshot::Loaded;
use crate::source::{Etcd, EtcdCheck, KeyRefusal, SourceText, Unreadable};
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
    let source = config.find();
    if let (Ok(source), false) = (&source, *effective)
        && let Some(etcd) = source.etcd().filter(|etcd| etcd.file_problems().is_none())
    {
        return check_etcd(etcd, *deny_warnings, *format);
    }
    let read = source.and_then(|source| source.open());
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

/// Reports the problems of all keys.
fn check_etcd(etcd: &Etcd, deny_warnings: bool, format: Format) -> ExitCode {
    let EtcdCheck { name, revision, keys, refused, refused_count, warnings, whole } = match etcd.check() {
        Ok(check) => check,
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "corsgate: cannot read {}: {}", etcd.name(), why.trim_end());
            return ExitCode::FAILURE;
        }
    };
    match format {
        Format::Json => {
            let of_keys = refused.iter().flat_map(KeyRefusal::json_of_check);
            let all = warnings.iter().flat_map(|(_, _, json)| json.as_array().into_iter().flatten().cloned());
            let of_whole = whole.iter().map(|fault| json!({ "severity": "error", "code": "etcd", "fault": fault }));
            let all: Vec<_> = all.chain(of_keys).chain(of_whole).collect();
            print(&format!("{:#}\n", serde_json::Value::from(all)));
        }
        Format::Text => {
            let mut out = String::new();
            warnings.iter().for_each(|(_, text, _)| out.push_str(text));
            for KeyRefusal { text, revision, .. } in &refused {
                let _ = writeln!(out, "{}, at revision {revision}", text.trim_end());
            }
            if let more @ 1.. = refused_count.saturating_sub(refused.len()) {
                let _ = writeln!(out, "not shown: {more} more refused keys");
            }
            if let Some(whole) = &whole {
                let _ = writeln!(out, "error: {}", whole.trim_end());
            }
            let verdict = match (&whole, refused_count) {
                (Some(_), _) => "no configuration".to_owned(),
                (None, 0) => "valid".to_owned(),
                (None, 1) => "1 key refused".to_owned(),
                (None, n) => format!("{n} keys refused"),
            };
            let _ = writeln!(out, "{name}: {verdict}, {keys} keys, revision {revision}");
            print(&out);
        }
    }
    let warned = warnings.iter().any(|(severity, _, _)| *severity == Severity::Warning);
    let failed = refused_count > 0 || whole.is_some() || (deny_warnings && warned);
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// An unreadable file as a problem, so that the JSON output has all errors in the same form.
pub(super) fn unreadable_problem(unreadable: &Unreadable) -> Problems {
    let mut problems = Problems::default();
    problems
        .add(&At::root(), ProblemKind::Unreadable { why: unreadable.error.to_string(), remedy: unreadable.remedy() });
    problems
}
