//! `corsgate explain`: explains why a browser allows or blocks a page's request, and prints an edit that allows it.

use std::io::Write;
use std::net::IpAddr;
use std::process::ExitCode;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use clap::{Arg, ArgAction, ArgMatches, Args};

use super::check::unreadable_problem;
use super::{ConfigFile, Format, paint, print, width};
use crate::config::{Document, Source};
use crate::expect::result_of;
use crate::explain::fetch::Credentials;
use crate::explain::{self, Configuration, Initiator, InvalidQuestion, Outcome, Prediction, Question, QuestionPart};
use crate::report;
use crate::snapshot::{Loaded, Snapshot};
use crate::source::SourceText;

pub(super) const HELP: &str = "\
Exit codes: 0 the page gets what it needs, 3 it does not, 4 the file does not decide it (the upstream redirects to a
server that the file does not know), 1 the configuration cannot be used, 2 the command line is invalid.

Examples:
  corsgate explain --origin https://app.example https://api.example/orders
  corsgate explain --origin https://app.example --method PUT --header 'Content-Type: application/json' \
    --credentials https://api.example/orders/7
  corsgate explain --origin https://app.example --reads X-Total https://api.example/orders
  corsgate explain --origin https://app.example --as websocket wss://api.example/feed
  corsgate explain --origin https://app.example https://api.example/orders \
    --then 'POST https://api.example/orders' --header 'Content-Type: application/json'
  corsgate explain --origin https://app.example --as-expectation https://api.example/orders";

/// Exit code for an invalid command line. clap uses the same code.
const USAGE: u8 = 2;
/// Exit code if the page does not get what it needs.
const REFUSED: u8 = 3;
/// Exit code if another server decides the result.
const UNDECIDED: u8 = 4;

#[derive(Debug, Args)]
pub(super) struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// The page's origin, such as `https://app.example`, or `null`. Repeat it to test two Origin fields, which no browser sends
    #[arg(short, long, value_name = "ORIGIN", required = true)]
    origin: Vec<String>,
    /// The method, as the page writes it
    #[arg(short, long, default_value = "GET")]
    method: String,
    #[command(flatten)]
    requests: Requests,
    /// The kind of request
    #[arg(long = "as", value_name = "INITIATOR", default_value = Initiator::Fetch.code(), value_parser = initiators())]
    initiator: Initiator,
    /// The request has cookies: `credentials: 'include'`
    #[arg(long)]
    credentials: bool,
    /// A response header that the page reads
    #[arg(long, value_name = "NAME")]
    reads: Vec<String>,
    /// The status of the upstream's response [default: 200; 101 for a WebSocket]
    #[arg(long, value_name = "STATUS")]
    upstream_status: Option<u16>,
    /// A header of the upstream's response, as `Name: value`
    #[arg(long, value_name = "HEADER")]
    upstream_header: Vec<String>,
    /// The address of the client, for `clients` [default: one that is accepted]
    #[arg(long, value_name = "ADDRESS")]
    client: Option<IpAddr>,
    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// Print an entry of `expect` for this request, with its current result
    #[arg(long, conflicts_with = "format")]
    as_expectation: bool,
    /// The absolute URL that the page fetches
    url: String,
}

/// The requests of the page, with their headers. A header belongs to the request before it, as in curl after `--next`.
#[derive(Debug)]
struct Requests {
    /// Headers of the first request.
    headers: Vec<String>,
    /// The later requests, as `METHOD URL`, each with its headers.
    later: Vec<(String, Vec<String>)>,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let question = match arguments.question() {
        Ok(question) => question,
        Err(invalid) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {}", crate::terminal::printable(&usage_error(&invalid)));
            return ExitCode::from(USAGE);
        }
    };
    let read = arguments.config.find();
    let read = read.and_then(|source| Ok((source.open_with_document()?, source)));
    let ((SourceText { name, text, .. }, Loaded { snapshot, problems }, document), source) = match read {
        Ok(read) => read,
        Err(unreadable) => {
            let name = unreadable.path.to_string_lossy();
            let _ = writeln!(std::io::stderr(), "corsgate: {unreadable}");
            if let Format::Json = arguments.format {
                print(&explain::repair_json(&unreadable_problem(&unreadable), &Source::new(&name, ""), None));
            }
            return ExitCode::FAILURE;
        }
    };
    // An edit must not break an expectation. If an expectation fails already, edits are computed for another problem.
    let has_expectations = document.as_ref().is_some_and(Document::has_expectations);
    let all_hold = snapshot.is_some() && has_expectations && source.load_checked(&text).snapshot.is_some();
    let load = |text: &str| if all_hold { source.load_checked(text) } else { source.load(text) };
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
    if arguments.as_expectation {
        return print_expectation(&question, &snapshot, document.as_ref());
    }
    let configuration = Configuration::new(&name, &text, &snapshot, &load).with_document(document.as_ref());
    let explanation = explain::explain(&question, &configuration);
    print(&match arguments.format {
        Format::Text => explain::text(&explanation, paint(), width()),
        Format::Json => explain::json(&explanation),
    });
    match explanation.outcome {
        Outcome::Allowed => ExitCode::SUCCESS,
        Outcome::Refused => ExitCode::from(REFUSED),
        Outcome::Undecided => ExitCode::from(UNDECIDED),
    }
}

/// Prints the entry of `expect` with the current result. The entry has a reason only if the page does not get the
/// response. An allowed request needs none, because another entry of the policy may allow it too.
fn print_expectation(question: &Question, snapshot: &Snapshot, document: Option<&Document>) -> ExitCode {
    let fail = |why: &str, code| {
        let _ = writeln!(std::io::stderr(), "corsgate: --as-expectation: {why}");
        ExitCode::from(code)
    };
    let Some(mut expectation) = question.as_expectation() else {
        return fail("an expectation has one request, one origin, and no two upstream headers of one name", USAGE);
    };
    let prediction = Prediction::of(question, snapshot);
    let Some(result) = result_of(prediction.outcome(), prediction.reaches_upstream()) else {
        return fail("the file does not decide this: the upstream redirects to another server", UNDECIDED);
    };
    expectation.result = Some(result);
    if let (Outcome::Refused, Some(document)) = (prediction.outcome(), document) {
        expectation.reason = Some(prediction.code(document).to_owned());
    }
    print(&expectation.to_yaml());
    ExitCode::SUCCESS
}

impl Arguments {
    fn question(&self) -> Result<Question, InvalidQuestion> {
        let (first, others) = self.origin.split_first().expect("clap asks for one");
        let mut question = Question::of(self.initiator, first, &self.url)?.method(&self.method)?;
        for origin in others {
            question = question.and_origin(origin)?;
        }
        let credentials = if self.credentials { Credentials::Include } else { Credentials::Omit };
        question = question.credentials(credentials)?;
        for header in &self.requests.headers {
            question = question.header(header)?;
        }
        for (request, headers) in &self.requests.later {
            let (method, url) = request.split_once(' ').unwrap_or(("GET", request));
            let of_later = |invalid| InvalidQuestion { part: QuestionPart::Later, ..invalid };
            question = question.then(url.trim()).and_then(|question| question.method(method)).map_err(of_later)?;
            for header in headers {
                question = question.header(header)?;
            }
        }
        for name in &self.reads {
            question = question.reads(name)?;
        }
        for header in &self.upstream_header {
            question = question.upstream_header(header)?;
        }
        if let Some(client) = self.client {
            question = question.client(client);
        }
        match self.upstream_status {
            Some(status) => question.upstream_status(status),
            None => Ok(question),
        }
    }
}

impl clap::FromArgMatches for Requests {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        // The indices are the positions on the command line.
        let values = |id: &str| -> Vec<(usize, String)> {
            let indices = matches.indices_of(id).into_iter().flatten();
            indices.zip(matches.get_many::<String>(id).into_iter().flatten().cloned()).collect()
        };
        let mut requests = Requests { headers: Vec::new(), later: Vec::new() };
        let later = values(THEN);
        requests.later.extend(later.iter().map(|(_, request)| (request.clone(), Vec::new())));
        for (index, header) in values(HEADER) {
            match later.iter().rposition(|(then, _)| *then < index) {
                Some(request) => requests.later[request].1.push(header),
                None => requests.headers.push(header),
            }
        }
        Ok(requests)
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

impl Args for Requests {
    fn augment_args(command: clap::Command) -> clap::Command {
        let header =
            Arg::new(HEADER).short('H').long(HEADER).value_name("HEADER").action(ArgAction::Append).help(
                "A header that the page sets, as `Name: value` or `Name`. After `--then` it belongs to that request",
            );
        let then = Arg::new(THEN).long(THEN).value_name("REQUEST").action(ArgAction::Append).help(
            "A request that the page makes after the others, as `METHOD URL`. The browser's preflight cache is simulated",
        );
        command.arg(header).arg(then)
    }

    fn augment_args_for_update(command: clap::Command) -> clap::Command {
        Self::augment_args(command)
    }
}

const HEADER: &str = "header";
const THEN: &str = "then";

/// Returns the values of `--as`, each with its help.
fn initiators() -> impl TypedValueParser<Value = Initiator> {
    let word = |initiator: &Initiator| PossibleValue::new(initiator.code()).help(initiator.description());
    PossibleValuesParser::new(Initiator::ALL.iter().map(word)).map(|word| {
        let known = Initiator::ALL.into_iter().find(|initiator| initiator.code() == word);
        known.expect("the parser accepts only these words")
    })
}

/// Returns the reason, and the flag that sets the invalid part of the question.
pub(super) fn usage_error(invalid: &InvalidQuestion) -> String {
    let error = match flag(invalid.part) {
        Some(flag) => format!("{flag}: {}", invalid.reason),
        None => invalid.reason.clone(),
    };
    match invalid.instead.and_then(flag) {
        Some(flag) => format!("{error}; use `{flag}` instead"),
        None => error,
    }
}

/// Returns the flag of a part. Returns None for the URL, which is an argument without a flag.
fn flag(part: QuestionPart) -> Option<&'static str> {
    Some(match part {
        QuestionPart::Initiator => "--as",
        QuestionPart::Later => "--then",
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
