//! `corsgate learn`: prints the smallest policies that cover the requests of pages.

use std::io::{BufRead, BufReader, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::why::{AdminPage, LONGEST, ask_admin_for};
use super::{ConfigFile, Format, print};
use crate::config::{Document, Source};
use crate::learn::{self, Lesson, LineKind, LogFacts, Observation, PoliciesInForce, Tally, sum};
use crate::notation;
use crate::problem::Problems;
use crate::report;
use crate::source::open_log;
use crate::terminal::{Paint, printable};

pub(super) const HELP: &str = "\
The policies are YAML for `cors_policies`, with counts as comments. Some values are left out and listed: rare values,
values that the policy in force refuses, and values that need `dangerously_allow`. Before you use a policy, compare it
with `corsgate diff`.

Exit codes: 0 a policy is printed, 1 no allowed request needs a policy, 2 the process, the log or the configuration
cannot be read, or the command line is invalid.

Examples:
  corsgate learn                                 observe the process with the admin listener on port 9180 for 60 seconds
  corsgate learn --admin http://10.0.0.7:9180 --for 2h --min-count 10
  corsgate learn --access-log access.log --config corsgate.yaml
  zcat access.log.*.gz | corsgate learn --access-log -";

/// Exit code if there is no policy to print.
const NOTHING: u8 = 1;
/// Exit code if an observation is not possible. clap uses the same code for an invalid command line.
const TROUBLE: u8 = 2;
/// Maximum number of origins that are counted from an access log.
const MAX_LOG_ORIGINS: usize = 16 * learn::MAX_ORIGINS;
/// Maximum length of a line of an access log, in bytes. corsgate writes at most 4096.
const MAX_LINE: u64 = 64 << 10;
/// Maximum size of an observation in bytes.
const LONGEST_OBSERVATION: u64 = 16 * LONGEST;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The URL of the admin listener [default: http://127.0.0.1:9180]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// How long to observe: 1s to 24h
    #[arg(long = "for", value_name = "DURATION", default_value = "60s", value_parser = window)]
    time: Duration,
    /// Read an access log in JSON instead; `-` for stdin
    #[arg(long, value_name = "FILE", conflicts_with_all = ["admin", "time"])]
    access_log: Option<PathBuf>,
    #[command(flatten)]
    config: ConfigFile,
    /// Only this route, such as api/orders; can be repeated [default: all routes]
    #[arg(long = "route", value_name = "NAME")]
    routes: Vec<String>,
    /// Leave out origins, methods and headers that were seen less often
    #[arg(long, value_name = "N", default_value_t = 1)]
    min_count: u64,
    /// How to print the policies
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

fn window(text: &str) -> Result<Duration, String> {
    let time = notation::Duration::parse(text).map(notation::Duration::get);
    let time = time.filter(|time| *time >= Duration::from_secs(1));
    time.ok_or_else(|| "write a duration from 1s to 24h, such as 60s, 10m or 2h".to_owned())
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let observed = match &arguments.access_log {
        None if arguments.config.is_given() => {
            Err("`--config` is for `--access-log`; a running corsgate has its own configuration".into())
        }
        None => observe(arguments),
        Some(path) => read_log(arguments, path),
    };
    match observed {
        Ok((from, observation)) => {
            let lesson = Lesson::of(&observation, arguments.min_count);
            print(&match arguments.format {
                Format::Text => lesson.yaml(&from, arguments.min_count),
                Format::Json => lesson.json(&from, arguments.min_count),
            });
            if lesson.is_empty() { ExitCode::from(NOTHING) } else { ExitCode::SUCCESS }
        }
        Err(why) => {
            let lines: Vec<String> = why.trim_end().lines().map(printable).collect();
            let _ = writeln!(std::io::stderr(), "corsgate: {}", lines.join("\n"));
            ExitCode::from(TROUBLE)
        }
    }
}

/// Observes a running process. Also returns the URL of its admin listener.
fn observe(Arguments { admin, time, routes, .. }: &Arguments) -> Result<(String, Observation), String> {
    let time_text = format!("{}ms", time.as_millis());
    let routes: String =
        routes.iter().map(|route| format!("&route={}", utf8_percent_encode(route, NON_ALPHANUMERIC))).collect();
    if std::io::stderr().is_terminal() {
        let _ = writeln!(std::io::stderr(), "corsgate: observing for {} s", time.as_secs());
    }
    let path = format!("/observe?for={time_text}{routes}");
    let AdminPage { base, status, text } = ask_admin_for(admin.as_deref(), &path, LONGEST_OBSERVATION, *time)?;
    match status {
        200 => match serde_json::from_str(&text) {
            Ok(observation) => Ok((base, observation)),
            Err(error) => Err(format!("the response of {base} to /observe is not an observation: {error}")),
        },
        404 => Err(format!("the corsgate at {base} is too old for `learn`: it has no /observe")),
        _ => Err(text),
    }
}

/// Reads an access log. Also returns the name of the file.
fn read_log(arguments: &Arguments, path: &Path) -> Result<(String, Observation), String> {
    let text = |error: &dyn std::fmt::Display| error.to_string();
    let source = arguments.config.find().map_err(|error| text(&error))?;
    let (read, loaded) = source.open().map_err(|error| text(&error))?;
    let Some(snapshot) = loaded.snapshot else {
        return Err(report::text(&loaded.problems, &Source::new(&read.name, &read.text), Paint::Plain));
    };
    let document = Document::parse(&read.text, &mut Problems::default()).unwrap_or_default();
    let policies = PoliciesInForce::of(&document, &snapshot, &arguments.routes)
        .map_err(|route| format!("{} has no route {route} with a policy", read.name))?;
    let mut log = BufReader::new(open_log(path).map_err(|error| text(&error))?);
    let (mut tally, mut facts, mut line) = (Tally::new(MAX_LOG_ORIGINS), LogFacts::default(), Vec::new());
    loop {
        line.clear();
        let length = log.by_ref().take(MAX_LINE).read_until(b'\n', &mut line);
        if length.map_err(|error| format!("cannot read {}: {error}", path.display()))? == 0 {
            break;
        }
        let whole = line.ends_with(b"\n") || (line.len() as u64) < MAX_LINE;
        let parsed = std::str::from_utf8(&line).ok().filter(|_| whole);
        facts.lines += 1;
        match parsed.map_or(LineKind::Malformed, |line| learn::count(line, &policies, &mut tally)) {
            LineKind::Malformed => facts.malformed += 1,
            LineKind::UnknownRoute => facts.unknown_routes += u64::from(arguments.routes.is_empty()),
            LineKind::Read => {}
        }
    }
    let observation = Observation { log: Some(facts), ..Observation::new(&policies, sum([tally])) };
    let name = if path == Path::new("-") { "stdin".to_owned() } else { path.display().to_string() };
    Ok((name, observation))
}
