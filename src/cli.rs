//! The command line: commands, options and output.
//!
//! Results go to stdout, messages to stderr. Exit codes: 0 success, 1 the configuration or an address cannot be used,
//! 2 the command line is invalid, 3 `explain` found that the page does not get what it needs, 4 `explain` cannot decide it
//! from the file, or `import` found that some answers change. Some commands have their own: `diff` and `test` 0 the same,
//! or all hold, 1 different, or some fail, 2 a configuration cannot be used; `learn` 0 a policy is printed, 1 there is
//! nothing to print, 2 it cannot observe; `fleet` 0 all processes run the newest keys, 1 not, 2 etcd cannot be read; `apply` and `delete` 0 applied, 1 refused,
//! 2 not tried, 4 a dry run found changes; `get` 0 printed, 1 no such object, 2 not read; `probe` 0 allowed, 1 refused or findings, 2 no response, 4 undecided.

mod apply;
mod check;
mod diff;
mod explain;
mod fleet;
mod get;
mod import;
mod learn;
mod place;
mod probe;
mod test;
mod token;
mod why;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser, Subcommand, ValueEnum};

use crate::config::schema;
use crate::demo;
use crate::live::{Live, LoadError};
use crate::process::{self, ReloadOn, ReloadSignal, Sockets};
use crate::source::{ConfigSource, Etcd, Unreadable};
use crate::terminal::{Paint, Width};

/// Configuration files without `--config`. The first that exists is used.
const DEFAULT_FILES: [&str; 2] = ["corsgate.yaml", "/etc/corsgate/corsgate.yaml"];

const AFTER_HELP: &str = "\
Examples:
  corsgate demo                              try corsgate without any setup
  corsgate check --config corsgate.yaml      report all problems of a file, and how to fix them
  corsgate schema > corsgate.schema.json     completion in editors, with this first line in the file:
                                             # yaml-language-server: $schema=corsgate.schema.json
  corsgate run --config corsgate.yaml        serve; `kill -HUP` reloads the file, --watch reloads on changes
  corsgate explain --origin https://app.example --method PUT https://api.example/orders
                                             print whether the browser allows this request, and how to allow it
  corsgate why REQUEST_ID                    the same for a request that a running corsgate refused
  corsgate probe --origin https://app.example https://api.example/orders
                                             send this request to any server, and print the browser's verdict
  corsgate diff old.yaml corsgate.yaml       compare the responses to requests, and show each change with a request
  corsgate test --config corsgate.yaml       check the results of the requests under `expect`
  corsgate import ingress.yaml > corsgate.yaml
                                             convert the configuration of another gateway
  corsgate learn --admin http://127.0.0.1:9180 --for 10m
                                             print the smallest policies that cover the requests of ten minutes

RUST_LOG=corsgate=debug logs every request with the reason of its CORS decision.";

/// An edge proxy and small API gateway whose speciality is CORS.
#[derive(Debug, Parser)]
#[command(name = "corsgate", version, arg_required_else_help = true, after_help = AFTER_HELP)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Start the gateway. SIGHUP reloads the file, SIGTERM stops after the running requests, SIGINT stops at once
    Run {
        #[command(flatten)]
        config: ConfigFile,
        /// Reload also when the file, or a certificate or key that it names, changes
        #[arg(long)]
        watch: bool,
        /// Take over the listening sockets of the old process; send it SIGQUIT to hand them over
        #[arg(long)]
        upgrade: bool,
    },
    /// Report all problems of a configuration file, with their places and fixes
    Check(check::Arguments),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Predict the response to a page's request, the browser's verdict, and the smallest edit of the file that allows it
    #[command(after_help = explain::HELP)]
    Explain(explain::Arguments),
    /// Explain why a running corsgate refused a request, with the smallest edit that allows it
    Why(why::Arguments),
    /// Send a page's request to any server, and print the browser's verdict
    #[command(after_help = probe::HELP)]
    Probe(probe::Arguments),
    /// Compare two configurations by the responses to requests, and show each change with a request
    #[command(after_help = diff::HELP)]
    Diff(diff::Arguments),
    /// Check the expectations of a configuration: requests of pages, and their expected results
    #[command(after_help = test::HELP)]
    Test(test::Arguments),
    /// Convert the configuration of another gateway, and report the differences in meaning
    #[command(after_help = import::HELP)]
    Import(import::Arguments),
    /// Print the smallest policies that cover the requests of pages, from a running corsgate or from its access log
    #[command(after_help = learn::HELP)]
    Learn(learn::Arguments),
    /// List the processes that share an etcd prefix: what each runs, and which keys it refuses
    #[command(after_help = fleet::HELP)]
    Fleet(fleet::Arguments),
    /// Print objects of a configuration: services, upstreams, policies and origin sets, from a file, etcd or a running corsgate
    #[command(after_help = get::HELP)]
    Get(get::Arguments),
    /// Change objects to what files say, after showing what changes for requests
    #[command(after_help = apply::HELP)]
    Apply(apply::Arguments),
    /// Delete objects
    #[command(after_help = apply::DELETE_HELP)]
    Delete(apply::DeleteArguments),
    /// Print all objects as one configuration file
    #[command(after_help = get::EXPORT_HELP)]
    Export(get::ExportArguments),
    /// Make a token for the write API of the admin listener
    #[command(after_help = token::HELP)]
    Token(token::Arguments),
    /// Serve an example configuration on 127.0.0.1, with a built-in upstream
    Demo {
        /// Port of the gateway
        #[arg(long, value_name = "PORT", default_value_t = demo::PORT)]
        port: u16,
    },
}

#[derive(Debug, Args)]
struct ConfigFile {
    /// The configuration file, or etcd://HOST:PORT/PREFIX [default: corsgate.yaml, or else /etc/corsgate/corsgate.yaml]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Format {
    /// Plain text
    Text,
    /// JSON for programs
    Json,
}

/// Runs the program, from its arguments to its exit code.
pub fn main() -> ExitCode {
    // First, because without a handler SIGHUP would end the process.
    let reload_signal = ReloadSignal::catch();
    let result = match arguments().command {
        Command::Check(arguments) => return check::run(&arguments),
        Command::Schema => {
            print(&schema::json());
            return ExitCode::SUCCESS;
        }
        Command::Explain(arguments) => return explain::run(&arguments),
        Command::Why(arguments) => return why::run(&arguments),
        Command::Probe(arguments) => return probe::run(&arguments),
        Command::Diff(arguments) => return diff::run(&arguments),
        Command::Test(arguments) => return test::run(&arguments),
        Command::Import(arguments) => return import::run(&arguments),
        Command::Fleet(arguments) => return fleet::run(&arguments),
        Command::Get(arguments) => return get::run(&arguments),
        Command::Apply(arguments) => return apply::run(&arguments),
        Command::Delete(arguments) => return apply::delete(&arguments),
        Command::Export(arguments) => return get::export(&arguments),
        Command::Learn(arguments) => return learn::run(&arguments),
        Command::Token(arguments) => return token::run(&arguments),
        Command::Run { config, watch, upgrade } => {
            let sockets = if upgrade { Sockets::Inherited } else { Sockets::Own };
            let reload_on = if watch { ReloadOn::Change } else { ReloadOn::Signal };
            reload_signal.map_err(Into::into).and_then(|reload_signal| run(&config, reload_signal, sockets, reload_on))
        }
        Command::Demo { port } => reload_signal.map_err(Into::into).and_then(|reload_signal| demo(reload_signal, port)),
    };
    let Err(error) = result;
    let _ = writeln!(std::io::stderr(), "corsgate: {error}");
    ExitCode::FAILURE
}

/// Reads the command line, or ends the process with an error.
fn arguments() -> Arguments {
    Arguments::try_parse().unwrap_or_else(|mut error| {
        let command = std::env::args().nth(1).unwrap_or_default();
        if let Some(ContextValue::String(word)) = error.get(ContextKind::InvalidArg)
            && error.kind() == ErrorKind::UnknownArgument
            && has_config(&command)
            && Path::new(word).is_file()
        {
            let hint = format!("write '--config {word}'").into();
            error.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![hint]));
        }
        error.exit()
    })
}

fn has_config(command: &str) -> bool {
    let all = Arguments::command();
    all.find_subcommand(command)
        .is_some_and(|command| command.get_arguments().any(|argument| argument.get_id() == "config"))
}

type Failure = Box<dyn std::error::Error>;

fn run(
    config: &ConfigFile,
    reload_signal: ReloadSignal,
    sockets: Sockets,
    reload_on: ReloadOn,
) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    let source = config.find()?;
    if let Some(etcd) = source.etcd() {
        if let Some(problems) = etcd.file_problems() {
            return Err(format!("the configuration cannot be used\n{}", problems.trim_end()).into());
        }
        etcd.follow()?;
    }
    let (live, warnings) = start(&source).map_err(|refused| match refused {
        LoadError::Invalid(problems) => format!("the configuration cannot be used\n{}", problems.trim_end()).into(),
        LoadError::Unreadable(_) | LoadError::Listeners(_) | LoadError::AccessLog(_) => Failure::from(refused),
    })?;
    if !warnings.is_empty() {
        log::warn!("configuration has warnings:\n{}", warnings.trim_end());
    }
    Ok(process::serve(Arc::new(live), reload_signal, sockets, reload_on)?)
}

/// Loads the first configuration. If etcd has none that can be used, waits until it has.
fn start(source: &ConfigSource) -> Result<(Live, String), LoadError> {
    loop {
        let changes = source.etcd().map(Etcd::changes);
        match (Live::start(source.clone()), source.etcd(), changes) {
            (Err(LoadError::Invalid(why)), Some(etcd), Some(changes)) => {
                log::error!("waiting for a configuration that can be used, not ready:\n{}", why.trim_end());
                while etcd.wait_for_change(changes, Duration::from_secs(60)) == changes {}
            }
            (result, _, _) => return result,
        }
    }
}

fn demo(reload_signal: ReloadSignal, port: u16) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    Ok(demo::serve(reload_signal, port, print)?)
}

// === impl ConfigFile ===

impl ConfigFile {
    fn is_given(&self) -> bool {
        self.config.is_some()
    }

    /// The source to use.
    fn find(&self) -> Result<ConfigSource, Unreadable> {
        let url = self.config.as_ref().and_then(|config| config.to_str()).and_then(Etcd::of_url);
        match url {
            Some(Ok(etcd)) => Ok(ConfigSource::Etcd(etcd)),
            Some(Err(bad)) => Err(Unreadable { path: bad.name.into(), error: io::Error::other(bad.why) }),
            None => self.file().map(ConfigSource::of_file),
        }
    }

    /// The file to use.
    fn file(&self) -> Result<PathBuf, Unreadable> {
        let found = || DEFAULT_FILES.iter().map(PathBuf::from).find(|path| path.exists());
        let [here, system] = DEFAULT_FILES;
        self.config.clone().or_else(found).ok_or_else(|| Unreadable {
            path: here.into(),
            error: io::Error::new(
                io::ErrorKind::NotFound,
                format!("no such file, and no {system}; name the file with `--config FILE`"),
            ),
        })
    }
}

/// Prints to stdout. A closed pipe, as in `corsgate check | head -1`, is not an error.
fn print(text: &str) {
    let mut stdout = std::io::stdout().lock();
    let _ = stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush());
}

fn paint() -> Paint {
    paint_on(&std::io::stdout())
}

fn paint_on(stream: &impl IsTerminal) -> Paint {
    // https://no-color.org
    let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
    if wanted && stream.is_terminal() { Paint::Colour } else { Paint::Plain }
}

fn width() -> Width {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        // Some terminals report 0 columns.
        Ok(size) if size.ws_col > 0 => Width::of_terminal(size.ws_col),
        _ => Width::DEFAULT,
    }
}

/// Sets up the log: to stderr, one line per event, time in UTC. The modules of Pingora that log for each connection or
/// request that a client aborts are off, because clients could fill the log; corsgate logs the relevant errors itself.
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
