//! The command line: what can be typed, and what it prints.
//!
//! Results go to stdout, messages to stderr. Exit codes: 0 done, 1 the configuration or an address cannot be used,
//! 2 the command line cannot be understood, 3 a browser would refuse what `explain` was asked about.

mod check;
mod explain;
mod why;

use std::io::{IsTerminal, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, Subcommand, ValueEnum};

use crate::config::schema;
use crate::demo;
use crate::live::{Live, LoadError};
use crate::process::{self, ReloadOn, ReloadSignal, Sockets};
use crate::source::ConfigSource;
use crate::terminal::{Paint, Width};

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
    Check(check::Arguments),
    /// Print the JSON Schema of the configuration file, for editors
    Schema,
    /// Say what a page's request gets, what a browser makes of it, and the smallest edit that lets it pass
    #[command(after_help = explain::HELP)]
    Explain(explain::Arguments),
    /// Say why a running corsgate has refused a request, and the smallest edit that lets it pass
    Why(why::Arguments),
    /// Serve the walkthrough on 127.0.0.1:9080, with a built-in upstream
    Demo,
}

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
    let reload_signal = ReloadSignal::catch();
    let result = match Arguments::parse().command {
        Command::Check(arguments) => return check::run(&arguments),
        Command::Schema => {
            print(&schema::json());
            return ExitCode::SUCCESS;
        }
        Command::Explain(arguments) => return explain::run(&arguments),
        Command::Why(arguments) => return why::run(&arguments),
        Command::Run { config, watch, upgrade } => {
            let sockets = if upgrade { Sockets::Inherited } else { Sockets::Own };
            let reload_on = if watch { ReloadOn::Change } else { ReloadOn::Signal };
            reload_signal.map_err(Into::into).and_then(|reload_signal| run(&config, reload_signal, sockets, reload_on))
        }
        Command::Demo => reload_signal.map_err(Into::into).and_then(demo),
    };
    let Err(error) = result;
    let _ = writeln!(std::io::stderr(), "corsgate: {error}");
    ExitCode::FAILURE
}

type Failure = Box<dyn std::error::Error>;

fn run(
    config: &Path,
    reload_signal: ReloadSignal,
    sockets: Sockets,
    reload_on: ReloadOn,
) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    let (live, remarks) = Live::start(ConfigSource::File(config.to_owned())).map_err(|refused| match refused {
        LoadError::Invalid(problems) => format!("the configuration cannot be used\n{}", problems.trim_end()).into(),
        LoadError::Unreadable(_) | LoadError::Listeners(_) | LoadError::AccessLog(_) => Failure::from(refused),
    })?;
    if !remarks.is_empty() {
        log::warn!("remarks about the configuration:\n{}", remarks.trim_end());
    }
    Ok(process::serve(Arc::new(live), reload_signal, sockets, reload_on)?)
}

fn demo(reload_signal: ReloadSignal) -> Result<std::convert::Infallible, Failure> {
    log_to_stderr();
    Ok(demo::serve(reload_signal, print)?)
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

fn width() -> Width {
    match rustix::termios::tcgetwinsize(std::io::stdout()) {
        // Some terminals do not know, and say 0.
        Ok(size) if size.ws_col > 0 => Width::of_terminal(size.ws_col),
        _ => Width::DEFAULT,
    }
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
