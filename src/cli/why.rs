//! `corsgate why`: asks a running process about a request that it has refused.

use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

use clap::Args;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use super::{Format, print};
use crate::admin::SERVER;
use crate::terminal::printable;

const DEFAULT_ADMIN: &str = "http://127.0.0.1:9180";

/// How long an answer may take: a large configuration takes a while to explain.
const TIMEOUT: Duration = Duration::from_secs(30);

/// More than any explanation, in bytes.
const LONGEST: u64 = 16 << 20;

const NAME_IT: &str = "name the admin listener, as in `--admin http://127.0.0.1:9180`";

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
            let lines: Vec<String> = why.lines().map(printable).collect();
            let _ = writeln!(std::io::stderr(), "corsgate: {}", lines.join("\n"));
            ExitCode::FAILURE
        }
    }
}

fn ask(id: &str, admin: &str, format: Format) -> Result<String, String> {
    let query = match format {
        Format::Text => "",
        Format::Json => "?format=json",
    };
    let base = admin.trim_end_matches('/');
    let base = match base.split_once("://") {
        Some(("http", _)) => base.to_owned(),
        Some(_) => return Err(format!("cannot ask {admin}: the admin listener speaks plain http; {NAME_IT}")),
        None => format!("http://{base}"),
    };
    if id.is_empty() {
        return Err(
            "no request has an empty id; `/refusals` of the admin listener lists those that are remembered".into()
        );
    }
    let id = utf8_percent_encode(id, NON_ALPHANUMERIC);
    // What the environment says of proxies is for the way out, and the listener is here. It never redirects.
    let config = ureq::Agent::config_builder().timeout_global(Some(TIMEOUT)).http_status_as_error(false).proxy(None);
    let agent = ureq::Agent::from(config.max_redirects(0).build());
    let answer = agent.get(format!("{base}/refusals/{id}{query}")).call().and_then(|mut answer| {
        let own = answer.headers().get("server").is_some_and(|server| server == SERVER);
        let text = answer.body_mut().with_config().limit(LONGEST).read_to_string()?;
        Ok((answer.status(), own, text))
    });
    match answer {
        Ok((status, true, text)) if status.is_success() => Ok(text),
        Ok((_, true, text)) => Err(text.trim().to_owned()),
        Ok((_, false, _)) => Err(format!("what answers at {base} is no admin listener; {NAME_IT}")),
        Err(error) => Err(format!("cannot ask {base}: {error}; {NAME_IT}")),
    }
}
