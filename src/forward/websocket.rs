//! Connections for requests that ask for another protocol.
//!
//! Pingora 0.9.1 (`proxy_handle_upstream`) looks at two things at once, in random order: what the upstream answers, and
//! what there is of the request body, which for these requests is the word that there is none. If it sees a 101 first,
//! it takes that word for the end of what the client had to say in the new protocol, and closes the connection right
//! behind the 101. With an upstream on the same machine that was one in thirty WebSockets.
//!
//! So a connection for such a request says that nothing has come yet, when it is asked for the first time after
//! something was written. Whoever asks looks at the other thing then, and asks again at once.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext::connect;
use pingora::protocols::l4::socket::SocketAddr;
use pingora::protocols::l4::stream::Stream;
use pingora::protocols::l4::virt::{VirtualSockOpt, VirtualSocket, VirtualSocketStream};
use pingora::time::timeout;
use pingora::{Error, ErrorType, OkOrErr, Result};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;

/// How often it says that nothing has come, after each write.
const DENIALS: u8 = 2;
/// After how many writes it does. The request is one of the first few, and handshakes write before.
const WRITES: u8 = 8;

/// Makes these connections.
#[derive(Debug)]
pub(super) struct BodyFirst {
    /// How long one may take.
    pub(super) timeout: Duration,
}

#[derive(Debug)]
struct Socket {
    stream: TcpStream,
    denials: u8,
    writes: u8,
}

#[async_trait]
impl Connect for BodyFirst {
    async fn connect(&self, address: &SocketAddr) -> Result<Stream> {
        let address = address.as_inet().or_err(ErrorType::InternalError, "an address of another kind")?;
        let stream = match timeout(self.timeout, connect(address, None)).await {
            Ok(stream) => stream?,
            Err(_) => return Error::e_explain(ErrorType::ConnectTimedout, "for a connection to upgrade"),
        };
        let socket = Socket { stream, denials: 0, writes: 0 };
        Ok(Stream::from(VirtualSocketStream::new(Box::new(socket))))
    }
}

impl Socket {
    fn wrote<T>(&mut self, result: Poll<io::Result<T>>) -> Poll<io::Result<T>> {
        if result.is_ready() && self.writes < WRITES {
            (self.denials, self.writes) = (DENIALS, self.writes + 1);
        }
        result
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.denials > 0 {
            this.denials -= 1;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        Pin::new(&mut this.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Socket {
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

impl VirtualSocket for Socket {
    fn set_socket_option(&self, option: VirtualSockOpt) -> io::Result<()> {
        match option {
            VirtualSockOpt::NoDelay => self.stream.set_nodelay(true),
            // Upstreams have no other.
            _ => Ok(()),
        }
    }
}
