//! `corsgate test`: runs the expectations of a configuration, and those of further files.

mod server;

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use self::server::Server;
use super::probe::NetworkArguments;
use super::{ConfigFile, Format, paint, print, width};
use crate::config::Source;
use crate::expect::{self, Depth, Suite, Tested};
use crate::explain::{Configuration, PageUrl};
use crate::probe::Sending;
use crate::problem::{KeyPath, Problems};
use crate::report;
use crate::source::{TestSource, read_text};
use crate::terminal::{Paint, printable};

pub(super) const HELP: &str = "\
With `--server` the requests are sent, and the results come from the responses of the server, which can be any gateway.
Preflights are always sent. Requests are sent if their method is GET, HEAD or OPTIONS. With `--send` they are sent with
every method: a DELETE is a real DELETE. `reason` is not compared. With `--expect` and without `--config`, no configuration
is needed.

Exit codes: 0 no expectation fails, 1 some fail, 2 the configuration or the command line cannot be used, or the server
does not respond.

Examples:
  corsgate test --config corsgate.yaml
  corsgate test --config corsgate.yaml --expect team-a.yaml --expect team-b.yaml
  corsgate test --server https://staging.example --expect team-a.yaml
  corsgate test --server http://127.0.0.1:9080
  corsgate explain --origin https://app.example --as-expectation https://api.example/orders   prints an entry";

/// Exit code if an expectation fails.
const FAILED: u8 = 1;
/// Exit code if no expectation can be tested. clap uses the same code for an invalid command line.
const TROUBLE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// A file with further expectations, in the form of `expect_files`
    #[arg(long, value_name = "FILE")]
    expect: Vec<PathBuf>,
    /// Send all requests to this server, not to the hosts of their URLs: `http://127.0.0.1:9080`
    #[arg(long, value_name = "URL", value_parser = PageUrl::of_server, conflicts_with = "resolve")]
    server: Option<PageUrl>,
    /// With --server: send requests with every method: a DELETE is a real DELETE
    #[arg(long, requires = "server")]
    send: bool,
    #[command(flatten)]
    network: NetworkArguments,
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

/// Runs the expectations. The error is a text for stderr.
fn test(arguments: &Arguments) -> Result<ExitCode, String> {
    let Arguments { config, expect, server, .. } = arguments;
    match server {
        Some(server) if config.config.is_none() && !expect.is_empty() => {
            let (mut suite, mut problems) = (Suite::new(), Problems::default());
            add_files(expect, &mut suite, &mut problems)?;
            if problems.any_errors() {
                return Err(report::text(&problems, &Source::new(&expect[0].to_string_lossy(), ""), Paint::Plain));
            }
            arguments.test_server(server, &suite)
        }
        _ => arguments.test_configuration(),
    }
}

impl Arguments {
    fn test_configuration(&self) -> Result<ExitCode, String> {
        let source = self.config.find().map_err(|error| failed(&error))?;
        let text = source.open_text().map_err(|error| failed(&error))?;
        let TestSource { loaded, document, mut suite, mut problems } = source.load_suite(&text);
        add_files(&self.expect, &mut suite, &mut problems)?;
        let (Some(snapshot), Some(document), false) = (&loaded.snapshot, &document, problems.any_errors()) else {
            let all: Problems = loaded.problems.into_iter().chain(problems).collect();
            return Err(report::text(&all, &Source::new(&text.name, &text.text), Paint::Plain));
        };
        if let Some(server) = &self.server {
            return self.test_server(server, &suite);
        }
        let load = |text: &str| source.load(text);
        let configuration = Configuration::new(&text.name, &text.text, snapshot, &load).with_document(Some(document));
        self.result(&suite, &suite.run(&configuration, document, Depth::Explained))
    }

    fn test_server(&self, url: &PageUrl, suite: &Suite<'_>) -> Result<ExitCode, String> {
        let sending = if self.send { Sending::All } else { Sending::Safe };
        let mut server = Server::new(url, sending, &self.network, suite).map_err(|error| failed(&error))?;
        let tested = suite.run_against(|question| server.ask(question)).map_err(|error| failed(&error))?;
        self.result(suite, &tested)
    }

    /// Prints the results, and returns the exit code.
    fn result(&self, suite: &Suite<'_>, tested: &[Tested<'_>]) -> Result<ExitCode, String> {
        if suite.is_empty() {
            let why =
                "there are no expectations; write `expect` into the configuration, or name a file with `--expect FILE`";
            return Err(failed(&why));
        }
        print(&match self.format {
            Format::Text => expect::text(tested, paint(), width()),
            Format::Json => expect::json(tested),
        });
        let fails = tested.iter().any(Tested::fails);
        Ok(if fails { ExitCode::from(FAILED) } else { ExitCode::SUCCESS })
    }
}

fn add_files(paths: &[PathBuf], suite: &mut Suite<'_>, problems: &mut Problems) -> Result<(), String> {
    for path in paths {
        let text = read_text(path).map_err(|error| failed(&error))?;
        suite.add(path.to_string_lossy().into_owned(), text, KeyPath::default(), problems);
    }
    Ok(())
}

fn failed(why: &dyn std::fmt::Display) -> String {
    format!("corsgate: {}\n", printable(&why.to_string()))
}
