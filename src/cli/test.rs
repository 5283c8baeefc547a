//! `corsgate test`: runs the expectations of a configuration, and those of further files.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::{ConfigFile, Format, paint, print, width};
use crate::config::Source;
use crate::expect::{self, Depth};
use crate::explain::Configuration;
use crate::problem::{KeyPath, Problems};
use crate::report;
use crate::source::{ConfigSource, TestSource, read_text};
use crate::terminal::{Paint, printable};

pub(super) const HELP: &str = "\
Exit codes: 0 all expectations hold, 1 some fail, 2 the configuration or the command line cannot be used.

Examples:
  corsgate test --config corsgate.yaml
  corsgate test --config corsgate.yaml --expect team-a.yaml --expect team-b.yaml
  corsgate explain --origin https://app.example --as-expectation https://api.example/orders   prints an entry";

/// Exit code if an expectation fails.
const FAILED: u8 = 1;
/// Exit code if there is nothing to test. clap has the same for an invalid command line.
const TROUBLE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// A file with further expectations, in the form of `expect_files`
    #[arg(long, value_name = "FILE")]
    expect: Vec<PathBuf>,
    /// How to print the results
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    match test(arguments) {
        Ok(code) => code,
        Err(why) => {
            let _ = std::io::stderr().write_all(why.as_bytes());
            ExitCode::from(TROUBLE)
        }
    }
}

/// The error is text for stderr.
fn test(Arguments { config, expect, format }: &Arguments) -> Result<ExitCode, String> {
    let failed = |why: &dyn std::fmt::Display| format!("corsgate: {}\n", printable(&why.to_string()));
    let source = config.find().map(ConfigSource::File).map_err(|error| failed(&error))?;
    let text = source.open_text().map_err(|error| failed(&error))?;
    let TestSource { loaded, document, mut suite, mut problems } = source.load_suite(&text);
    for path in expect {
        let text = read_text(path).map_err(|error| failed(&error))?;
        suite.add(path.to_string_lossy().into_owned(), text, KeyPath::default(), &mut problems);
    }
    let (Some(snapshot), Some(document), false) = (&loaded.snapshot, &document, problems.any_errors()) else {
        let all: Problems = loaded.problems.into_iter().chain(problems).collect();
        return Err(report::text(&all, &Source::new(&text.name, &text.text), Paint::Plain));
    };
    if suite.is_empty() {
        let why =
            "there are no expectations; write `expect` into the configuration, or name a file with `--expect FILE`";
        return Err(failed(&why));
    }
    let load = |text: &str| source.load(text);
    let configuration = Configuration::new(&text.name, &text.text, snapshot, &load).with_document(Some(document));
    let tested = suite.run(&configuration, document, Depth::Explained);
    print(&match format {
        Format::Text => expect::text(&tested, paint(), width()),
        Format::Json => expect::json(&tested),
    });
    let fails = tested.iter().any(expect::Tested::fails);
    Ok(if fails { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
}
