//! Connections to the upstream for WebSockets. They avoid a race in Pingora 0.9.1.
//!
//! Pingora (`proxy_handle_upstream`) waits for two events in random order: the response, and the end of the request
//! body. A WebSocket request ends at once. If Pingora handles the 101 first, it interprets the end of the request body
//! as the end of the client's data in the new protocol, and closes the connection right after the 101. With an upstream
//! on the same machine, this happened to one WebSocket in thirty.
//!
//! So the first reads after a write return `Pending` and wake the task at once. Pingora then handles the end of the
//! request body before the 101.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext::{connect, connect_uds};
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::time::timeout;
use pingora::{Error, ErrorType, OkOrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};

use crate::upstream::proxy_protocol::SentProxyHeader;

/// Number of reads after each write that return `Pending`.
const DELAYED_READS: u8 = 2;
/// Number of writes that delay the following reads. The request is one of the first writes, after the writes of a TLS
/// handshake.
const DELAYING_WRITES: u8 = 8;

/// Connects to an upstream for a WebSocket.
#[derive(Debug)]
pub(super) struct WebSocketConnector {
    /// Timeout of the connection, without a TLS handshake.
    pub(super) timeout: Duration,
    pub(super) header: Option<SentProxyHeader>,
}

#[derive(Debug)]
struct Socket<S> {
    stream: S,
    delayed_reads: u8,
    writes: u8,
}

/// A connected TCP or Unix-domain socket.
trait Connected: AsyncRead + AsyncWrite + Unpin + Send + Sync + fmt::Debug + 'static {
    fn set_nodelay(&self) -> io::Result<()>;
}

impl Connected for TcpStream {
    fn set_nodelay(&self) -> io::Result<()> {
        TcpStream::set_nodelay(self, true)
    }
}

impl Connected for UnixStream {
    fn set_nodelay(&self) -> io::Result<()> {
        Ok(())
    }
}

#[async_trait]
impl Connect for WebSocketConnector {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let connected = timeout(self.timeout, async {
            Ok::<_, Box<Error>>(match address {
                SocketAddr::Inet(address) => self.socket(connect(address, None).await?).await?,
                SocketAddr::Unix(address) => {
                    let path = address.as_pathname().or_err(ErrorType::InternalError, "a socket without a path")?;
                    self.socket(connect_uds(path).await?).await?
                }
            })
        });
        let socket = match connected.await {
            Ok(socket) => socket?,
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "for a connection to upgrade"),
        };
        Ok(Stream::from(VirtualSocketStream::new(socket)))
    }
}

impl WebSocketConnector {
    async fn socket<S: Connected>(&self, mut stream: S) -> Result<Box<dyn VirtualSocket>> {
        if let Some(header) = &self.header {
            header.send(&mut stream).await?;
        }
        Ok(Box::new(Socket { stream, delayed_reads: 0, writes: 0 }))
    }
}

impl<S: Connected> Socket<S> {
    /// Delays the next reads after a write.
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() && self.writes < DELAYING_WRITES {
            (self.delayed_reads, self.writes) = (DELAYED_READS, self.writes + 1);
        }
        result
    }
}

impl<S: Connected> AsyncRead for Socket<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.delayed_reads > 0 {
            this.delayed_reads -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl<S: Connected> AsyncWrite for Socket<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let result = Pin::new(&mut this.stream).poll_write(cx, buf);
        this.wrote(result)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

impl<S: Connected> VirtualSocket for Socket<S> {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(),
            // Upstreams have no other option.
            _ => Ok(()),
        }
    }
}
