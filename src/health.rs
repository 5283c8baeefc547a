//! Health checks of nodes, and the timers of ejections and slow starts.
//!
//! One background service for all upstreams. Ten times a second, it compares the checks with the active configuration. It
//! starts the checks of new endpoints, and ends those of removed endpoints. The other checks continue, because an unchanged
//! upstream keeps its endpoints over a reload. Each check opens a new connection, because a keepalive connection would
//! hide that new connections fail.

use std::collections::HashMap;
use std::io;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use http::Uri;
use pingora::http::RequestHeader;
use pingora::protocols::http::client::HttpSession;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use pingora::upstreams::peer::HttpPeer;
use pingora::{Error, ErrorType, Result};
use pingora_core::connectors::http::Connector;
use tokio::io::AsyncWrite;
use tokio::net::{TcpStream, UnixStream};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use crate::live::Live;
use crate::logging::quoted;
use crate::snapshot::{self, Address, HttpCheck};
use crate::upstream::failure::describe;
use crate::upstream::peer::{server_name, template};
use crate::upstream::proxy_protocol::{ProxyConnector, SentProxyHeader};
use crate::upstream::{Change, Endpoint, RunningUpstream, key};

/// Precision of the times of checks, ejections and slow starts.
const TICK: Duration = Duration::from_millis(100);
/// Every node is checked once within this time, even if the interval is longer.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// Maximum number of checks at a time. Without it, thousands of nodes would take thousands of sockets in the first
/// second. Further checks wait; their timeout begins when they start.
const MAX_CHECKS: usize = 256;
/// Maximum number of bytes of a response body that a check reads before it closes the connection.
const MAX_BODY: usize = 64 << 10;

/// The background service.
pub(crate) struct Health {
    live: Arc<Live>,
    shared: Arc<Shared>,
}

/// What all checks share.
struct Shared {
    connector: OnceLock<Connector>,
    slots: Semaphore,
}

/// Active checks, by the memory address of their endpoint. A check owns its endpoint, so the address is unique.
#[derive(Default)]
struct Checks(HashMap<usize, Check>);

struct Check {
    upstream: Arc<RunningUpstream>,
    endpoint: Arc<Endpoint>,
    /// Random offset of the next check, so that many nodes are not checked at the same time, nor one node by many
    /// replicas.
    jitter: u64,
    due: Instant,
    task: Option<JoinHandle<()>>,
    /// Last round in which the endpoint was in the configuration.
    round: u64,
}

impl Health {
    /// Checks the nodes of the active configuration.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        let shared = Shared { connector: OnceLock::new(), slots: Semaphore::new(MAX_CHECKS) };
        Health { live, shared: Arc::new(shared) }
    }
}

#[async_trait]
impl BackgroundService for Health {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut checks = Checks::default();
        let mut round = 0;
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(TICK) => {}
            }
            round += 1;
            let (generation, now) = (self.live.current(), Instant::now());
            for upstream in generation.upstreams() {
                for endpoint in upstream.tick(now) {
                    log::info!("node readmitted upstream={} address={}", upstream.settings().name, endpoint.address());
                }
                if let Some(spec) = &upstream.settings().health_check {
                    for endpoint in upstream.endpoints().iter() {
                        checks.of(upstream, endpoint, spec, now).start_if_due(&self.shared, spec, now, round);
                    }
                }
            }
            checks.0.retain(|_, check| check.round == round);
        }
    }
}

impl Checks {
    fn of(
        &mut self,
        upstream: &Arc<RunningUpstream>,
        endpoint: &Arc<Endpoint>,
        spec: &snapshot::HealthCheck,
        now: Instant,
    ) -> &mut Check {
        self.0.entry(Arc::as_ptr(endpoint).addr()).or_insert_with(|| {
            let jitter = key(format!("{} {}", upstream.settings().name, endpoint.address()).as_bytes());
            let (upstream, endpoint) = (upstream.clone(), endpoint.clone());
            let due = now + part(spec.interval.min(FIRST_WITHIN), jitter, 100);
            Check { upstream, endpoint, jitter, due, task: None, round: 0 }
        })
    }
}

impl Check {
    /// Starts the next check if it is due and the previous one has ended.
    fn start_if_due(&mut self, shared: &Arc<Shared>, spec: &snapshot::HealthCheck, now: Instant, round: u64) {
        self.round = round;
        if now < self.due || self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // The interval, plus or minus 5 %.
        self.jitter = key(&self.jitter.to_le_bytes());
        self.due = now + spec.interval * 19 / 20 + part(spec.interval / 10, self.jitter, 100);
        let (upstream, endpoint, shared) = (self.upstream.clone(), self.endpoint.clone(), shared.clone());
        self.task = Some(tokio::spawn(async move {
            // The semaphore is never closed.
            let _slot = shared.slots.acquire().await;
            check(&upstream, &endpoint, &shared.connector).await;
        }));
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A random part of a duration, in this number of steps.
fn part(of: Duration, random: u64, steps: u32) -> Duration {
    of * u32::try_from(random % u64::from(steps)).unwrap_or(0) / steps
}

/// Checks a node, and reports the result to the upstream.
async fn check(upstream: &RunningUpstream, endpoint: &Arc<Endpoint>, connector: &OnceLock<Connector>) {
    let Some(spec) = &upstream.settings().health_check else { return };
    let request = async {
        match &spec.http {
            None => connect(upstream, endpoint).await,
            Some(http) => match send_check(upstream, endpoint, http, connector).await {
                Ok(status) if (http.status.0..=http.status.1).contains(&status) => Ok(()),
                Ok(status) => Err(format!("status {status}")),
                Err(error) => Err(describe(&error, upstream)),
            },
        }
    };
    let result = tokio::time::timeout(spec.timeout, request).await;
    let result = result.unwrap_or_else(|_| Err(format!("no response within {:?}", spec.timeout)));
    let change = upstream.checked(endpoint, result.is_ok(), Instant::now());
    let (name, address) = (&upstream.settings().name, endpoint.address());
    if let Err(error) = &result {
        endpoint.set_last_error(error.clone());
    }
    match (change, result) {
        (Some(Change::Unhealthy), Err(error)) => {
            log::warn!("node unhealthy upstream={name} address={address} error={}", quoted(error));
        }
        (Some(Change::Healthy), _) => log::info!("node healthy upstream={name} address={address}"),
        (_, Err(error)) => log::debug!("check failed upstream={name} address={address} error={}", quoted(error)),
        (_, Ok(())) => {}
    }
}

/// Opens a connection, and closes it.
async fn connect(upstream: &RunningUpstream, endpoint: &Endpoint) -> Result<(), String> {
    async fn send_header(upstream: &RunningUpstream, mut stream: impl AsyncWrite + Unpin) -> Result<(), String> {
        let Some(version) = upstream.settings().proxy_protocol else { return Ok(()) };
        let sent = SentProxyHeader::without_client(version).send(&mut stream).await;
        sent.map_err(|error| describe(&error, upstream))
    }
    let failed = |error: io::Error| error.to_string();
    match endpoint.address() {
        Address::Ip(address) => send_header(upstream, TcpStream::connect(address).await.map_err(failed)?).await,
        Address::Unix(path) => send_header(upstream, UnixStream::connect(&**path).await.map_err(failed)?).await,
    }
}

/// Sends the request of a check, and returns the status of the response.
async fn send_check(
    upstream: &RunningUpstream,
    endpoint: &Endpoint,
    http: &HttpCheck,
    connector: &OnceLock<Connector>,
) -> Result<u16> {
    let mut peer = template(upstream, endpoint);
    // The caller's timeout applies to the whole check.
    let options = &mut peer.options;
    (options.connection_timeout, options.total_connection_timeout) = (None, None);
    // Created by the first HTTP check, because it reads the trust store of the system.
    let connector = connector.get_or_init(|| Connector::new(None));
    // Pingora keeps an HTTP/2 connection that can have more streams, and the next check would reuse it.
    peer.options.max_h2_streams = 1;
    if let Some(version) = upstream.settings().proxy_protocol {
        let header = SentProxyHeader::without_client(version);
        peer.options.custom_l4 = Some(Arc::new(ProxyConnector::new(header, &upstream.settings().timeouts)));
    }
    let (mut session, _) = connector.get_http_session(&peer).await?;
    if upstream.settings().http2 && matches!(session, HttpSession::H1(_)) {
        return Error::e_explain(ErrorType::H2Error, "the node does not support HTTP/2");
    }
    session.write_request_header(request(upstream, endpoint, http, &peer)?).await?;
    session.finish_request_body().await?;
    let status = loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |header| header.status.as_u16());
        if status >= 200 || status == 101 {
            break status;
        }
    };
    // Read the body, because a node may log an error if the connection is closed early. The result is already known, so
    // errors are ignored.
    let mut length = 0;
    while let Ok(Some(chunk)) = session.read_response_body().await {
        length += chunk.len();
        if length > MAX_BODY {
            break;
        }
    }
    Ok(status)
}

fn request(
    upstream: &RunningUpstream,
    endpoint: &Endpoint,
    http: &HttpCheck,
    peer: &HttpPeer,
) -> Result<Box<RequestHeader>> {
    let host = match &http.host {
        Some(host) => host.to_string(),
        None if peer.is_tls() => server_name(upstream, endpoint).into_owned(),
        None => upstream.settings().nodes[endpoint.node()].address.authority(),
    };
    let mut request = RequestHeader::build("GET", http.path.as_bytes(), None)?;
    request.insert_header("User-Agent", "corsgate-health-check")?;
    request.insert_header("Accept", "*/*")?;
    match upstream.settings().http2 {
        false => {
            request.insert_header("Host", host)?;
            request.insert_header("Connection", "close")?;
        }
        true => {
            let scheme = if peer.is_tls() { "https" } else { "http" };
            let uri = Uri::builder().scheme(scheme).authority(host).path_and_query(&*http.path).build();
            request.set_uri(uri.map_err(|e| Error::because(ErrorType::InternalError, "URI of a health check", e))?);
        }
    }
    Ok(Box::new(request))
}
