//! The edge: where clients connect, before there is a request.
//!
//! A connection is taken through these steps, each of which can end it:
//!
//! 1. It is counted. One too many is let in all the same, for one request that is told so; far too many are not.
//! 2. Behind a load balancer its PROXY header is read, which says who the client is.
//! 3. TLS is ended.
//! 4. From then on requests are read from it, which [`requests`] does and times, and a [`guard`] watches over each while
//!    Pingora serves it.
//!
//! Everything is read from the configuration in force when the connection begins. What later steps and the hooks need
//! to know of it is in [`Client`].

pub mod acceptor;
pub mod admission;
mod connection;
pub mod counts;
pub mod guard;
mod proxy_header;
mod requests;
mod unserved;

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use base64::Engine;
use base64::engine::general_purpose::STANDARD as BASE64;
use http::HeaderValue;
use pingora::apps::{HttpServerApp, ServerApp};
use pingora::http::ResponseHeader;
use pingora::listeners::tls::Acceptor;
use pingora::listeners::{L4BufferSettings, ListenerConfig};
use pingora::protocols::http::ServerSession;
use pingora::protocols::l4::stream::Stream as TcpStream;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{ALPN, GetSocketDigest, IO, SocketDigest, Ssl, Stream};
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use rustls::ServerConfig;
use tokio::sync::watch;
use tokio::time::{Instant, timeout_at};

use self::admission::{Admission, Entry, Overcrowded};
use self::connection::{Connection, Progress};
use self::counts::{Counts, Open};
use self::guard::Overdue;
use self::requests::Requests;
use self::unserved::{Notices, Unserved};
use crate::forwarded;
use crate::live::{Generation, Live};
use crate::proxy::Gateway;
use crate::snapshot::{self, Crowd, Limits, Listener, ServerName, Snapshot};
use crate::tls::{Certificate, Certificates};

/// How long connections without a request are kept once the process is to end.
pub const LINGER: Duration = Duration::from_secs(1);
/// How long a client may take for its request when it can only be told that there is no room.
const CROWD_PATIENCE: Duration = Duration::from_secs(1);
/// What a header may have on top of its limits, so that those who are a little over get a proper answer.
const HEADER_MARGIN: usize = 32 * 1024;
/// Pingora's own would be 64 KiB for each connection, idle or not. Plain HTTP is read into larger buffers anyway; of TLS
/// a record is read at a time, as with a buffer of 16 KiB. (2,000 idle connections over TLS, as measured: 96 KB each with
/// 64 KiB, 46 KB with 16 KiB, 30 KB with none; an upload of 16 MiB: 258, 1027 and 1032 reads.)
const READ_BUFFER: usize = 0;
/// Pingora's default: about one packet.
const WRITE_BUFFER: usize = 1460;

/// The application behind all listeners.
pub struct Edge {
    live: Arc<Live>,
    proxy: Arc<HttpProxy<Gateway>>,
    admission: Arc<Admission>,
    /// Where it listens: what the process was started with, whatever the configuration says by now.
    listeners: Vec<Place>,
    /// Ends connections that wait for a request.
    closing: watch::Sender<bool>,
    notices: Notices,
    counts: Arc<Counts>,
}

/// A client's connection, as far as its requests are concerned.
#[derive(Debug)]
pub struct Client {
    address: IpAddr,
    /// The address, as upstreams are told of it.
    forwarded_for: HeaderValue,
    /// Whether the address is who speaks HTTP to us; false behind a PROXY header that names nobody.
    vouched: bool,
    listener: Arc<Listener>,
    tls: Option<ClientTls>,
    crowd: Crowd,
    progress: Progress,
    counts: Open,
}

/// What a client has asked for in its handshake.
#[derive(Debug)]
struct ClientTls {
    /// In lower case.
    name: Option<Box<str>>,
    /// What it was shown.
    certificate: Arc<Certificate>,
    /// What it has shown, and was verified, as an upstream is told of it.
    own: Option<HeaderValue>,
}

/// A listener, and what it needs for handshakes if it has any.
#[derive(Debug, Clone)]
struct Place {
    listener: Arc<Listener>,
    tls: Option<Arc<ServerConfig>>,
}

/// How a listener's connections are set up.
pub fn listener_config(listener: &Listener) -> ListenerConfig {
    ListenerConfig::tcp(listener.address.to_string()).l4_buffer(L4BufferSettings::new(READ_BUFFER, WRITE_BUFFER))
}

// === impl Edge ===

impl Edge {
    /// Serves what `live` says at the time of each connection, on the listeners that it has now.
    pub fn new(live: Arc<Live>, proxy: HttpProxy<Gateway>) -> Self {
        let listeners: Vec<Place> = {
            let generation = live.current();
            generation.snapshot.listeners().iter().map(|listener| Place::of(listener, &generation)).collect()
        };
        let counts = Arc::new(Counts::new(listeners.iter().map(|place| place.listener.address)));
        let closing = watch::Sender::new(false);
        let (admission, notices) = (Arc::default(), Notices::default());
        Edge { live, proxy: Arc::new(proxy), admission, listeners, closing, notices, counts }
    }

    /// The open connections.
    pub fn admission(&self) -> Arc<Admission> {
        self.admission.clone()
    }

    /// What is counted of them.
    pub fn counts(&self) -> Arc<Counts> {
        self.counts.clone()
    }

    /// All steps up to the end of the connection.
    async fn serve(&self, stream: Stream, shutdown: &ShutdownWatch) -> Result<(), (SocketAddr, Unserved)> {
        let accepted = Instant::now();
        let Some((stream, peer, local)) = tcp(stream) else {
            self.counts.unknown.add(1);
            return Err((SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)), Unserved::Unknown));
        };
        let generation = self.live.current();
        let place = self.place(&generation, local);
        let Some((place, counts)) =
            place.and_then(|place| self.counts.of(place.listener.address).map(|counts| (place, counts)))
        else {
            self.counts.unknown.add(1);
            return Err((peer, Unserved::Unknown));
        };
        // What is needed for the first steps is given back before the connection goes on, maybe for hours.
        let taken_in = Box::pin(self.take_in(stream, accepted, peer, generation, place, counts.accept())).await;
        let (_entry, connection) = taken_in.map_err(|unserved| {
            counts.refuse(&unserved);
            (peer, unserved)
        })?;
        Box::pin(connection.serve(shutdown, self.closing.subscribe())).await;
        Ok(())
    }

    async fn take_in(
        &self,
        mut stream: Box<TcpStream>,
        accepted: Instant,
        peer: SocketAddr,
        generation: Arc<Generation>,
        place: Place,
        counts: Open,
    ) -> Result<(Entry, Requests), Unserved> {
        let limits = generation.snapshot.limits();
        let mut entry = self.admission.enter(limits.connections).map_err(|Overcrowded| Unserved::Overcrowded)?;
        let header_timeout = limits.header_timeout;
        let (mut client, mut vouched) = (peer, true);
        if place.listener.proxy_protocol {
            if !generation.snapshot.trusted_proxies().contains(peer.ip()) {
                return Err(Unserved::Untrusted);
            }
            let reading = timeout_at(accepted + header_timeout, proxy_header::read(&mut *stream));
            let preface = reading.await.map_err(|_| Unserved::Late)?.map_err(Unserved::ProxyHeader)?;
            stream.rewind(&preface.rest);
            vouched = preface.client.is_some();
            if let Some(named) = preface.client {
                client = named;
                set_peer(&mut stream, named);
            }
        }
        let address = client.ip().to_canonical();
        // A trusted proxy that speaks for itself has the connections of many clients.
        if client != peer || !generation.snapshot.trusted_proxies().contains(address) {
            entry.identify(address, limits.connections_per_client).map_err(|Overcrowded| Unserved::Overcrowded)?;
        }
        let crowd = entry.crowd();
        let patience = if crowd == Crowd::Room { header_timeout } else { header_timeout.min(CROWD_PATIENCE) };
        let deadline = accepted + patience;
        let (listener, progress) = (place.listener, Progress::new());
        let forwarded_for = forwarded::alone(address);
        let client = Client { address, forwarded_for, vouched, listener, tls: None, crowd, progress, counts };
        let connection = match place.tls {
            None => self.connection(*stream, client, false, deadline, limits),
            Some(config) => {
                let handshake = Acceptor::from_server_config(config);
                let handshake = timeout_at(deadline, handshake.tls_handshake(*stream)).await;
                let handshake =
                    handshake.map_err(|_| Unserved::Late).and_then(|made| made.map_err(Unserved::Handshake));
                let counts = &client.counts;
                let count = if handshake.is_ok() { &counts.handshakes } else { &counts.failed_handshakes };
                count.add(1);
                let stream = handshake?;
                let tls = client.listener.tls.as_ref().map(|tls| ClientTls::new(&stream, &tls.certificates));
                let http2 = stream.selected_alpn_proto() == Some(ALPN::H2);
                self.connection(stream, Client { tls, ..client }, http2, deadline, limits)
            }
        };
        Ok((entry, connection))
    }

    /// The listener behind a local address. One that the configuration in force has not, or has the other way, with
    /// TLS or without, is as it was when the process started: that needs a restart.
    fn place(&self, generation: &Generation, local: SocketAddr) -> Option<Place> {
        let started = self.listeners.iter().filter(|place| place.listener.serves(local));
        let started = started.min_by_key(|place| place.listener.address.ip().is_unspecified());
        let now = generation.snapshot.listener(local).map(|listener| Place::of(listener, generation));
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
    ) -> Requests {
        let client = Arc::new(client);
        let digest = ProxyDigest::new(no_response(), Some(Box::new(client.clone())));
        let stream = Connection::new(stream, client.clone(), Arc::new(digest), limits.send_timeout);
        Requests::new(self.proxy.clone(), Box::new(stream), client, http2, first_header, limits)
    }
}

#[async_trait]
impl ServerApp for Edge {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        if let Err((peer, unserved)) = self.serve(stream, shutdown).await {
            self.notices.note(peer, &unserved, std::time::Instant::now());
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
        self.proxy.http_cleanup().await;
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

// === impl Client ===

impl Client {
    /// The client of a session. None only in tests that make sessions by themselves.
    pub fn of(session: &ServerSession) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// Who is connected: the peer, or whom a PROXY header names.
    pub fn address(&self) -> IpAddr {
        self.address
    }

    /// `X-Forwarded-For` of a request that nobody else has handed on to it.
    pub fn forwarded_for(&self) -> &HeaderValue {
        &self.forwarded_for
    }

    /// Whether what its headers say of others can be believed, if its address is trusted.
    pub fn can_be_trusted(&self) -> bool {
        self.vouched
    }

    /// The certificate that it has shown, as `Client-Cert` says it (RFC 9440).
    pub fn certificate(&self) -> Option<&HeaderValue> {
        self.tls.as_ref()?.own.as_ref()
    }

    /// What its requests are judged by.
    pub fn facts<'a>(&'a self, snapshot: &Snapshot) -> snapshot::Connection<'a> {
        let now = snapshot.listeners().iter().find(|listener| listener.address == self.listener.address);
        let asked_for = self
            .tls
            .as_ref()
            .and_then(|tls| Some(ServerName { name: tls.name.as_deref()?, certificate: &tls.certificate }));
        snapshot::Connection { asked_for, redirect: now.unwrap_or(&self.listener).redirect, crowd: self.crowd }
    }

    /// To be called when the header of a request is understood: from here on its body can be read.
    pub fn request_begins(&self) {
        self.progress.open();
    }

    /// Why a guard has asked the request to end, if it has.
    pub fn overdue(&self) -> Option<Overdue> {
        self.progress.overdue()
    }
}

// === impl ClientTls, Place ===

impl ClientTls {
    fn new(stream: &impl Ssl, certificates: &Certificates) -> Self {
        let name = stream.get_ssl().and_then(|tls| tls.server_name());
        let own = stream.get_ssl().and_then(|tls| tls.peer_certificate_der()).and_then(|der| {
            // RFC 9440 section 2.1: a byte sequence of structured fields.
            HeaderValue::try_from(format!(":{}:", BASE64.encode(der))).ok()
        });
        // The same look-up as in the handshake, on the same certificates.
        ClientTls { name: name.map(Into::into), certificate: certificates.find(name).clone(), own }
    }
}

impl Place {
    fn of(listener: &Arc<Listener>, generation: &Generation) -> Self {
        Place { listener: listener.clone(), tls: generation.acceptors().of(listener.address).cloned() }
    }
}
