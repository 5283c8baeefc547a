//! The requests of one connection: how they are read, and who watches over them.
//!
//! | while | what ends it | how |
//! |---|---|---|
//! | the first request is awaited, and its header comes in | `header_timeout` since the connection was accepted | 408, or nothing if nothing came |
//! | a later request is awaited | `keepalive` | closed |
//! | its header comes in | `header_timeout` since its first byte | 408 |
//! | a header comes in | more bytes than any header may have | 431 |
//!
//! With HTTP/1 this reads the header, and gives it to Pingora when it is whole. A connection that waits for one is little
//! more than its socket then, for as long as it waits; and a header that comes byte by byte is not parsed at each byte.
//! HTTP/2 is read by Pingora alone; a connection without any request in the time for the first header is closed.

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

/// How long a client may take for its request when it can only be told that there is no room.
pub(crate) const OVER_LIMIT_TIMEOUT: Duration = Duration::from_secs(1);
/// What a header may have on top of its limits, so that those who are a little over get a proper answer.
const HEADER_MARGIN: usize = 32 * 1024;

/// What is read of a header at once, unless it is longer.
const HEADER_READ: usize = 4096;
/// How long, and for how many bytes, the rest of a header that is too large is read and thrown away. A connection that
/// is closed with something unread takes the answer with it.
const LAST_WORDS: Duration = Duration::from_secs(2);
const LAST_BYTES: usize = 4 << 20;
/// What all bodies of an HTTP/2 connection may have under way to us. A stream has 64 KiB of it, so that one whose
/// upstream takes nothing does not hold up the others.
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// What we keep of a response that an HTTP/2 client has promised to take, and does not take.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// How often a client of HTTP/2 may break the protocol of its streams.
const H2_STREAM_ERRORS: usize = 128;
/// How long a client of HTTP/2 has to close a connection that was ended, once all its streams are done with.
const H2_FAREWELL: Duration = Duration::from_secs(5);

/// A connection from which requests can be read.
pub(crate) struct Requests<A> {
    app: Arc<App<A>>,
    stream: Stream,
    http2: bool,
    /// Until when the header of the first one must be there.
    first_header: Instant,
}

/// The connection, as Pingora asks about it, and what it is limits_held to.
struct App<A> {
    app: Arc<A>,
    client: Arc<Client>,
    limits: ConnectionLimits,
    /// For the requests that may come.
    requests: Option<u32>,
    options: HttpServerOptions,
    h2_options: H2Options,
    streams: AtomicU32,
    active: AtomicUsize,
    /// Ends the connection once its streams are done with (HTTP/2).
    close: watch::Sender<bool>,
}

/// What a connection is limits_held to, as it was when it began.
#[derive(Debug, Clone, Copy)]
struct ConnectionLimits {
    keepalive: Duration,
    header_timeout: Duration,
    /// Bytes of a header that is not whole yet.
    header_bytes: usize,
    stream_idle: Duration,
}

/// Why there is no header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum HeaderError {
    /// The client, or the process, wants no more of them.
    Closed,
    /// It was awaited long enough.
    NoRequest,
    /// It did not end in time.
    Timeout,
    /// It is too large.
    TooLarge,
}

impl<A: HttpServerApp + Send + Sync + 'static> Requests<A> {
    pub(crate) fn new(
        app: Arc<A>,
        stream: Stream,
        client: Arc<Client>,
        http2: bool,
        first_header: Instant,
        limits: &Limits,
    ) -> Self {
        let requests = match client.capacity {
            Capacity::Available => limits.requests_per_connection,
            Capacity::ConnectionLimit | Capacity::ClientLimit => Some(1),
        };
        let limits_held = ConnectionLimits {
            keepalive: limits.keepalive,
            header_timeout: limits.header_timeout,
            header_bytes: limits.uri.saturating_add(limits.headers).saturating_add(HEADER_MARGIN),
            stream_idle: match client.capacity {
                Capacity::Available => limits.stream_idle,
                Capacity::ConnectionLimit | Capacity::ClientLimit => limits.stream_idle.min(OVER_LIMIT_TIMEOUT),
            },
        };
        let mut options = HttpServerOptions::default();
        options.h2_idle_timeout = Some(limits.keepalive);
        let app = App {
            app,
            client,
            limits: limits_held,
            requests,
            options,
            h2_options: h2_options(limits.streams, limits_held.header_bytes),
            streams: AtomicU32::new(0),
            active: AtomicUsize::new(0),
            close: watch::Sender::new(false),
        };
        Requests { app: Arc::new(app), stream, http2, first_header }
    }

    /// Serves all of them. `closing` ends a connection that waits for the next one.
    pub(crate) async fn serve(self, shutdown: &ShutdownWatch, closing: watch::Receiver<bool>) {
        if self.http2 {
            return self.serve_http2(shutdown).await;
        }
        let client = self.app.client.clone();
        let ask = |expired| {
            client.progress.end(expired);
            true
        };
        Watchdog::new(Box::pin(self.serve_http1(shutdown, closing)), None, ask).await;
    }

    async fn serve_http1(self, shutdown: &ShutdownWatch, mut closing: watch::Receiver<bool>) {
        let Requests { app, mut stream, first_header, .. } = self;
        let progress = &app.client.progress;
        let mut settings: Option<HttpPersistentSettings> = None;
        let mut first = Some(first_header);
        loop {
            progress.open();
            let header = match app.read_header(&mut stream, first.take(), &mut closing).await {
                Ok(header) => header,
                Err(why) => return app.reject(&mut stream, why).await,
            };
            progress.header_came();
            let mut session = ServerSession::new_http1(stream);
            match settings {
                Some(settings) => settings.apply_to_session(&mut session),
                // Pingora counts how often a connection is used again.
                None => session.set_keepalive_reuses_remaining(app.requests.map(|requests| requests.saturating_sub(1))),
            }
            session.set_pipelined_prefix(header);
            let reused = app.app.process_new_http(session, shutdown).await;
            if progress.was_left_at_header() {
                // The hooks never heard of it: Pingora has refused it, and closes the connection.
                app.client.counts.bad_header(BadHeader::Malformed);
            }
            let Some(reused) = reused else { return };
            (stream, settings) = reused.consume();
        }
    }

    async fn serve_http2(self, shutdown: &ShutdownWatch) {
        let Requests { app, stream, first_header, .. } = self;
        let (closing, mut shutdown) = (app.close.subscribe(), shutdown.clone());
        let stopping = async {
            // A sender that is gone says nothing any more.
            if shutdown.wait_for(|stopping| *stopping).await.is_ok() {
                app.close.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        let without_any = async {
            sleep_until(first_header).await;
            if app.streams.load(Ordering::Relaxed) > 0 {
                std::future::pending::<()>().await;
            }
            log::debug!("connection closed client={} reason=\"no request in time\"", app.client.address());
        };
        tokio::select! {
            _ = app.process_new(stream, &closing) => {}
            () = stopping => {}
            () = app.drain_h2() => {}
            () = without_any => {}
        }
    }
}

impl<A: HttpServerApp + Send + Sync + 'static> App<A> {
    /// Waits for the header of the next request, and reads it to its end. What comes with it of a body is in there too.
    /// `first` is until when that of the first request must be there.
    async fn read_header(
        &self,
        stream: &mut Stream,
        first: Option<Instant>,
        closing: &mut watch::Receiver<bool>,
    ) -> Result<BytesMut, HeaderError> {
        let left = |first: Instant| first.saturating_duration_since(Instant::now());
        watchdog::clear();
        // There is a timer for a first request, of which a connection has one. For the others the guard has one that it
        // sets anew without taking it out and putting it in.
        let begin = async {
            match first {
                Some(first) => timeout(left(first), read_some(stream)).await.map_err(|_| HeaderError::NoRequest),
                None => {
                    watchdog::set_deadline(Some(Instant::now() + self.limits.keepalive));
                    let bytes = read_some(stream).await;
                    watchdog::clear();
                    Ok(bytes)
                }
            }
        };
        let bytes = tokio::select! {
            biased;
            bytes = begin => bytes?,
            _ = closing.wait_for(|closing| *closing) => return Err(HeaderError::Closed),
        };
        let mut bytes = match bytes {
            Ok(bytes) if !bytes.is_empty() => bytes,
            _ => return Err(HeaderError::Closed),
        };
        let mut skipped = skip_empty_lines(&mut bytes);
        if is_whole(&bytes, 0) {
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
                if is_whole(&bytes, seen.min(bytes.len())) {
                    return Ok(());
                }
            }
        };
        match timeout(first.map_or(self.limits.header_timeout, left), rest).await {
            Ok(rest) => rest.map(|()| bytes),
            Err(_) => Err(HeaderError::Timeout),
        }
    }

    /// The last words to a client from which there is no header, if it can be told.
    async fn reject(&self, stream: &mut Stream, why: HeaderError) {
        let kind = match why {
            HeaderError::Closed => return,
            // A browser may have opened the connection for later, and an answer to nothing would be taken for one to
            // what comes then.
            HeaderError::NoRequest => {
                return log::debug!("connection closed client={} reason=\"no request in time\"", self.client.address());
            }
            HeaderError::Timeout => ReplyKind::RequestTimeout,
            HeaderError::TooLarge => ReplyKind::Refused(Refusal::HeadersTooLarge),
        };
        self.client.counts.bad_header(if why == HeaderError::Timeout { BadHeader::Late } else { BadHeader::TooLarge });
        log::debug!("request refused client={} status={}", self.client.address(), kind.status().as_u16());
        let response = http1_response(&LocalReply::new(kind));
        let tell = async {
            stream.write_all(&response).await?;
            AsyncWriteExt::shutdown(&mut *stream).await?;
            let mut left = LAST_BYTES;
            while why == HeaderError::TooLarge && left > 0 {
                let read = read_some(stream).await?.len();
                left = if read == 0 { 0 } else { left.saturating_sub(read) };
            }
            io::Result::Ok(())
        };
        // Whoever does not listen has missed it.
        let _ = timeout(LAST_WORDS, tell).await;
    }

    /// Ready when the connection was to end, and only the client does not end it.
    async fn drain_h2(&self) {
        const STEPS: u32 = 5;
        let mut quiet = 0;
        // The sender is right here.
        let _ = self.close.subscribe().wait_for(|closing| *closing).await;
        while quiet < STEPS {
            sleep(H2_FAREWELL / STEPS).await;
            quiet = if self.active.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
        }
    }
}

/// For HTTP/2 only. Written out, for the macro of this trait would put each request into a box more.
impl<A: HttpServerApp + Send + Sync + 'static> HttpServerApp for App<A> {
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
        let number = self.streams.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.requests.is_some_and(|requests| number >= requests) {
            self.close.send_replace(true);
        }
        let active = ActiveStream::new(self.clone());
        let request = self.app.process_new_http(session, shutdown);
        // There is no asking: a stream that is dropped is reset, which says enough.
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

/// A stream that is being served.
struct ActiveStream<A>(Arc<App<A>>);

impl<A> ActiveStream<A> {
    fn new(app: Arc<App<A>>) -> Self {
        app.active.fetch_add(1, Ordering::Relaxed);
        ActiveStream(app)
    }
}

impl<A> Drop for ActiveStream<A> {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A reply as HTTP/1.1 sends it, before a connection is closed.
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
        .max_local_error_reset_streams(Some(H2_STREAM_ERRORS));
    options
}

/// Reads what is there, or waits for it; nothing at the end. There is no buffer before there is something to put into it.
async fn read_some(stream: &mut Stream) -> io::Result<BytesMut> {
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
fn is_whole(bytes: &[u8], seen: usize) -> bool {
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
            if is_whole(&buffer, seen.min(buffer.len())) {
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
