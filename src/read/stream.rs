//! The client's connection as Pingora reads and writes it.
//!
//! Bytes pass unchanged. What is added are two ends of waiting: a write fails if the client receives nothing for
//! `limits.send_timeout`, and reads fail after the watchdog asked the request to end. A write that the socket accepts
//! at once sets no timer and reads no clock.

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

/// State of an HTTP/1 connection, set by [`super::connection`], the first hook and the watchdog. An HTTP/2 connection
/// stays [`Stage::Open`].
#[derive(Debug)]
pub(super) struct Progress(AtomicU8);

/// The values of [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Reads pass.
    Open,
    /// Pingora has a complete header and has not parsed it yet. It must not read more.
    Header,
    /// The request must end, because its deadline passed.
    DeadlineExpired,
    /// The request must end, because of its idle timeout.
    IdleExpired,
}

/// A connection, plain or TLS.
pub(crate) struct ClientStream<S> {
    stream: S,
    client: Arc<Client>,
    digest: Arc<ProxyDigest>,
    /// Longest time for which a write may wait.
    send_timeout: Duration,
    /// Set while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// Written bytes may be in a buffer.
    unflushed: bool,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new() -> Self {
        Progress(AtomicU8::new(Stage::Open as u8))
    }

    /// A complete header is handed to Pingora.
    pub(crate) fn on_complete_header(&self) {
        self.set(Stage::Header);
    }

    /// Reads pass: of a request body, or of the next header.
    pub(crate) fn open(&self) {
        self.set(Stage::Open);
    }

    /// Whether Pingora rejected the header: no hook was called for it.
    pub(crate) fn header_was_rejected(&self) -> bool {
        self.stage() == Stage::Header
    }

    /// The request must end.
    pub(crate) fn end_request(&self, expired: Expired) {
        self.set(match expired {
            Expired::Deadline => Stage::DeadlineExpired,
            Expired::Idle => Stage::IdleExpired,
        });
    }

    /// The timeout because of which the request must end.
    pub(crate) fn expired_timeout(&self) -> Option<Expired> {
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

    /// Result of a write or flush: keeps the timer while the client receives nothing, and fails when it expires.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            if self.timer.is_some() {
                self.timer = None;
            }
            return sent;
        }
        let timeout = self.send_timeout;
        let timer = self.timer.get_or_insert_with(|| Box::pin(sleep(timeout)));
        if timer.as_mut().poll(cx).is_pending() && self.client.progress.expired_timeout().is_none() {
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
                // Pingora flushes a response with Content-Length only at its end. A read means that Pingora waits,
                // maybe for a slow upstream, so the bytes written so far are sent now.
                if this.unflushed {
                    this.unflushed = matches!(Pin::new(&mut this.stream).poll_flush(cx), Poll::Pending);
                }
                Pin::new(&mut this.stream).poll_read(cx, buf)
            }
            // A parser that takes the header for incomplete would wait for more bytes without a timeout.
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
        // Through `poll_shutdown` above, which has the send timeout.
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
    /// Empty: the times are not used, and Pingora asks for them for each request.
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

/// There is no such proxy. The user data of this digest is the only place of a Pingora session for a value of our own,
/// and every hook can read it: it has the [`Client`].
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
