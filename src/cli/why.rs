//! `corsgate why`: asks a running process why it refused a request.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Format, print};
use crate::admin::SERVER;
use crate::terminal::printable;

const DEFAULT_ADMIN: &str = "http://127.0.0.1:9180";

/// Timeout of the whole request. An explanation with a large configuration takes time.
const TIMEOUT: Duration = Duration::from_secs(30);

/// Maximum size of a response, in bytes. Explanations are shorter.
pub(super) const LONGEST: u64 = 16 << 20;

/// Hint for an address from the command line.
const HINT: &str = "give the address that the running corsgate has as `admin.address` in its configuration";
/// Hint for the default address.
const HINT_WITHOUT_ADDRESS: &str = "corsgate listens there only if its configuration has `admin: {}`; if it has another `admin.address`, give it with `--admin http://HOST:PORT`";

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The request's X-Request-Id, from the access log, the status page, or with `debug_header` from the response
    #[arg(value_name = "REQUEST_ID")]
    id: String,
    /// The URL of the admin listener [default: http://127.0.0.1:9180]
    #[arg(long, value_name = "URL")]
    admin: Option<String>,
    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(Arguments { id, admin, format }: &Arguments) -> ExitCode {
    let (admin, hint) = match admin {
        Some(admin) => (admin.as_str(), HINT),
        None => (DEFAULT_ADMIN, HINT_WITHOUT_ADDRESS),
    };
    match ask(id, admin, hint, *format) {
        Ok(text) => {
            // The server can be any process, so its response must not control the terminal.
            print(&text.lines().map(|line| printable(line) + "\n").collect::<String>());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let lines: Vec<String> = why.lines().map(printable).collect();
            let _ = writeln!(std::io::stderr(), "corsgate: {}", lines.join("\n"));
            ExitCode::FAILURE
        }
    }
}

fn ask(id: &str, admin: &str, hint: &str, format: Format) -> Result<String, String> {
    let query = match format {
        Format::Text => "",
        Format::Json => "?format=json",
    };
    if id.is_empty() {
        return Err(
            "the request id is empty; `/refusals` of the admin listener lists the requests with their ids".into()
        );
    }
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    get(admin, &format!("/refusals/{id}{query}"), LONGEST, hint)
}

/// Gets a page of an admin listener whose address is on the command line. The error is a sentence for people.
pub(super) fn ask_admin(admin: &str, path: &str, longest: u64) -> Result<String, String> {
    get(admin, path, longest, HINT)
}

/// Gets a page that the listener sends after `time`. Without `admin`, the address is the default address.
pub(super) fn ask_admin_for(
    admin: Option<&str>,
    path: &str,
    longest: u64,
    time: Duration,
) -> Result<AdminPage, String> {
    let (admin, hint) = admin.map_or((DEFAULT_ADMIN, HINT_WITHOUT_ADDRESS), |admin| (admin, HINT));
    request(admin, path, longest, hint, time + TIMEOUT)
}

/// A response of an admin listener.
pub(super) struct AdminPage {
    /// URL of the listener.
    pub(super) base: String,
    pub(super) status: u16,
    pub(super) text: String,
}

fn get(admin: &str, path: &str, longest: u64, hint: &str) -> Result<String, String> {
    match request(admin, path, longest, hint, TIMEOUT)? {
        AdminPage { status: 200..300, text, .. } => Ok(text),
        AdminPage { text, .. } => Err(text.trim().to_owned()),
    }
}

fn request(admin: &str, path: &str, longest: u64, hint: &str, timeout: Duration) -> Result<AdminPage, String> {
    let base = admin_url(admin)?;
    let response = admin_agent(timeout).get(format!("{base}{path}")).call().and_then(|mut response| {
        let is_admin = response.headers().get("server").is_some_and(|server| server == SERVER);
        let text = response.body_mut().with_config().limit(longest).read_to_string()?;
        Ok((response.status(), is_admin, text))
    });
    match response {
        Ok((status, true, text)) => Ok(AdminPage { base, status: status.as_u16(), text }),
        Ok((_, false, _)) => Err(format!("the server at {base} is not an admin listener; {hint}")),
        Err(error) => Err(format!("cannot ask {base}: {error}; {hint}")),
    }
}

/// The URL of an admin listener, without a slash at its end.
pub(super) fn admin_url(admin: &str) -> Result<String, String> {
    let base = admin.trim_end_matches('/');
    match base.split_once("://") {
        Some(("http", _)) => Ok(base.to_owned()),
        Some(_) => Err(format!("cannot ask {admin}: the admin listener uses plain http; write `http://`")),
        None => Ok(format!("http://{base}")),
    }
}

/// A client for admin listeners. No proxy is used, because the listener is local. No redirect is followed, because the
/// admin listener sends none.
pub(super) fn admin_agent(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().timeout_global(Some(timeout)).http_status_as_error(false).proxy(None);
    ureq::Agent::from(config.max_redirects(0).build())
}
