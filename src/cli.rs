//! The command line: what can be typed, and what it prints.
//!
//! Results go to stdout, messages to stderr. Exit codes: 0 done, 1 the configuration or an address cannot be used,
//! 2 the command line cannot be understood, 3 a browser would refuse what `explain` was asked about.

mod why;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::browser::Credentials;
use crate::config::{Document, Source};
use crate::demo;
use crate::effective;
use crate::explain::{self, Configuration, Misasked, Outcome, Question};
use crate::live::{Live, Refused, inspect, inspect_text};
use crate::problem::{At, Kind, Problems, Severity};
use crate::report::{self, Paint};
use crate::schema;
use crate::server::{self, Hangup, ReloadOn, Sockets};

const DEFAULT_CONFIG: &str = "conf/corsgate.yaml";

const AFTER_HELP: &str = "\
Examples:
  corsgate demo                              something to try, with nothing to set up
  corsgate check --config corsgate.yaml      every mistake of a file, with what to write
  corsgate schema > corsgate.schema.json     help in editors, with this in the first line of the file:
                                             # yaml-language-server: $schema=corsgate.schema.json
  corsgate run --config corsgate.yaml        serve it; `kill -HUP` reloads it, with --watch any change does
  corsgate explain --origin https://app.example --method PUT https://api.example/orders
                                             what a browser makes of it, and what to change
  corsgate why REQUEST_ID                    the same, for what a running corsgate has refused

RUST_LOG=corsgate=debug logs for every request why it got what it got.";

/// An edge proxy and small API gateway whose speciality is CORS.
#[derive(Debug, Parser)]
#[command(name = "corsgate", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve. SIGHUP reloads the file, SIGTERM finishes what has begun and stops, SIGINT stops at once
    Run {
        /// The configuration file
        #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
        config: PathBuf,
        /// Reload as SIGHUP does when the file, or a certificate or key that it names, has changed
        #[arg(long)]
        watch: bool,
        /// Take over the listening sockets of the process that runs already, once that is sent SIGQUIT
        #[arg(long)]
        upgrade: bool,
    },
    /// List every mistake of a configuration file, with its place and what to write instead
    Check {
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
    },
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Say what a page's request gets, what a browser makes of it, and the smallest edit that lets it pass
    #[command(after_help = EXPLAIN_HELP)]
    Explain(ExplainArguments),
    /// Say why a running corsgate has refused a request, and the smallest edit that lets it pass
    Why(why::Arguments),
    /// Serve the walkthrough on 127.0.0.1:9080, with a built-in upstream
    Demo,
}

#[derive(Debug, Args)]
struct ExplainArguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The page's origin, such as `https://app.example`, or `null`; several stand for several fields, as only curl sends them
    #[arg(short, long, value_name = "ORIGIN", required = true)]
    origin: Vec<String>,
    /// The method, as the page writes it
    #[arg(short, long, default_value = "GET")]
    method: String,
    /// A header that the page sets, as `Name: value` or `Name`
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<String>,
    /// With cookies: `credentials: 'include'`
    #[arg(long)]
    credentials: bool,
    /// A response header that the page wants to read
    #[arg(long, value_name = "NAME")]
    reads: Vec<String>,
    /// The status of the upstream's response
    #[arg(long, value_name = "STATUS", default_value_t = 200)]
    upstream_status: u16,
    /// A header of the upstream's response, as `Name: value`
    #[arg(long, value_name = "HEADER")]
    upstream_header: Vec<String>,
    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// What the page fetches
    url: String,
}

const EXPLAIN_HELP: &str = "\
Exit codes: 0 the page gets what it wants, 3 it does not, 1 the configuration cannot be used.

Examples:
  corsgate explain --origin https://app.example https://api.example/orders
  corsgate explain --origin https://app.example --method PUT --header 'Content-Type: application/json' \
    --credentials https://api.example/orders/7
  corsgate explain --origin https://app.example --reads X-Total https://api.example/orders";

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// For people
    Text,
    /// For programs
    Json,
}

/// Runs the program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    // Before anything else: until then a SIGHUP would end the process.
    let hangup = Hangup::catch();
    let result = match Arguments::parse().command {
        Command::Check { config, deny_warnings, effective, format } => {
            let show = if effective { Show::Effective } else { Show::Problems };
            return check(&config, deny_warnings, show, format);
        }
        Command::Schema => {
            print(&schema::json());
            return ExitCode::SUCCESS;
        }
        Command::Explain(arguments) => return explain(&arguments),
        Command::Why(arguments) => return why::run(&arguments),
        Command::Run { config, watch, upgrade } => {
            let sockets = if upgrade { Sockets::Inherited } else { Sockets::Own };
            let reload_on = if watch { ReloadOn::Change } else { ReloadOn::Signal };
            hangup.map_err(Into::into).and_then(|hangup| run(&config, hangup, sockets, reload_on))
        }
        Command::Demo => hangup.map_err(Into::into).and_then(demo),
    };
    let Err(error) = result;
    let _ = writeln!(std::io::stderr(), "corsgate: {error}");
    ExitCode::FAILURE
}

type Failure = Box<dyn std::error::Error>;

fn run(
    config: &Path,
    hangup: Hangup,
    sockets: Sockets,
    reload_on: ReloadOn,
) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    let (live, remarks) = Live::open(config).map_err(|refused| match refused {
        Refused::Invalid(problems) => format!("the configuration cannot be used\n{}", problems.trim_end()).into(),
        Refused::Unreadable(..) | Refused::Listeners(_) | Refused::AccessLog(_) => Failure::from(refused),
    })?;
    if !remarks.is_empty() {
        log::warn!("remarks about the configuration:\n{}", remarks.trim_end());
    }
    Ok(server::serve(Arc::new(live), hangup, sockets, reload_on)?)
}

fn demo(hangup: Hangup) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    Ok(demo::serve(hangup, print)?)
}

/// What `check` prints of a file that can be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Show {
    /// Its problems.
    Problems,
    /// What is in force for each route. Problems are messages then.
    Effective,
}

fn check(config: &Path, deny_warnings: bool, show: Show, format: Format) -> ExitCode {
    let name = config.to_string_lossy();
    let (text, (snapshot, problems)) = match inspect(config) {
        Ok(inspected) => inspected,
        Err(refused) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {refused}");
            // A program that reads the array must not find nothing there.
            if let (Format::Json, Refused::Unreadable(_, why)) = (format, refused) {
                print(&report::json(&unreadable(&why), &Source::new(&name, "")));
            }
            return ExitCode::FAILURE;
        }
    };
    let source = Source::new(&name, &text);
    let document = Document::parse(&text, &mut Problems::default());
    match (show, snapshot.zip(document)) {
        (Show::Effective, Some((snapshot, document))) => {
            let _ = std::io::stderr().write_all(report::text(&problems, &source, Paint::Plain).as_bytes());
            let routes = effective::routes(&document, &snapshot, &source);
            print(&match format {
                Format::Text => effective::text(&routes, &source, paint()),
                Format::Json => format!("{:#}\n", effective::json(&routes)),
            });
        }
        _ => print(&match format {
            Format::Text => report::text(&problems, &source, paint()),
            Format::Json => report::json(&problems, &source),
        }),
    }
    let refused = problems.any_errors() || (deny_warnings && problems.count(Severity::Warning) > 0);
    if refused { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// For programs, which want to find a file that cannot be read where they find everything else.
fn unreadable(why: &std::io::Error) -> Problems {
    let mut problems = Problems::default();
    problems.add(&At::root(), Kind::Unreadable { why: why.to_string() });
    problems
}

fn explain(arguments: &ExplainArguments) -> ExitCode {
    let question = match arguments.question() {
        Ok(question) => question,
        Err(misasked) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {}", report::printable(&misasked.to_string()));
            return ExitCode::from(USAGE);
        }
    };
    let name = arguments.config.to_string_lossy();
    let (text, (snapshot, problems)) = match inspect(&arguments.config) {
        Ok(inspected) => inspected,
        Err(refused) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {refused}");
            if let (Format::Json, Refused::Unreadable(_, why)) = (arguments.format, refused) {
                print(&explain::mended_json(&unreadable(&why), &Source::new(&name, ""), None));
            }
            return ExitCode::FAILURE;
        }
    };
    let read = |text: &str| inspect_text(&arguments.config, text);
    let Some(snapshot) = snapshot else {
        let source = Source::new(&name, &text);
        let fix = explain::mend(&question, &name, &text, &problems, &read);
        print(&match arguments.format {
            Format::Text => {
                let mended = fix.map(|fix| explain::mended_text(&fix, paint())).unwrap_or_default();
                report::text(&problems, &source, paint()) + &mended
            }
            Format::Json => explain::mended_json(&problems, &source, fix.as_ref()),
        });
        return ExitCode::FAILURE;
    };
    let explanation = explain::explain(&question, &Configuration::new(&name, &text, &snapshot, &read));
    print(&match arguments.format {
        Format::Text => explain::text(&explanation, paint()),
        Format::Json => explain::json(&explanation),
    });
    match explanation.outcome {
        Outcome::Allowed => ExitCode::SUCCESS,
        Outcome::Refused => ExitCode::from(REFUSED),
    }
}

/// The command line cannot be understood; clap exits with the same.
const USAGE: u8 = 2;
/// A browser would refuse it.
const REFUSED: u8 = 3;

impl ExplainArguments {
    fn question(&self) -> Result<Question, Misasked> {
        let (first, others) = self.origin.split_first().expect("clap asks for one");
        let mut question = Question::new(first, &self.url)?.method(&self.method)?;
        for origin in others {
            question = question.and_origin(origin)?;
        }
        for header in &self.header {
            question = question.header(header)?;
        }
        for name in &self.reads {
            question = question.reads(name)?;
        }
        for header in &self.upstream_header {
            question = question.upstream_header(header)?;
        }
        let credentials = if self.credentials { Credentials::Include } else { Credentials::Omit };
        Ok(question.upstream_status(self.upstream_status)?.credentials(credentials))
    }
}

/// A reader that has gone away, as in `corsgate check | head -1`, is no failure.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn paint() -> Paint {
    // https://no-color.org
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && std::io::stdout().is_terminal() { Paint::Colour } else { Paint::Plain }
}

/// One line for each event, in UTC. Pingora's proxy is silent, and so is what it has for HTTP/2 connections: there is a
/// line for whatever a client breaks off, and what matters of that is logged by ours. `RUST_LOG=debug` says why every
/// request got what it got.
fn log_to_stderr() {
    let defaults = env_logger::Env::default()
        .default_filter_or("info,pingora=error,pingora_core=error,pingora_core::apps=off,pingora_core::server::transfer_fd=off,pingora_proxy=off");
    env_logger::Builder::from_env(defaults)
        .format(|out, record| {
            let time = out.timestamp_millis();
            writeln!(out, "{time} {:5} {}", record.level(), record.args())
        })
        .init();
}
