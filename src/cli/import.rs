//! `corsgate import`: writes a configuration of corsgate from the configuration of another gateway.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};

use super::{Format, paint_on, print, width};
use crate::import::{NotImportable, SourceFile, SourceFormat, import};
use crate::source::{read_text, write_new};
use crate::terminal::printable;

pub(super) const HELP: &str = "\
The configuration goes to stdout or to --output, the report to stderr. The report lists what keeps its meaning, what
changes and what is left out. Each entry has its line in the source. A change has an example request where one request
can show it.

Exit codes: 0 every request gets the same answer, 4 something changes, is unsafe or is left out, 1 nothing can be
imported, 2 the command line is invalid.

Examples:
  corsgate import ingress.yaml > corsgate.yaml
  kubectl get ingress --all-namespaces -o yaml | corsgate import --from ingress-nginx - > corsgate.yaml
  corsgate import --format json --output corsgate.yaml kong.yml 2> report.json";

/// Exit code if some requests get different responses, or if something is unsafe or left out.
const CHANGED: u8 = 4;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The format of the files [default: the one that the files show]
    #[arg(long, value_name = "FORMAT", value_parser = formats())]
    from: Option<SourceFormat>,
    /// Write the configuration to this file, which must not exist [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// How to print the report
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The files of the other gateway; `-` for stdin
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
}

fn formats() -> impl TypedValueParser<Value = SourceFormat> {
    PossibleValuesParser::new(SourceFormat::ALL.map(|format| PossibleValue::new(format.word())))
        .map(|word| SourceFormat::ALL.into_iter().find(|format| format.word() == word).expect("clap knows only these"))
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let report = |text: &str| {
        let _ = std::io::stderr().write_all(text.as_bytes());
    };
    let fail = |message: &dyn std::fmt::Display| {
        report(&format!("corsgate: {}\n", message.to_string().lines().map(printable).collect::<Vec<_>>().join("\n")));
        ExitCode::FAILURE
    };
    let mut texts = Vec::new();
    for path in &arguments.files {
        match read_text(path) {
            Ok(text) => texts.push((path.to_string_lossy().into_owned(), text)),
            Err(unreadable) => return fail(&unreadable),
        }
    }
    let files: Vec<SourceFile<'_>> = texts.iter().map(|(name, text)| SourceFile { name, text }).collect();
    let paint = paint_on(&std::io::stderr());
    let shown = |of: &crate::import::ImportReport| match arguments.format {
        Format::Text => of.text(paint, width()),
        Format::Json => of.json(),
    };
    match import(&files, arguments.from) {
        Ok(imported) => {
            match &arguments.output {
                None => print(&imported.text),
                Some(path) => {
                    if let Err(error) = write_new(path, &imported.text) {
                        return fail(&format!("{}: {error}", path.display()));
                    }
                }
            }
            report(&shown(&imported.report));
            if imported.report.has_changes() { ExitCode::from(CHANGED) } else { ExitCode::SUCCESS }
        }
        Err(NotImportable::Nothing(why)) => {
            report(&shown(&why));
            fail(&NotImportable::Nothing(why))
        }
        Err(error) => fail(&error),
    }
}
