//! A client's connection, as the hooks see it.

use std::net::IpAddr;
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use pingora::protocols::Ssl;
use pingora::protocols::http::ServerSession;

use super::connection::Progress;
use super::watchdog::Expired;
use crate::decide::{self, Capacity, ServerName};
use crate::forwarded;
use crate::record::listeners::Open;
use crate::snapshot::{Listener, Snapshot};
use crate::tls::{Certificate, Certificates};

/// A client's connection, as far as its requests are concerned.
#[derive(Debug)]
pub(crate) struct Client {
    address: IpAddr,
    /// The address, as upstreams are told of it.
    forwarded_for: HeaderValue,
    /// Whether the address is who speaks HTTP to us; false behind a PROXY header that names nobody.
    identified: bool,
    listener: Arc<Listener>,
    tls: Option<ClientTls>,
    pub(super) capacity: Capacity,
    pub(super) progress: Progress,
    pub(super) counts: Open,
}

/// What a client has asked for in its handshake.
#[derive(Debug)]
pub(crate) struct ClientTls {
    /// In lower case.
    name: Option<Box<str>>,
    /// What it was shown.
    certificate: Arc<Certificate>,
    /// What it has shown, and was verified, as an upstream is told of it.
    own: Option<HeaderValue>,
}

// === impl Client ===

impl Client {
    /// A client whose TLS handshake, if there is one, has not begun.
    pub(crate) fn new(
        address: IpAddr,
        identified: bool,
        listener: Arc<Listener>,
        capacity: Capacity,
        counts: Open,
    ) -> Self {
        let forwarded_for = forwarded::alone(address);
        Client { address, forwarded_for, identified, listener, tls: None, capacity, progress: Progress::new(), counts }
    }

    /// The client after its TLS handshake.
    pub(crate) fn with_tls(self, tls: Option<ClientTls>) -> Self {
        Client { tls, ..self }
    }

    /// The listener that accepted its connection.
    pub(crate) fn listener(&self) -> &Listener {
        &self.listener
    }

    /// Metrics of that listener.
    pub(crate) fn counts(&self) -> &Open {
        &self.counts
    }

    /// The client of a session. None only in tests that make sessions by themselves.
    pub(crate) fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Who is connected: the peer, or whom a PROXY header names.
    pub(crate) fn address(&self) -> IpAddr {
        self.address
    }

    /// `X-Forwarded-For` of a request that nobody else has handed on to it.
    pub(crate) fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// Whether what its headers say of others can be believed, if its address is trusted.
    pub(crate) fn is_identified(&self) -> bool {
        self.identified
    }

    /// The certificate that it has shown, as `Client-Cert` says it (RFC 9440).
    pub(crate) fn certificate(&self) -> Option<&HeaderValue> {
        self.tls.as_ref()?.own.as_ref()
    }

    /// What its requests are judged by.
    pub(crate) fn facts<'a>(&'a self, snapshot: &Snapshot) -> decide::ConnectionFacts<'a> {
        let now = snapshot.listeners().iter().find(|listener| listener.address == self.listener.address);
        let server_name = self
            .tls
            .as_ref()
            .and_then(|tls| Some(ServerName { name: tls.name.as_deref()?, certificate: &tls.certificate }));
        decide::ConnectionFacts {
            server_name,
            redirect: now.unwrap_or(&self.listener).redirect,
            capacity: self.capacity,
        }
    }

    /// To be called when the header of a request is understood: from here on its body can be read.
    pub(crate) fn request_begins(&self) {
        self.progress.open();
    }

    /// Why a guard has asked the request to end, if it has.
    pub(crate) fn expired(&self) -> Option<Expired> {
        self.progress.expired()
    }
}

// === impl ClientTls ===

impl ClientTls {
    /// Reads the handshake of `stream`, which used one of `certificates`.
    pub(crate) fn new(stream: &impl Ssl, certificates: &Certificates) -> Self {
        let name = stream.get_ssl().and_then(|tls| tls.server_name());
        let own = stream.get_ssl().and_then(|tls| tls.peer_certificate_der()).and_then(|der| {
            // RFC 9440 section 2.1: a byte sequence of structured fields.
            HeaderValue::try_from(format!(":{}:", BASE64.encode(der))).ok()
        });
        // The same look-up as in the handshake, on the same certificates.
        ClientTls { name: name.map(Into::into), certificate: certificates.find(name).clone(), own }
    }
}
