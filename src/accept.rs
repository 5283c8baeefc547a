//! The edge: where clients connect, before there is a request.
//!
//! A connection is taken through these steps, each of which can end it:
//!
//! 1. It is counted. One too many is let in all the same, for one request that is told so; far too many are not.
//! 2. Behind a load balancer its PROXY header is read, which says who the client is.
//! 3. TLS is ended.
//! 4. From then on requests are read from it, which [`crate::read`] does and times, and a [`crate::read::watchdog`] watches over each while
//!    Pingora serves it.
//!
//! Everything is read from the configuration in force when the connection begins. What later steps and the hooks need
//! to know of it is in [`Client`].

pub(crate) mod admission;
mod errors;
mod proxy_protocol;

use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::Acceptor as TlsAcceptor;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{ALPN, GetSocketDigest, IO, SocketDigest, Ssl, Stream};
use pingora::server::ShutdownWatch;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::admission::{Admission, ConnectionPermit, LimitReached};
use self::errors::{AcceptError, AcceptErrorLog};
use crate::decide::Capacity;
use crate::live::{Generation, Live};
use crate::read::{Client, ClientStream, ClientTls, OVER_LIMIT_TIMEOUT, Requests};
use crate::record::listeners::{Counts, Open};
use crate::snapshot::{Limits, Listener};
/// How long connections without a request are kept once the process is to end.
pub(crate) const LINGER: Duration = Duration::from_secs(1);
/// Pingora's own would be 64 KiB for each connection, idle or not. Plain HTTP is read into larger buffers anyway; of TLS
/// a record is read at a time, as with a buffer of 16 KiB. (2,000 idle connections over TLS, as measured: 96 KB each with
/// 64 KiB, 46 KB with 16 KiB, 30 KB with none; an upload of 16 MiB: 258, 1027 and 1032 reads.)
const READ_BUFFER: usize = 0;
/// Pingora's default: about one packet.
const WRITE_BUFFER: usize = 1460;

/// The application behind all listeners.
pub(crate) struct Acceptor<A> {
    live: Arc<Live>,
    app: Arc<A>,
    admission: Arc<Admission>,
    /// Where it listens: what the process was started with, whatever the configuration says by now.
    listeners: Vec<ListenerRuntime>,
    /// Ends connections that wait for a request.
    closing: watch::Sender<bool>,
    notices: AcceptErrorLog,
    counts: Arc<Counts>,
}

/// A listener, and what it needs for handshakes if it has any.
#[derive(Debug, Clone)]
struct ListenerRuntime {
    listener: Arc<Listener>,
    tls: Option<Arc<ServerConfig>>,
}

/// How a listener's connections are set up.
pub(crate) fn listener_config(listener: &Listener) -> ListenerConfig {
    ListenerConfig::tcp(listener.address.to_string()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
}

// === impl Acceptor ===

impl<A: HttpServerApp + Send + Sync + 'static> Acceptor<A> {
    /// Hands requests to `app`. Serves what `live` says at the time of each connection, on the listeners that it has now.
    pub(crate) fn new(live: Arc<Live>, app: A) -> Self {
        let listeners: Vec<ListenerRuntime> = {
            let generation = live.current();
            generation.snapshot.listeners().iter().map(|listener| ListenerRuntime::of(listener, &generation)).collect()
        };
        let counts = Arc::new(Counts::new(listeners.iter().map(|place| place.listener.address)));
        let closing = watch::Sender::new(false);
        let (admission, notices) = (Arc::default(), AcceptErrorLog::default());
        Acceptor { live, app: Arc::new(app), admission, listeners, closing, notices, counts }
    }

    /// The open connections.
    pub(crate) fn admission(&self) -> Arc<Admission> {
        self.admission.clone()
    }

    /// What is counted of them.
    pub(crate) fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// All steps up to the end of the connection.
    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Result<(), (SocketAddr, AcceptError)> {
        let accepted = Instant::now();
        let Some((stream, peer, local)) = tcp(stream) else {
            self.counts.unknown.add(1);
            return Err((SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), AcceptError::Unknown));
        };
        let generation = self.live.current();
        let place = self.place(&generation, local);
        let Some((place, counts)) =
            place.and_then(|place| self.counts.of(place.listener.address).map(|counts| (place, counts)))
        else {
            self.counts.unknown.add(1);
            return Err((peer, AcceptError::Unknown));
        };
        // What is needed for the first steps is given back before the connection goes on, maybe for hours.
        let accepted_connection =
            Box::pin(self.accept_connection(stream, accepted, peer, generation, place, counts.accept())).await;
        let (_entry, connection) = accepted_connection.map_err(|unserved| {
            unserved.counted().into_iter().for_each(|refused| counts.refuse(refused));
            (peer, unserved)
        })?;
        Box::pin(connection.serve(shutdown, self.closing.subscribe())).await;
        Ok(())
    }

    async fn accept_connection(
        &self,
        mut stream: Box<TcpStream>,
        accepted: Instant,
        peer: SocketAddr,
        generation: Arc<Generation>,
        place: ListenerRuntime,
        counts: Open,
    ) -> Result<(ConnectionPermit, Requests<A>), AcceptError> {
        let limits = generation.snapshot.limits();
        let mut entry =
            self.admission.enter(limits.connections).map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        let header_timeout = limits.header_timeout;
        let (mut client, mut identified) = (peer, true);
        if place.listener.proxy_protocol {
            if !generation.snapshot.trusted_proxies().contains(peer.ip()) {
                return Err(AcceptError::Untrusted);
            }
            let reading = timeout_at(accepted + header_timeout, proxy_protocol::read(&mut *stream));
            let preface = reading.await.map_err(|_| AcceptError::Late)?.map_err(AcceptError::ProxyHeader)?;
            stream.rewind(&preface.rest);
            identified = preface.client.is_some();
            if let Some(named) = preface.client {
                client = named;
                set_peer(&mut stream, named);
            }
        }
        let address = client.ip().to_canonical();
        // A trusted proxy that speaks for itself has the connections of many clients.
        if client != peer || !generation.snapshot.trusted_proxies().contains(address) {
            entry
                .identify(address, limits.connections_per_client)
                .map_err(|LimitReached| AcceptError::ConnectionLimitHard)?;
        }
        let capacity = entry.capacity();
        let patience =
            if capacity == Capacity::Available { header_timeout } else { header_timeout.min(OVER_LIMIT_TIMEOUT) };
        let deadline = accepted + patience;
        let client = Client::new(address, identified, place.listener, capacity, counts);
        let connection = match place.tls {
            None => self.connection(*stream, client, false, deadline, limits),
            Some(config) => {
                let handshake = TlsAcceptor::from_server_config(config);
                let handshake = timeout_at(deadline, handshake.tls_handshake(*stream)).await;
                let handshake =
                    handshake.map_err(|_| AcceptError::Late).and_then(|made| made.map_err(AcceptError::Handshake));
                let counts = client.counts();
                let count = if handshake.is_ok() { &counts.handshakes } else { &counts.failed_handshakes };
                count.add(1);
                let stream = handshake?;
                let tls = client.listener().tls.as_ref().map(|tls| ClientTls::new(&stream, &tls.certificates));
                let http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
                self.connection(stream, client.with_tls(tls), http2, deadline, limits)
            }
        };
        Ok((entry, connection))
    }

    /// The listener behind a local address. One that the configuration in force has not, or has the other way, with
    /// TLS or without, is as it was when the process started: that needs a restart.
    fn place(&self, generation: &Generation, local: SocketAddr) -> Option<ListenerRuntime> {
        let started = self.listeners.iter().filter(|place| place.listener.serves(local));
        let started = started.min_by_key(|place| place.listener.address.ip().is_unspecified());
        let now = generation.snapshot.listener(local).map(|listener| ListenerRuntime::of(listener, generation));
        match (now, started) {
            (Some(now), Some(started)) if now.tls.is_some() == started.tls.is_some() => Some(now),
            (_, started) => started.cloned(),
        }
    }

    fn connection<S: IO + 'static>(
        &self,
        stream: S,
        client: Client,
        http2: bool,
        first_header: Instant,
        limits: &Limits,
    ) -> Requests<A> {
        let client = Arc::new(client);
        let digest = ProxyDigest::new(no_response(), Some(Box::new(client.clone())));
        let stream = ClientStream::new(stream, client.clone(), Arc::new(digest), limits.send_timeout);
        Requests::new(self.app.clone(), Box::new(stream), client, http2, first_header, limits)
    }
}

#[async_trait]
impl<A: HttpServerApp + Send + Sync + 'static> ServerApp for Acceptor<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if let Err((peer, unserved)) = self.serve(stream, shutdown).await {
            self.notices.log(peer, &unserved, std::time::Instant::now());
        }
        None
    }

    /// The listeners are closed. Answers tell clients to close by now; a client between two requests may have sent the
    /// next one already, and is closed only when it has not for a while.
    async fn cleanup(&self) {
        let end = Instant::now() + LINGER;
        while self.admission.open() > 0 && Instant::now() < end {
            tokio::time::sleep(LINGER / 100).await;
        }
        self.closing.send_replace(true);
        self.app.http_cleanup().await;
    }
}

/// The TCP connection, and both its ends.
fn tcp(stream: Stream) -> Option<(Box<TcpStream>, SocketAddr, SocketAddr)> {
    let stream = stream.into_any().downcast::<TcpStream>().ok()?;
    let digest = stream.get_socket_digest()?;
    let (peer, local) = (*digest.peer_addr()?.as_inet()?, *digest.local_addr()?.as_inet()?);
    Some((stream, peer, local))
}

/// From here on the connection comes from `client`, wherever that is asked.
fn set_peer(stream: &mut TcpStream, client: SocketAddr) {
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    // It is new, so that nothing can be there yet.
    let _ = digest.peer_addr.set(Some(client.into()));
    stream.set_socket_digest(digest);
}

/// What stands where a proxy that we had gone through would have answered.
fn no_response() -> Box<ResponseHeader> {
    Box::new(ResponseHeader::build_no_case(200, Some(0)).unwrap_or_else(|_| unreachable!("200 is a status")))
}

impl ListenerRuntime {
    fn of(listener: &Arc<Listener>, generation: &Generation) -> Self {
        ListenerRuntime { listener: listener.clone(), tls: generation.acceptors().of(listener.address).cloned() }
    }
}
