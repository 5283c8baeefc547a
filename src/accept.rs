//! Accepts connections: connection limits, PROXY header, TLS handshake. It reads no request.
//!
//! An accepted connection passes these steps. Each step can close it.
//!
//! 1. [`admission`] counts the connection. Over a limit it is accepted for one request, which gets 429 or 503; beyond
//!    limit + 10 % + 16 it is closed.
//! 2. If the listener has `proxy_protocol`, [`proxy_protocol`] reads the PROXY header, which has the client's address.
//! 3. If the listener has `tls`, the TLS handshake is made.
//! 4. [`ClientConnection`] reads the requests and hands them to the application.
//!
//! The listeners of the process have TCP or Unix-domain sockets. All steps are the same for both.
//!
//! Steps 1 to 3 and the header of the first request share one deadline: `limits.header_timeout` after the accept. All
//! settings come from the snapshot that is live at the accept. [`Client`] has what the later steps need to know about
//! the connection.

pub(crate) mod admission;
mod errors;
#[cfg(fuzzing)]
pub mod fuzzing;
mod proxy_protocol;

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::Acceptor as TlsAcceptor;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::l4::socket::SocketAddr as LocalSocketAddr;
use pingora::protocols::l4::stream::Stream as SocketStream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{ALPN, GetSocketDigest, Ssl, Stream};
use pingora::server::ShutdownWatch;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::admission::{Admission, ConnectionPermit, LimitReached};
use self::errors::{AcceptError, AcceptErrorLog};
use crate::decide::Capacity;
use crate::live::{Generation, Live};
use crate::per_thread::Local;
use crate::read::{Client, ClientConnection, ClientStream, ClientTls, OVER_LIMIT_TIMEOUT, Protocol};
use crate::record::listeners::{Counts, ListenerCounts, Open};
use crate::snapshot::{Address, Limits, Listener, LocalAddress};
use crate::trusted_proxies::Peer;

/// Graceful shutdown closes connections without a request after this time.
pub(crate) const IDLE_CLOSE_DELAY: Duration = Duration::from_secs(1);
/// No read buffer. Pingora's default is 64 KiB for each connection, idle or not. Plain HTTP is read into larger buffers
/// anyway; from TLS one record is read at a time, as with a buffer of 16 KiB. (Measured with 2,000 idle TLS
/// connections: 96 KB each with 64 KiB, 46 KB with 16 KiB, 30 KB without buffer. Upload of 16 MiB: 258, 1027 and 1032
/// reads.)
const READ_BUFFER: usize = 0;
/// Pingora's default: about one TCP segment.
const WRITE_BUFFER: usize = 1460;

/// Pingora's application for all listeners. `A` serves the requests.
pub(crate) struct Acceptor<A> {
    live: Arc<Live>,
    app: Arc<A>,
    admission: Arc<Admission>,
    /// The listeners of the configuration at process start. Their sockets stay open after a reload changes the
    /// listeners.
    listeners: Vec<ListenerRuntime>,
    /// True closes connections that wait for a request.
    closing: watch::Sender<bool>,
    error_log: AcceptErrorLog,
    counts: Arc<Counts>,
}

/// A listener, with its TLS configuration.
#[derive(Debug, Clone)]
struct ListenerRuntime {
    settings: Arc<Listener>,
    tls: Option<Arc<ServerConfig>>,
}

/// The other end of a connection, for the log.
#[derive(Debug, Clone, Copy)]
enum Remote {
    Ip(SocketAddr),
    /// Peers of Unix-domain sockets have no names.
    Unix,
    /// The connection has ended, or belongs to no listener.
    Unknown,
}

/// See [`Acceptor::accepted_on`].
type Accepted<'a> = (Option<Box<SocketStream>>, Remote, Option<(ListenerRuntime, &'a Arc<ListenerCounts>)>);

/// Pingora's settings for a listener, without the permissions of a Unix-domain socket.
pub(crate) fn listener_config(listener: &Listener) -> ListenerConfig {
    let socket = match &listener.address {
        Address::Ip(address) => ListenerConfig::tcp(address.to_string()),
        Address::Unix(path) => ListenerConfig::uds(path.to_string()),
    };
    socket.l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
}

// === impl Acceptor ===

impl<A: HttpServerApp + Send + Sync + 'static> Acceptor<A> {
    /// `app` serves the requests. The listeners are those of the current configuration of `live`. `default_limit` limits
    /// the connections if the configuration does not.
    pub(crate) fn new(live: Arc<Live>, app: A, default_limit: Option<usize>) -> Self {
        let listeners: Vec<ListenerRuntime> = {
            let generation = live.current();
            generation.snapshot.listeners().iter().map(|listener| ListenerRuntime::of(listener, &generation)).collect()
        };
        let counts =
            Arc::new(Counts::new(listeners.iter().map(|listener| listener.settings.address.clone()), default_limit));
        let closing = watch::Sender::new(false);
        let (admission, error_log) = (Arc::default(), AcceptErrorLog::default());
        Acceptor { live, app: Arc::new(app), admission, listeners, closing, error_log, counts }
    }

    pub(crate) fn admission(&self) -> Arc<Admission> {
        self.admission.clone()
    }

    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// Serves a connection until it is closed.
    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Result<(), (Remote, AcceptError)> {
        let accepted_at = Instant::now();
        let generation = self.live.for_request();
        let (stream, peer, listener) = self.accepted_on(stream, &generation);
        let (Some(stream), Some((listener, counts))) = (stream, listener) else {
            self.counts.unknown.add(1);
            return Err((peer, AcceptError::Unknown));
        };
        // A future of its own: its memory is freed before the connection serves requests, maybe for hours.
        let accepted =
            Box::pin(self.accept_connection(stream, accepted_at, peer, generation, listener, counts.accept())).await;
        let (_permit, connection) = accepted.map_err(|error| {
            error.refused_connection().into_iter().for_each(|refused| counts.refuse(refused));
            (peer, error)
        })?;
        Box::pin(connection.serve(shutdown, self.closing.subscribe())).await;
        Ok(())
    }

    /// The socket of a connection, its peer, and its listener.
    fn accepted_on(&self, stream: Stream, generation: &Generation) -> Accepted<'_> {
        let Ok(stream) = stream.into_any().downcast::<SocketStream>() else { return (None, Remote::Unknown, None) };
        let digest = stream.get_socket_digest();
        let digest = digest.as_deref();
        let (peer, local) = match digest.and_then(|digest| digest.local_addr()) {
            Some(LocalSocketAddr::Inet(local)) => {
                let peer = digest.and_then(|digest| digest.peer_addr()).and_then(|peer| peer.as_inet());
                (peer.map_or(Remote::Unknown, |peer| Remote::Ip(*peer)), Some(LocalAddress::Ip(*local)))
            }
            Some(LocalSocketAddr::Unix(local)) => (Remote::Unix, local.as_pathname().map(LocalAddress::Unix)),
            None => (Remote::Unknown, None),
        };
        let listener = local.and_then(|local| self.listener(generation, local)).and_then(|listener| {
            let counts = self.counts.of(&listener.settings.address)?;
            Some((listener, counts))
        });
        (Some(stream), peer, listener)
    }

    /// Steps 1 to 3.
    async fn accept_connection(
        &self,
        mut stream: Box<SocketStream>,
        accepted_at: Instant,
        remote: Remote,
        generation: Local<Generation>,
        listener: ListenerRuntime,
        counts: Open,
    ) -> Result<(ConnectionPermit, ClientConnection<A>), AcceptError> {
        let limits = generation.snapshot.limits();
        let limit = limits.connections.or(self.counts.default_limit);
        let mut permit = self.admission.enter(limit).map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        let header_timeout = limits.header_timeout;
        let trusted = generation.snapshot.trusted_proxies();
        let mut peer = remote.peer().ok_or(AcceptError::Unknown)?;
        let mut counted = !trusted.trusts(peer);
        if listener.settings.proxy_protocol {
            if !trusted.trusts(peer) {
                return Err(AcceptError::Untrusted);
            }
            let reading = timeout_at(accepted_at + header_timeout, proxy_protocol::read(&mut *stream));
            let header = reading.await.map_err(|_| AcceptError::Late)?.map_err(AcceptError::ProxyHeader)?;
            stream.rewind(&header.rest);
            counted = header.client.is_some();
            peer = header.client.map_or(peer.without_address(header.local), |client| Peer::Ip(client.ip()));
        }
        // Connections from a trusted proxy carry requests of many clients, so they have no limit per client. The peers
        // of a Unix-domain socket cannot be told apart.
        if counted && peer != Peer::Unix {
            permit
                .count_client(peer.address(), limits.connections_per_client)
                .map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        }
        let capacity = permit.capacity();
        let timeout =
            if capacity == Capacity::Available { header_timeout } else { header_timeout.min(OVER_LIMIT_TIMEOUT) };
        let deadline = accepted_at + timeout;
        let client = Client::new(peer, listener.settings, capacity, counts);
        let connection = match listener.tls {
            None => {
                let protocol = if client.listener().http2 { Protocol::ByPreface } else { Protocol::Http1 };
                self.connection(stream, client, protocol, deadline, limits)
            }
            Some(config) => {
                let handshake = TlsAcceptor::from_server_config(config);
                let handshake = timeout_at(deadline, handshake.tls_handshake(*stream)).await;
                let handshake =
                    handshake.map_err(|_| AcceptError::Late).and_then(|stream| stream.map_err(AcceptError::Handshake));
                let counts = client.counts();
                let count = if handshake.is_ok() { &counts.handshakes } else { &counts.failed_handshakes };
                count.add(1);
                let stream = handshake?;
                let tls = client.listener().tls.as_ref().map(|tls| ClientTls::new(&stream, &tls.certificates));
                let http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
                let protocol = if http2 { Protocol::Http2 } else { Protocol::Http1 };
                self.connection(Box::new(stream), client.with_tls(tls), protocol, deadline, limits)
            }
        };
        Ok((permit, connection))
    }

    /// Returns the listener that accepted a connection on a local address. Its settings are those of the current
    /// configuration. They are those of the process start if the current configuration has no listener with the same
    /// address, or switches TLS on or off. Such a change needs a restart.
    fn listener(&self, generation: &Generation, local: LocalAddress<'_>) -> Option<ListenerRuntime> {
        let started = self.listeners.iter().filter(|listener| listener.settings.address.serves(local));
        // A listener on this address accepts before a listener on all addresses.
        let started = started.min_by_key(|listener| listener.settings.address.is_unspecified())?;
        let now = generation.snapshot.listeners().iter().find(|now| now.address == started.settings.address);
        let now = now.map(|listener| ListenerRuntime::of(listener, generation));
        Some(now.filter(|now| now.tls.is_some() == started.tls.is_some()).unwrap_or_else(|| started.clone()))
    }

    fn connection(
        &self,
        stream: Stream,
        client: Client,
        protocol: Protocol,
        deadline: Instant,
        limits: &Limits,
    ) -> ClientConnection<A> {
        let client = Arc::new(client);
        let digest = ProxyDigest::new(no_response(), Some(Box::new(client.clone())));
        let stream = ClientStream::new(stream, client.clone(), Arc::new(digest), limits.send_timeout);
        ClientConnection::new(self.app.clone(), Box::new(stream), client, protocol, deadline, limits)
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Acceptor<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if let Err((peer, error)) = self.serve(stream, shutdown).await {
            self.error_log.log(peer, &error, std::time::Instant::now());
        }
        None
    }

    /// Pingora calls this at shutdown, after it closed the listeners. Responses have `Connection: close` from now on. A
    /// client without a request may already have sent its next one, so its connection stays open for a moment.
    async fn cleanup(&self) {
        let end = Instant::now() + IDLE_CLOSE_DELAY;
        while self.admission.open() > 0 && Instant::now() < end {
            tokio::time::sleep(IDLE_CLOSE_DELAY / 100).await;
        }
        self.closing.send_replace(true);
        self.app.http_cleanup().await;
    }
}

/// [`ProxyDigest`] needs the CONNECT response of a forward proxy. There is none, so this one is never read.
fn no_response() -> Box<ResponseHeader> {
    Box::new(ResponseHeader::build_no_case(200, Some(0)).unwrap_or_else(|_| unreachable!("200 is a status")))
}

impl Remote {
    fn peer(self) -> Option<Peer> {
        match self {
            Remote::Ip(address) => Some(Peer::Ip(address.ip())),
            Remote::Unix => Some(Peer::Unix),
            Remote::Unknown => None,
        }
    }
}

impl fmt::Display for Remote {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Remote::Ip(address) => write!(f, "{address}"),
            Remote::Unix => write!(f, "unix"),
            Remote::Unknown => write!(f, "unknown"),
        }
    }
}

impl ListenerRuntime {
    fn of(listener: &Arc<Listener>, generation: &Generation) -> Self {
        ListenerRuntime { settings: listener.clone(), tls: generation.acceptors().of(&listener.address).cloned() }
    }
}
