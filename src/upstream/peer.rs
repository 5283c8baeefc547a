//! Endpoints as Pingora's peers, and its connect errors in a few words.

use std::sync::Arc;

use pingora::Error;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use super::{Endpoint, RunningUpstream};

/// How many requests share a connection of HTTP/2.
const STREAMS: usize = 100;

/// How to connect to an endpoint. Worked out once, and cloned for each request.
pub(crate) fn template(upstream: &RunningUpstream, endpoint: &Endpoint) -> HttpPeer {
    let make = || new_template(upstream, endpoint);
    endpoint.slot().get_or_make(make).cloned().unwrap_or_else(make)
}

/// The name to ask a node for in TLS, and to verify; never empty, for Pingora verifies nothing without one. For an
/// address it is the address: rustls verifies that too, and does not send it.
pub(crate) fn server_name<'a>(upstream: &'a RunningUpstream, endpoint: &Endpoint) -> &'a str {
    let spec = upstream.settings();
    let host = &*spec.nodes[endpoint.node()].host;
    spec.tls.as_ref().and_then(|tls| tls.sni.as_deref()).unwrap_or(host.strip_suffix('.').unwrap_or(host))
}

/// What all endpoints of an upstream show and ask for, in Pingora's own types.
struct Shared {
    authorities: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
}

fn new_template(upstream: &RunningUpstream, endpoint: &Endpoint) -> HttpPeer {
    let spec = upstream.settings();
    let mut peer = match &spec.tls {
        None => HttpPeer::new(endpoint.address(), false, String::new()),
        Some(_) => HttpPeer::new(endpoint.address(), true, server_name(upstream, endpoint).to_owned()),
    };
    // Pingora shares connections between peers that differ in their authorities or their protocol only.
    peer.group_key = upstream.id();
    let options = &mut peer.options;
    options.connection_timeout = Some(spec.timeouts.connect);
    options.total_connection_timeout = Some(spec.timeouts.connect);
    options.read_timeout = Some(spec.timeouts.read);
    options.write_timeout = Some(spec.timeouts.write);
    options.idle_timeout = Some(spec.timeouts.idle);
    if spec.http2 {
        options.set_http_version(2, 2);
        options.max_h2_streams = STREAMS;
    }
    if let Some(tls) = &spec.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
        let wrapped = |der: &[u8]| WrappedX509::new(der.to_vec(), parse_x509);
        let shared = upstream.slot().get_or_make(|| Shared {
            authorities: tls
                .authorities
                .as_ref()
                .map(|authorities| authorities.certificates().iter().map(|der| wrapped(der)).collect()),
            identity: tls.identity.as_ref().map(|identity| {
                let chain = identity.chain.iter().map(|der| der.to_vec()).collect();
                Arc::new(CertKey::new(chain, identity.key.secret_der().to_vec()))
            }),
        });
        if let Some(shared) = shared {
            options.ca.clone_from(&shared.authorities);
            peer.client_cert_key.clone_from(&shared.identity);
        }
    }
    peer
}

/// An error in a few words.
pub(crate) fn explain(error: &Error) -> String {
    let kind = error.etype().as_str();
    reason(error).map_or_else(|| kind.to_owned(), |reason| format!("{kind}: {reason}"))
}

/// What is wrong with a TLS handshake, which nobody finds out otherwise.
pub(crate) fn reason(error: &Error) -> Option<&str> {
    let mut inmost = error;
    while let Some(cause) = inmost.cause.as_ref().and_then(|cause| cause.downcast_ref::<Box<Error>>()) {
        inmost = cause;
    }
    inmost.context.as_ref()?.as_str().strip_prefix("TLS connect() failed: ").map(str::trim)
}
