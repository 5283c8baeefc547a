//! A client's connection, as Pingora reads and writes it.
//!
//! Nothing is added to what passes but an end to waiting: a client that takes nothing of what it is sent is closed
//! after `send_timeout`, and a request that has to end finds nothing more to read. What the socket takes at once costs
//! neither a timer nor a look at the clock.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, IO, Peek, Shutdown, SocketDigest, Ssl, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Sleep, sleep};

use super::Client;
use super::watchdog::Expired;

/// Where a connection stands. It is told by whoever knows: who reads requests, the hooks, the guard.
#[derive(Debug)]
pub(super) struct Progress(AtomicU8);

/// The values of [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// No request is served, or one is, or several with HTTP/2: everything passes.
    Open,
    /// Pingora has been given a whole header, and need not read before it has understood that.
    Header,
    /// A request has to end: its deadline has passed.
    DeadlineExpired,
    /// A request has to end: nothing moved any more.
    IdleExpired,
}

/// The connection.
pub(crate) struct ClientStream<S> {
    stream: S,
    client: Arc<Client>,
    digest: Arc<ProxyDigest>,
    /// How long the client may take nothing of what is sent.
    send_timeout: Duration,
    /// Runs while it takes nothing.
    timer: Option<Pin<Box<Sleep>>>,
    /// Something was written and may be in a buffer.
    unflushed: bool,
}

// === impl Progress ===

impl Progress {
    /// A connection that was just accepted.
    pub(crate) fn new() -> Self {
        Progress(AtomicU8::new(Stage::Open as u8))
    }

    /// The header of a request is there to its end, and is handed over as a whole.
    pub(crate) fn header_came(&self) {
        self.set(Stage::Header);
    }

    /// Everything passes: a request is served, or the header of the next one is read.
    pub(crate) fn open(&self) {
        self.set(Stage::Open);
    }

    /// Whether nobody has understood the header that came.
    pub(crate) fn was_left_at_header(&self) -> bool {
        self.stage() == Stage::Header
    }

    /// The request that is served has to end.
    pub(crate) fn end(&self, expired: Expired) {
        self.set(match expired {
            Expired::Deadline => Stage::DeadlineExpired,
            Expired::Idle => Stage::IdleExpired,
        });
    }

    /// Why the request that is served has to end, if it has to.
    pub(crate) fn expired(&self) -> Option<Expired> {
        match self.stage() {
            Stage::DeadlineExpired => Some(Expired::Deadline),
            Stage::IdleExpired => Some(Expired::Idle),
            Stage::Open | Stage::Header => None,
        }
    }

    fn stage(&self) -> Stage {
        const STAGES: [Stage; 4] = [Stage::Open, Stage::Header, Stage::DeadlineExpired, Stage::IdleExpired];
        STAGES[usize::from(self.0.load(Ordering::Relaxed)) % STAGES.len()]
    }

    fn set(&self, stage: Stage) {
        self.0.store(stage as u8, Ordering::Relaxed);
    }
}

// === impl ClientStream ===

impl<S: AsyncRead + AsyncWrite + Unpin> ClientStream<S> {
    pub(crate) fn new(stream: S, client: Arc<Client>, digest: Arc<ProxyDigest>, send_timeout: Duration) -> Self {
        ClientStream { stream, client, digest, send_timeout, timer: None, unflushed: false }
    }

    /// What came of sending: whether the client takes something.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            if self.timer.is_some() {
                self.timer = None;
            }
            return sent;
        }
        let timeout = self.send_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if timer.as_mut().poll(cx).is_pending() && self.client.progress.expired().is_none() {
            return Poll::Pending;
        }
        log::debug!("connection closed client={} reason=\"response not read in time\"", self.client.address());
        Poll::Ready(Err(ErrorKind::TimedOut.into()))
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for ClientStream<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.client.progress.stage() {
            Stage::Open => {
                // Pingora flushes a response with a length only at its end. Reading means that it waits, maybe for an
                // upstream that is slow: what there is so far goes out.
                if this.unflushed {
                    this.unflushed = matches!(Pin::new(&mut this.stream).poll_flush(cx), Poll::Pending);
                }
                Pin::new(&mut this.stream).poll_read(cx, buf)
            }
            // Whoever takes this header for an unfinished one would wait without an end.
            Stage::Header => Poll::Ready(Err(ErrorKind::InvalidData.into())),
            Stage::DeadlineExpired | Stage::IdleExpired => Poll::Ready(Err(ErrorKind::TimedOut.into())),
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for ClientStream<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.unflushed = true;
        this.sent(sent, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_write_vectored(cx, bufs);
        this.unflushed = true;
        this.sent(sent, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_flush(cx);
        this.unflushed &= sent.is_pending();
        this.sent(sent, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let sent = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.sent(sent, cx)
    }
}

#[async_trait]
impl<S: IO> Shutdown for ClientStream<S> {
    async fn shutdown(&mut self) {
        // Through the methods above, so that it has an end.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

#[async_trait]
impl<S: IO> Peek for ClientStream<S> {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.stream.try_peek(buf).await
    }
}

impl<S: IO> UniqueID for ClientStream<S> {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl<S: IO> Ssl for ClientStream<S> {
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

impl<S: IO> GetTimingDigest for ClientStream<S> {
    /// When it was made nobody asks, and Pingora would for each request.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
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
impl<S: IO> GetProxyDigest for ClientStream<S> {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl<S: IO> GetSocketDigest for ClientStream<S> {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, socket_digest: SocketDigest) {
        self.stream.set_socket_digest(socket_digest);
    }
}

impl<S> fmt::Debug for ClientStream<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("client", &self.client).finish_non_exhaustive()
    }
}
