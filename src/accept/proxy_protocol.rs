//! Reads the PROXY header (version 1 or 2) at the start of a connection, which has the client's address.
//!
//! This file finds the end of the header, however it is split into packets, and limits its length. The crate `ppp`
//! parses it. Bytes after the header belong to TLS or HTTP and are returned. Whether the peer may send a PROXY header
//! is not checked here.

use std::fmt;
use std::io;
use std::net::SocketAddr;

use ppp::{v1, v2};
use tokio::io::{AsyncRead, AsyncReadExt};

/// Longest v1 header in bytes, CRLF included (PROXY protocol specification, section 2.1).
const V1_LENGTH: usize = 107;
/// Bytes of a v2 header before its variable part: signature, version and command, family and protocol, length.
const V2_FIXED: usize = 16;
/// Longest accepted variable part of a v2 header in bytes. Addresses need up to 216; the rest is for TLVs, such as a
/// client certificate.
const V2_VARIABLE: usize = 8 * 1024;
const V1_SIGNATURE: &[u8] = b"PROXY ";
const V2_SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A PROXY header.
#[derive(Debug)]
pub(crate) struct ProxyHeader {
    /// Source address. None for UNKNOWN (v1), LOCAL or a family without IP address (v2).
    pub(crate) client: Option<SocketAddr>,
    /// LOCAL (v2): the load balancer connects for itself, for example for a health check.
    pub(crate) local: bool,
    /// Bytes that were read after the header.
    pub(crate) rest: Vec<u8>,
}

/// Why the PROXY header cannot be used.
#[derive(Debug)]
pub(crate) enum Fault {
    /// The connection does not start with a PROXY header.
    Missing,
    /// Longer than [`V1_LENGTH`] or [`V2_VARIABLE`].
    TooLong,
    /// `ppp` rejects it, with this message.
    Malformed(String),
    /// The connection was closed within the header.
    Truncated,
    /// The read failed.
    Io(io::Error),
}

/// Result of parsing the bytes received so far.
enum Parsed {
    /// More bytes are needed.
    Partial,
    /// A complete header of `length` bytes.
    Header { client: Option<SocketAddr>, local: bool, length: usize },
}

/// Reads the header from the start of a connection. The caller sets the timeout.
pub(crate) async fn read(stream: &mut (impl AsyncRead + Unpin)) -> Result<ProxyHeader, Fault> {
    let mut bytes = Vec::with_capacity(256);
    loop {
        // `parse` fails as soon as the header is too long, which limits the buffer.
        if stream.read_buf(&mut bytes).await.map_err(Fault::Io)? == 0 {
            return Err(Fault::Truncated);
        }
        if let Parsed::Header { client, local, length } = parse(&bytes)? {
            return Ok(ProxyHeader { client, local, rest: bytes.split_off(length) });
        }
    }
}

fn parse(bytes: &[u8]) -> Result<Parsed, Fault> {
    if begins(bytes, V2_SIGNATURE) {
        parse_v2(bytes)
    } else if begins(bytes, V1_SIGNATURE) {
        parse_v1(bytes)
    } else {
        Err(Fault::Missing)
    }
}

/// Whether the bytes match the signature, as far as both go.
fn begins(bytes: &[u8], signature: &[u8]) -> bool {
    bytes.iter().zip(signature).all(|(a, b)| a == b)
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Fault> {
    let line = &bytes[..bytes.len().min(V1_LENGTH)];
    let Some(end) = line.windows(2).position(|pair| pair == b"\r\n") else {
        return if line.len() == V1_LENGTH { Err(Fault::TooLong) } else { Ok(Parsed::Partial) };
    };
    let length = end + 2;
    let header = v1::Header::try_from(&bytes[..length]).map_err(malformed)?;
    let client = match header.addresses {
        v1::Addresses::Unknown => None,
        v1::Addresses::Tcp4(tcp) => Some(SocketAddr::from((tcp.source_address, tcp.source_port))),
        v1::Addresses::Tcp6(tcp) => Some(SocketAddr::from((tcp.source_address, tcp.source_port))),
    };
    Ok(Parsed::Header { client, local: false, length })
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Fault> {
    let Some(fixed) = bytes.get(..V2_FIXED) else { return Ok(Parsed::Partial) };
    let variable = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if variable > V2_VARIABLE {
        return Err(Fault::TooLong);
    }
    let length = V2_FIXED + variable;
    let Some(header) = bytes.get(..length) else { return Ok(Parsed::Partial) };
    let header = v2::Header::try_from(header).map_err(malformed)?;
    let client = match (header.command, header.addresses) {
        // The addresses of LOCAL must be ignored (PROXY protocol specification, section 2.2).
        (v2::Command::Local, _) => None,
        (v2::Command::Proxy, v2::Addresses::IPv4(ip)) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        (v2::Command::Proxy, v2::Addresses::IPv6(ip)) => Some(SocketAddr::from((ip.source_address, ip.source_port))),
        (v2::Command::Proxy, v2::Addresses::Unspecified | v2::Addresses::Unix(_)) => None,
    };
    Ok(Parsed::Header { client, local: header.command == v2::Command::Local, length })
}

fn malformed(error: impl fmt::Display) -> Fault {
    Fault::Malformed(error.to_string())
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fault::Missing => write!(f, "the connection does not begin with a PROXY header"),
            Fault::TooLong => write!(f, "the PROXY header is too long"),
            Fault::Malformed(why) => write!(f, "the PROXY header is malformed: {}", why.escape_debug()),
            Fault::Truncated => write!(f, "the connection ended within the PROXY header"),
            Fault::Io(error) => write!(f, "the connection broke within the PROXY header: {error}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;
    use std::pin::Pin;
    use std::task::{Context, Poll};

    use tokio::io::ReadBuf;
    use tokio::runtime::Builder;

    use super::*;

    /// A connection that delivers these packets and is then closed.
    struct Packets<'a>(VecDeque<&'a [u8]>);

    impl AsyncRead for Packets<'_> {
        fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
            if let Some(packet) = self.0.pop_front() {
                let (now, later) = packet.split_at(packet.len().min(buf.remaining()));
                buf.put_slice(now);
                if !later.is_empty() {
                    self.0.push_front(later);
                }
            }
            Poll::Ready(Ok(()))
        }
    }

    fn read_packets(packets: &[&[u8]]) -> Result<ProxyHeader, Fault> {
        let mut stream = Packets(packets.iter().copied().collect());
        Builder::new_current_thread().build().unwrap().block_on(read(&mut stream))
    }

    fn client(bytes: &[u8]) -> Option<String> {
        read_packets(&[bytes]).unwrap().client.map(|client| client.to_string())
    }

    /// A v2 header from its bytes: version and command, family and protocol, variable part.
    fn v2(command: u8, family: u8, variable: &[u8]) -> Vec<u8> {
        let length = u16::try_from(variable.len()).unwrap().to_be_bytes();
        [V2_SIGNATURE, &[command, family], &length, variable].concat()
    }

    const V4_PAIR: &[u8] = &[192, 0, 2, 7, 10, 0, 0, 1, 0x12, 0x67, 0, 80];

    #[test]
    fn both_versions_have_the_address_of_the_client() {
        assert_eq!(client(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n").unwrap(), "192.0.2.7:4711");
        assert_eq!(client(b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n").unwrap(), "[2001:db8::7]:4711");
        assert_eq!(client(&v2(0x21, 0x11, V4_PAIR)).unwrap(), "192.0.2.7:4711");
        let mut pair = [0; 36];
        pair[15] = 7;
        pair[33] = 9;
        assert_eq!(client(&v2(0x21, 0x21, &pair)).unwrap(), "[::7]:9");
        let with_extension = [V4_PAIR, &[0x04, 0, 3, 1, 2, 3]].concat();
        assert_eq!(client(&v2(0x21, 0x11, &with_extension)).unwrap(), "192.0.2.7:4711");
    }

    #[test]
    fn a_header_may_have_no_address() {
        assert_eq!(client(b"PROXY UNKNOWN\r\n"), None);
        assert_eq!(client(b"PROXY UNKNOWN ffff::1 ffff::2 1 2\r\n"), None);
        assert_eq!(client(&v2(0x20, 0x00, b"")), None, "LOCAL");
        assert_eq!(client(&v2(0x20, 0x11, V4_PAIR)), None, "LOCAL with addresses to be ignored");
        assert_eq!(client(&v2(0x21, 0x00, b"")), None, "UNSPEC");
        assert_eq!(client(&v2(0x21, 0x31, &[0; 216])), None, "a unix socket");
        let local = |bytes: &[u8]| read_packets(&[bytes]).unwrap().local;
        assert!(local(&v2(0x20, 0x00, b"")) && local(&v2(0x20, 0x11, V4_PAIR)));
        assert!(!local(&v2(0x21, 0x11, V4_PAIR)) && !local(&v2(0x21, 0x00, b"")) && !local(b"PROXY UNKNOWN\r\n"));
    }

    #[test]
    fn bytes_after_the_header_are_returned() {
        let text = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\nGET / HTTP/1.1\r\n";
        assert_eq!(read_packets(&[text]).unwrap().rest, b"GET / HTTP/1.1\r\n");
        let binary = [&v2(0x21, 0x11, V4_PAIR)[..], b"\x16\x03\x01"].concat();
        assert_eq!(read_packets(&[&binary]).unwrap().rest, b"\x16\x03\x01");
        assert_eq!(read_packets(&[b"PROXY UNKNOWN\r\n"]).unwrap().rest, b"");
    }

    #[test]
    fn the_header_may_be_split_anywhere() {
        let text = b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n+".to_vec();
        let binary = [&v2(0x21, 0x11, V4_PAIR)[..], b"+"].concat();
        for header in [text, binary] {
            for cut in 1..header.len() {
                let (head, tail) = header.split_at(cut);
                let header = read_packets(&[head, tail]).unwrap();
                assert_eq!(header.client.unwrap().to_string(), "192.0.2.7:4711", "cut at {cut}");
            }
            let single: Vec<&[u8]> = header[..header.len() - 1].chunks(1).collect();
            assert_eq!(read_packets(&single).unwrap().rest, b"");
        }
    }

    #[test]
    fn a_missing_malformed_or_long_header_is_refused_at_once() {
        let fault = |bytes: &[u8]| read_packets(&[bytes]).unwrap_err().to_string();
        let missing = "the connection does not begin with a PROXY header";
        for bytes in [&b"GET / HTTP/1.1\r\n"[..], b"\x16\x03\x01\x02\x00", b"proxy TCP4 ", b"\r\n\r\nX", b"PROXYX"] {
            assert_eq!(fault(bytes), missing, "{}", bytes.escape_ascii());
        }
        for bytes in [
            &b"PROXY TCP4 192.0.2.7 10.0.0.1 4711\r\n"[..],
            b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 99999\r\n",
            b"PROXY TCP4 192.0.2.256 10.0.0.1 4711 80\r\n",
            b"PROXY TCP4 2001:db8::7 ::1 4711 80\r\n",
            b"PROXY UDP4 192.0.2.7 10.0.0.1 4711 80\r\n",
            b"PROXY TCP4  192.0.2.7 10.0.0.1 4711 80\r\n",
            b"PROXY \xff\r\n",
            b"PROXY \r\n",
        ] {
            assert!(fault(bytes).starts_with("the PROXY header is malformed"), "{}", bytes.escape_ascii());
        }
        for header in [v2(0x11, 0x11, V4_PAIR), v2(0x22, 0x11, V4_PAIR), v2(0x21, 0x14, V4_PAIR), v2(0x21, 0x11, b"1")]
        {
            assert!(fault(&header).starts_with("the PROXY header is malformed"), "{}", header.escape_ascii());
        }
        let long = [b"PROXY UNKNOWN ", &[b'a'; 100][..]].concat();
        assert_eq!(fault(&long), "the PROXY header is too long");
        let mut long = v2(0x21, 0x11, V4_PAIR);
        long[14] = 0xff;
        assert_eq!(fault(&long), "the PROXY header is too long");
    }

    #[test]
    fn a_connection_closed_within_the_header_is_a_fault() {
        for bytes in [&b""[..], b"PROXY TCP4 192", b"\r\n\r\n\0", &v2(0x21, 0x11, V4_PAIR)[..20]] {
            assert!(matches!(read_packets(&[bytes]), Err(Fault::Truncated)), "{}", bytes.escape_ascii());
        }
    }
}
