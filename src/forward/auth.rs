//! Asks the service of `forward_auth` about a request.
//!
//! [`crate::behavior::forward_auth`] builds the header of the request to the service, and interprets the response. The
//! requests to the service use the nodes of an upstream like other requests: balancing, health, timeouts, TLS,
//! keepalive connections. Each request is a GET, so a failed request is sent again by the rules of [`super::attempts`].
//! `forward_auth.timeout` limits all attempts together.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::response::Parts;
use http::{HeaderMap, HeaderValue, Uri, header};
use pingora::http::RequestHeader;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::client::HttpSession;
use pingora::time::timeout;
use pingora::{BError, Error, ErrorSource, ErrorType, OkOrErr, OrErr, Result};
use pingora_core::connectors::ConnectorOptions;
use pingora_core::connectors::http::Connector;

use super::attempts::{FailureKind, record_failure, use_new_connection};
use super::response::{is_interim, remove_hop_by_hop};
use super::{MAX_INTERIM_RESPONSES, timeouts};
use crate::behavior::forward_auth::{AuthDecision, AuthService};
use crate::logging::quoted;
use crate::upstream::failure::describe;
use crate::upstream::peer::{node_host, template};
use crate::upstream::proxy_protocol::{ProxyConnector, SentProxyHeader};
use crate::upstream::{ActiveRequest, Endpoint, PickError, RunningUpstream};

/// Maximum size of a response body of the service, in bytes. A response with a longer body is not usable.
const MAX_BODY: usize = 256 << 10;
/// Maximum time to wait for the end of a response body that is not used.
const DISCARD_TIME: Duration = Duration::from_millis(50);
/// Maximum number of keepalive connections to all services together.
const KEPT_CONNECTIONS: usize = 1024;

/// Connections to the services.
#[derive(Default)]
pub(super) struct AuthClient {
    /// Created by the first request and not at the start, because the connector reads the root certificates of the
    /// machine.
    connector: OnceLock<Connector>,
}

/// The response of a service. Its body is complete.
pub(super) struct AuthResponse {
    pub(super) decision: AuthDecision,
    pub(super) header: Parts,
    /// Empty if the request is allowed.
    pub(super) body: Bytes,
}

/// A failed attempt.
struct Failure {
    error: Box<Error>,
    during: Step,
}

/// The part of an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Connect,
    /// The part after the connection, new or reused, was made.
    Exchange {
        reused: bool,
    },
}

impl AuthClient {
    /// Asks the service. Returns None if there is no usable answer, and logs the reason. `key` is the key of `balance:
    /// hash`. `fields` has the header fields of the request, without `Host`.
    pub(super) async fn ask(
        &self,
        auth: &AuthService,
        upstream: &RunningUpstream,
        key: Option<u64>,
        fields: &HeaderMap,
        route: &str,
    ) -> Option<AuthResponse> {
        let why = match self.attempts(auth, upstream, key, fields).await {
            Ok(response) if response.decision != AuthDecision::Undecided => return Some(response),
            Ok(response) => format!("status {}", response.header.status.as_u16()),
            Err(why) => why,
        };
        let name = &upstream.settings().name;
        log::warn!("authentication service gave no answer route={route} upstream={name} error={}", quoted(why));
        None
    }

    async fn attempts(
        &self,
        auth: &AuthService,
        upstream: &RunningUpstream,
        key: Option<u64>,
        fields: &HeaderMap,
    ) -> Result<AuthResponse, String> {
        let deadline = Instant::now() + auth.timeout;
        let mut failed: Vec<Arc<Endpoint>> = Vec::new();
        let mut new_connection = false;
        let mut picked = match upstream.pick(key, &failed) {
            Err(PickError::Full) => wait(upstream, key, auth.timeout).await,
            picked => picked,
        }
        .map_err(|why| {
            match why {
                PickError::Unresolved => "no address of a node is known; see `name lookup failed` in the log",
                PickError::Full => "each node has `max_connections` requests",
                PickError::AllUnhealthy | PickError::Exhausted => "no node is available; see their errors in the log",
            }
            .to_owned()
        })?;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let attempt = self.attempt(auth, upstream, &picked, fields, new_connection);
            let Failure { error, during } = match timeout(left, attempt).await {
                Ok(Ok(response)) => {
                    upstream.succeeded(&picked);
                    return Ok(response);
                }
                Ok(Err(failure)) => failure,
                Err(_) => Failure {
                    error: Error::explain(ErrorType::HTTPStatus(504), "no answer within `forward_auth.timeout`"),
                    during: Step::Exchange { reused: false },
                },
            };
            let out_of_time = deadline <= Instant::now();
            let kind = if out_of_time { FailureKind::TimedOut } else { FailureKind::of(error.etype()) };
            let stale = match during {
                // Pingora opens an HTTP/2 stream on a reused connection as a part of the connect step.
                Step::Connect => upstream.settings().http2 && *error.etype() == ErrorType::H2Error,
                Step::Exchange { reused } => reused && kind == FailureKind::Broken,
            };
            if stale && !new_connection && !out_of_time {
                // The service has closed a keepalive connection, which is not a failure.
                upstream.counts().reconnects.add(1);
                new_connection = true;
                continue;
            }
            let why = describe(&error, upstream);
            let counts = picked.counts();
            match during {
                Step::Connect => counts.connect_failures.add(1),
                Step::Exchange { .. } if kind != FailureKind::Other => counts.no_responses.add(1),
                // The service has sent an invalid response.
                Step::Exchange { .. } => {}
            }
            picked.set_last_error(why.clone());
            let of_gateway =
                matches!(error.etype(), ErrorType::InternalError | ErrorType::SocketError | ErrorType::BindError);
            let of_node = match during {
                Step::Connect => !of_gateway,
                // A timeout counts only for the first attempt, because the time that is left for a retry may be too
                // short for the service.
                Step::Exchange { .. } => {
                    kind == FailureKind::Broken || kind == FailureKind::TimedOut && failed.is_empty()
                }
            };
            if of_node {
                record_failure(upstream, &picked);
            }
            let may_retry = during == Step::Connect || kind != FailureKind::Other;
            failed.push(picked.endpoint().clone());
            if !may_retry || out_of_time || failed.len() > upstream.settings().retries {
                return Err(why);
            }
            let (name, address) = (&upstream.settings().name, picked.address());
            log::debug!("authentication request failed upstream={name} address={address} error={}", quoted(&why));
            picked = upstream.pick(key, &failed).map_err(|_| why)?;
            upstream.counts().retries.add(1);
            new_connection = false;
        }
    }

    /// Sends the request to an endpoint, and reads the whole response.
    async fn attempt(
        &self,
        auth: &AuthService,
        upstream: &RunningUpstream,
        endpoint: &Endpoint,
        fields: &HeaderMap,
        new_connection: bool,
    ) -> Result<AuthResponse, Failure> {
        let mut peer = template(upstream, endpoint);
        // All clients share the connections, so the PROXY header names no client.
        if let Some(version) = upstream.settings().proxy_protocol {
            let header = SentProxyHeader::without_client(version);
            peer.group_key = upstream.group_of(&header);
            peer.options.custom_l4 = Some(Arc::new(ProxyConnector::new(header, &upstream.settings().timeouts)));
        }
        if new_connection {
            use_new_connection(&mut peer);
        }
        let connector = self.connector.get_or_init(|| Connector::new(Some(ConnectorOptions::new(KEPT_CONNECTIONS))));
        let (mut session, reused) =
            connector.get_http_session(&peer).await.map_err(|error| Failure { error, during: Step::Connect })?;
        endpoint.connected(reused);
        session.set_read_timeout(peer.options.read_timeout);
        session.set_write_timeout(peer.options.write_timeout);
        let exchange = async {
            if upstream.settings().http2 && matches!(session, HttpSession::H1(_)) {
                return unusable("the node does not offer HTTP/2; remove `http2: true`");
            }
            let request = request(auth, fields, upstream, endpoint)?;
            session.write_request_header(Box::new(request)).await?;
            session.finish_request_body().await?;
            read_response(&mut session).await
        };
        let response = exchange.await.map_err(|error| Failure { error, during: Step::Exchange { reused } })?;
        if session.response_done() {
            connector.release_http_session(session, &peer, peer.options.idle_timeout).await;
        }
        Ok(response)
    }
}

/// Waits for a node with fewer than `max_connections` requests, at most for `queue.timeout`.
async fn wait(upstream: &RunningUpstream, key: Option<u64>, longest: Duration) -> Result<ActiveRequest, PickError> {
    let longest = upstream.settings().limit.as_ref().map_or(longest, |limit| limit.timeout.min(longest));
    let mut wait = upstream.wait(key);
    let picked = timeout(longest, &mut wait).await;
    picked.unwrap_or_else(|_| {
        wait.give_up();
        Err(PickError::Full)
    })
}

/// Returns the header of the request. Its host is `tls.sni`, or without `tls.sni` the address of the node, as in health
/// checks.
fn request(
    auth: &AuthService,
    fields: &HeaderMap,
    upstream: &RunningUpstream,
    endpoint: &Endpoint,
) -> Result<RequestHeader> {
    let settings = upstream.settings();
    let sni = settings.tls.as_ref().and_then(|tls| HeaderValue::try_from(&**tls.sni.as_ref()?).ok());
    let host = sni.or_else(|| node_host(upstream, endpoint)).or_err(ErrorType::InternalError, "host of a service")?;
    let mut parts = http::Request::new(()).into_parts().0;
    parts.headers = fields.clone();
    let uri = Uri::builder().path_and_query(&*auth.path);
    let uri = match settings.http2 {
        false => {
            parts.headers.insert(header::HOST, host);
            uri
        }
        true => uri.scheme(if settings.tls.is_some() { "https" } else { "http" }).authority(host.as_bytes()),
    };
    parts.uri = uri.build().or_err(ErrorType::InternalError, "URI of a service")?;
    Ok(parts.into())
}

async fn read_response(session: &mut HttpSession) -> Result<AuthResponse> {
    let mut interim_responses = 0;
    let mut header = loop {
        session.read_response_header().await?;
        match session.response_header() {
            Some(header) if is_interim(header.status) => interim_responses += 1,
            Some(header) => break Parts::from(header.clone()),
            None => return unusable("there is no response header"),
        }
        if interim_responses > MAX_INTERIM_RESPONSES {
            return unusable("the service sends more than 32 interim responses");
        }
    };
    remove_hop_by_hop(&mut header);
    let decision = AuthDecision::of(header.status);
    let body = match decision {
        AuthDecision::Refused => read_body(session).await?,
        // The body is not used, but a connection can be used again only after the end of the body.
        AuthDecision::Allowed | AuthDecision::Undecided => {
            let _ = timeout(DISCARD_TIME, read_body(session)).await;
            Bytes::new()
        }
    };
    Ok(AuthResponse { decision, header, body })
}

async fn read_body(session: &mut HttpSession) -> Result<Bytes> {
    let mut body = Vec::new();
    while let Some(chunk) = session.read_response_body().await? {
        if body.len() + chunk.len() > MAX_BODY {
            return unusable("its response is longer than 256 KiB");
        }
        body.extend_from_slice(&chunk);
    }
    Ok(body.into())
}

/// Waits until the client has gone, because then nobody needs the answer of the service. An HTTP/1 client that sends a
/// body is not watched, because a read would take bytes that belong to the upstream.
pub(super) async fn client_leaves(session: &mut ServerSession) -> BError {
    let watched = match session {
        ServerSession::H2(http2) => {
            // Ends when the client resets the stream.
            let _ = http2.idle().await;
            true
        }
        ServerSession::H1(_) => {
            let headers = &session.req_header().headers;
            let framing = [header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::UPGRADE];
            let has_body = framing.iter().any(|name| headers.contains_key(name));
            if !has_body {
                // Bytes that arrive now belong to the next request.
                timeouts::on_complete_request(session);
                let _ = session.read_body_or_idle(true).await;
            }
            !has_body
        }
        _ => false,
    };
    if !watched {
        std::future::pending::<()>().await;
    }
    let mut error = Error::explain(ErrorType::ConnectionClosed, "the client left before the decision");
    error.esource = ErrorSource::Downstream;
    error
}

/// Returns the error for a response of the service that is not usable. [`describe`] shows only its text.
fn unusable<T>(why: &'static str) -> Result<T> {
    Err(Error::explain(ErrorType::HTTPStatus(502), why))
}
