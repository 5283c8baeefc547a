//! A client's connection, as Pingora reads and writes it: with an end to what a client may take its time for.
//!
//! | while | what ends it | how |
//! |---|---|---|
//! | the first header is awaited or comes in | `header_timeout` since the connection was accepted | 408, or nothing if nothing came |
//! | a later header comes in (HTTP/1) | `header_timeout` since its first byte | 408 |
//! | a header comes in (HTTP/1) | more bytes than any header may have | 431 |
//! | something is to be sent | the client takes nothing of it for `send_timeout` | closed |
//!
//! Between requests the connection idles; for how long is Pingora's to say. A header that arrives in one read, and a
//! response that the socket takes at once, cost neither a timer nor a look at the clock.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until};

use super::Client;
use super::guard::Overdue;

/// How long, and for how many bytes, the rest of a header that is too large is read and thrown away. A connection that
/// is closed with something unread takes the answer with it.
const LINGER: Duration = Duration::from_secs(2);
const LINGER_BYTES: usize = 4 << 20;

const TOO_SLOW: (&str, &str) = ("408 Request Timeout", "The request took too long to arrive.\n");
const TOO_LARGE: (&str, &str) = ("431 Request Header Fields Too Large", "The request header is too large.\n");

/// What a connection is held to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Until when the first request header must be complete.
    pub first_header: Instant,
    /// For each later header, from its first byte on.
    pub header_timeout: Duration,
    /// Bytes of a header that is not complete yet.
    pub header_bytes: usize,
    /// How long the client may take nothing of what is sent.
    pub send_timeout: Duration,
    /// Whether it speaks HTTP/2.
    pub http2: bool,
}

/// Where a connection stands between its requests. It is told by whoever knows: the reader, the hooks, the guard.
#[derive(Debug)]
pub(super) struct Progress(AtomicU8);

/// The values of [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// There was no request yet.
    First,
    /// Between requests.
    Idle,
    /// Some bytes of a later header are there.
    Header,
    /// A request is served. With HTTP/2 this stays so.
    Request,
    /// A request has to end: its deadline has passed.
    Late,
    /// A request has to end: nothing moved any more.
    Still,
}

/// The connection.
pub(super) struct Connection<S> {
    stream: S,
    terms: Terms,
    client: Arc<Client>,
    digest: Arc<ProxyDigest>,
    /// Of the header that comes in.
    header_bytes: usize,
    header_timer: Option<Pin<Box<Sleep>>>,
    send_timer: Option<Pin<Box<Sleep>>>,
    refusal: Option<Box<Refusal>>,
}

/// The last words to a client whose header cannot be waited for.
#[derive(Debug)]
struct Refusal {
    answer: Vec<u8>,
    written: usize,
    step: Step,
    /// Whether the client goes on sending, so that what it sends must be taken.
    linger: bool,
    discarded: usize,
    timer: Pin<Box<Sleep>>,
}

#[derive(Debug, Clone, Copy)]
enum Step {
    Write,
    Flush,
    Close,
    Discard,
}

// === impl Progress ===

impl Progress {
    /// A connection that was just accepted.
    pub fn new() -> Self {
        Progress(AtomicU8::new(Stage::First as u8))
    }

    /// The header of a request is complete.
    pub fn request_begins(&self) {
        self.set(Stage::Request);
    }

    /// A request is done with, if there was one: the next byte begins a header.
    pub fn request_ends(&self) {
        if self.stage() != Stage::First {
            self.set(Stage::Idle);
        }
    }

    /// The request that is served has to end.
    pub fn end(&self, overdue: Overdue) {
        self.set(match overdue {
            Overdue::Deadline => Stage::Late,
            Overdue::Idle => Stage::Still,
        });
    }

    /// Why the request that is served has to end, if it has to.
    pub fn overdue(&self) -> Option<Overdue> {
        match self.stage() {
            Stage::Late => Some(Overdue::Deadline),
            Stage::Still => Some(Overdue::Idle),
            _ => None,
        }
    }

    fn stage(&self) -> Stage {
        const STAGES: [Stage; 6] =
            [Stage::First, Stage::Idle, Stage::Header, Stage::Request, Stage::Late, Stage::Still];
        STAGES[usize::from(self.0.load(Ordering::Relaxed)) % STAGES.len()]
    }

    fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }
}

// === impl Connection ===

impl<S: AsyncRead + AsyncWrite + Unpin> Connection<S> {
    pub fn new(stream: S, client: Arc<Client>, digest: Arc<ProxyDigest>, terms: Terms) -> Self {
        Connection {
            stream,
            terms,
            client,
            digest,
            header_bytes: 0,
            header_timer: None,
            send_timer: None,
            refusal: None,
        }
    }

    /// Reads while no request is served.
    fn poll_header(&mut self, stage: Stage, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.refusal.is_some() {
            return self.poll_refuse(cx);
        }
        if stage == Stage::Idle {
            (self.header_bytes, self.header_timer) = (0, None);
        } else if self.header_bytes > self.terms.header_bytes && !self.terms.http2 {
            // Only asking for more says that the header was not complete: what is too much may be a body.
            self.refusal = Some(Box::new(Refusal::new(TOO_LARGE, true)));
            return self.poll_refuse(cx);
        }
        let before = buf.filled().len();
        if let Poll::Ready(result) = Pin::new(&mut self.stream).poll_read(cx, buf) {
            let read = buf.filled().len() - before;
            self.header_bytes += read;
            if read > 0 && stage == Stage::Idle {
                self.client.progress.set(Stage::Header);
            }
            return Poll::Ready(result);
        }
        if stage == Stage::Idle {
            return Poll::Pending;
        }
        let (first_header, header_timeout) = (self.terms.first_header, self.terms.header_timeout);
        let timer = self.header_timer.get_or_insert_with(|| {
            // The first byte came just now, in the read before this one.
            Box::pin(sleep_until(if stage == Stage::First { first_header } else { Instant::now() + header_timeout }))
        });
        ready!(timer.as_mut().poll(cx));
        // A browser may have opened it for later, and an answer to nothing would be taken for one to what comes then.
        if self.header_bytes == 0 || self.terms.http2 {
            log::debug!("closed for sending no request in time client={}", self.client.address());
            return Poll::Ready(Err(ErrorKind::TimedOut.into()));
        }
        self.refusal = Some(Box::new(Refusal::new(TOO_SLOW, false)));
        self.poll_refuse(cx)
    }

    /// Says why, and ends the connection with an error.
    fn poll_refuse(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Some(refusal) = &mut self.refusal else { return Poll::Ready(Ok(())) };
        if refusal.poll(&mut self.stream, cx).is_pending() && refusal.timer.as_mut().poll(cx).is_pending() {
            return Poll::Pending;
        }
        let line = refusal.answer.split(|b| *b == b'\r').next().unwrap_or_default();
        log::debug!("refused answer=\"{}\" client={}", line.escape_ascii(), self.client.address());
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }

    /// What was sent: the client takes something.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            if self.send_timer.is_some() {
                self.send_timer = None;
            }
            return sent;
        }
        let timeout = self.terms.send_timeout;
        let timer = self.send_timer.get_or_insert_with(|| Box::pin(sleep_until(Instant::now() + timeout)));
        if timer.as_mut().poll(cx).is_pending() && self.client.progress.overdue().is_none() {
            return Poll::Pending;
        }
        log::debug!("closed for taking nothing of a response client={}", self.client.address());
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Connection<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.client.progress.stage() {
            Stage::Request => {
                if this.header_timer.is_some() {
                    this.header_timer = None;
                }
                Pin::new(&mut this.stream).poll_read(cx, buf)
            }
            Stage::Late | Stage::Still => Poll::Ready(Err(ErrorKind::TimedOut.into())),
            stage => this.poll_header(stage, cx, buf),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Connection<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.sent(sent, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.sent(sent, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_flush(cx);
        this.sent(sent, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.sent(sent, cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for Connection<S> {
    async fn shutdown(&mut self) {
        // Through the methods above, so that it has an end.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl<S: IO> Peek for Connection<S> {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buf).await
    }
}

impl<S: IO> UniqueID for Connection<S> {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl<S: IO> Ssl for Connection<S> {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.stream.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream.selected_alpn_proto()
    }
}

impl<S: IO> GetTimingDigest for Connection<S> {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream.get_write_pending_time()
    }
}

/// There is no proxy of that kind in front of us. It is the one place in Pingora's digests where something of our own
/// can be kept, and where every hook finds it.
impl<S: IO> GetProxyDigest for Connection<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl<S: IO> GetSocketDigest for Connection<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, socket_digest: SocketDigest) {
        self.stream.set_socket_digest(socket_digest);
    }
}

impl<S> fmt::Debug for Connection<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connection").field("client", &self.client).finish_non_exhaustive()
    }
}

// === impl Refusal ===

impl Refusal {
    fn new((status, text): (&str, &str), linger: bool) -> Self {
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: text/plain; charset=utf-8\r\nCache-Control: no-store\r\n\
             Content-Length: {}\r\nConnection: close\r\n\r\n{text}",
            text.len()
        );
        let timer = Box::pin(sleep_until(Instant::now() + LINGER));
        Refusal { answer: answer.into_bytes(), written: 0, step: Step::Write, linger, discarded: 0, timer }
    }

    /// Ready when everything is said, or when it cannot be said any more.
    fn poll(&mut self, stream: &mut (impl AsyncRead + AsyncWrite + Unpin), cx: &mut Context<'_>) -> Poll<()> {
        loop {
            self.step = match self.step {
                Step::Write => match ready!(Pin::new(&mut *stream).poll_write(cx, &self.answer[self.written..])) {
                    Ok(0) | Err(_) => return Poll::Ready(()),
                    Ok(written) => {
                        self.written += written;
                        if self.written < self.answer.len() { Step::Write } else { Step::Flush }
                    }
                },
                Step::Flush => match ready!(Pin::new(&mut *stream).poll_flush(cx)) {
                    Ok(()) if self.linger => Step::Close,
                    _ => return Poll::Ready(()),
                },
                Step::Close => match ready!(Pin::new(&mut *stream).poll_shutdown(cx)) {
                    Ok(()) => Step::Discard,
                    Err(_) => return Poll::Ready(()),
                },
                Step::Discard => {
                    let mut bytes = [0; 4096];
                    let mut buf = ReadBuf::new(&mut bytes);
                    let read = ready!(Pin::new(&mut *stream).poll_read(cx, &mut buf)).map(|()| buf.filled().len());
                    self.discarded += read.as_ref().map_or(0, |read| *read);
                    if !matches!(read, Ok(1..)) || self.discarded > LINGER_BYTES {
                        return Poll::Ready(());
                    }
                    Step::Discard
                }
            }
        }
    }
}
