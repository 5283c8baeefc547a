//! Reads the requests of one connection and hands them to the application.
//!
//! [`super::header`] reads HTTP/1 headers. Pingora reads HTTP/2 itself. An HTTP/2 connection is closed if no request
//! arrives in `header_timeout` after the accept. TLS negotiates the protocol (ALPN). On a plain listener with `http2`,
//! the first bytes of a connection show its protocol.
//!
//! A connection ends gracefully at the shutdown of the process, after `limits.requests_per_connection`, and at
//! `limits.connection_age`. An HTTP/1 connection that is too old still waits for its next request, up to `keepalive` as
//! always. So a request that the client sends at that moment gets a response.

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::BytesMut;
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::time::timeout;
use tokio::io::AsyncWriteExt;
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::check::Invalid;
use super::closing::Signal;
use super::header::{HeaderError, HeaderLimits, read_available, read_header};
use super::watchdog::Watchdog;
use super::{Client, ClientStream};
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::decide::{Capacity, Refusal};
use crate::record::listeners::BadHeader;
use crate::snapshot::Limits;

/// Timeout for a connection above a limit, which gets only an error. It replaces `header_timeout` and `stream_idle` if
/// it is shorter than they are.
pub(crate) const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Lingering close: after an error or an early response, the rest of the request is read and discarded, for at most this
/// time and this many bytes. Closing a socket with unread bytes makes the kernel send a reset, and the client would lose
/// the response.
pub(crate) const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
pub(crate) const LINGERING_CLOSE_BYTES: usize = 4 << 20;
/// Flow-control window of an HTTP/2 connection, in bytes of request bodies. One stream can use 64 KiB of this window,
/// so a stream with a slow upstream does not block the other streams.
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Maximum number of buffered response bytes per HTTP/2 stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Maximum number of streams that the gateway resets because of protocol errors of the client, per HTTP/2 connection.
/// The next error closes the connection.
const MAX_H2_STREAM_ERRORS: usize = 128;
/// The first bytes of an HTTP/2 connection (RFC 9113 section 3.4).
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Maximum part of `limits.connection_age` by which a connection ends early. The part is random, so that clients that
/// connected at the same time, such as after a restart, do not all reconnect at the same time.
const AGE_JITTER: f64 = 0.1;
/// Time for an HTTP/2 client to close the connection after GOAWAY and the end of its last stream.
const H2_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// An accepted connection. `A` serves its requests.
pub(crate) struct ClientConnection<A> {
    app: Arc<ConnectionApp<A>>,
    stream: Box<ClientStream>,
    protocol: Protocol,
    /// Time at which the header of the first request must be complete.
    first_header_deadline: Instant,
}

/// The protocol of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    Http1,
    Http2,
    /// HTTP/2 if the connection begins with its preface, else HTTP/1.
    ByPreface,
}

/// The application of one connection. For HTTP/2 Pingora calls it for each stream.
struct ConnectionApp<A> {
    /// Serves the requests of all connections.
    inner: Arc<A>,
    client: Arc<Client>,
    limits: ConnectionLimits,
    options: HttpServerOptions,
    h2_options: H2Options,
    /// Number of HTTP/2 streams so far.
    streams_opened: AtomicU32,
    /// Number of HTTP/2 streams whose request is being served.
    streams_active: AtomicUsize,
    /// Time from which the connection is too old for more requests.
    ends_at: Option<Instant>,
    /// If true, Pingora closes the connection after the current request. For HTTP/2, Pingora sends GOAWAY and closes
    /// the connection after its last stream.
    close: watch::Sender<bool>,
}

/// Limits of a connection, from the snapshot that was live at the accept.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    header: HeaderLimits,
    stream_idle: Duration,
    requests: Option<u32>,
}

// === impl ClientConnection ===

impl<A: HttpServerApp + Send + Sync + 'static> ClientConnection<A> {
    pub(crate) fn new(
        app: Arc<A>,
        stream: Box<ClientStream>,
        client: Arc<Client>,
        protocol: Protocol,
        first_header_deadline: Instant,
        limits: &Limits,
    ) -> Self {
        let over_limit = client.capacity != Capacity::Available;
        let h2_streams = limits.streams;
        let ends_at = limits.connection_age.map(|age| Instant::now() + jittered(age, fastrand::f64()));
        let limits = ConnectionLimits {
            header: HeaderLimits::new(limits),
            stream_idle: if over_limit { limits.stream_idle.min(OVER_LIMIT_TIMEOUT) } else { limits.stream_idle },
            requests: if over_limit { Some(1) } else { limits.requests_per_connection },
        };
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.header.keepalive);
        // Pingora gets only connections that are known to be HTTP/2. Without TLS there is no ALPN, so this option tells
        // Pingora the protocol.
        options.h2c = true;
        let app = ConnectionApp {
            inner: app,
            client,
            limits,
            options,
            h2_options: h2_options(h2_streams, limits.header.bytes),
            streams_opened: AtomicU32::new(0),
            streams_active: AtomicUsize::new(0),
            ends_at,
            close: watch::Sender::new(false),
        };
        ClientConnection { app: Arc::new(app), stream, protocol, first_header_deadline }
    }

    /// Serves all requests. `closing` closes the connection while it waits for the next request.
    pub(crate) async fn serve(mut self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>) {
        let http2 = match self.protocol {
            Protocol::Http1 => false,
            Protocol::Http2 => true,
            Protocol::ByPreface => self.begins_with_preface(&closing).await,
        };
        if http2 {
            return self.serve_http2(shutdown).await;
        }
        let client = self.app.client.clone();
        let end_request = |expired| {
            client.progress.end_request(expired);
            true
        };
        Watchdog::new(Box::pin(self.serve_http1(shutdown, closing)), None, end_request).await;
    }

    /// Checks whether the connection begins with the HTTP/2 preface. Reads until the bytes are the preface or differ
    /// from it, and puts the bytes back. If the connection ends or times out earlier, it counts as HTTP/1, because the
    /// HTTP/1 code also handles both cases.
    async fn begins_with_preface(&mut self, closing: &watch::Receiver<bool>) -> bool {
        let mut closing = Signal::new(closing.clone());
        let mut bytes = BytesMut::new();
        let read = async {
            while bytes.len() < H2_PREFACE.len() && H2_PREFACE.starts_with(&bytes) {
                match read_available(&mut self.stream).await {
                    Ok(more) if !more.is_empty() => bytes.extend_from_slice(&more),
                    _ => break,
                }
            }
        };
        let left = self.first_header_deadline.saturating_duration_since(Instant::now());
        tokio::select! {
            biased;
            _ = timeout(left, read) => {}
            () = poll_fn(|cx| closing.poll(cx)) => {}
        }
        let found = bytes.starts_with(H2_PREFACE);
        self.stream.keep(bytes);
        found
    }

    async fn serve_http1(self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>) {
        let ClientConnection { app, mut stream, first_header_deadline, .. } = self;
        let (mut closing, mut shutdown) = (Signal::new(closing), Signal::new(shutdown.clone()));
        // Pingora reads this signal for each request, which takes a lock. Only this connection uses this lock.
        let close = app.close.subscribe();
        let progress = &app.client.progress;
        let mut settings: Option<HttpPersistentSettings> = None;
        let mut first = Some(first_header_deadline);
        loop {
            progress.open();
            let header = match read_header(&app.limits.header, &mut stream, first.take(), &mut closing).await {
                Ok(header) => header,
                Err(why) => return app.reject(&mut stream, why).await,
            };
            let header = match stream.on_header(header) {
                Ok(header) => header,
                Err(invalid) => return app.reject(&mut stream, invalid.into()).await,
            };
            let mut session = ServerSession::new_http1(stream);
            match settings {
                Some(settings) => settings.apply_to_session(&mut session),
                // This is the first request. Pingora counts the reuses of a connection, which are one less than its
                // requests.
                None => {
                    let reuses = app.limits.requests.map(|requests| requests.saturating_sub(1));
                    session.set_keepalive_reuses_remaining(reuses);
                }
            }
            session.set_pipelined_prefix(header);
            if shutdown.is_true() || app.ends_at.is_some_and(|end| Instant::now() >= end) {
                app.close.send_replace(true);
            }
            let reused = app.inner.process_new_http(session, &close).await;
            if progress.header_was_rejected() {
                // Pingora answered itself, without calling a hook, and closed the connection.
                app.client.counts.bad_header(BadHeader::Malformed);
            }
            let Some(reused) = reused.or_else(|| app.client.take_kept()) else { return };
            let (reused, kept) = reused.consume();
            // Pingora returns the stream that it got.
            let Ok(reused) = reused.into_any().downcast() else { return };
            (stream, settings) = (reused, kept);
        }
    }

    async fn serve_http2(self, shutdown: &ShutdownWatch) {
        let ClientConnection { app, stream, first_header_deadline, .. } = self;
        let (closing, mut shutdown) = (app.close.subscribe(), shutdown.clone());
        let shutdown = async {
            // An error means that the sender is gone, which is not a shutdown.
            if shutdown.wait_for(|stopping| *stopping).await.is_err() {
                std::future::pending::<()>().await;
            }
        };
        let too_old = async {
            match app.ends_at {
                // The timer is in a box, so that a connection without `limits.connection_age` takes no memory for it.
                Some(end) => Box::pin(sleep_until(end)).await,
                None => std::future::pending().await,
            }
        };
        let stopping = async {
            tokio::select! {
                () = shutdown => {}
                () = too_old => {}
            }
            app.close.send_replace(true);
            std::future::pending::<()>().await;
        };
        let no_request = async {
            sleep_until(first_header_deadline).await;
            if app.streams_opened.load(Ordering::Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
            log::debug!("connection closed client={} reason=\"no request in time\"", app.client.address());
        };
        tokio::select! {
            _ = app.process_new(stream, &closing) => {}
            () = stopping => {}
            () = app.drain_h2() => {}
            () = no_request => {}
        }
    }
}

// === impl ConnectionApp ===

impl<A: HttpServerApp + Send + Sync + 'static> ConnectionApp<A> {
    /// Sends an error before the connection is closed, unless the client has gone or has sent no request.
    async fn reject(&self, stream: &mut ClientStream, why: HeaderError) {
        let (kind, count) = match why {
            HeaderError::Closed => return,
            // No response is sent: browsers open connections in advance, and would take this response for the response
            // to a later request.
            HeaderError::NoRequest => {
                return log::debug!("connection closed client={} reason=\"no request in time\"", self.client.address());
            }
            HeaderError::Timeout => (ReplyKind::RequestTimeout, BadHeader::Late),
            HeaderError::TooLarge => (ReplyKind::Refused(Refusal::HeadersTooLarge), BadHeader::TooLarge),
            HeaderError::TargetTooLong => (ReplyKind::Refused(Refusal::UriTooLong), BadHeader::TooLarge),
            HeaderError::Invalid(Invalid::Version) => (ReplyKind::VersionNotSupported, BadHeader::Malformed),
            HeaderError::Invalid(Invalid::Connect) => (ReplyKind::ConnectRefused, BadHeader::Malformed),
            HeaderError::Invalid(Invalid::Fields) => (ReplyKind::MalformedRequest, BadHeader::Malformed),
        };
        self.client.counts.bad_header(count);
        log::debug!("request refused client={} status={}", self.client.address(), kind.status().as_u16());
        let response = LocalReply::new(kind).http1();
        let send = async {
            stream.write_all(&response).await?;
            AsyncWriteExt::shutdown(&mut *stream).await?;
            let mut left = LINGERING_CLOSE_BYTES;
            while why != HeaderError::Timeout && left > 0 {
                let read = read_available(stream).await?.len();
                left = if read == 0 { 0 } else { left.saturating_sub(read) };
            }
            io::Result::Ok(())
        };
        // The connection is closed anyway, whether the client received the response or not.
        let _ = timeout(LINGERING_CLOSE_TIMEOUT, send).await;
    }

    /// Waits until the connection is closing and has had no active stream for [`H2_DRAIN_TIMEOUT`]. Then the client has
    /// not closed the connection in time.
    async fn drain_h2(&self) {
        const STEPS: u32 = 5;
        let mut idle_steps = 0;
        // Cannot fail, because `self` owns the sender.
        let _ = self.close.subscribe().wait_for(|closing| *closing).await;
        while idle_steps < STEPS {
            sleep(H2_DRAIN_TIMEOUT / STEPS).await;
            idle_steps = if self.streams_active.load(Ordering::Relaxed) == 0 { idle_steps + 1 } else { 0 };
        }
    }
}

/// Called for HTTP/2 only. Written without `async_trait`, whose macro would allocate one more box for each request.
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for ConnectionApp<A> {
    fn process_new_http<'a, 'b, 'c>(
        self: &'a Arc<Self>,
        session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        let opened = self.streams_opened.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.limits.requests.is_some_and(|requests| opened >= requests) {
            self.close.send_replace(true);
        }
        let active = ActiveStream::new(self.clone());
        let request = self.inner.process_new_http(session, shutdown);
        // `Progress` belongs to the whole connection, so it cannot end one stream. Instead, dropping the request resets
        // the stream.
        let request = Watchdog::new(request, Some(self.limits.stream_idle), |_| false);
        Box::pin(async move {
            let _active = active;
            request.await.flatten()
        })
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.h2_options.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

/// Counts an HTTP/2 stream as active until it is dropped.
struct ActiveStream<A>(Arc<ConnectionApp<A>>);

impl<A> ActiveStream<A> {
    fn new(app: Arc<ConnectionApp<A>>) -> Self {
        app.streams_active.fetch_add(1, Ordering::Relaxed);
        ActiveStream(app)
    }
}

impl<A> Drop for ActiveStream<A> {
    fn drop(&mut self) {
        self.0.streams_active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Returns the age, less a part of up to [`AGE_JITTER`]. `random` is from 0 to 1.
fn jittered(age: Duration, random: f64) -> Duration {
    age.mul_f64(1.0 - AGE_JITTER * random)
}

fn h2_options(streams: u32, header_list: usize) -> H2Options {
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_concurrent_streams(streams)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buffer_size(H2_SEND_BUFFER)
        .max_local_error_reset_streams(Some(MAX_H2_STREAM_ERRORS));
    options
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_may_end_up_to_a_tenth_before_its_age() {
        let hour = Duration::from_secs(3600);
        assert_eq!([0.0, 0.5, 1.0].map(|random| jittered(hour, random).as_secs()), [3600, 3420, 3240]);
    }
}
