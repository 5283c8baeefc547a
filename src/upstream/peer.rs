//! Converts endpoints to Pingora's peers.

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use pingora::protocols::tls::CaType;
use pingora::upstreams::peer::HttpPeer;
use pingora::utils::tls::{CertKey, WrappedX509, parse_x509};

use super::{Endpoint, RunningUpstream};
use crate::snapshot::Address;
#[cfg(target_os = "linux")]
use crate::snapshot::Timeouts;

/// Maximum number of concurrent requests on one HTTP/2 connection to a node.
const STREAMS: usize = 100;
/// Bytes of a response that a node may send before the client has read them. With a round trip of 10 ms, this allows 50
/// MB per second for one response.
const STREAM_WINDOW: u32 = 512 << 10;
/// The same limit for all responses of a connection. Pingora's default is the window of one stream. With this default,
/// one client that reads nothing would stop all other responses of the connection.
#[expect(clippy::cast_possible_truncation, reason = "a small constant")]
const CONNECTION_WINDOW: u32 = (STREAMS as u32 + 1) * STREAM_WINDOW;

/// Returns the peer for a request to the endpoint: a clone of the endpoint's template.
pub(crate) fn template(upstream: &RunningUpstream, endpoint: &Endpoint) -> HttpPeer {
    endpoint.template(|| new_template(upstream, endpoint)).clone()
}

/// Returns the server name for TLS to a node. The certificate of the node must have this name. The name is never empty,
/// because Pingora verifies nothing without a name. If the node is an IP address, the name is the address: rustls
/// verifies the address, and does not send it.
pub(crate) fn server_name<'a>(upstream: &'a RunningUpstream, endpoint: &Endpoint) -> Cow<'a, str> {
    let spec = upstream.settings();
    match spec.tls.as_ref().and_then(|tls| tls.sni.as_deref()) {
        Some(sni) => sni.into(),
        // A Unix-domain socket has no host, so the configuration requires `sni` for TLS to such a node.
        None => spec.nodes[endpoint.node()].address.host().unwrap_or("localhost".into()),
    }
}

/// Returns `Host` for `upstream_host: node`: the address of the node in the configuration, without the default port of
/// its scheme.
pub(crate) fn node_host(upstream: &RunningUpstream, endpoint: &Endpoint) -> Option<HeaderValue> {
    let spec = upstream.settings();
    let authority = spec.nodes[endpoint.node()].address.authority();
    let default = if spec.tls.is_some() { ":443" } else { ":80" };
    HeaderValue::from_str(authority.strip_suffix(default).unwrap_or(&authority)).ok()
}

/// TLS settings that all endpoints of an upstream share, in Pingora's types.
pub(super) struct SharedTls {
    authorities: Option<Arc<CaType>>,
    identity: Option<Arc<CertKey>>,
}

impl fmt::Debug for SharedTls {
    /// Does not write the private key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SharedTls")
    }
}

/// Returns the maximum time in which a node takes no data, in milliseconds: `timeouts.write`, or `timeouts.total` if
/// that is shorter. After this time, the operating system closes the connection. Pingora alone does not end the
/// request: after an expired write timeout, it still waits for the response.
#[cfg(target_os = "linux")]
pub(crate) fn user_timeout(timeouts: &Timeouts) -> u32 {
    let limit = timeouts.total.map_or(timeouts.write, |total| total.min(timeouts.write));
    u32::try_from(limit.as_millis()).unwrap_or(u32::MAX)
}

fn new_template(upstream: &RunningUpstream, endpoint: &Endpoint) -> HttpPeer {
    let spec = upstream.settings();
    let name = spec.tls.as_ref().map(|_| server_name(upstream, endpoint).into_owned()).unwrap_or_default();
    let mut peer = match endpoint.address() {
        Address::Ip(address) => HttpPeer::new(address, spec.tls.is_some(), name),
        Address::Unix(path) => {
            HttpPeer::new_uds(path, spec.tls.is_some(), name).expect("the length of the path was checked")
        }
    };
    // Without a group, Pingora reuses connections between peers that differ only in their authorities or protocol.
    peer.group_key = upstream.connection_group();
    let options = &mut peer.options;
    options.connection_timeout = Some(spec.timeouts.connect);
    options.total_connection_timeout = Some(spec.timeouts.connect);
    options.read_timeout = Some(spec.timeouts.read);
    options.write_timeout = Some(spec.timeouts.write);
    options.idle_timeout = Some(spec.timeouts.idle);
    #[cfg(target_os = "linux")]
    {
        let limit = user_timeout(&spec.timeouts);
        options.upstream_tcp_sock_tweak_hook = Some(Arc::new(move |socket| {
            // If this call fails, a request to a node that reads nothing ends later.
            let _ = rustix::net::sockopt::set_tcp_user_timeout(socket, limit);
            Ok(())
        }));
    }
    if spec.http2 {
        options.set_http_version(2, 2);
        options.max_h2_streams = STREAMS;
        options.h2_stream_window_size = Some(STREAM_WINDOW);
        options.h2_connection_window_size = Some(CONNECTION_WINDOW);
    }
    if let Some(tls) = &spec.tls {
        options.verify_cert = tls.verify;
        options.verify_hostname = tls.verify;
        let wrapped = |der: &[u8]| WrappedX509::new(der.to_vec(), parse_x509);
        let shared = upstream.shared_tls.mine().get_or_init(|| SharedTls {
            authorities: tls
                .authorities
                .as_ref()
                .map(|authorities| authorities.certificates().iter().map(|der| wrapped(der)).collect()),
            identity: tls.identity.as_ref().map(|identity| {
                let chain = identity.chain.iter().map(|der| der.to_vec()).collect();
                Arc::new(CertKey::new(chain, identity.key.secret_der().to_vec()))
            }),
        });
        options.ca.clone_from(&shared.authorities);
        peer.client_cert_key.clone_from(&shared.identity);
    }
    peer
}
