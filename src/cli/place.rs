//! Where a command reads and changes objects: in a file, in etcd, or in a running corsgate by its admin listener.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

use super::ConfigFile;
use super::why::{admin_agent, admin_url};
use crate::config::{PartChange, PartKind, Parts, Source, with_part_changes};
use crate::diff::{Difference, Side};
use crate::report;
use crate::snapshot::Snapshot;
use crate::source::{ConfigSource, Etcd, Reading, Transaction, read_text, replace_file};
use crate::terminal::{Paint, printable};

/// Variable with a token of the write API.
const TOKEN: &str = "CORSGATE_TOKEN";
/// Timeout of one request to an admin listener. A large configuration takes seconds.
const TIMEOUT: Duration = Duration::from_secs(60);
/// Maximum size of a response, in bytes.
const LONGEST: u64 = 256 << 20;

#[derive(Debug, Args)]
pub(super) struct PlaceArguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The URL of the admin listener of a running corsgate, instead of --config. The token comes from --token-file or from
    /// the environment variable CORSGATE_TOKEN
    #[arg(long, value_name = "URL", conflicts_with = "config")]
    admin: Option<String>,
    /// A file with the token for --admin
    #[arg(long, value_name = "FILE", requires = "admin")]
    token_file: Option<PathBuf>,
}

pub(super) enum Place {
    File(PathBuf),
    Etcd(Etcd),
    Admin(AdminApi),
}

/// The write API of a running corsgate.
pub(super) struct AdminApi {
    base: String,
    token: String,
    agent: ureq::Agent,
}

/// The parts that a place has.
pub(super) struct PlaceParts {
    pub(super) parts: Parts,
    /// Where they are from, for people.
    pub(super) from: String,
    /// Keys that cannot be read.
    pub(super) unreadable: Vec<String>,
}

/// A change that was tried and is not made yet.
pub(super) struct Plan {
    /// What changes for requests. None if the place says it only when the change is made.
    pub(super) difference: Option<Difference>,
    write: Write,
}

enum Write {
    File { path: PathBuf, present: String, text: String },
    Etcd { etcd: Etcd, transactions: Vec<Transaction> },
    Admin(Vec<PartChange>),
}

impl Place {
    pub(super) fn find(PlaceArguments { config, admin, token_file }: &PlaceArguments) -> Result<Self, String> {
        if let Some(admin) = admin {
            return AdminApi::new(admin, token_file.as_deref()).map(Place::Admin);
        }
        match config.find().map_err(|error| error.to_string())? {
            ConfigSource::Etcd(etcd) => match etcd.file_problems() {
                Some(problems) => Err(format!("the configuration cannot be used\n{}", problems.trim_end())),
                None => Ok(Place::Etcd(etcd)),
            },
            ConfigSource::File(path) => Ok(Place::File(path)),
            ConfigSource::BuiltIn(_) => Err("the configuration is built into the program".to_owned()),
        }
    }

    pub(super) fn parts(&self) -> Result<PlaceParts, String> {
        let (parts, from, unreadable) = match self {
            Place::File(path) => {
                let text = read_text(path).map_err(|error| error.to_string())?;
                let parts = Parts::of(&text)
                    .ok_or_else(|| format!("{} cannot be read; `corsgate check` says why", path.display()))?;
                (parts, path.display().to_string(), Vec::new())
            }
            Place::Etcd(etcd) => {
                let found = etcd.parts().map_err(|error| format!("cannot read {}: {error}", etcd.name()))?;
                (found.parts, format!("{} at revision {}", etcd.name(), found.revision), found.unreadable)
            }
            Place::Admin(api) => (api.parts()?, api.base.clone(), Vec::new()),
        };
        Ok(PlaceParts { parts, from, unreadable })
    }

    /// Tries changes on the parts that [`Place::parts`] has read. Err: errors of the new configuration.
    pub(super) fn plan(&self, changes: Vec<PartChange>) -> Result<Plan, String> {
        match self {
            Place::File(path) => {
                let source = ConfigSource::File(path.clone());
                let present = read_text(path).map_err(|error| error.to_string())?;
                let text = with_part_changes(&present, &changes).ok_or_else(|| {
                    format!(
                        "the text of {} cannot be edited; YAML anchors and tags are the usual reason",
                        path.display()
                    )
                })?;
                let old = source.load(&present);
                let new = source.load_checked(&text);
                let Some(after) = new.snapshot else {
                    let source = Source::new("the new configuration", &text);
                    return Err(report::text(&new.problems, &source, Paint::Plain));
                };
                let difference = difference(old.snapshot.as_ref(), Some(&after));
                Ok(Plan { difference, write: Write::File { path: path.clone(), present, text } })
            }
            Place::Etcd(etcd) => {
                let plan = etcd.plan(&changes).map_err(|error| error.to_string())?;
                if !plan.errors.is_empty() {
                    return Err(plan.errors.concat());
                }
                let difference = difference(plan.before.as_ref(), plan.after.as_ref());
                Ok(Plan { difference, write: Write::Etcd { etcd: etcd.clone(), transactions: plan.transactions } })
            }
            Place::Admin(_) => Ok(Plan { difference: None, write: Write::Admin(changes) }),
        }
    }

    /// Makes the change. Returns what a person should know.
    pub(super) fn write(&self, plan: Plan) -> Result<String, String> {
        match (plan.write, self) {
            (Write::File { path, present, text }, _) => {
                replace_file(&path, &present, &text, &Reading::default()).map_err(|error| error.to_string())?;
                Ok(format!(
                    "written to {}; reload corsgate (`kill -HUP`) if it does not watch the file",
                    path.display()
                ))
            }
            (Write::Etcd { etcd, transactions }, _) => {
                let (mut revision, mut written) = (0, 0);
                let all: usize = transactions.iter().map(Transaction::keys).sum();
                for transaction in &transactions {
                    revision = etcd
                        .commit(transaction)
                        .map_err(|error| format!("{error}\n{written} of {all} keys were written"))?;
                    written += transaction.keys();
                }
                Ok(format!("written to {} as revision {revision}", etcd.name()))
            }
            (Write::Admin(changes), Place::Admin(api)) => {
                let count = changes.len();
                for (made, change) in changes.iter().enumerate() {
                    api.change(change).map_err(|why| format!("{why}\n{made} of {count} changes were made"))?;
                }
                Ok(format!("written to {}", api.base))
            }
            (Write::Admin(_), Place::File(_) | Place::Etcd(_)) => Err("the plan is of another place".to_owned()),
        }
    }
}

fn difference(before: Option<&Snapshot>, after: Option<&Snapshot>) -> Option<Difference> {
    let side = |name, snapshot| Side { name, snapshot };
    Some(Difference::of(side("before", before?), side("after", after?)))
}

// === impl AdminApi ===

impl AdminApi {
    fn new(admin: &str, token_file: Option<&std::path::Path>) -> Result<Self, String> {
        let base = admin_url(admin)?;
        let token = match token_file {
            Some(path) => read_text(path).map_err(|error| error.to_string())?,
            None => std::env::var(TOKEN).map_err(|_| {
                format!("set {TOKEN} to a token of `admin.write`, or name a file with one: `--token-file FILE`")
            })?,
        };
        let agent = admin_agent(TIMEOUT);
        Ok(AdminApi { base, token: token.trim().to_owned(), agent })
    }

    fn parts(&self) -> Result<Parts, String> {
        let mut parts = Parts::default();
        for kind in PartKind::NAMED {
            let page = self.call("GET", kind.section(), None)?;
            for item in page["items"].as_array().into_iter().flatten() {
                let mut value = item["object"].clone();
                if let (PartKind::Service, Some(service)) = (kind, value.as_object_mut()) {
                    service.shift_remove("name");
                }
                parts.named.insert((kind, item["name"].as_str().unwrap_or_default().to_owned()), value);
            }
        }
        Ok(parts)
    }

    fn change(&self, PartChange { kind, name, value }: &PartChange) -> Result<(), String> {
        let path = format!("{}/{}", kind.section(), utf8_percent_encode(name, NON_ALPHANUMERIC));
        let method = if value.is_some() { "PUT" } else { "DELETE" };
        let answer = self.call(method, &path, value.as_ref());
        answer.map(drop).map_err(|why| format!("{}/{name}: {why}", kind.section()))
    }

    fn call(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Value, String> {
        let url = format!("{}/api/v1/{path}", self.base);
        let request = http::Request::builder()
            .method(method)
            .uri(&url)
            .header("Authorization", format!("Bearer {}", self.token))
            .header("Content-Type", "application/json");
        let body = body.map(Value::to_string).unwrap_or_default();
        let request = request.body(body).map_err(|error| format!("cannot ask {}: {error}", self.base))?;
        let answer = self.agent.run(request).and_then(|mut response| {
            let text = response.body_mut().with_config().limit(LONGEST).read_to_string()?;
            Ok((response.status().as_u16(), text))
        });
        let (status, text) = answer.map_err(|error| format!("cannot ask {}: {error}", self.base))?;
        let value: Value = serde_json::from_str(&text).map_err(|_| {
            format!("{} has no write API: its response with the status {status} is not JSON", self.base)
        })?;
        match status {
            200..300 => Ok(value),
            _ => Err(error_text(&value)),
        }
    }
}

/// The error of a response, with its problems.
fn error_text(response: &Value) -> String {
    let error = &response["error"];
    let part = |value: &Value, key: &str| printable(value[key].as_str().unwrap_or_default());
    let mut text = part(error, "message");
    for problem in error["problems"].as_array().into_iter().flatten() {
        let (at, fault, remedy) = (part(problem, "path"), part(problem, "fault"), part(problem, "remedy"));
        let _ = write!(text, "\n  {at}: {fault}; {remedy}");
    }
    text
}
