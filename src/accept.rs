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
//! Steps 1 to 3 and the header of the first request share one deadline: `limits.header_timeout` after the accept. All
//! settings come from the snapshot that is live at the accept. [`Client`] has what the later steps need to know about
//! the connection.

pub(crate) mod admission;
mod errors;
mod proxy_protocol;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::Acceptor as TlsAcceptor;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::l4::stream::Stream as TcpStream;
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
use crate::record::listeners::{Counts, Open};
use crate::snapshot::{Limits, Listener};

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

/// Pingora's settings for a listener.
pub(crate) fn listener_config(listener: &Listener) -> ListenerConfig {
    ListenerConfig::tcp(listener.address.to_string()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
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
        let counts = Arc::new(Counts::new(listeners.iter().map(|listener| listener.settings.address), default_limit));
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
    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Result<(), (SocketAddr, AcceptError)> {
        let accepted_at = Instant::now();
        let Some((stream, peer, local)) = tcp_stream(stream) else {
            self.counts.unknown.add(1);
            return Err((SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), AcceptError::Unknown));
        };
        let generation = self.live.for_request();
        let listener = self.listener(&generation, local);
        let Some((listener, counts)) =
            listener.and_then(|listener| self.counts.of(listener.settings.address).map(|counts| (listener, counts)))
        else {
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

    /// Steps 1 to 3.
    async fn accept_connection(
        &self,
        mut stream: Box<TcpStream>,
        accepted_at: Instant,
        peer: SocketAddr,
        generation: Local<Generation>,
        listener: ListenerRuntime,
        counts: Open,
    ) -> Result<(ConnectionPermit, ClientConnection<A>), AcceptError> {
        let limits = generation.snapshot.limits();
        let limit = limits.connections.or(self.counts.default_limit);
        let mut permit = self.admission.enter(limit).map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        let header_timeout = limits.header_timeout;
        let (mut client, mut identified) = (peer, true);
        if listener.settings.proxy_protocol {
            if !generation.snapshot.trusted_proxies().contains(peer.ip()) {
                return Err(AcceptError::Untrusted);
            }
            let reading = timeout_at(accepted_at + header_timeout, proxy_protocol::read(&mut *stream));
            let header = reading.await.map_err(|_| AcceptError::Late)?.map_err(AcceptError::ProxyHeader)?;
            stream.rewind(&header.rest);
            identified = header.client.is_some();
            client = header.client.unwrap_or(peer);
        }
        let address = client.ip().to_canonical();
        // Connections from a trusted proxy carry requests of many clients, so they have no limit per client.
        if client != peer || !generation.snapshot.trusted_proxies().contains(address) {
            permit
                .count_client(address, limits.connections_per_client)
                .map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        }
        let capacity = permit.capacity();
        let timeout =
            if capacity == Capacity::Available { header_timeout } else { header_timeout.min(OVER_LIMIT_TIMEOUT) };
        let deadline = accepted_at + timeout;
        let client = Client::new(address, identified, listener.settings, capacity, counts);
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

    /// The listener that serves a local address: as in the current configuration, or as at process start if the current
    /// one does not have it or switches TLS on or off. Such a change needs a restart.
    fn listener(&self, generation: &Generation, local: SocketAddr) -> Option<ListenerRuntime> {
        let started = self.listeners.iter().filter(|listener| listener.settings.serves(local));
        // A listener on the very address before one on all addresses.
        let started = started.min_by_key(|listener| listener.settings.address.ip().is_unspecified());
        let now = generation.snapshot.listener(local).map(|listener| ListenerRuntime::of(listener, generation));
        match (now, started) {
            (Some(now), Some(started)) if now.tls.is_some() == started.tls.is_some() => Some(now),
            (_, started) => started.cloned(),
        }
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

/// The TCP connection, its peer address and its local address.
fn tcp_stream(stream: Stream) -> Option<(Box<TcpStream>, SocketAddr, SocketAddr)> {
    let stream = stream.into_any().downcast::<TcpStream>().ok()?;
    let digest = stream.get_socket_digest()?;
    let (peer, local) = (*digest.peer_addr()?.as_inet()?, *digest.local_addr()?.as_inet()?);
    Some((stream, peer, local))
}

/// [`ProxyDigest`] needs the CONNECT response of a forward proxy. There is none, so this one is never read.
fn no_response() -> Box<ResponseHeader> {
    Box::new(ResponseHeader::build_no_case(200, Some(0)).unwrap_or_else(|_| unreachable!("200 is a status")))
}

impl ListenerRuntime {
    fn of(listener: &Arc<Listener>, generation: &Generation) -> Self {
        ListenerRuntime { settings: listener.clone(), tls: generation.acceptors().of(listener.address).cloned() }
    }
}
