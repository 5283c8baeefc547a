//! Requests of trusted proxies: finds the client's address, and writes `X-Forwarded-For` for the upstream. [`forwarded`]
//! finds the URL that the client used, and [`fields`] lists the fields that only a trusted proxy may send.
//!
//! A client can send any `X-Forwarded-For`. Only addresses that a trusted proxy has added are used. The list is read
//! from its end: the last address that is not a trusted proxy is the client.
//!
//! The peer of a Unix-domain socket has no address. Where an address must be written, [`UNIX_CLIENT`] is used. Only the
//! word `unix` in `trusted_proxies` makes such a peer a trusted proxy, because the addresses in the list are addresses
//! of TCP peers.

mod fields;
mod forwarded;

use std::net::{IpAddr, Ipv4Addr};

use http::{HeaderMap, HeaderName, HeaderValue};
use ipnet::IpNet;

pub(crate) use self::fields::FieldKind;
pub(crate) use self::forwarded::{IgnoredField, X_FORWARDED_HOST, X_FORWARDED_PROTO, own_origin};
use crate::domain::Networks;

/// The header with the chain of addresses, client first.
pub(crate) const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The address for a client of a Unix-domain socket whose own address is not known.
const UNIX_CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

/// The entry of `trusted_proxies` for the peers of Unix-domain sockets.
pub(crate) const UNIX: &str = "unix";

/// The entries of `trusted_proxies`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TrustedProxies {
    networks: Networks,
    /// Whether peers of Unix-domain sockets are trusted.
    unix: bool,
}

/// The sender of a connection's requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// A TCP peer, or the client of a PROXY header.
    Ip(IpAddr),
    /// The peer of a Unix-domain socket.
    Unix,
    /// The load balancer itself, for example in a health check: its PROXY header says LOCAL.
    Local(IpAddr),
    /// A sender that is not known, because the PROXY header of this peer has no address. The forwarding headers are not
    /// trusted, because the peer hides the sender of the requests.
    Hidden(IpAddr),
}

// === impl Peer ===

impl Peer {
    /// Returns the sender if this peer sends a PROXY header without an address. `local` is true if the header says
    /// LOCAL.
    pub(crate) fn without_address(self, local: bool) -> Self {
        match self {
            Peer::Ip(address) if local => Peer::Local(address),
            peer => Peer::Hidden(peer.address()),
        }
    }

    /// Returns the address of the client in its canonical form, or None if it is not known.
    pub(crate) fn client(self) -> Option<IpAddr> {
        match self {
            Peer::Ip(address) | Peer::Local(address) => Some(address.to_canonical()),
            Peer::Unix | Peer::Hidden(_) => None,
        }
    }

    /// Returns the address that stands for the peer, in its canonical form: IPv4, not IPv4-mapped IPv6.
    pub(crate) fn address(self) -> IpAddr {
        match self {
            Peer::Ip(address) | Peer::Local(address) | Peer::Hidden(address) => address.to_canonical(),
            Peer::Unix => UNIX_CLIENT,
        }
    }
}

// === impl TrustedProxies ===

impl TrustedProxies {
    pub(crate) fn new(networks: Networks, unix: bool) -> Self {
        TrustedProxies { networks, unix }
    }

    /// Checks whether an address belongs to a trusted proxy.
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.networks.contains(address)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty() && !self.unix
    }

    /// Checks whether a peer is a trusted proxy.
    pub(crate) fn trusts(&self, peer: Peer) -> bool {
        match peer {
            Peer::Ip(address) => self.contains(address),
            Peer::Unix => self.unix,
            Peer::Local(_) | Peer::Hidden(_) => false,
        }
    }

    /// Returns the address of the client behind `peer`. Returns None if the address is not known: the peer uses a
    /// Unix-domain socket or a PROXY header without an address, and does not report the client in a field.
    pub(crate) fn client(&self, peer: Peer, headers: &HeaderMap) -> Option<IpAddr> {
        let mut client = peer.client();
        if !self.trusts(peer) {
            return client;
        }
        // Reads fields and entries from last to first, because each proxy appends its peer.
        let fields = headers.get_all(X_FORWARDED_FOR).iter();
        for field in fields.collect::<Vec<_>>().into_iter().rev() {
            for entry in field.as_bytes().rsplit(|b| *b == b',') {
                let Some(address) = parse_address(entry) else { return client };
                client = Some(address);
                if !self.contains(address) {
                    return client;
                }
            }
        }
        client
    }
}

impl FromIterator<IpNet> for TrustedProxies {
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        TrustedProxies::new(networks.into_iter().collect(), false)
    }
}

/// Returns `X-Forwarded-For` for the upstream if the peer is not a trusted proxy: the address of the peer.
pub(crate) fn peer_address(peer: IpAddr) -> HeaderValue {
    // A listener on `[::]` shows IPv4 clients as `::ffff:10.0.0.1`, which allow lists do not contain.
    value(peer.to_canonical().to_string().into_bytes())
}

/// Returns `X-Forwarded-For` for the upstream if the peer is a trusted proxy: the received chain and the peer. `peer`
/// is the result of [`peer_address`].
pub(crate) fn append_peer(headers: &HeaderMap, peer: &HeaderValue) -> HeaderValue {
    let before = headers.get_all(X_FORWARDED_FOR).iter().map(|field| field.as_bytes().trim_ascii());
    value(before.chain([peer.as_bytes()]).collect::<Vec<_>>().join(&b", "[..]))
}

fn value(text: Vec<u8>) -> HeaderValue {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(text)).unwrap_or(HeaderValue::from_static("unknown"))
}

/// Parses an entry of a chain: an IP address with or without a port, and with or without brackets for IPv6. Anything
/// else ends the chain.
fn parse_address(entry: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(entry.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<std::net::SocketAddr>().ok()?.ip()));
    address.map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn trusted() -> TrustedProxies {
        ["10.0.0.0/8", "127.0.0.1", "2001:db8::/32"].iter().filter_map(|text| Networks::parse_entry(text)).collect()
    }

    fn chained(fields: &[&str]) -> HeaderMap {
        fields.iter().map(|field| (X_FORWARDED_FOR, HeaderValue::from_str(field).unwrap())).collect()
    }

    #[test]
    fn the_client_is_the_last_address_that_is_not_a_trusted_proxy() {
        #[rustfmt::skip]
        let rows: [(&str, &[&str], &str); 13] = [
            ("192.0.2.1", &[],                                 "192.0.2.1"),
            ("192.0.2.1", &["198.51.100.7"],                   "192.0.2.1"),    // forged: the peer is not trusted
            ("10.0.0.1",  &[],                                 "10.0.0.1"),
            ("10.0.0.1",  &["198.51.100.7"],                   "198.51.100.7"),
            ("10.0.0.1",  &["1.1.1.1, 198.51.100.7"],          "198.51.100.7"), // the client sent the first entry
            ("10.0.0.1",  &["198.51.100.7, 10.9.9.9"],         "198.51.100.7"),
            ("10.0.0.1",  &["1.1.1.1", "198.51.100.7,10.9.9.9"], "198.51.100.7"),
            ("10.0.0.1",  &["10.1.1.1, 10.2.2.2"],             "10.1.1.1"),     // all are trusted: the first entry
            ("10.0.0.1",  &["junk, 10.2.2.2"],                 "10.2.2.2"),
            ("10.0.0.1",  &["198.51.100.7:4711"],              "198.51.100.7"),
            ("10.0.0.1",  &["[2001:db9::7]:4711"],             "2001:db9::7"),
            ("::ffff:10.0.0.1", &["::ffff:198.51.100.7"],      "198.51.100.7"),
            ("2001:db8::1", &["[2001:db9::7]"],                "2001:db9::7"),
        ];
        for (peer, fields, client) in rows {
            let found = trusted().client(Peer::Ip(peer.parse().unwrap()), &chained(fields));
            assert_eq!(found, client.parse::<IpAddr>().ok(), "{peer} {fields:?}");
        }
    }

    #[test]
    fn a_unix_peer_is_trusted_by_its_word_only() {
        let chain = chained(&["1.1.1.1, 198.51.100.7"]);
        let (addresses, word) = (trusted(), TrustedProxies::new(Networks::default(), true));
        for (proxies, peer, trusts, client) in [
            (&addresses, Peer::Unix, false, ""),
            (&word, Peer::Unix, true, "198.51.100.7"),
            (&word, Peer::Unix.without_address(false), false, ""),
            (&word, Peer::Unix.without_address(true), false, ""),
            (&word, Peer::Ip(UNIX_CLIENT), false, "127.0.0.1"),
            (&addresses, Peer::Ip(UNIX_CLIENT), true, "198.51.100.7"),
            (&addresses, Peer::Ip(UNIX_CLIENT).without_address(false), false, ""),
            (&addresses, Peer::Ip(UNIX_CLIENT).without_address(true), false, "127.0.0.1"),
        ] {
            assert_eq!((proxies.trusts(peer), proxies.is_empty()), (trusts, false), "{peer:?}");
            assert_eq!(proxies.client(peer, &chain), client.parse().ok(), "{peer:?}");
        }
        assert_eq!(word.client(Peer::Unix, &HeaderMap::new()), None, "the proxy reports no client");
        assert_eq!(word.client(Peer::Unix, &chained(&["junk"])), None);
        assert!(TrustedProxies::default().is_empty());
    }

    #[test]
    fn the_chain_is_replaced_or_continued() {
        let headers = chained(&["1.1.1.1, 2.2.2.2", "3.3.3.3"]);
        let peer = peer_address("::ffff:10.0.0.1".parse().unwrap());
        assert_eq!(peer, "10.0.0.1");
        assert_eq!(append_peer(&headers, &peer), "1.1.1.1, 2.2.2.2, 3.3.3.3, 10.0.0.1");
        assert_eq!(append_peer(&HeaderMap::new(), &peer), "10.0.0.1");
    }
}
