//! Asks nodes whether they can serve, and lets time pass for those that are out.
//!
//! One background service for all upstreams. Ten times a second it looks at the configuration in force: what is new
//! begins to be checked, what is gone is so no more, and everything else goes on as it was, for an upstream that is
//! configured the same keeps its endpoints over a reload. Each check is a task of its own with a connection of its own:
//! one that was kept would hide that no new one can be made.

use std::collections::HashMap;
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
use tokio::net::TcpStream;
use tokio::task::JoinHandle;

use crate::live::Live;
use crate::snapshot::{self, HttpCheck};
use crate::upstream::peer::{explain, server_name, template};
use crate::upstream::{Change, Endpoint, RunningUpstream, key};

/// How exact the times of checks, ejections and slow starts are.
const TICK: Duration = Duration::from_millis(100);
/// By when every node was checked once, however long the interval.
const FIRST_WITHIN: Duration = Duration::from_secs(1);
/// What is read of the answer to a check before the connection is given up.
const MOST_BODY: usize = 64 << 10;

/// The service.
pub(crate) struct Health {
    live: Arc<Live>,
    connector: Arc<OnceLock<Connector>>,
}

/// The checks that go on, by the place in memory of their endpoint, which they keep.
#[derive(Default)]
struct Checks(HashMap<usize, Check>);

struct Check {
    upstream: Arc<RunningUpstream>,
    endpoint: Arc<Endpoint>,
    /// Moves every check a little, so that many nodes are not asked at once, nor one by many gateways.
    spread: u64,
    due: Instant,
    task: Option<JoinHandle<()>>,
    /// The round in which it was last found in the configuration.
    round: u64,
}

impl Health {
    /// Checks what `live` says at each time.
    pub(crate) fn new(live: Arc<Live>) -> Self {
        Health { live, connector: Arc::default() }
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
                    log::info!("ejection is over upstream={} address={}", upstream.settings().name, endpoint.address());
                }
                if let Some(spec) = &upstream.settings().health_check {
                    for endpoint in upstream.endpoints().iter() {
                        checks.of(upstream, endpoint, spec, now).go_on(&self.connector, spec, now, round);
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
            let spread = key(format!("{} {}", upstream.settings().name, endpoint.address()).as_bytes());
            let (upstream, endpoint) = (upstream.clone(), endpoint.clone());
            let due = now + part(spec.interval.min(FIRST_WITHIN), spread, 100);
            Check { upstream, endpoint, spread, due, task: None, round: 0 }
        })
    }
}

impl Check {
    /// Begins the next check when it is due and the last one is over.
    fn go_on(&mut self, connector: &Arc<OnceLock<Connector>>, spec: &snapshot::HealthCheck, now: Instant, round: u64) {
        self.round = round;
        if now < self.due || self.task.as_ref().is_some_and(|task| !task.is_finished()) {
            return;
        }
        // Within a twentieth of the interval to either side.
        self.spread = key(&self.spread.to_le_bytes());
        self.due = now + spec.interval * 19 / 20 + part(spec.interval / 10, self.spread, 100);
        let (upstream, endpoint, connector) = (self.upstream.clone(), self.endpoint.clone(), connector.clone());
        self.task = Some(tokio::spawn(async move { check(&upstream, &endpoint, &connector).await }));
    }
}

impl Drop for Check {
    fn drop(&mut self) {
        if let Some(task) = &self.task {
            task.abort();
        }
    }
}

/// A part of a duration, by chance, in so many steps.
fn part(of: Duration, chance: u64, steps: u32) -> Duration {
    of * u32::try_from(chance % u64::from(steps)).unwrap_or(0) / steps
}

/// Asks a node, and passes on what it has said.
async fn check(upstream: &RunningUpstream, endpoint: &Arc<Endpoint>, connector: &OnceLock<Connector>) {
    let Some(spec) = &upstream.settings().health_check else { return };
    let ask = async {
        match &spec.http {
            None => TcpStream::connect(endpoint.address()).await.map(drop).map_err(|error| error.to_string()),
            Some(http) => match ask(upstream, endpoint, http, connector).await {
                Ok(status) if (http.status.0..=http.status.1).contains(&status) => Ok(()),
                Ok(status) => Err(format!("status {status}")),
                Err(error) => Err(explain(&error)),
            },
        }
    };
    let asked = tokio::time::timeout(spec.timeout, ask).await;
    let result = asked.unwrap_or_else(|_| Err(format!("no answer within {:?}", spec.timeout)));
    let change = upstream.checked(endpoint, result.is_ok(), Instant::now());
    let (name, address) = (&upstream.settings().name, endpoint.address());
    match (change, result) {
        (Some(Change::Down), Err(why)) => log::warn!("node is down upstream={name} address={address} because={why:?}"),
        (Some(Change::Up), _) => log::info!("node is back upstream={name} address={address}"),
        (_, Err(why)) => log::debug!("check failed upstream={name} address={address} because={why:?}"),
        (_, Ok(())) => {}
    }
}

/// Sends the request of a check, and returns the status of the response.
async fn ask(
    upstream: &RunningUpstream,
    endpoint: &Endpoint,
    http: &HttpCheck,
    connector: &OnceLock<Connector>,
) -> Result<u16> {
    let mut peer = template(upstream, endpoint);
    // One timeout holds for all of it, and it is the caller's.
    let options = &mut peer.options;
    (options.connection_timeout, options.total_connection_timeout) = (None, None);
    // Reads the authorities that the system trusts, which most configurations have no need of.
    let connector = connector.get_or_init(|| Connector::new(None));
    // A connection of HTTP/2 that has room for more streams would be kept for the next check.
    peer.options.max_h2_streams = 1;
    let (mut session, _) = connector.get_http_session(&peer).await?;
    if upstream.settings().http2 && matches!(session, HttpSession::H1(_)) {
        return Error::e_explain(ErrorType::H2Error, "it does not speak HTTP/2");
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
    // A connection that is closed while the answer is still coming is an error to the node. What it says is known
    // already, so that nothing that happens here can change it.
    let mut length = 0;
    while let Ok(Some(chunk)) = session.read_response_body().await {
        length += chunk.len();
        if length > MOST_BODY {
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
    let node = &upstream.settings().nodes[endpoint.node()];
    let host = match &http.host {
        Some(host) => host.to_string(),
        None if peer.is_tls() => server_name(upstream, endpoint).to_owned(),
        None if node.host.contains(':') => format!("[{}]:{}", node.host, node.port),
        None => format!("{}:{}", node.host, node.port),
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
            request.set_uri(uri.map_err(|e| Error::because(ErrorType::InternalError, "the target of a check", e))?);
        }
    }
    Ok(Box::new(request))
}
