//! `corsgate apply` and `corsgate delete`: change the objects of a configuration in a file, in etcd or of a running corsgate.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{BufRead, IsTerminal, Write as _};
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::get::{fail, kind_of, unknown_section};
use super::place::{Place, PlaceArguments};
use super::{paint, print, width};
use crate::config::{PartChange, PartKind, Parts, hunks, part_text};
use crate::source::{read_text, yaml_files};
use crate::terminal::printable;

pub(super) const HELP: &str = "\
Exit codes: 0 applied, or nothing to change; 1 the changes are refused or were not written; 2 the files, the place or the
command line cannot be used, or nobody confirmed; 4 with --dry-run: something would change.

In etcd up to 100 changed keys are written together, or none. Of more keys, those that others need are written first. With
--admin the changes are made one after the other.

Examples:
  corsgate apply -f corsgate.yaml --config etcd://127.0.0.1:2379/corsgate --dry-run
  corsgate apply -f objects/ --config etcd://127.0.0.1:2379/corsgate --prune --yes     in a pipeline
  corsgate apply -f policies.yaml --admin http://127.0.0.1:9180 --token-file token";

pub(super) const DELETE_HELP: &str = "\
Exit codes: as for `corsgate apply`; 1 also if there is no such object.

Example:
  corsgate delete services/old --config etcd://127.0.0.1:2379/corsgate";

/// Exit code if the change is refused or was not written.
const REFUSED: u8 = 1;
/// Exit code if nothing could be tried.
const TROUBLE: u8 = 2;
/// Exit code of a dry run that found changes.
const WOULD_CHANGE: u8 = 4;

/// Keys that belong to the file of each process.
const OF_PROCESS: [&str; 8] =
    ["listeners", "admin", "access_log", "server", "source", "environment", "expect", "expect_files"];

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// A file with services, upstreams, cors_policies and origin_sets, or a directory with such files (*.yaml, *.yml, *.json);
    /// `-` for stdin
    #[arg(short, long = "file", required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Also delete the objects that are not in the files
    #[arg(long)]
    prune: bool,
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
pub(super) struct DeleteArguments {
    /// The objects, each as SECTION/NAME
    #[arg(required = true, value_name = "OBJECT")]
    objects: Vec<String>,
    #[command(flatten)]
    place: PlaceArguments,
    #[command(flatten)]
    confirm: Confirm,
}

#[derive(Debug, Args)]
struct Confirm {
    /// Print the changes and make none
    #[arg(long)]
    dry_run: bool,
    /// Do not ask
    #[arg(long, conflicts_with = "dry_run")]
    yes: bool,
}

pub(super) fn run(Arguments { files, prune, place, confirm }: &Arguments) -> ExitCode {
    let read = || {
        let wanted = wanted(files)?;
        let place = Place::find(place)?;
        let present = place.parts()?.parts;
        let wanted = settings_for(&place, wanted)?;
        Ok::<_, String>((place, present, wanted))
    };
    let (place, present, mut wanted) = match read() {
        Ok(read) => read,
        Err(why) => return fail(&why, TROUBLE),
    };
    let settings = (!wanted.others.is_empty() && wanted.others != present.others).then(|| PartChange {
        kind: PartKind::Settings,
        name: String::new(),
        value: Some(serde_json::Value::Object(wanted.others.clone())),
    });
    if !prune {
        for (key, value) in &present.named {
            wanted.named.entry(key.clone()).or_insert_with(|| value.clone());
        }
    }
    let changes = settings.into_iter().chain(wanted.changes_from(&present)).collect();
    change(&place, &present, changes, confirm)
}

pub(super) fn delete(DeleteArguments { objects, place, confirm }: &DeleteArguments) -> ExitCode {
    let (place, present) = match Place::find(place).and_then(|place| place.parts().map(|found| (place, found.parts))) {
        Ok(read) => read,
        Err(why) => return fail(&why, TROUBLE),
    };
    let mut changes = Vec::new();
    for object in objects {
        let Some((section, name)) = object.split_once('/') else {
            return fail(&format!("`{object}` is no object; write SECTION/NAME"), TROUBLE);
        };
        let Some(kind) = kind_of(section) else { return fail(&unknown_section(section), TROUBLE) };
        if !present.named.contains_key(&(kind, name.to_owned())) {
            return fail(&format!("there is no {object}"), REFUSED);
        }
        changes.push(PartChange { kind, name: name.to_owned(), value: None });
    }
    change(&place, &present, changes, confirm)
}

/// Shows the changes, asks, and makes them.
fn change(place: &Place, present: &Parts, mut changes: Vec<PartChange>, confirm: &Confirm) -> ExitCode {
    if changes.is_empty() {
        print("nothing to change\n");
        return ExitCode::SUCCESS;
    }
    // With the write API, changes are made one by one. Objects that other objects use come first, and deletions come last.
    changes.sort_by_key(|change| match change.value.is_some() {
        true => (0, i8::try_from(change.kind as usize).unwrap_or_default()),
        false => (1, -i8::try_from(change.kind as usize).unwrap_or_default()),
    });
    print(&shown(present, &changes));
    let plan = match place.plan(changes) {
        Ok(plan) => plan,
        Err(why) => return fail(&format!("the changes are refused, nothing was written\n{}", why.trim_end()), REFUSED),
    };
    if let Some(difference) = &plan.difference {
        print(&format!("\n{}", difference.text(paint(), width())));
    }
    if confirm.dry_run {
        return ExitCode::from(WOULD_CHANGE);
    }
    if !confirm.yes && !confirmed() {
        return fail("nothing was written", TROUBLE);
    }
    match place.write(plan) {
        Ok(message) => {
            print(&format!("{message}\n"));
            ExitCode::SUCCESS
        }
        Err(why) => fail(&why, REFUSED),
    }
}

/// The objects with the lines that differ.
fn shown(present: &Parts, changes: &[PartChange]) -> String {
    let mut out = String::new();
    for PartChange { kind, name, value } in changes {
        let old = match kind {
            PartKind::Settings => {
                (!present.others.is_empty()).then(|| serde_json::Value::Object(present.others.clone()))
            }
            _ => present.named.get(&(*kind, name.clone())).cloned(),
        };
        let word = match (&old, value) {
            (None, _) => "new",
            (Some(_), Some(_)) => "changed",
            (Some(_), None) => "deleted",
        };
        let title = if name.is_empty() { kind.section().to_owned() } else { format!("{}/{name}", kind.section()) };
        let _ = writeln!(out, "{} {word}", printable(&title));
        let text =
            |value: &Option<serde_json::Value>| value.as_ref().map(|value| part_text(None, value)).unwrap_or_default();
        for hunk in hunks(&text(&old), &text(value)) {
            let mut lines = |sign, lines: &[String]| {
                lines.iter().filter(|line| !line.is_empty()).for_each(|line| {
                    let _ = writeln!(out, "  {sign} {}", printable(line));
                });
            };
            lines('-', &hunk.removed);
            lines('+', &hunk.added);
        }
    }
    out
}

fn confirmed() -> bool {
    let stdin = std::io::stdin();
    if !stdin.is_terminal() {
        let _ = writeln!(std::io::stderr(), "corsgate: nobody can confirm the changes; write `--yes`");
        return false;
    }
    print("\nApply these changes? [y/N] ");
    let mut answer = String::new();
    stdin.lock().read_line(&mut answer).is_ok() && ["y", "yes"].contains(&answer.trim().to_ascii_lowercase().as_str())
}

/// The parts of all files together.
fn wanted(files: &[PathBuf]) -> Result<Parts, String> {
    let mut all = Parts::default();
    let mut places: BTreeMap<String, String> = BTreeMap::new();
    let mut once = |key: String, file: &str| match places.insert(key.clone(), file.to_owned()) {
        Some(other) => Err(format!("{} is in {other} and in {file}; keep one", printable(&key))),
        None => Ok(()),
    };
    for file in files {
        for path in yaml_files(file).map_err(|error| format!("{}: {error}", file.display()))? {
            let name = path.display().to_string();
            let text = read_text(&path).map_err(|error| error.to_string())?;
            let parts = Parts::of(&text).ok_or_else(|| {
                format!("{name} is no file with services, upstreams, cors_policies or origin_sets; `corsgate check` says more")
            })?;
            for ((kind, object), value) in parts.named {
                once(format!("{}/{object}", kind.section()), &name)?;
                all.named.insert((kind, object), value);
            }
            for (key, value) in parts.others {
                once(key.clone(), &name)?;
                all.others.insert(key, value);
            }
        }
    }
    Ok(all)
}

/// Leaves out the keys of processes. etcd has the other settings in a key of their own.
fn settings_for(place: &Place, mut wanted: Parts) -> Result<Parts, String> {
    let left_out: Vec<String> = wanted.others.keys().filter(|key| OF_PROCESS.contains(&&***key)).cloned().collect();
    wanted.others.retain(|key, _| !OF_PROCESS.contains(&&**key));
    if !left_out.is_empty() {
        let keys = left_out.join(", ");
        let _ = writeln!(std::io::stderr(), "not applied, because it belongs to the file of each process: {keys}");
    }
    match place {
        Place::Etcd(_) => Ok(wanted),
        _ if wanted.others.is_empty() => Ok(wanted),
        Place::File(_) | Place::Admin(_) => {
            let keys: Vec<String> = wanted.others.keys().map(|key| printable(key)).collect();
            Err(format!(
                "cannot apply {}: only services, upstreams, cors_policies and origin_sets; edit the file of corsgate",
                keys.join(", ")
            ))
        }
    }
}
