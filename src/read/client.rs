//! Facts about a client's connection for the hooks: address, listener, TLS, state.

use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use pingora::apps::ReusedHttpStream;
use pingora::protocols::Ssl;
use pingora::protocols::http::ServerSession;

use super::check::{self, Body};
use super::stream::Progress;
use super::watchdog::Expired;
use crate::behavior::clients::ClientAddress;
use crate::decide::{self, Capacity, Framing, ServerName};
use crate::record::listeners::Open;
use crate::snapshot::{Listener, Snapshot};
use crate::tls::{Certificate, Certificates};
use crate::trusted_proxies::{self, Peer};

/// A client's connection. All its requests share one value.
#[derive(Debug)]
pub(crate) struct Client {
    peer: Peer,
    /// The address as `X-Forwarded-For` has it, formatted once for all requests.
    forwarded_for: HeaderValue,
    listener: Arc<Listener>,
    tls: Option<ClientTls>,
    pub(super) capacity: Capacity,
    pub(super) progress: Progress,
    pub(super) counts: Open,
    /// See [`Client::keep`].
    kept: Mutex<Option<ReusedHttpStream>>,
}

/// Result of the TLS handshake.
#[derive(Debug)]
pub(crate) struct ClientTls {
    /// The server name (SNI) in lower case.
    server_name: Option<Box<str>>,
    /// The certificate of the gateway.
    certificate: Arc<Certificate>,
    /// The verified certificate of the client, as `Client-Cert` has it (RFC 9440).
    client_certificate: Option<HeaderValue>,
}

// === impl Client ===

impl Client {
    /// A connection before its TLS handshake.
    pub(crate) fn new(peer: Peer, listener: Arc<Listener>, capacity: Capacity, counts: Open) -> Self {
        Client {
            peer,
            forwarded_for: trusted_proxies::peer_address(peer.address()),
            listener,
            tls: None,
            capacity,
            progress: Progress::new(),
            counts,
            kept: Mutex::new(None),
        }
    }

    /// Adds the result of the TLS handshake.
    pub(crate) fn with_tls(self, tls: Option<ClientTls>) -> Self {
        Client { tls, ..self }
    }

    /// The listener, with the settings at the accept.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Counters of the listener.
    pub(crate) fn counts(&self) -> &Open {
        &self.counts
    }

    /// The connection of a session. Every session of a listener has one, because `accept` puts it into the digest.
    pub(crate) fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// The TCP peer, the client of the PROXY header, or the peer of a Unix-domain socket.
    pub(crate) fn peer(&self) -> Peer {
        self.peer
    }

    /// Address of the client, as far as the connection tells it.
    pub(crate) fn address(&self) -> IpAddr {
        self.peer.address()
    }

    /// Value of `X-Forwarded-For` for requests that no proxy forwarded before.
    pub(crate) fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// The client's certificate as a value of `Client-Cert` (RFC 9440).
    pub(crate) fn certificate(&self) -> Option<&HeaderValue> {
        self.tls.as_ref()?.client_certificate.as_ref()
    }

    /// Returns the facts about the connection for `Snapshot::decide`. `redirect` and `clients` are those of `snapshot`,
    /// because a reload also changes them for open connections.
    pub(crate) fn connection_facts<'a>(&'a self, snapshot: &'a Snapshot) -> decide::ConnectionFacts<'a> {
        let listener = snapshot.listeners().iter().find(|listener| listener.address == self.listener.address);
        let listener = listener.unwrap_or(&self.listener);
        let server_name = self
            .tls
            .as_ref()
            .and_then(|tls| Some(ServerName { name: tls.server_name.as_deref()?, certificate: &tls.certificate }));
        decide::ConnectionFacts {
            server_name,
            redirect: listener.redirect,
            capacity: self.capacity,
            clients: listener.clients.as_ref(),
            // The caller adds it.
            client: ClientAddress::Unknown,
        }
    }

    /// The first hook calls this. From then on Pingora may read the request body.
    pub(crate) fn on_request_header(&self) {
        self.progress.open();
    }

    /// Keeps the connection for its next request, although Pingora would close it. Called at the end of a request.
    pub(crate) fn keep(&self, stream: ReusedHttpStream) {
        *self.kept.lock().unwrap_or_else(PoisonError::into_inner) = Some(stream);
    }

    /// The connection that the last request kept.
    pub(super) fn take_kept(&self) -> Option<ReusedHttpStream> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// The framing of the HTTP/1 request. None if its fields were not read: then it is clear, unless Pingora has found
    /// a length or a coding; call [`Client::read_framing`] for those.
    pub(crate) fn framing(&self) -> Option<Framing> {
        self.progress.framing()
    }

    /// Reads the framing from the bytes of a header, before the body is read.
    pub(crate) fn read_framing(&self, header: &[u8]) -> Framing {
        match check::body(header) {
            Body::Length(_) => Framing::Clear,
            Body::Ambiguous => Framing::Ambiguous,
            Body::Chunked => {
                self.progress.on_chunked_body();
                Framing::Clear
            }
        }
    }

    /// The request is complete and forwarded. The client may already send its next one, which Pingora gets later.
    pub(crate) fn on_complete_request(&self) {
        self.progress.on_complete_request();
    }

    /// The connection is a WebSocket now: every byte is for the upstream.
    pub(crate) fn on_websocket(&self) {
        self.progress.open();
    }

    /// Whether the HTTP/1 request ends because its chunked body is invalid. To Pingora this looks like a read error.
    pub(crate) fn body_is_invalid(&self) -> bool {
        self.progress.body_is_invalid()
    }

    /// The timeout because of which the [watchdog](super::watchdog) asked the request to end. Always None for HTTP/2.
    pub(crate) fn expired_timeout(&self) -> Option<Expired> {
        self.progress.expired_timeout()
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// `certificates` are those of the handshake of `stream`.
    pub(crate) fn new(stream: &impl Ssl, certificates: &Certificates) -> Self {
        let server_name = stream.get_ssl().and_then(|tls| tls.server_name());
        let client_certificate = stream.get_ssl().and_then(|tls| tls.peer_certificate_der()).and_then(|der| {
            // A byte sequence of structured fields (RFC 9440 section 2.1).
            HeaderValue::try_from(format!(":{}:", BASE64.encode(der))).ok()
        });
        // rustls does not say which certificate it presented. This is the lookup of the handshake.
        let certificate = certificates.find(server_name).clone();
        ClientTls { server_name: server_name.map(Into::into), certificate, client_certificate }
    }
}
