//! The client's connection as Pingora reads and writes it.
//!
//! Pingora gets the bytes of one request, unchanged. Bytes of later requests, which a client may send early
//! (pipelining), are kept until then. A chunked body is checked ([`super::chunks`]).
//!
//! Two timeouts are added: a write fails if the client receives nothing for `limits.send_timeout`, and reads fail after
//! the watchdog asked the request to end. A write that the socket accepts at once sets no timer and reads no clock.
//!
//! A client may close its sending side after its last request. Pingora would handle this as a closed connection. So
//! Pingora sees the end of the stream [`HALF_CLOSE_TIME`] later, and the client still gets a quick response. Pingora sees
//! a reset at once.

use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::{Buf, Bytes, BytesMut};
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep};

use super::Client;
use super::check::{Checked, Invalid, check};
use super::chunks::Chunks;
use super::header::poll_available;
use super::watchdog::Expired;
use crate::decide::Framing;
use crate::decide::local_reply::{LocalReply, ReplyKind};

const UNKNOWN: u8 = u8::MAX;

/// Time for which a request continues after its client has closed the sending side. Each write to the client restarts
/// this time.
const HALF_CLOSE_TIME: Duration = Duration::from_secs(5);

/// Maximum number of written bytes that are collected before they are encrypted. Pingora writes the header and the body of a response
/// separately; a small response becomes one TLS record instead of two.
const TLS_WRITE_BUFFER: usize = 1460;

/// State of an HTTP/1 connection, set by [`super::connection`], the hooks and the watchdog. An HTTP/2 connection stays
/// [`Stage::Open`].
#[derive(Debug)]
pub(super) struct Progress {
    stage: AtomicU8,
    /// The [`Framing`] of the request, or [`UNKNOWN`] if its fields were not read.
    framing: AtomicU8,
}

/// The values of [`Progress`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
enum Stage {
    /// Reads pass.
    Open,
    /// Reads pass. The next bytes are the start of a chunked body.
    Chunked,
    /// Pingora has a complete header and has not parsed it yet. It must not read more, and what it writes is an answer
    /// of its own.
    Header,
    /// The request is complete and forwarded. Bytes that arrive now belong to a later request.
    Complete,
    /// The request must end, because its body is not valid.
    BodyInvalid,
    /// The request must end, because its deadline passed.
    DeadlineExpired,
    /// The request must end, because of its idle timeout.
    IdleExpired,
}

/// A connection, plain or TLS.
pub(crate) struct ClientStream {
    stream: Stream,
    client: Arc<Client>,
    digest: Arc<ProxyDigest>,
    /// Longest time for which a write may wait.
    send_timeout: Duration,
    /// Set while a write waits.
    timer: Option<Pin<Box<Sleep>>>,
    /// Written bytes may be in a buffer.
    unflushed: bool,
    /// Whether small writes wait in `unencrypted`. Only for HTTP/1 over TLS: plain connections have a buffer of their own,
    /// and HTTP/2 writes whole frames.
    collects: bool,
    /// Written bytes that are not encrypted yet.
    unencrypted: Vec<u8>,
    /// Bytes that arrived before Pingora may have them.
    early: BytesMut,
    /// Check of the body of this request, if it is chunked.
    chunks: Option<Chunks>,
    /// Set when the client closed its sending side; expires when Pingora may know it.
    half_closed: Option<Pin<Box<Sleep>>>,
    /// The rest of the answer that replaces Pingora's; empty when it is sent.
    answer: Option<Bytes>,
}

// === impl Progress ===

impl Progress {
    pub(crate) fn new() -> Self {
        Progress { stage: AtomicU8::new(Stage::Open as u8), framing: AtomicU8::new(Framing::Clear as u8) }
    }

    /// A complete header is handed to Pingora.
    fn on_complete_header(&self, framing: Option<Framing>) {
        self.framing.store(framing.map_or(UNKNOWN, |framing| framing as u8), Ordering::Relaxed);
        self.set(Stage::Header);
    }

    /// The framing of the request. None if its fields were not read.
    pub(super) fn framing(&self) -> Option<Framing> {
        use Framing::{Ambiguous, Clear, RawTarget, TargetTooLong, TooManyFields};
        const FRAMINGS: [Framing; 5] = [Clear, Ambiguous, RawTarget, TargetTooLong, TooManyFields];
        FRAMINGS.get(usize::from(self.framing.load(Ordering::Relaxed))).copied()
    }

    /// A chunked body begins with the next read.
    pub(super) fn on_chunked_body(&self) {
        self.set(Stage::Chunked);
    }

    /// The request is complete: bytes that arrive now belong to the next one.
    pub(super) fn on_complete_request(&self) {
        if let Stage::Open | Stage::Chunked = self.stage() {
            self.set(Stage::Complete);
        }
    }

    /// Whether the body of the request broke the grammar of chunks.
    pub(super) fn body_is_invalid(&self) -> bool {
        self.stage() == Stage::BodyInvalid
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
            Stage::Open | Stage::Chunked | Stage::Header | Stage::Complete | Stage::BodyInvalid => None,
        }
    }

    fn stage(&self) -> Stage {
        use Stage::{BodyInvalid, Chunked, Complete, DeadlineExpired, Header, IdleExpired, Open};
        const STAGES: [Stage; 7] = [Open, Chunked, Header, Complete, BodyInvalid, DeadlineExpired, IdleExpired];
        STAGES[usize::from(self.stage.load(Ordering::Relaxed)) % STAGES.len()]
    }

    fn set(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Relaxed);
    }
}

// === impl ClientStream ===

impl ClientStream {
    pub(crate) fn new(stream: Stream, client: Arc<Client>, digest: Arc<ProxyDigest>, send_timeout: Duration) -> Self {
        let collects = stream.get_ssl_digest().is_some() && stream.selected_alpn_proto() != Some(ALPN::H2);
        ClientStream {
            stream,
            client,
            digest,
            send_timeout,
            timer: None,
            unflushed: false,
            collects,
            unencrypted: Vec::new(),
            early: BytesMut::new(),
            chunks: None,
            half_closed: None,
            answer: None,
        }
    }

    /// Takes the bytes that [`super::header`] read: a complete header, and what came with it. Returns what Pingora
    /// gets.
    pub(super) fn on_header(&mut self, mut bytes: BytesMut) -> Result<BytesMut, Invalid> {
        self.chunks = None;
        let framing = match check(&bytes) {
            Checked::Alone => None,
            Checked::Request { end, chunks } => {
                self.chunks = chunks;
                if end < bytes.len() {
                    let later = bytes.split_off(end);
                    self.keep(later);
                }
                Some(Framing::Clear)
            }
            Checked::Refused { header, framing } => {
                bytes = header;
                Some(framing)
            }
            Checked::Invalid(why) => return Err(why),
        };
        self.client.progress.on_complete_header(framing);
        Ok(bytes)
    }

    /// Keeps bytes that were read too early. They stand in front of those that are kept already.
    pub(super) fn keep(&mut self, mut bytes: BytesMut) {
        bytes.extend_from_slice(&self.early);
        self.early = bytes;
    }

    /// Reads the body of this request, or the next header.
    fn poll_read_request(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let begin = buf.filled().len();
        if self.early.is_empty() {
            ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let length = buf.remaining().min(self.early.len());
            buf.put_slice(&self.early.split_to(length));
        }
        let Some(chunks) = self.chunks.as_mut().filter(|chunks| !chunks.is_done()) else { return Poll::Ready(Ok(())) };
        let Ok(length) = chunks.check(&buf.filled()[begin..]) else {
            self.client.progress.set(Stage::BodyInvalid);
            buf.set_filled(begin);
            return Poll::Ready(Err(ErrorKind::InvalidData.into()));
        };
        let later = BytesMut::from(&buf.filled()[begin + length..]);
        if !later.is_empty() {
            buf.set_filled(begin + length);
            self.keep(later);
        }
        Poll::Ready(Ok(()))
    }

    /// Waits while a request is served. Ready at the end of the connection only.
    fn poll_wait(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.early.is_empty() && self.half_closed.is_none() {
            self.early = ready!(poll_available(&mut self.stream, cx))?;
            if self.early.is_empty() {
                self.half_closed = Some(Box::pin(sleep(HALF_CLOSE_TIME)));
            }
        }
        match &mut self.half_closed {
            Some(timer) => timer.as_mut().poll(cx).map(Ok),
            None => Poll::Pending,
        }
    }

    /// Sends bytes that are in a buffer. Pingora flushes a response with Content-Length only at its end. A read means
    /// that Pingora waits, maybe for a slow upstream, so the bytes written so far are sent now.
    fn flush_before_read(&mut self, cx: &mut Context<'_>) {
        if self.unflushed {
            self.unflushed = self.poll_flush_stream(cx).is_pending();
        }
    }

    /// Collects a small write. Returns false if the write is too large.
    fn collect(&mut self, bufs: &[IoSlice<'_>]) -> bool {
        let length: usize = bufs.iter().map(|buf| buf.len()).sum();
        let collect = self.collects && self.unencrypted.len() + length <= TLS_WRITE_BUFFER;
        if collect {
            bufs.iter().for_each(|buf| self.unencrypted.extend_from_slice(buf));
        }
        collect
    }

    /// Writes a buffer behind the bytes that wait, and with them if there are any.
    fn poll_write_stream(&mut self, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        if self.collect(&[IoSlice::new(buf)]) {
            return Poll::Ready(Ok(buf.len()));
        }
        while !self.unencrypted.is_empty() {
            let both = [IoSlice::new(&self.unencrypted), IoSlice::new(buf)];
            let written = ready!(Pin::new(&mut self.stream).poll_write_vectored(cx, &both))?;
            let waited = self.on_encrypted(written)?;
            if written > waited {
                return Poll::Ready(Ok(written - waited));
            }
        }
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_write_vectored_stream(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.collect(bufs) {
            return Poll::Ready(Ok(bufs.iter().map(|buf| buf.len()).sum()));
        }
        ready!(self.poll_encrypt(cx))?;
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    /// Writes the bytes that wait.
    fn poll_encrypt(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.unencrypted.is_empty() {
            let written = ready!(Pin::new(&mut self.stream).poll_write(cx, &self.unencrypted))?;
            self.on_encrypted(written)?;
        }
        Poll::Ready(Ok(()))
    }

    /// Removes written bytes from those that wait. Returns how many of them waited.
    fn on_encrypted(&mut self, written: usize) -> io::Result<usize> {
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        let waited = written.min(self.unencrypted.len());
        self.unencrypted.drain(..waited);
        Ok(waited)
    }

    fn poll_flush_stream(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_encrypt(cx))?;
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    /// Sends the answer that replaces Pingora's.
    fn poll_answer(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let Some(answer) = self.answer.take_if(|answer| !answer.is_empty()) {
            let sent = Pin::new(&mut self.stream).poll_write(cx, &answer);
            let sent = self.sent(sent, cx);
            let rest = self.answer.insert(answer);
            rest.advance(ready!(sent)?);
        }
        Poll::Ready(Ok(()))
    }

    /// Result of a write or flush: keeps the timer while the client receives nothing, and fails when it expires.
    fn sent<T>(&mut self, sent: Poll<io::Result<T>>, cx: &mut Context<'_>) -> Poll<io::Result<T>> {
        if sent.is_ready() {
            if self.timer.is_some() {
                self.timer = None;
            }
            // The client still receives. If it has gone, a write fails.
            if let Some(end) = &mut self.half_closed {
                end.as_mut().reset(Instant::now() + HALF_CLOSE_TIME);
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

impl AsyncRead for ClientStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        match this.client.progress.stage() {
            stage @ (Stage::Open | Stage::Chunked) => {
                if stage == Stage::Chunked {
                    this.chunks = Some(Chunks::new());
                    this.client.progress.open();
                }
                this.flush_before_read(cx);
                this.poll_read_request(cx, buf)
            }
            Stage::Complete => {
                this.flush_before_read(cx);
                this.poll_wait(cx)
            }
            // A parser that takes the header for incomplete would wait for more bytes without a timeout.
            Stage::Header | Stage::BodyInvalid => Poll::Ready(Err(ErrorKind::InvalidData.into())),
            Stage::DeadlineExpired | Stage::IdleExpired => Poll::Ready(Err(ErrorKind::TimedOut.into())),
        }
    }
}

impl AsyncWrite for ClientStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.client.progress.stage() == Stage::Header {
            // Pingora refuses the header, and calls no hook. Its answer is discarded; this one is sent by the flush.
            this.answer.get_or_insert_with(|| LocalReply::new(ReplyKind::MalformedRequest).http1().into());
            return Poll::Ready(Ok(buf.len()));
        }
        let sent = this.poll_write_stream(cx, buf);
        this.unflushed = true;
        this.sent(sent, cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.client.progress.stage() == Stage::Header {
            return Pin::new(this).poll_write(cx, bufs.iter().find(|buf| !buf.is_empty()).map_or(&[], |buf| buf));
        }
        let sent = this.poll_write_vectored_stream(cx, bufs);
        this.unflushed = true;
        this.sent(sent, cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_answer(cx))?;
        let sent = this.poll_flush_stream(cx);
        this.unflushed &= sent.is_pending();
        this.sent(sent, cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(this.poll_answer(cx))?;
        let encrypted = this.poll_encrypt(cx);
        ready!(this.sent(encrypted, cx))?;
        let sent = Pin::new(&mut this.stream).poll_shutdown(cx);
        this.sent(sent, cx)
    }
}

#[async_trait]
impl Shutdown for ClientStream {
    async fn shutdown(&mut self) {
        // Through `poll_shutdown` above, which has the send timeout.
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

/// Not supported. Pingora looks for the preface of HTTP/2, which `super::connection` has already found.
impl Peek for ClientStream {}

impl UniqueID for ClientStream {
    fn id(&self) -> UniqueIDType {
        self.stream.id()
    }
}

impl Ssl for ClientStream {
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

impl GetTimingDigest for ClientStream {
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

/// There is no forward proxy. The user data of this digest is the only place in a Pingora session for a value of the
/// application. It has the [`Client`], and every hook can read it.
impl GetProxyDigest for ClientStream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        Some(self.digest.clone())
    }
}

impl GetSocketDigest for ClientStream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream.get_socket_digest()
    }

    fn set_socket_digest(&mut self, socket_digest: SocketDigest) {
        self.stream.set_socket_digest(socket_digest);
    }
}

impl fmt::Debug for ClientStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ClientStream").field("client", &self.client).finish_non_exhaustive()
    }
}
