//! The PROXY header at the start of a connection to a node, for an upstream with `proxy_protocol`.
//!
//! The header names one client, so only requests with the same header may reuse a connection.
//! [`RunningUpstream::group_of`](super::RunningUpstream::group_of) is the key by which Pingora separates such
//! connections.

use std::net::{IpAddr, SocketAddr};

use async_trait::async_trait;
use pingora::connectors::l4::Connect;
use pingora::protocols::l4::ext::{connect, connect_uds};
use pingora::protocols::l4::socket;
use pingora::protocols::l4::stream::Stream;
use pingora::{ErrorType, OkOrErr, OrErr, Result};
use ppp::{v1, v2};
use tokio::io::{AsyncWrite, AsyncWriteExt};

#[cfg(target_os = "linux")]
use super::peer::user_timeout;
use crate::snapshot::{ProxyProtocol, Timeouts};

/// The bytes of a PROXY header.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct SentProxyHeader(Vec<u8>);

/// Makes connections that begin with a PROXY header.
#[derive(Debug)]
pub(crate) struct ProxyConnector {
    header: SentProxyHeader,
    /// `TCP_USER_TIMEOUT` in milliseconds: see [`super::peer`].
    #[cfg(target_os = "linux")]
    user_timeout: u32,
}

impl SentProxyHeader {
    /// Returns the header for a client with this address that has connected to `destination`.
    pub(crate) fn new(version: ProxyProtocol, client: SocketAddr, destination: SocketAddr) -> Self {
        let addresses = of_one_family(client, destination);
        SentProxyHeader(match version {
            ProxyProtocol::V1 => v1::Addresses::from(addresses).to_string().into_bytes(),
            ProxyProtocol::V2 => {
                let command = v2::Version::Two | v2::Command::Proxy;
                built(v2::Builder::with_addresses(command, v2::Protocol::Stream, addresses))
            }
        })
    }

    /// Returns the header for a connection of corsgate itself, or for a client whose address is not known.
    pub(crate) fn without_client(version: ProxyProtocol) -> Self {
        SentProxyHeader(match version {
            ProxyProtocol::V1 => v1::Addresses::Unknown.to_string().into_bytes(),
            ProxyProtocol::V2 => built(v2::Builder::new(v2::Version::Two | v2::Command::Local, 0)),
        })
    }

    /// Sends the header on a new connection.
    pub(crate) async fn send(&self, stream: &mut (impl AsyncWrite + Unpin)) -> Result<()> {
        stream.write_all(&self.0).await.or_err(ErrorType::ConnectError, "sending the PROXY header")
    }
}

fn built(builder: v2::Builder) -> Vec<u8> {
    builder.build().expect("two addresses fit into a header")
}

/// Returns both addresses in the same family: IPv4 if both are IPv4. Otherwise an IPv4 address becomes an IPv4-mapped
/// IPv6 address, as in HAProxy.
fn of_one_family(client: SocketAddr, destination: SocketAddr) -> (SocketAddr, SocketAddr) {
    let both = [client, destination].map(|address| (address.ip().to_canonical(), address.port()));
    let is_mixed = both.iter().any(|(ip, _)| ip.is_ipv6());
    let [client, destination] = both.map(|(ip, port)| match ip {
        IpAddr::V4(ip) if is_mixed => SocketAddr::from((ip.to_ipv6_mapped(), port)),
        ip => SocketAddr::from((ip, port)),
    });
    (client, destination)
}

impl ProxyConnector {
    pub(crate) fn new(header: SentProxyHeader, timeouts: &Timeouts) -> Self {
        #[cfg(not(target_os = "linux"))]
        let _ = timeouts;
        ProxyConnector {
            header,
            #[cfg(target_os = "linux")]
            user_timeout: user_timeout(timeouts),
        }
    }
}

#[async_trait]
impl Connect for ProxyConnector {
    async fn connect(&self, address: &socket::SocketAddr) -> Result<Stream> {
        Ok(match address {
            socket::SocketAddr::Inet(address) => {
                let mut stream = connect(address, None).await?;
                #[cfg(target_os = "linux")]
                let _ = rustix::net::sockopt::set_tcp_user_timeout(&stream, self.user_timeout);
                self.header.send(&mut stream).await?;
                stream.into()
            }
            socket::SocketAddr::Unix(address) => {
                let path = address.as_pathname().or_err(ErrorType::InternalError, "a socket without a path")?;
                let mut stream = connect_uds(path).await?;
                self.header.send(&mut stream).await?;
                stream.into()
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn header(version: ProxyProtocol, client: &str, destination: &str) -> Vec<u8> {
        SentProxyHeader::new(version, client.parse().unwrap(), destination.parse().unwrap()).0
    }

    #[test]
    fn headers_are_those_of_the_specification() {
        for (client, destination, line) in [
            ("192.0.2.1:56324", "203.0.113.9:443", "PROXY TCP4 192.0.2.1 203.0.113.9 56324 443\r\n"),
            ("[2001:db8::1]:7", "[2001:db8::2]:80", "PROXY TCP6 2001:db8::1 2001:db8::2 7 80\r\n"),
            ("[2001:db8::1]:0", "203.0.113.9:443", "PROXY TCP6 2001:db8::1 ::ffff:203.0.113.9 0 443\r\n"),
            ("192.0.2.1:5", "[2001:db8::2]:80", "PROXY TCP6 ::ffff:192.0.2.1 2001:db8::2 5 80\r\n"),
            // An IPv4 client of a listener for IPv4 and IPv6.
            ("[::ffff:192.0.2.1]:5", "[::ffff:203.0.113.9]:80", "PROXY TCP4 192.0.2.1 203.0.113.9 5 80\r\n"),
        ] {
            assert_eq!(String::from_utf8(header(ProxyProtocol::V1, client, destination)).unwrap(), line);
            let binary = header(ProxyProtocol::V2, client, destination);
            let parsed = v2::Header::try_from(&*binary).unwrap();
            let text = match parsed.addresses {
                v2::Addresses::IPv4(ip) => v1::Addresses::Tcp4(ip).to_string(),
                v2::Addresses::IPv6(ip) => v1::Addresses::Tcp6(ip).to_string(),
                other => panic!("{other:?}"),
            };
            assert_eq!(
                (text.as_str(), parsed.command, parsed.protocol),
                (line, v2::Command::Proxy, v2::Protocol::Stream)
            );
        }
        let ipv4 = header(ProxyProtocol::V2, "192.0.2.1:56324", "203.0.113.9:443");
        let rest = [0x21, 0x11, 0, 12, 192, 0, 2, 1, 203, 0, 113, 9, 0xdc, 0x04, 1, 0xbb];
        assert_eq!(ipv4, [V2, &rest].concat());
    }

    #[test]
    fn a_connection_of_the_gateway_itself_has_no_addresses() {
        assert_eq!(SentProxyHeader::without_client(ProxyProtocol::V1).0, b"PROXY UNKNOWN\r\n");
        assert_eq!(SentProxyHeader::without_client(ProxyProtocol::V2).0, [V2, &[0x20, 0, 0, 0]].concat());
    }
}
