//! `corsgate fleet`: the processes that share an etcd prefix.

use std::fmt::Write as _;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Args;
use serde_json::json;

use super::{ConfigFile, Format, print};
use crate::source::{Fleet, Member};
use crate::terminal::printable;

pub(super) const HELP: &str = "\
Exit codes: 0 all processes run the newest keys and refuse none, 1 not, 2 etcd cannot be read.

Examples:
  corsgate fleet --config etcd://127.0.0.1:2379/corsgate
  corsgate fleet --config corsgate.yaml --wait 30 --instances 3    after a change, in a script";

/// Pause between two readings with `--wait`.
const WAIT_PAUSE: Duration = Duration::from_millis(200);
/// Characters of a hash that are printed.
const SHORT_HASH: usize = 12;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Wait until all processes run the newest keys, for at most this number of seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "60")]
    wait: Option<u64>,
    /// The number of processes that must be there
    #[arg(long, value_name = "NUMBER", default_value_t = 1)]
    instances: usize,
    /// Output format
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let failed = |why: &str| {
        let _ = writeln!(std::io::stderr(), "corsgate: {why}");
        ExitCode::from(2)
    };
    let source = match arguments.config.find() {
        Ok(source) => source,
        Err(error) => return failed(&error.to_string()),
    };
    let Some(etcd) = source.etcd() else {
        return failed(
            "the configuration is not in etcd; write --config etcd://HOST:PORT/PREFIX, or a file with `source`",
        );
    };
    if let Some(problems) = etcd.file_problems() {
        return failed(&format!("the configuration cannot be used\n{}", problems.trim_end()));
    }
    let until = arguments.wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    loop {
        let is_last = until.is_none_or(|until| Instant::now() >= until);
        let fleet = match etcd.fleet() {
            Ok(fleet) => fleet,
            Err(error) if is_last => return failed(&format!("cannot read {}: {error}", etcd.name())),
            Err(_) => {
                std::thread::sleep(WAIT_PAUSE);
                continue;
            }
        };
        let converged = fleet.members.len() >= arguments.instances && fleet.has_converged();
        if !converged && !is_last {
            std::thread::sleep(WAIT_PAUSE);
            continue;
        }
        print(&match arguments.format {
            Format::Text => text(&fleet, arguments.instances),
            Format::Json => format!("{:#}\n", fleet_json(&fleet, converged)),
        });
        let refused = fleet.members.iter().any(|member| member.record.refused_count > 0);
        return if converged && !refused { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
}

fn text(fleet: &Fleet, instances: usize) -> String {
    let mut rows = vec![["INSTANCE", "STATE", "REVISION", "REFUSED", "SHA256", "VERSION"].map(str::to_owned)];
    rows.extend(fleet.members.iter().map(|Member { record, is_current }| {
        let state = match (is_current, &record.error, record.from_cache) {
            (true, _, _) => "current",
            (false, Some(_), _) => "refused",
            (false, None, true) => "cache",
            (false, None, false) => "behind",
        };
        let hash: String = record.sha256.chars().take(SHORT_HASH).collect();
        [&record.id, state, &record.revision.to_string(), &record.refused_count.to_string(), &hash, &record.version]
            .map(printable)
    }));
    let widths: Vec<usize> =
        (0..rows[0].len()).map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or(0)).collect();
    let mut out = String::new();
    for row in &rows {
        let cells: Vec<String> = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:width$}")).collect();
        let _ = writeln!(out, "{}", cells.join("  ").trim_end());
    }
    for Member { record, .. } in &fleet.members {
        for refused in &record.refused {
            let _ = writeln!(
                out,
                "{} refuses {} at revision {}: {}",
                printable(&record.id),
                printable(&refused.key),
                refused.revision,
                printable(&refused.fault)
            );
        }
        if let Some(error) = &record.error {
            let _ = writeln!(out, "{} refuses the newest keys: {}", printable(&record.id), printable(error));
        }
    }
    let behind = fleet.members.iter().filter(|member| !member.is_current).count();
    let missing = instances.saturating_sub(fleet.members.len());
    let missing = if missing > 0 { format!(", {missing} missing") } else { String::new() };
    let count = fleet.members.len();
    let plural = if count == 1 { "" } else { "s" };
    let _ = writeln!(
        out,
        "{}: {count} instance{plural}, {behind} not current{missing}, {} keys, revision {}",
        fleet.name, fleet.keys, fleet.revision
    );
    out
}

fn fleet_json(fleet: &Fleet, converged: bool) -> serde_json::Value {
    let member = |Member { record, is_current }: &Member| {
        let mut value = serde_json::to_value(record).unwrap_or_default();
        value["current"] = (*is_current).into();
        value
    };
    json!({
        "source": fleet.name,
        "revision": fleet.revision,
        "keys": fleet.keys,
        "converged": converged,
        "instances": fleet.members.iter().map(member).collect::<Vec<_>>(),
    })
}
