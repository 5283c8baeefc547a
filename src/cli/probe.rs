//! `corsgate probe`: sends a page's request to any server, and prints how a browser handles the response.

use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, ValueEnum};

use super::explain::usage_error;
use super::{Format, paint, print, width};
use crate::client::{HttpClient, HttpClientSettings, ResolvedName, Trust};
use crate::explain::fetch::Credentials;
use crate::explain::{InvalidQuestion, Outcome, PageUrl, Question};
use crate::probe::audit::{self, Audit, FindingSeverity};
use crate::probe::{self, Report, Scope, Sending};
use crate::source::Reading;
use crate::terminal::printable;

pub(super) const HELP: &str = "\
The preflight is always sent. The request itself is sent if its method is GET, HEAD or OPTIONS. With `--send` it is sent
with every method: a DELETE is a real DELETE.

Exit codes: 0 the browser allows it, 1 it does not, 2 there is no response or the command line is invalid, 4 undecided
(the request was not sent, or a redirect leads to a server that the command line does not name). With `--audit`: 0 no
finding of the severity of `--fail-on` or above, 1 there are some, 2 as above.

Examples:
  corsgate probe --origin https://app.example https://api.example/orders
  corsgate probe --origin https://app.example --method PUT --header 'Content-Type: application/json' \\
    https://api.example/orders/7
  corsgate probe --origin https://app.example --resolve api.example:443:127.0.0.1 https://api.example/orders
  corsgate probe --audit --origin https://app.example https://api.example/orders";

/// Exit code if the browser refuses, or if there are findings.
const REFUSED: u8 = 1;
/// Exit code if there is no response. clap uses the same code for an invalid command line.
const TROUBLE: u8 = 2;
/// Exit code if the result depends on a server that got no request.
const UNDECIDED: u8 = 4;

// The flags of a command line are bools.
#[allow(clippy::struct_excessive_bools)]
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The page's origin, such as `https://app.example`, or `null`. With --audit: an origin that the server trusts
    #[arg(short, long, value_name = "ORIGIN", required_unless_present = "audit")]
    origin: Option<String>,
    /// The method, as the page writes it
    #[arg(short, long, default_value = "GET", conflicts_with = "audit")]
    method: String,
    /// A header that the page sets, as `Name: value`, or `Name` for the value `...`
    #[arg(short = 'H', long, value_name = "HEADER", conflicts_with = "audit")]
    header: Vec<String>,
    /// The page sends credentials: `credentials: 'include'`
    #[arg(long, conflicts_with = "audit")]
    credentials: bool,
    /// The value of `Cookie`, with --credentials [default: no cookie]
    #[arg(long, value_name = "COOKIES", requires = "credentials")]
    cookie: Option<String>,
    /// A response header that the page reads
    #[arg(long, value_name = "NAME", conflicts_with = "audit")]
    reads: Vec<String>,
    /// Send the request with every method: a DELETE is a real DELETE
    #[arg(long, conflicts_with = "audit")]
    send: bool,
    /// Send only the preflight, never the request
    #[arg(long, conflicts_with_all = ["audit", "send"])]
    preflight_only: bool,
    /// Follow redirects to this server too: `HOST`, or `HOST:PORT`
    #[arg(long, value_name = "HOST", conflicts_with = "audit")]
    follow: Vec<String>,
    /// Look for origins that the server should not trust, with at most 40 requests that cannot change anything
    #[arg(long)]
    audit: bool,
    /// With --audit: the lowest severity that exits with code 1
    #[arg(long, value_enum, value_name = "SEVERITY", default_value_t = FailOn::Low, requires = "audit")]
    fail_on: FailOn,
    /// With --audit: the pause between two requests in milliseconds
    #[arg(long, value_name = "MILLISECONDS", default_value_t = 0, requires = "audit")]
    pause: u64,
    /// Connect to this server for every URL, with its scheme: `http://127.0.0.1:9080`
    #[arg(long, value_name = "URL", value_parser = PageUrl::of_server, conflicts_with = "resolve")]
    server: Option<PageUrl>,
    #[command(flatten)]
    network: NetworkArguments,
    /// How to print the result
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
    /// The absolute URL that the page fetches
    url: String,
}

/// The arguments of the HTTP client.
#[derive(Debug, Args)]
pub(super) struct NetworkArguments {
    /// Connect to ADDRESS for this host and port
    #[arg(long, value_name = "HOST:PORT:ADDRESS")]
    resolve: Vec<ResolvedName>,
    /// The time for one request, in seconds
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    timeout: u64,
    /// Trust the certificates of this PEM file only, instead of those of this machine
    #[arg(long, value_name = "FILE")]
    ca: Option<PathBuf>,
    /// Accept every certificate: any attacker on the network can then act as the server
    #[arg(long, conflicts_with = "ca")]
    dangerously_accept_any_certificate: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FailOn {
    /// Every finding, including observations
    Info,
    /// Low and above
    Low,
    /// Medium and above
    Medium,
    /// High only
    High,
    /// No finding
    Never,
}

pub(super) fn run(arguments: &Arguments) -> ExitCode {
    let result = match arguments.audit {
        true => arguments.audit(),
        false => arguments.probe(),
    };
    result.unwrap_or_else(|why| {
        let _ = writeln!(std::io::stderr(), "corsgate: {}", printable(&why));
        ExitCode::from(TROUBLE)
    })
}

impl Arguments {
    fn probe(&self) -> Result<ExitCode, String> {
        let question = self.question().map_err(|invalid| usage_error(&invalid))?;
        let mut scope = Scope::of(question.url());
        for server in &self.follow {
            let invalid = || format!("--follow: `{server}` is not a server; write `HOST` or `HOST:PORT`");
            scope = scope.and(server).ok_or_else(invalid)?;
        }
        let sending = match (self.send, self.preflight_only) {
            (true, _) => Sending::All,
            (false, true) => Sending::PreflightOnly,
            (false, false) => Sending::Safe,
        };
        let mut client = self.client()?;
        let report = Report::of(&question, probe::exchange(&question, &scope, sending, &mut client));
        print(&match self.format {
            Format::Text => probe::text(&report, paint(), width()),
            Format::Json => probe::json(&report),
        });
        Ok(match report.outcome() {
            Some(Outcome::Allowed) => ExitCode::SUCCESS,
            Some(Outcome::Refused) => ExitCode::from(REFUSED),
            Some(Outcome::Undecided) => ExitCode::from(UNDECIDED),
            None => ExitCode::from(TROUBLE),
        })
    }

    fn audit(&self) -> Result<ExitCode, String> {
        // Without --origin, the question needs any valid origin. The audit does not use it.
        let origin = self.origin.as_deref().unwrap_or("https://app.example");
        let question = Question::new(origin, &self.url).map_err(|invalid| usage_error(&invalid))?;
        let mut client = self.client()?;
        let audit = Audit::of(question.url(), self.origin.as_deref(), &mut client);
        print(&match self.format {
            Format::Text => audit::text(&audit, paint(), width()),
            Format::Json => audit::json(&audit),
        });
        let least = match self.fail_on {
            FailOn::Info => Some(FindingSeverity::Info),
            FailOn::Low => Some(FindingSeverity::Low),
            FailOn::Medium => Some(FindingSeverity::Medium),
            FailOn::High => Some(FindingSeverity::High),
            FailOn::Never => None,
        };
        Ok(match (audit.trouble(), least) {
            (Some(_), _) => ExitCode::from(TROUBLE),
            (None, Some(least)) if audit.worst() >= Some(least) => ExitCode::from(REFUSED),
            _ => ExitCode::SUCCESS,
        })
    }

    fn question(&self) -> Result<Question, InvalidQuestion> {
        let origin = self.origin.as_deref().unwrap_or_default();
        let credentials = if self.credentials { Credentials::Include } else { Credentials::Omit };
        let mut question = Question::new(origin, &self.url)?.method(&self.method)?.credentials(credentials)?;
        for header in &self.header {
            question = question.header(header)?;
        }
        for name in &self.reads {
            question = question.reads(name)?;
        }
        Ok(question.cookie(self.cookie.as_deref()))
    }

    fn client(&self) -> Result<HttpClient, String> {
        self.network.client(self.server.clone(), Duration::from_millis(self.pause))
    }
}

impl NetworkArguments {
    /// Creates a client. It connects to `server` for every URL, or else to the server of each URL.
    pub(super) fn client(&self, server: Option<PageUrl>, pause: Duration) -> Result<HttpClient, String> {
        let trust = match &self.ca {
            Some(path) => {
                let unusable = |why: &dyn std::fmt::Display| format!("--ca: cannot use {}: {why}", path.display());
                let pem = Reading::default().read(path).map_err(|error| unusable(&error))?;
                Trust::ca(&pem).map_err(|error| unusable(&error))?
            }
            None if self.dangerously_accept_any_certificate => Trust::Anything,
            None => Trust::System,
        };
        HttpClient::new(HttpClientSettings {
            timeout: Duration::from_secs(self.timeout),
            pause,
            resolve: self.resolve.clone(),
            server,
            trust,
        })
    }
}
