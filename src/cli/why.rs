//! `corsgate why`: asks a running process about a request that it has refused.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Format, print};
use crate::report::printable;

const DEFAULT_ADMIN: &str = "http://127.0.0.1:9180";

/// How long an answer may take: a large configuration takes a while to explain.
const TIMEOUT: Duration = Duration::from_secs(30);

#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The request's X-Request-Id: in the access log, on the status page, with `debug_header` on the response
    #[arg(value_name = "REQUEST_ID")]
    id: String,
    /// Where the admin listener is
    #[arg(long, value_name = "URL", default_value = DEFAULT_ADMIN)]
    admin: String,
    /// How to print the explanation
    #[arg(long, value_enum, default_value_t = Format::Text)]
    format: Format,
}

pub(super) fn run(Arguments { id, admin, format }: &Arguments) -> ExitCode {
    match ask(id, admin, *format) {
        Ok(text) => {
            // Whatever answers there must not be able to steer the terminal.
            print(&text.lines().map(|line| printable(line) + "\n").collect::<String>());
            ExitCode::SUCCESS
        }
        Err(why) => {
            let _ = writeln!(std::io::stderr(), "corsgate: {}", printable(&why));
            ExitCode::FAILURE
        }
    }
}

fn ask(id: &str, admin: &str, format: Format) -> Result<String, String> {
    let query = match format {
        Format::Text => "",
        Format::Json => "?format=json",
    };
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    let url = format!("{}/refusals/{id}{query}", admin.trim_end_matches('/'));
    // What the environment says of proxies is for the way out, and the listener is here.
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
    let agent = ureq::Agent::from(config.build());
    let answer = agent.get(&url).call().and_then(|mut answer| {
        let text = answer.body_mut().read_to_string()?;
        Ok((answer.status(), text))
    });
    match answer {
        Ok((status, text)) if status.is_success() => Ok(text),
        Ok((_, text)) => Err(text.trim().to_owned()),
        Err(error) => Err(format!("cannot ask {admin}: {error}; name the admin listener with `--admin URL`")),
    }
}
