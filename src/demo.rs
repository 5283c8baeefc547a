//! `corsgate demo`: serves the walkthrough without any setup.
//!
//! A small upstream, similar to httpbin, runs in the same process. The gateway connects to it over TCP, like to any
//! other.

use std::fmt::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::time::Duration;
use std::{fmt, io};

use async_trait::async_trait;
use http::{HeaderName, HeaderValue, Response, StatusCode};
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use serde_json::{Value, json};

use crate::live::{Live, LoadError};
use crate::process::{ReloadOn, ReloadSignal, Sockets, StartError, add_http_service, serve_with};
use crate::source::ConfigSource;

/// Configuration of the demo. The README shows the same file.
pub(crate) const CONFIG: &str = include_str!("../conf/walkthrough.yaml");

/// Port of the gateway in [`CONFIG`], and the default of `--port`.
pub(crate) const PORT: u16 = 9080;

/// Address of httpbin in [`CONFIG`].
const HTTPBIN: &str = "127.0.0.1:8000";

/// Admin listener of the demo. Left out if the address is in use.
const ADMIN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 9180);

/// Appended to [`CONFIG`], so that each request has a line on stdout.
const ACCESS_LOG: &str = "\naccess_log: { format: text }\n";

/// Why the demo could not start.
#[derive(Debug)]
pub(crate) enum DemoError {
    /// No free port for the built-in upstream.
    Port(io::Error),
    /// The built-in configuration cannot be used.
    Config(LoadError),
    /// The gateway could not start.
    Start(StartError),
}

/// Serves the walkthrough. `announce` gets the text for the user, after the address was found to be free.
pub(crate) fn serve(
    reload_signal: ReloadSignal,
    port: u16,
    announce: impl FnOnce(&str),
) -> Result<std::convert::Infallible, DemoError> {
    let address = free_address().map_err(DemoError::Port)?;
    let mut config = with_port(CONFIG, port).replace(HTTPBIN, &address.to_string()) + ACCESS_LOG;
    let admin = TcpListener::bind(ADMIN).is_ok().then_some(ADMIN);
    if let Some(admin) = admin {
        let _ = writeln!(config, "admin: {{ address: {admin} }}");
    }
    let (live, _) = Live::start(ConfigSource::BuiltIn(config)).map_err(DemoError::Config)?;
    serve_with(Arc::new(live), reload_signal, Sockets::Own, ReloadOn::Signal, |server| {
        add_http_service(server, "httpbin", Httpbin, address);
        announce(&with_port(&introduction(admin), port));
    })
    .map_err(DemoError::Start)
}

fn introduction(admin: Option<SocketAddr>) -> String {
    let admin = admin.map_or_else(String::new, |admin| {
        format!("  refused requests and their reasons, in a browser:\n    http://{admin}/\n\n")
    });
    let curl = "curl -i -H 'Host: cloud.httpbin.org' -H 'Origin: http://127.0.0.1:9080'";
    format!(
        "\
corsgate serves the walkthrough on http://127.0.0.1:9080, with a built-in httpbin behind it. In another terminal:

  the preflight, answered by corsgate:
    curl http://127.0.0.1:9080/v1/json -H 'Host: cloud.httpbin.org' -H 'Origin: http://127.0.0.1:9080' -X OPTIONS -i

  a request; the upstream's own Access-Control-Allow-Origin is replaced:
    {curl} 'http://127.0.0.1:9080/v1/response-headers?Access-Control-Allow-Origin=*'

  an origin that the policy does not allow; the upstream's CORS headers are removed:
    curl -i -H 'Host: cloud.httpbin.org' -H 'Origin: https://evil.test' \\
      'http://127.0.0.1:9080/v1/response-headers?Access-Control-Allow-Origin=*'

{admin}Each request has a line here, with the reason of the CORS decision. Press Ctrl-C to stop.
"
    )
}

/// A text about the gateway of the demo, with another port.
fn with_port(text: &str, port: u16) -> String {
    text.replace(&format!("127.0.0.1:{PORT}"), &format!("127.0.0.1:{port}"))
}

/// A loopback address with a port that is free now.
fn free_address() -> io::Result<SocketAddr> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()
}

impl fmt::Display for DemoError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            DemoError::Port(error) => write!(f, "no free port for the built-in upstream: {error}"),
            DemoError::Config(refused) => write!(f, "{refused}"),
            DemoError::Start(StartError::Bind(address, error)) => {
                write!(
                    f,
                    "cannot listen on {address}: {error}; stop the process that listens there, or choose another port with --port"
                )
            }
            DemoError::Start(error) => write!(f, "{error}"),
        }
    }
}

impl std::error::Error for DemoError {}

/// The upstream: `/json`, `/anything`, `/headers`, `/status/{code}`, `/response-headers?name=value`, `/delay/{s}`.
struct Httpbin;

/// Longest `/delay`, in seconds.
const MAX_DELAY: u64 = 10;
/// Maximum size of a request body in bytes.
const MAX_BODY: usize = 1 << 20;

#[async_trait]
impl ServeHttp for Httpbin {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        let mut body = Vec::new();
        while let Ok(Some(chunk)) = session.read_request_body().await {
            if body.len() + chunk.len() > MAX_BODY {
                return respond(StatusCode::PAYLOAD_TOO_LARGE, &json!({ "error": "the body is longer than 1 MiB" }));
            }
            body.extend_from_slice(&chunk);
        }
        let request = session.req_header();
        let path = request.uri.path();
        let query = || request.uri.query().map(pairs).unwrap_or_default();
        let headers = || {
            let text = |value: &HeaderValue| String::from_utf8_lossy(value.as_bytes()).into_owned();
            request
                .headers
                .iter()
                .map(|(name, value)| (name.to_string(), text(value).into()))
                .collect::<serde_json::Map<_, _>>()
        };
        match path.split('/').skip(1).collect::<Vec<_>>().as_slice() {
            ["json"] => respond(
                StatusCode::OK,
                &json!({ "slideshow": { "title": "Sample Slide Show", "author": "Yours Truly", "slides": [] } }),
            ),
            ["headers"] => respond(StatusCode::OK, &json!({ "headers": headers() })),
            ["anything", ..] => respond(
                StatusCode::OK,
                &json!({
                    "method": request.method.as_str(),
                    "path": path,
                    "args": query().into_iter().collect::<std::collections::BTreeMap<_, _>>(),
                    "headers": headers(),
                    "data": String::from_utf8_lossy(&body),
                }),
            ),
            ["status", code] => match code.parse().ok().and_then(|code| StatusCode::from_u16(code).ok()) {
                Some(status) if !status.is_informational() => respond(status, &json!({ "status": status.as_u16() })),
                _ => respond(StatusCode::BAD_REQUEST, &json!({ "error": "a status from 200 to 999" })),
            },
            ["delay", seconds] => match seconds.parse::<u64>() {
                Ok(seconds) => {
                    tokio::time::sleep(Duration::from_secs(seconds.min(MAX_DELAY))).await;
                    respond(StatusCode::OK, &json!({ "delay": seconds.min(MAX_DELAY) }))
                }
                Err(_) => respond(StatusCode::BAD_REQUEST, &json!({ "error": "a number of seconds" })),
            },
            ["response-headers"] => {
                let wanted = query();
                let shown: serde_json::Map<_, _> = wanted.iter().map(|(n, v)| (n.clone(), v.clone().into())).collect();
                let mut response = respond(StatusCode::OK, &Value::Object(shown));
                for (name, value) in wanted {
                    if let (Ok(name), Ok(value)) = (HeaderName::try_from(name), HeaderValue::try_from(value)) {
                        response.headers_mut().append(name, value);
                    }
                }
                response
            }
            _ => respond(StatusCode::NOT_FOUND, &json!({ "error": "not found", "path": path })),
        }
    }
}

fn respond(status: StatusCode, body: &Value) -> Response<Vec<u8>> {
    let bodiless = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let body = if bodiless { Vec::new() } else { format!("{body:#}\n").into_bytes() };
    let length = HeaderValue::from(body.len());
    let mut response = Response::new(body);
    *response.status_mut() = status;
    if !bodiless {
        response.headers_mut().insert("content-type", HeaderValue::from_static("application/json"));
        response.headers_mut().insert("content-length", length);
    }
    response
}

/// Decoded pairs of a query such as `a=1&b=2`.
fn pairs(query: &str) -> Vec<(String, String)> {
    let decode = |text: &str| {
        let text = text.replace('+', " ");
        percent_encoding::percent_decode_str(&text).decode_utf8_lossy().into_owned()
    };
    let pair = |pair: &str| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        (decode(name), decode(value))
    };
    query.split('&').filter(|pair| !pair.is_empty()).map(pair).collect()
}
