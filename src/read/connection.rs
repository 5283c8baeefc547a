//! Reads the requests of one connection and hands them to the application.
//!
//! HTTP/1 headers have these limits. They do not depend on a host, which is unknown before the header is complete.
//!
//! | state of the connection | limit | response |
//! |---|---|---|
//! | waiting for the first request, reading its header | `header_timeout` after the accept | 408; none without a byte |
//! | waiting for a later request | `keepalive` | none |
//! | reading a later header | `header_timeout` after its first byte | 408 |
//! | reading any header | `uri` + `headers` + [`HEADER_MARGIN`] bytes | 431 |
//!
//! An HTTP/1 header is collected here and given to Pingora when it is complete. So an idle connection needs little more
//! memory than its socket, and a header that arrives byte by byte is not parsed at each byte. Pingora reads HTTP/2
//! itself; a connection without a request in `header_timeout` after the accept is closed.
//!
//! 408 and 431 have no CORS header fields, because no host, and therefore no policy, is known.

use std::future::poll_fn;
use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Buf, BytesMut};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora::time::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, sleep_until};

use super::Client;
use super::watchdog::{self, Watchdog};
use crate::decide::local_reply::{LocalReply, ReplyKind};
use crate::decide::{Capacity, Refusal};
use crate::record::listeners::BadHeader;
use crate::snapshot::Limits;

/// Replaces `header_timeout` (and `stream_idle`) for a connection over a limit, if it is shorter. Such a connection
/// gets only an error.
pub(crate) const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// Bytes that a header may exceed its limits by and still become a request, whose 414 or 431 has CORS header fields.
const HEADER_MARGIN: usize = 32 * 1024;

/// Bytes of the first read of a header.
const HEADER_READ: usize = 4096;
/// Lingering close: after a 431 the rest of the request is read and discarded, for at most this time and this many
/// bytes. Closing a socket with unread bytes makes the kernel send a reset, and the client would lose the response.
const LINGERING_CLOSE_TIMEOUT: Duration = Duration::from_secs(2);
const LINGERING_CLOSE_BYTES: usize = 4 << 20;
/// Flow-control window of an HTTP/2 connection, in bytes of request bodies. One stream has 64 KiB of it, so a stream
/// with a slow upstream does not block the others.
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// Buffered response bytes per HTTP/2 stream.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// Streams that a client may make us reset for protocol errors, per HTTP/2 connection. More close the connection.
const MAX_H2_STREAM_ERRORS: usize = 128;
/// Time for an HTTP/2 client to close the connection after GOAWAY and the end of its last stream.
const H2_DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// An accepted connection. `A` serves its requests.
pub(crate) struct ClientConnection<A> {
    app: Arc<ConnectionApp<A>>,
    stream: Stream,
    http2: bool,
    /// The header of the first request must be complete by then.
    first_header_deadline: Instant,
}

/// The application of one connection. For HTTP/2 Pingora calls it for each stream.
struct ConnectionApp<A> {
    /// Serves the requests of all connections.
    inner: Arc<A>,
    client: Arc<Client>,
    limits: ConnectionLimits,
    options: HttpServerOptions,
    h2_options: H2Options,
    /// HTTP/2 streams so far.
    streams_opened: AtomicU32,
    /// HTTP/2 streams whose request is being served.
    streams_active: AtomicUsize,
    /// HTTP/2: true makes Pingora send GOAWAY and close the connection after its last stream.
    close: watch::Sender<bool>,
}

/// Limits of a connection, from the snapshot that was live at the accept.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    keepalive: Duration,
    header_timeout: Duration,
    /// Bytes of an incomplete header.
    header_bytes: usize,
    stream_idle: Duration,
    requests: Option<u32>,
}

/// Why no header was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderError {
    /// The client closed the connection, or the process shuts down.
    Closed,
    /// No byte of the first request arrived in time.
    NoRequest,
    /// The header was not complete in time.
    Timeout,
    /// The header is larger than [`ConnectionLimits::header_bytes`].
    TooLarge,
}

// === impl ClientConnection ===

impl<A: HttpServerApp + Send + Sync + 'static> ClientConnection<A> {
    pub(crate) fn new(
        app: Arc<A>,
        stream: Stream,
        client: Arc<Client>,
        http2: bool,
        first_header_deadline: Instant,
        limits: &Limits,
    ) -> Self {
        let over_limit = client.capacity != Capacity::Available;
        let h2_streams = limits.streams;
        let limits = ConnectionLimits {
            keepalive: limits.keepalive,
            header_timeout: limits.header_timeout,
            header_bytes: limits.uri.saturating_add(limits.headers).saturating_add(HEADER_MARGIN),
            stream_idle: if over_limit { limits.stream_idle.min(OVER_LIMIT_TIMEOUT) } else { limits.stream_idle },
            requests: if over_limit { Some(1) } else { limits.requests_per_connection },
        };
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keepalive);
        let app = ConnectionApp {
            inner: app,
            client,
            limits,
            options,
            h2_options: h2_options(h2_streams, limits.header_bytes),
            streams_opened: AtomicU32::new(0),
            streams_active: AtomicUsize::new(0),
            close: watch::Sender::new(false),
        };
        ClientConnection { app: Arc::new(app), stream, http2, first_header_deadline }
    }

    /// Serves all requests. `closing` closes the connection while it waits for the next one.
    pub(crate) async fn serve(self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>) {
        if self.http2 {
            return self.serve_http2(shutdown).await;
        }
        let client = self.app.client.clone();
        let end_request = |expired| {
            client.progress.end_request(expired);
            true
        };
        Watchdog::new(Box::pin(self.serve_http1(shutdown, closing)), None, end_request).await;
    }

    async fn serve_http1(self, shutdown: &ShutdownWatch, mut closing: watch::Receiver<bool>) {
        let ClientConnection { app, mut stream, first_header_deadline, .. } = self;
        let progress = &app.client.progress;
        let mut settings: Option<HttpPersistentSettings> = None;
        let mut first = Some(first_header_deadline);
        loop {
            progress.open();
            let header = match app.read_header(&mut stream, first.take(), &mut closing).await {
                Ok(header) => header,
                Err(why) => return app.reject(&mut stream, why).await,
            };
            progress.on_complete_header();
            let mut session = ServerSession::new_http1(stream);
            match settings {
                Some(settings) => settings.apply_to_session(&mut session),
                // The first request. Pingora counts the reuses of a connection, one less than its requests.
                None => {
                    let reuses = app.limits.requests.map(|requests| requests.saturating_sub(1));
                    session.set_keepalive_reuses_remaining(reuses);
                }
            }
            session.set_pipelined_prefix(header);
            let reused = app.inner.process_new_http(session, shutdown).await;
            if progress.header_was_rejected() {
                // Pingora sent 400 or 405 itself, without calling a hook, and closes the connection.
                app.client.counts.bad_header(BadHeader::Malformed);
            }
            let Some(reused) = reused else { return };
            (stream, settings) = reused.consume();
        }
    }

    async fn serve_http2(self, shutdown: &ShutdownWatch) {
        let ClientConnection { app, stream, first_header_deadline, .. } = self;
        let (closing, mut shutdown) = (app.close.subscribe(), shutdown.clone());
        let stopping = async {
            // An error means that the sender is gone, which is no shutdown.
            if shutdown.wait_for(|stopping| *stopping).await.is_ok() {
                app.close.send_replace(true);
            }
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
    /// Waits for the next request and reads its header. The result may also have the beginning of the body.
    /// `first_deadline` is None for later requests.
    async fn read_header(
        &self,
        stream: &mut Stream,
        first_deadline: Option<Instant>,
        closing: &mut watch::Receiver<bool>,
    ) -> Result<BytesMut, HeaderError> {
        let left = |deadline: Instant| deadline.saturating_duration_since(Instant::now());
        watchdog::clear();
        // Later requests use the deadline of the watchdog, which resets one timer instead of making one per request.
        let first_bytes = async {
            match first_deadline {
                Some(deadline) => {
                    timeout(left(deadline), read_available(stream)).await.map_err(|_| HeaderError::NoRequest)
                }
                None => {
                    watchdog::set_deadline(Some(Instant::now() + self.limits.keepalive));
                    let bytes = read_available(stream).await;
                    watchdog::clear();
                    Ok(bytes)
                }
            }
        };
        let bytes = tokio::select! {
            biased;
            bytes = first_bytes => bytes?,
            _ = closing.wait_for(|closing| *closing) => return Err(HeaderError::Closed),
        };
        let mut bytes = match bytes {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => return Err(HeaderError::Closed),
        };
        let mut skipped = skip_empty_lines(&mut bytes);
        if is_complete_header(&bytes, 0) {
            return Ok(bytes);
        }
        bytes.reserve(HEADER_READ);
        let rest = async {
            loop {
                let seen = bytes.len();
                if seen + skipped > self.limits.header_bytes {
                    return Err(HeaderError::TooLarge);
                }
                match stream.read_buf(&mut bytes).await {
                    Ok(0) | Err(_) => return Err(HeaderError::Closed),
                    Ok(_) => {}
                }
                skipped += skip_empty_lines(&mut bytes);
                if is_complete_header(&bytes, seen.min(bytes.len())) {
                    return Ok(());
                }
            }
        };
        match timeout(first_deadline.map_or(self.limits.header_timeout, left), rest).await {
            Ok(rest) => rest.map(|()| bytes),
            Err(_) => Err(HeaderError::Timeout),
        }
    }

    /// Sends 408 or 431, if there is a client to read it, before the connection is closed.
    async fn reject(&self, stream: &mut Stream, why: HeaderError) {
        let kind = match why {
            HeaderError::Closed => return,
            // No response: browsers open connections in advance, and would take it for the response to a later request.
            HeaderError::NoRequest => {
                return log::debug!("connection closed client={} reason=\"no request in time\"", self.client.address());
            }
            HeaderError::Timeout => ReplyKind::RequestTimeout,
            HeaderError::TooLarge => ReplyKind::Refused(Refusal::HeadersTooLarge),
        };
        self.client.counts.bad_header(if why == HeaderError::Timeout { BadHeader::Late } else { BadHeader::TooLarge });
        log::debug!("request refused client={} status={}", self.client.address(), kind.status().as_u16());
        let response = http1_response(&LocalReply::new(kind));
        let send = async {
            stream.write_all(&response).await?;
            AsyncWriteExt::shutdown(&mut *stream).await?;
            let mut left = LINGERING_CLOSE_BYTES;
            while why == HeaderError::TooLarge && left > 0 {
                let read = read_available(stream).await?.len();
                left = if read == 0 { 0 } else { left.saturating_sub(read) };
            }
            io::Result::Ok(())
        };
        // The connection is closed anyway, whether the client received the response or not.
        let _ = timeout(LINGERING_CLOSE_TIMEOUT, send).await;
    }

    /// Ready when the connection has been closing for [`H2_DRAIN_TIMEOUT`] without an active stream: the client does
    /// not close it.
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
        // One stream cannot be asked to end: `Progress` is of the whole connection. Dropping the request resets the
        // stream.
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

/// A local reply in HTTP/1.1 syntax, for a connection without a session.
fn http1_response(reply: &LocalReply) -> Vec<u8> {
    let mut response = format!("HTTP/1.1 {}\r\n", reply.status).into_bytes();
    for (name, value) in reply.fields() {
        response.extend([name.as_bytes(), b": ", value.as_bytes(), b"\r\n"].concat());
    }
    response.extend([b"Connection: close\r\n\r\n", reply.text.as_bytes()].concat());
    response
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

/// Reads up to [`HEADER_READ`] bytes as soon as there are any; empty at the end of the connection. Allocates only then,
/// so a waiting connection has no buffer.
async fn read_available(stream: &mut Stream) -> io::Result<BytesMut> {
    poll_fn(|cx| {
        let mut space = [const { MaybeUninit::uninit() }; HEADER_READ];
        let mut buf = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(BytesMut::from(buf.filled())))
    })
    .await
}

/// Drops the empty lines in front of a request line, which a server should ignore (RFC 9112 section 2.2). Returns how many
/// bytes it dropped. They are dropped as they arrive: a client that drips line feeds costs no second look at them.
fn skip_empty_lines(bytes: &mut BytesMut) -> usize {
    let mut skipped = 0;
    loop {
        match &bytes[skipped..] {
            [b'\n', ..] => skipped += 1,
            [b'\r', b'\n', ..] => skipped += 2,
            _ => break,
        }
    }
    bytes.advance(skipped);
    skipped
}

/// Whether a header ends in `bytes`: an empty line behind at least one other. Its first `seen` bytes have no such end.
fn is_complete_header(bytes: &[u8], seen: usize) -> bool {
    // Most headers come alone and at once.
    if bytes.len() > 4 && bytes.ends_with(b"\r\n\r\n") {
        return true;
    }
    // Servers may take a line feed alone for the end of a line (RFC 9112 section 2.2), and Pingora does.
    let mut rest = &bytes[seen.saturating_sub(2)..];
    while let Some(end) = rest.iter().position(|byte| *byte == b'\n') {
        rest = &rest[end + 1..];
        if rest.starts_with(b"\n") || rest.starts_with(b"\r\n") {
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds a header in pieces, as `read_header` does. Returns the end at which it was complete.
    fn complete_at(bytes: &[u8], piece: usize) -> Option<usize> {
        let (mut buffer, mut fed) = (BytesMut::new(), 0);
        while fed < bytes.len() {
            let seen = buffer.len();
            let next = bytes.len().min(fed + piece);
            buffer.extend_from_slice(&bytes[fed..next]);
            fed = next;
            skip_empty_lines(&mut buffer);
            if is_complete_header(&buffer, seen.min(buffer.len())) {
                return Some(fed);
            }
        }
        None
    }

    #[test]
    fn a_header_ends_with_an_empty_line_however_it_is_cut() {
        for (header, end) in [
            (&b"GET / HTTP/1.1\r\n\r\n"[..], 18),
            (b"GET / HTTP/1.1\r\nHost: a\r\n\r\nbody", 27),
            (b"GET / HTTP/1.1\nHost: a\n\n", 24),
            (b"GET / HTTP/1.1\nHost: a\r\n\n", 25),
            (b"GET / HTTP/1.1\nHost: a\n\r\nbody", 25),
            (b"\r\n\n\r\nGET / HTTP/1.1\r\n\r\n", 23),
            (b"\xff\0\n\n", 4),
        ] {
            assert_eq!(complete_at(header, 1), Some(end), "{}", header.escape_ascii());
            for piece in 2..=header.len() {
                let complete = complete_at(header, piece).unwrap();
                assert!(complete >= end && complete < end + piece, "{} by {piece}", header.escape_ascii());
            }
        }
        for part in [&b""[..], b"\r\n", b"\n\n\r\n\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n", b"G\r\r\n\r"] {
            for piece in 1..=part.len() {
                assert_eq!(complete_at(part, piece), None, "{} by {piece}", part.escape_ascii());
            }
        }
    }

    #[test]
    fn empty_lines_in_front_of_a_request_are_dropped_as_they_arrive() {
        let mut buffer = BytesMut::new();
        for _ in 0..1000 {
            buffer.extend_from_slice(b"\n");
            assert_eq!((skip_empty_lines(&mut buffer), buffer.len()), (1, 0));
        }
        buffer.extend_from_slice(b"\r");
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (0, &b"\r"[..]), "may become an empty line");
        buffer.extend_from_slice(b"\nGET");
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (2, &b"GET"[..]));
        // A carriage return alone is no empty line: the parser refuses it.
        let mut buffer = BytesMut::from(&b"\rGET"[..]);
        assert_eq!((skip_empty_lines(&mut buffer), &buffer[..]), (0, &b"\rGET"[..]));
    }
}
