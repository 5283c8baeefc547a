//! The admin listener: liveness, readiness, metrics, the active configuration, a status page, refused requests, and
//! observations, the write API ([`api`]), and pages to change the configuration ([`ui`]).
//!
//! It is for operators and monitoring. Only the write API and the pages change something, and they need tokens. Requests must use an
//! IP address or a name of the operator, and requests from pages of other sites are refused ([`host_check`]).

mod api;
mod etcd;
mod host_check;
mod json;
mod limits;
pub mod metrics;
mod observe;
mod page;
mod readiness;
mod ui;
mod why;

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Response, StatusCode, header};
use percent_encoding::percent_decode_str;
use pingora_core::apps::http_app::ServeHttp;
use pingora_core::protocols::http::ServerSession;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::accept::admission::Admission;
use crate::live::Live;
use crate::record::Recorder;

use self::api::Api;
pub(crate) use self::limits::LimitedAdmin;
use self::metrics::Metrics;
use self::observe::Window;
pub(crate) use self::readiness::Readiness;
use self::ui::Ui;

/// Value of `Server`. It tells a client that it has reached this listener, not a service behind the gateway.
pub(crate) const SERVER: &str = "corsgate-admin";

/// Body of a 404: all paths.
const PATHS: &str = "\
/             status page
/livez        200 while the process runs
/readyz       200 while the process accepts requests, 503 while it drains
/metrics      metrics in Prometheus format
/config       the active configuration
/routes       the effective settings of each route
/refusals     the last refused requests
/refusals/ID  why a request was refused
/api/v1/      reads and changes the objects of the configuration, with a token: docs/api.md
/ui/          pages to read and change the objects of the configuration
/observe      counts cross-origin requests for some time (?for=60s), for `corsgate learn`
";

/// The app of the admin listener.
pub(crate) struct AdminServer {
    process: Arc<Process>,
    /// Renders one page at a time: a page about a large configuration needs much time and memory.
    pages: Arc<Semaphore>,
    /// `/metrics` has a queue of its own, so that a slow page does not block monitoring.
    scrapes: Arc<Semaphore>,
    api: Api,
    ui: Ui,
}

/// State of the process that the admin listener shows.
pub(crate) struct Process {
    pub(crate) live: Arc<Live>,
    pub(crate) readiness: Readiness,
    pub(crate) recorder: Arc<Recorder>,
    /// Open client connections.
    pub(crate) connections: Arc<Admission>,
    pub(crate) metrics: Metrics,
    /// Start of the process.
    pub(crate) started: SystemTime,
}

/// Maximum time that a request waits for another page to be rendered.
const QUEUE_TIMEOUT: Duration = Duration::from_secs(2);
/// The same for `/metrics`: the default timeout of a scrape in Prometheus. Several servers may scrape at the same time,
/// and the metrics of 100,000 routes take seconds.
const SCRAPE_QUEUE_TIMEOUT: Duration = Duration::from_secs(10);

/// A response.
struct Page {
    status: StatusCode,
    content_type: &'static str,
    body: Vec<u8>,
    /// More fields of the header.
    fields: Vec<(HeaderName, HeaderValue)>,
}

/// A resource of the listener.
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
    pub(crate) fn new(process: Process) -> Self {
        let queue = || Arc::new(Semaphore::new(1));
        AdminServer { process: Arc::new(process), pages: queue(), scrapes: queue(), api: Api::new(), ui: Ui::default() }
    }

    fn admit(&self, headers: &HeaderMap) -> Result<(), Page> {
        host_check::admit(headers, self.process.live.current().snapshot.admin_hosts())
            .map_err(|refusal| Page::text(StatusCode::FORBIDDEN, refusal))
    }

    /// What an operator should know about a source that still works. Empty for requests that may be of a page.
    fn notices(&self, headers: &HeaderMap) -> String {
        let status = etcd::status(&self.process).filter(|_| self.admit(headers).is_ok());
        status.map(|status| etcd::notices(&status, SystemTime::now())).unwrap_or_default()
    }

    /// Answers `/observe` at the end of the observation.
    async fn observe(&self, session: &mut ServerSession) -> Page {
        let request = session.req_header();
        // A response to HEAD has no body, so an observation would be useless.
        if request.method != Method::GET {
            return Page::text(StatusCode::METHOD_NOT_ALLOWED, "GET\n");
        }
        if let Err(refusal) = self.admit(&request.headers) {
            return refusal;
        }
        let window = match Window::parse(request.uri.query().unwrap_or_default()) {
            Ok(window) => Arc::new(window),
            Err(fault) => return Page::text(StatusCode::BAD_REQUEST, fault),
        };
        let wanted = window.clone();
        let policies = match self.render(&self.pages, QUEUE_TIMEOUT, move |process| wanted.policies(process)).await {
            Ok(Ok(policies)) => policies,
            Ok(Err(page)) | Err(page) => return page,
        };
        let _long = limits::long_request();
        let client_leaves = async { _ = session.read_body_or_idle(true).await };
        let page = window.observe(&self.process, policies, client_leaves).await;
        // The client has closed its connection.
        page.unwrap_or_else(|| Page::text(StatusCode::REQUEST_TIMEOUT, "the client has left\n"))
    }

    async fn answer(&self, method: &Method, path: &str, query: &str, headers: &HeaderMap) -> Page {
        if !matches!(*method, Method::GET | Method::HEAD) {
            return Page::text(StatusCode::METHOD_NOT_ALLOWED, "GET or HEAD\n");
        }
        // Before the host check: load balancers may use any name, and these responses reveal nothing else.
        match path {
            "/readyz" if !self.process.readiness.is_ready() => {
                return Page::text(StatusCode::SERVICE_UNAVAILABLE, "draining\n");
            }
            "/readyz" if etcd::is_waiting(&self.process) => {
                let text = format!("waiting for a first configuration from etcd\n{}", self.notices(headers));
                return Page::text(StatusCode::SERVICE_UNAVAILABLE, &text);
            }
            "/readyz" => return Page::text(StatusCode::OK, &format!("ok\n{}", self.notices(headers))),
            "/livez" => return Page::text(StatusCode::OK, "ok\n"),
            _ => {}
        }
        if let Err(refusal) = self.admit(headers) {
            return refusal;
        }
        let Some(view) = View::of(path, query) else { return Page::text(StatusCode::NOT_FOUND, PATHS) };
        let (queue, queue_timeout) = match view {
            View::Metrics => (&self.scrapes, SCRAPE_QUEUE_TIMEOUT),
            View::Status | View::Config | View::Routes | View::Refusals | View::Refusal { .. } => {
                (&self.pages, QUEUE_TIMEOUT)
            }
        };
        let page = self.render(queue, queue_timeout, move |process| process.page(&view)).await;
        page.unwrap_or_else(|busy| busy)
    }

    /// Runs a long task, after the tasks in the queue. Err: the response if the queue is full.
    async fn render<T: Send + 'static>(
        &self,
        queue: &Arc<Semaphore>,
        queue_timeout: Duration,
        run: impl FnOnce(&Process) -> T + Send + 'static,
    ) -> Result<T, Page> {
        let Ok(Ok(permit)) = timeout(queue_timeout, queue.clone().acquire_owned()).await else {
            return Err(Page::text(StatusCode::SERVICE_UNAVAILABLE, "Another page is being rendered; retry.\n"));
        };
        // Rendering a large configuration takes long, and `/livez` must respond meanwhile.
        let process = self.process.clone();
        let result = tokio::task::spawn_blocking(move || {
            // Held until the page is rendered, even if the client has gone.
            let _permit = permit;
            run(&process)
        });
        let result = result.await;
        result.map_err(|error| Page::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")))
    }
}

#[async_trait]
impl ServeHttp for AdminServer {
    async fn response(&self, session: &mut ServerSession) -> Response<Vec<u8>> {
        limits::header_received();
        let request = session.req_header();
        let (path, query) = (request.uri.path(), request.uri.query().unwrap_or_default());
        let page = match path {
            "/observe" => self.observe(session).await,
            path if path.starts_with(api::PREFIX) || path.starts_with(api::apisix::PREFIX) => self.api(session).await,
            path if path == ui::PREFIX || path.starts_with("/ui/") => self.ui(session).await,
            path => self.answer(&request.method, path, query, &request.headers).await,
        };
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
        // They replace those above.
        page.fields.into_iter().for_each(|(name, value)| drop(headers.insert(name, value)));
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
    /// Renders a page. May take long.
    fn page(&self, view: &View) -> Page {
        match view {
            View::Status => Page {
                status: StatusCode::OK,
                content_type: "text/html; charset=utf-8",
                body: page::page(self, SystemTime::now()).into_bytes(),
                fields: Vec::new(),
            },
            View::Metrics => match self.metrics.text() {
                Ok(text) => Page {
                    status: StatusCode::OK,
                    content_type: "text/plain; version=0.0.4; charset=utf-8",
                    body: text.into_bytes(),
                    fields: Vec::new(),
                },
                Err(error) => Page::text(StatusCode::INTERNAL_SERVER_ERROR, &format!("{error}\n")),
            },
            View::Config => Page::json(&json::config(self)),
            View::Routes => Page::json(&json::routes(&self.live.current())),
            View::Refusals => Page::json(&json::refusals(self)),
            View::Refusal { id, format } => match self.recorder.refusals.find(id) {
                Some((refused, others)) => match format {
                    Format::Json => Page::json(&why::json(self, &refused, others)),
                    Format::Text => Page::text(StatusCode::OK, &why::text(self, &refused, others, SystemTime::now())),
                },
                None => Page::text(StatusCode::NOT_FOUND, UNKNOWN_REFUSAL),
            },
        }
    }
}

/// Body of a 404 for a request id.
const UNKNOWN_REFUSAL: &str = "\
No refused request with this id is stored. Only the last few hundred refused requests are stored;
/refusals lists them.
";

impl Page {
    fn text(status: StatusCode, text: &str) -> Self {
        Page { status, content_type: "text/plain; charset=utf-8", body: text.as_bytes().to_vec(), fields: Vec::new() }
    }

    fn json(value: &serde_json::Value) -> Self {
        Self::json_bytes(format!("{value:#}\n").into_bytes())
    }

    fn json_bytes(body: Vec<u8>) -> Self {
        Page { status: StatusCode::OK, content_type: "application/json", body, fields: Vec::new() }
    }

    fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.fields.push((name, value));
        self
    }
}

/// RFC 3339 in UTC, with seconds.
pub(crate) fn time(at: SystemTime) -> impl fmt::Display {
    let at = jiff::Timestamp::try_from(at).unwrap_or_default();
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::record::listeners::Counts;

    /// Two Prometheus servers, and a page that takes longer than either waits.
    #[tokio::test(start_paused = true)]
    async fn a_second_scrape_waits_longer_for_the_first_than_a_page() {
        let text = "
listeners: [{ address: '127.0.0.1:1' }]
services: [{ name: api, upstream: { nodes: [{ address: '127.0.0.1:2' }] } }]
";
        let live = Arc::new(Live::with_lookup(text, |_| Ok(Vec::new())));
        let recorder = Arc::new(Recorder::new(true, live.access_log().clone()));
        let counts = Arc::new(Counts::new(std::iter::empty(), None));
        let admin = AdminServer::new(Process {
            live: live.clone(),
            readiness: Readiness::default(),
            recorder: recorder.clone(),
            connections: Arc::default(),
            metrics: Metrics::new(live, recorder, counts),
            started: SystemTime::now(),
        });
        let headers = HeaderMap::from_iter([(header::HOST, HeaderValue::from_static("localhost"))]);
        for (path, busy_for, status) in [("/metrics", 9, 200), ("/metrics", 11, 503), ("/", 1, 200), ("/", 3, 503)] {
            let queue = if path == "/" { &admin.pages } else { &admin.scrapes };
            let other = queue.clone().acquire_owned().await.unwrap();
            let rendering = async {
                tokio::time::sleep(Duration::from_secs(busy_for)).await;
                drop(other);
            };
            let (page, ()) = tokio::join!(admin.answer(&Method::GET, path, "", &headers), rendering);
            assert_eq!(page.status, status, "{path} after {busy_for} s");
        }
    }
}
