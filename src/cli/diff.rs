//! `corsgate diff`: compares the responses that requests get with two configurations.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::{Args, ValueEnum};

use super::why::{LONGEST, ask_admin};
use super::{Format, paint, print, width};
use crate::config::Source;
use crate::diff::{Difference, Side};
use crate::report;
use crate::snapshot::{Loaded, Snapshot};
use crate::source::ConfigSource;
use crate::terminal::{Paint, printable};

pub(super) const HELP: &str = "\
Exit codes: 0 no request gets another response, 1 some do, 2 a configuration or the command line cannot be used. With
`--fail-on wider` the exit code is 1 only if something is newly allowed, or if this cannot be decided.

Examples:
  corsgate diff old.yaml corsgate.yaml
  corsgate diff --admin http://127.0.0.1:9180 corsgate.yaml     what a reload would change
  git show main:corsgate.yaml > old.yaml && corsgate diff --fail-on wider old.yaml corsgate.yaml";

/// Exit code if the configurations differ.
const DIFFERENT: u8 = 1;
/// Exit code if the configurations cannot be compared. clap uses the same code for an invalid command line.
const TROUBLE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The old and the new configuration file; with --admin only the new one
    #[arg(value_name = "FILE", required = true, num_args = 1..=2)]
    files: Vec<PathBuf>,
    /// The URL of the admin listener of a running corsgate, whose configuration is the old one
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// Which differences exit with code 1
    #[arg(long, value_enum, value_name = "WHICH", default_value_t = FailOn::Any)]
    fail_on: FailOn,
    /// How to print the differences
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Every difference
    Any,
    /// Only differences that allow more, or may allow more
    Wider,
}

/// A configuration that can be compared.
struct ReadConfiguration {
    name: String,
    snapshot: Snapshot,
}

impl ReadConfiguration {
    fn side(&self) -> Side<'_> {
        Side { name: &self.name, snapshot: &self.snapshot }
    }
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let (old, new) = match load(arguments) {
        Ok(both) => both,
        Err(why) => {
            let _ = std::io::stderr().write_all(why.as_bytes());
            return ExitCode::from(TROUBLE);
        }
    };
    let difference = Difference::of(old.side(), new.side());
    print(&match arguments.format {
        Format::Text => difference.text(paint(), width()),
        Format::Json => difference.json(),
    });
    let fails = match arguments.fail_on {
        FailOn::Any => !difference.is_empty(),
        FailOn::Wider => difference.is_wider(),
    };
    if fails { ExitCode::from(DIFFERENT) } else { ExitCode::SUCCESS }
}

/// Loads both configurations. The error is a text for stderr.
fn load(arguments: &Arguments) -> Result<(ReadConfiguration, ReadConfiguration), String> {
    match (&arguments.admin, arguments.files.as_slice()) {
        (None, [old, new]) => Ok((file(old, new)?, file(new, old)?)),
        (Some(admin), [new]) => Ok((running(admin, new)?, file(new, new)?)),
        (None, _) => Err("corsgate: name two files, or one file and `--admin URL`\n".to_owned()),
        (Some(_), _) => Err("corsgate: with `--admin`, name one file: the new configuration\n".to_owned()),
    }
}

/// Loads a file. A pipe, such as `<(git show main:corsgate.yaml)`, has no folder. So the paths in its configuration are
/// relative to the folder of the other file.
fn file(path: &Path, other: &Path) -> Result<ReadConfiguration, String> {
    let (read, loaded, _) =
        ConfigSource::File(path.to_owned()).open_with_document().map_err(|error| format!("corsgate: {error}\n"))?;
    let loaded = match path.starts_with("/dev") || path.starts_with("/proc") {
        true => ConfigSource::File(other.to_owned()).load(&read.text),
        false => loaded,
    };
    usable(&read.name, &read.text, loaded)
}

/// Loads the configuration of a running process. The files that this configuration names are read on this machine.
/// Their paths are relative to the folder of the other file.
fn running(admin: &str, other: &Path) -> Result<ReadConfiguration, String> {
    let failed = |why: String| format!("corsgate: {}\n", printable(&why));
    let text = ask_admin(admin, "/config", LONGEST_CONFIG).map_err(failed)?;
    let page: serde_json::Value = serde_json::from_str(&text)
        .map_err(|error| failed(format!("the response of {admin} to /config is not JSON: {error}")))?;
    let text = page["config"].to_string();
    let loaded = ConfigSource::File(other.to_owned()).load(&text);
    usable(admin, &text, loaded)
}

/// Maximum size of a configuration, in bytes. A configuration with 10,000 routes has a few megabytes.
const LONGEST_CONFIG: u64 = 16 * LONGEST;

fn usable(name: &str, text: &str, Loaded { snapshot, problems }: Loaded) -> Result<ReadConfiguration, String> {
    match snapshot {
        Some(snapshot) => Ok(ReadConfiguration { name: name.to_owned(), snapshot }),
        None => Err(report::text(&problems, &Source::new(name, text), Paint::Plain)),
    }
}
