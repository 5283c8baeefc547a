//! `corsgate explain`: why a browser allows or blocks a page's request, and what to change.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;

use super::check::unreadable_problem;
use super::{DEFAULT_CONFIG, Format, paint, print, width};
use crate::config::Source;
use crate::explain::fetch::Credentials;
use crate::explain::{self, Configuration, InvalidQuestion, Outcome, Question, QuestionPart};
use crate::report;
use crate::snapshot::Loaded;
use crate::source::ConfigSource;

pub(super) const HELP: &str = "\
Exit codes: 0 the page gets what it needs, 3 it does not, 1 the configuration cannot be used, 2 the command line is
invalid.

Examples:
  corsgate explain --origin https://app.example https://api.example/orders
  corsgate explain --origin https://app.example --method PUT --header 'Content-Type: application/json' \
    --credentials https://api.example/orders/7
  corsgate explain --origin https://app.example --reads X-Total https://api.example/orders";

/// Exit code for an invalid command line; clap has the same.
const USAGE: u8 = 2;
/// Exit code if the page does not get what it needs.
const REFUSED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short, long, value_name = "FILE", default_value = DEFAULT_CONFIG)]
    config: PathBuf,
    /// The page's origin, such as `https://app.example`, or `null`. Repeat it to test two Origin fields, which no browser sends
    #[arg(short, long, value_name = "ORIGIN", required = true)]
    origin: Vec<String>,
    /// The method, as the page writes it
    #[arg(short, long, default_value = "GET")]
    method: String,
    /// A header that the page sets, as `Name: value` or `Name`
    #[arg(short = 'H', long, value_name = "HEADER")]
    header: Vec<String>,
    /// The request has cookies: `credentials: 'include'`
    #[arg(long)]
    credentials: bool,
    /// A response header that the page reads
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
    /// The absolute URL that the page fetches
    url: String,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let question = match arguments.question() {
        Ok(question) => question,
        Err(invalid) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {}", crate::terminal::printable(&usage_error(&invalid)));
            return ExitCode::from(USAGE);
        }
    };
    let name = arguments.config.to_string_lossy();
    let source = ConfigSource::File(arguments.config.clone());
    let (text, Loaded { snapshot, problems }) = match source.open() {
        Ok((text, loaded)) => (text.text, loaded),
        Err(unreadable) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {unreadable}");
            if let Format::Json = arguments.format {
                print(&explain::repair_json(&unreadable_problem(&unreadable), &Source::new(&name, ""), None));
            }
            return ExitCode::FAILURE;
        }
    };
    let load = |text: &str| source.load(text);
    let Some(snapshot) = snapshot else {
        let source = Source::new(&name, &text);
        let fix = explain::repair(&question, &name, &text, &problems, &load);
        print(&match arguments.format {
            Format::Text => {
                let repair = fix.map(|fix| explain::repair_text(&fix, paint(), width())).unwrap_or_default();
                report::text(&problems, &source, paint()) + &repair
            }
            Format::Json => explain::repair_json(&problems, &source, fix.as_ref()),
        });
        return ExitCode::FAILURE;
    };
    let explanation = explain::explain(&question, &Configuration::new(&name, &text, &snapshot, &load));
    print(&match arguments.format {
        Format::Text => explain::text(&explanation, paint(), width()),
        Format::Json => explain::json(&explanation),
    });
    match explanation.outcome {
        Outcome::Allowed => ExitCode::SUCCESS,
        Outcome::Refused => ExitCode::from(REFUSED),
    }
}

impl Arguments {
    fn question(&self) -> Result<Question, InvalidQuestion> {
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

/// The reason, with the flag that sets the invalid part of the question.
fn usage_error(invalid: &InvalidQuestion) -> String {
    let error = match flag(invalid.part) {
        Some(flag) => format!("{flag}: {}", invalid.reason),
        None => invalid.reason.clone(),
    };
    match invalid.instead.and_then(flag) {
        Some(flag) => format!("{error}; use `{flag}` instead"),
        None => error,
    }
}

/// None for the URL, which is an argument without a flag.
fn flag(part: QuestionPart) -> Option<&'static str> {
    Some(match part {
        QuestionPart::Origin => "--origin",
        QuestionPart::Url => return None,
        QuestionPart::Method => "--method",
        QuestionPart::Header => "--header",
        QuestionPart::Credentials => "--credentials",
        QuestionPart::Reads => "--reads",
        QuestionPart::UpstreamStatus => "--upstream-status",
        QuestionPart::UpstreamHeader => "--upstream-header",
    })
}
