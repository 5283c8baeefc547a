//! `corsgate get` and `corsgate export`: the objects of a configuration as YAML.

use std::io::Write as _;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;

use super::place::{Place, PlaceArguments, PlaceParts};
use super::{Format, print};
use crate::config::{PartKind, Parts, part_text};
use crate::source::write_new;
use crate::terminal::printable;

pub(super) const HELP: &str = "\
Exit codes: 0 printed, 1 there is no such object, 2 the place cannot be read.

Examples:
  corsgate get --config etcd://127.0.0.1:2379/corsgate
  corsgate get cors_policies --config corsgate.yaml
  corsgate get services/api --admin http://127.0.0.1:9180 --token-file token";

pub(super) const EXPORT_HELP: &str = "\
The file has the listener 127.0.0.1:9080 if the place has no listeners. It has no other settings of a running process.

Examples:
  corsgate export --config etcd://127.0.0.1:2379/corsgate --output corsgate.yaml
  corsgate apply -f corsgate.yaml --config etcd://127.0.0.1:2379/other        the other way round";

/// Exit code if there is no such object.
const NOT_FOUND: u8 = 1;
/// Exit code if the place cannot be read.
const TROUBLE: u8 = 2;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// What to print: SECTION, or SECTION/NAME. Sections are services, upstreams, cors_policies and origin_sets [default: all]
    #[arg(value_name = "OBJECT")]
    object: Option<String>,
    #[command(flatten)]
    place: PlaceArguments,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

#[derive(Debug, Args)]
pub(super) struct ExportArguments {
    #[command(flatten)]
    place: PlaceArguments,
    /// Write to this file, which must not exist [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let found = match read(&arguments.place) {
        Ok(found) => found,
        Err(why) => return fail(&why, TROUBLE),
    };
    let mut parts = found.parts;
    parts.others.clear();
    let Some(object) = &arguments.object else {
        print(&shown(&parts, arguments.format));
        return ExitCode::SUCCESS;
    };
    let (section, name) = match object.split_once('/') {
        Some((section, name)) => (section, Some(name)),
        None => (&**object, None),
    };
    let Some(kind) = kind_of(section) else { return fail(&unknown_section(section), TROUBLE) };
    if let Some(name) = name {
        let Some(value) = parts.named.get(&(kind, name.to_owned())) else {
            return fail(&format!("there is no {object}"), NOT_FOUND);
        };
        print(&match arguments.format {
            Format::Text => part_text(None, value),
            Format::Json => json(value),
        });
        return ExitCode::SUCCESS;
    }
    parts.named.retain(|(of, _), _| *of == kind);
    print(&shown(&parts, arguments.format));
    ExitCode::SUCCESS
}

pub(super) fn export(arguments: &ExportArguments) -> ExitCode {
    let found = match read(&arguments.place) {
        Ok(found) => found,
        Err(why) => return fail(&why, TROUBLE),
    };
    let mut parts = found.parts;
    parts.others.shift_remove("source");
    if !parts.others.contains_key("listeners") {
        let listeners = serde_json::json!([{ "address": "127.0.0.1:9080" }]);
        parts.others.shift_insert(0, "listeners".to_owned(), listeners);
    }
    let text = format!("# Exported by `corsgate export` from {}.\n{}", printable(&found.from), parts.text());
    match &arguments.output {
        None => print(&text),
        Some(path) => {
            if let Err(error) = write_new(path, &text) {
                return fail(&format!("{}: {error}", path.display()), TROUBLE);
            }
        }
    }
    ExitCode::SUCCESS
}

/// Reads the parts, and warns about those that cannot be read.
fn read(place: &PlaceArguments) -> Result<PlaceParts, String> {
    let found = Place::find(place)?.parts()?;
    for key in &found.unreadable {
        let _ = writeln!(std::io::stderr(), "corsgate: left out: {} cannot be read", printable(key));
    }
    Ok(found)
}

fn shown(parts: &Parts, format: Format) -> String {
    match format {
        Format::Text => parts.text(),
        Format::Json => {
            let section = |kind: PartKind| {
                let of_kind = parts.named.iter().filter(move |((of, _), _)| *of == kind);
                let named = of_kind.map(|((_, name), value)| (name.clone(), value.clone())).collect();
                (kind.section().to_owned(), Value::Object(named))
            };
            json(&Value::Object(PartKind::NAMED.map(section).into_iter().collect()))
        }
    }
}

fn json(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_default() + "\n"
}

pub(super) fn kind_of(section: &str) -> Option<PartKind> {
    PartKind::NAMED.into_iter().find(|kind| kind.section() == section)
}

pub(super) fn unknown_section(section: &str) -> String {
    format!("`{}` is no section; write services, upstreams, cors_policies or origin_sets", printable(section))
}

pub(super) fn fail(why: &str, code: u8) -> ExitCode {
    let lines: Vec<String> = why.lines().map(printable).collect();
    let _ = writeln!(std::io::stderr(), "corsgate: {}", lines.join("\n"));
    ExitCode::from(code)
}
