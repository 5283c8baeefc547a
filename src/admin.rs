//! The admin listener: is the process alive, is it ready, what is in force, how is it going, and what was refused.
//!
//! For people and monitoring beside the gateway, not for pages: whoever asks must do so by an address or a name that is
//! the operator's, and no other site's page gets an answer ([`host_check`]). It changes nothing.

mod host_check;
mod json;
mod limits;
pub mod metrics;
mod page;
mod readiness;
mod why;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::accept::admission::Admission;
use crate::live::Live;
use crate::record::Recorder;

pub(crate) use self::limits::Bounded;
use self::metrics::Metrics;
pub(crate) use self::readiness::Readiness;

/// By which whoever asks knows that it has reached this listener, and not a service behind the gateway.
pub(crate) const SERVER: &str = "corsgate-admin";

/// What there is to see.
const PATHS: &str = "\
/             how it is going, for people
/livez        whether the process is alive
/readyz       whether it wants to be sent requests
/metrics      counts, for Prometheus
/config       the configuration in force
/routes       what is in force for every route
/refusals     the last refused requests
/refusals/ID  why one was refused
";

/// Answers for a process.
pub(crate) struct AdminServer {
    process: Arc<Process>,
    /// Pages that are made from the text of the configuration: one at a time, for a large one costs memory as well.
    pages: Arc<Semaphore>,
    /// What is counted has a queue of its own: monitoring must not go blind because somebody looks at a page.
    scrapes: Arc<Semaphore>,
}

/// What there is to tell about.
pub(crate) struct Process {
    /// The configuration in force, and how it came to be.
    pub(crate) live: Arc<Live>,
    /// Whether it wants to be sent requests.
    pub(crate) readiness: Readiness,
    /// What requests have left behind.
    pub(crate) recorder: Arc<Recorder>,
    /// The open connections.
    pub(crate) connections: Arc<Admission>,
    /// What is counted.
    pub(crate) metrics: Metrics,
    /// When it started.
    pub(crate) started: SystemTime,
}

/// How long a page is waited for that somebody else's is in front of.
const PATIENCE: Duration = Duration::from_secs(2);

/// What is answered.
struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
}

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
enum View {
    Status,
    Metrics,
    Config,
    Routes,
    Refusals,
    Refusal { id: String, format: Format },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Json,
}

// === impl AdminServer ===

impl AdminServer {
    /// Tells about a process.
    pub(crate) fn new(process: Process) -> Self {
        let queue = || Arc::new(Semaphore::new(1));
        AdminServer { process: Arc::new(process), pages: queue(), scrapes: queue() }
    }

    async fn answer(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Page {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Page::text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        }
        // Whoever checks these may call the process by any name, and learns nothing but that it lives.
        match path {
            "/readyz" if !self.process.readiness.is_ready() => {
                return Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
            }
            "/livez" | "/readyz" => return Page::text(StatusCode::OK, "ok\n"),
            _ => {}
        }
        if let Err(refusal) = host_check::admit(headers, self.process.live.current().snapshot.admin_hosts()) {
            return Page::text(StatusCode::FORBIDDEN, refusal);
        }
        let Some(view) = View::of(path, query) else { return Page::text(StatusCode::NOT_FOUND, PATHS) };
        let queue = match view {
            View::Metrics => &self.scrapes,
            View::Status | View::Config | View::Routes | View::Refusals | View::Refusal { .. } => &self.pages,
        };
        let Ok(Ok(turn)) = timeout(PATIENCE, queue.clone().acquire_owned()).await else {
            return Page::text(StatusCode::SERVICE_UNAVAILABLE, "Busy with the page of somebody else; ask again.\n");
        };
        // Large configurations take a while to write out, and whether the process lives must be known meanwhile.
        let process = self.process.clone();
        let page = tokio::task::spawn_blocking(move || {
            // It ends with the work, also when nobody waits for that any more.
            let _turn = turn;
            process.page(&view)
        });
        let page = page.await;
        page.unwrap_or_else(|error| Page::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")))
    }
}

#[async_trait]
impl ServeHttp for AdminServer {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        limits::asked();
        let request = session.req_header();
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let page = self.answer(&request.method, path, query, &request.headers).await;
        let mut response = Response::new(Vec::new());
        *response.status_mut() = page.status;
        let headers = response.headers_mut();
        let fixed = |text| HeaderValue::from_static(text);
        headers.insert(header::CONTENT_TYPE, fixed(page.content_type));
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(page.body.len()));
        headers.insert(header::SERVER, fixed(SERVER));
        headers.insert(header::CACHE_CONTROL, fixed("no-store"));
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, fixed("nosniff"));
        headers.insert(header::X_FRAME_OPTIONS, fixed("DENY"));
        headers.insert(header::REFERRER_POLICY, fixed("no-referrer"));
        headers.insert("cross-origin-resource-policy", fixed("same-origin"));
        headers.insert(header::CONTENT_SECURITY_POLICY, page::CONTENT_SECURITY_POLICY.clone());
        *response.body_mut() = page.body;
        response
    }
}

// === impl View, Process, Page ===

impl View {
    fn of(path: &str, query: &str) -> Option<Self> {
        Some(match path {
            "/" => View::Status,
            "/metrics" => View::Metrics,
            "/config" => View::Config,
            "/routes" => View::Routes,
            "/refusals" => View::Refusals,
            _ => {
                let id = percent_decode_str(path.strip_prefix("/refusals/")?).decode_utf8_lossy().into_owned();
                let format = if query == "format=json" { Format::Json } else { Format::Text };
                View::Refusal { id, format }
            }
        })
    }
}

impl Process {
    /// May take a while.
    fn page(&self, view: &View) -> Page {
        match view {
            View::Status => Page {
                status: StatusCode::OK,
                content_type: "text/html; charset=utf-8",
                body: page::page(self, SystemTime::now()).into_bytes(),
            },
            View::Metrics => match self.metrics.text() {
                Ok(text) => Page {
                    status: StatusCode::OK,
                    content_type: "text/plain; version=0.0.4; charset=utf-8",
                    body: text.into_bytes(),
                },
                Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            View::Config => Page::json(&json::config(self)),
            View::Routes => Page::json(&json::routes(&self.live.current())),
            View::Refusals => Page::json(&json::refusals(self)),
            View::Refusal { id, format } => match self.recorder.refusals.find(id) {
                Some(refused) => match format {
                    Format::Json => Page::json(&why::json(self, &refused)),
                    Format::Text => Page::text(StatusCode::OK, &why::text(self, &refused, SystemTime::now())),
                },
                None => Page::text(StatusCode::NOT_FOUND, UNKNOWN_REFUSAL),
            },
        }
    }
}

/// Why there is nothing to tell about a request.
const UNKNOWN_REFUSAL: &str = "\
No refused request with this id is remembered. Only the last few hundred are, and only those that were refused;
/refusals lists them.
";

impl Page {
    fn text(status: StatusCode, text: &str) -> Self {
        Page { status, content_type: "text/plain; charset=utf-8", body: text.as_bytes().to_vec() }
    }

    fn json(value: &serde_json::Value) -> Self {
        Page { status: StatusCode::OK, content_type: "application/json", body: format!("{value:#}\n").into_bytes() }
    }
}

/// A point in time for people and programs: RFC 3339, in UTC, to the second.
pub(crate) fn time(at: SystemTime) -> impl fmt::Display {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
