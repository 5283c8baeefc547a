//! Connections that end before their first request: why, and how the log hears of them.
//!
//! Anybody can make any number of these, and nobody wants as many lines; but a load balancer that is missing from
//! `trusted_proxies` must not be an outage with an empty log. So of each kind one line in a while says the newest, and
//! how many there were.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::proxy_protocol;
use crate::record::listeners::RefusedConnection;

/// How often a kind has a line in the log.
const EVERY: Duration = Duration::from_secs(10);

/// Why a connection ends before its first request.
pub(super) enum AcceptError {
    /// It is none that a client can make.
    Unknown,
    /// Far too many are open.
    ConnectionLimitHard,
    /// It should begin with a PROXY header, and its peer is no trusted proxy.
    Untrusted,
    /// Its PROXY header cannot be used.
    ProxyHeader(proxy_protocol::Fault),
    /// There was no TLS.
    Handshake(Box<pingora::Error>),
    /// It took too long.
    Late,
}

/// What the log has heard of.
#[derive(Debug, Default)]
pub(super) struct AcceptErrorLog(Mutex<[Notice; KINDS]>);

#[derive(Debug, Default, Clone, Copy)]
struct Notice {
    next: Option<Instant>,
    unsaid: u64,
}

const KINDS: usize = 4;

impl AcceptError {
    /// As metrics count it. None for a connection that is on no listener.
    pub(crate) fn counted(&self) -> Option<RefusedConnection> {
        match self {
            AcceptError::Unknown => None,
            AcceptError::ConnectionLimitHard => Some(RefusedConnection::ConnectionLimitHard),
            AcceptError::Untrusted => Some(RefusedConnection::Untrusted),
            AcceptError::ProxyHeader(_) => Some(RefusedConnection::ProxyHeader),
            AcceptError::Handshake(_) => Some(RefusedConnection::Handshake),
            AcceptError::Late => Some(RefusedConnection::Late),
        }
    }

    /// Those that have a line of their own.
    fn kind(&self) -> Option<usize> {
        match self {
            AcceptError::Unknown | AcceptError::Late => None,
            AcceptError::ConnectionLimitHard => Some(0),
            AcceptError::Untrusted => Some(1),
            AcceptError::ProxyHeader(_) => Some(2),
            AcceptError::Handshake(_) => Some(3),
        }
    }
}

impl AcceptErrorLog {
    /// Logs it, if its kind has not been logged just now.
    pub(crate) fn note(&self, peer: SocketAddr, unserved: &AcceptError, now: Instant) {
        match unserved.kind().and_then(|kind| self.turn(kind, now)) {
            Some(0) => log::warn!("closed before a request peer={peer} because=\"{unserved}\""),
            Some(more) => log::warn!("closed before a request peer={peer} because=\"{unserved}\" others_before={more}"),
            None => log::debug!("closed before a request peer={peer} because=\"{unserved}\""),
        }
    }

    /// Whether it is a kind's turn, and how many there were since the last one.
    fn turn(&self, kind: usize, now: Instant) -> Option<u64> {
        let mut notices = self.0.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let notice = &mut notices[kind];
        if notice.next.is_some_and(|next| now < next) {
            notice.unsaid += 1;
            return None;
        }
        notice.next = Some(now + EVERY);
        Some(std::mem::take(&mut notice.unsaid))
    }
}

impl fmt::Display for AcceptError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptError::Unknown => write!(f, "it is not on a listener of ours"),
            AcceptError::ConnectionLimitHard => write!(f, "far more connections are open than limits allow"),
            AcceptError::Untrusted => {
                write!(f, "proxy_protocol is expected here, and the peer is not among trusted_proxies")
            }
            AcceptError::ProxyHeader(fault) => write!(f, "{fault}"),
            AcceptError::Handshake(error) => write!(f, "{error}"),
            AcceptError::Late => write!(f, "it took too long"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_many_of_a_kind_one_in_a_while_is_said() {
        let (notices, now) = (AcceptErrorLog::default(), Instant::now());
        assert_eq!(notices.turn(1, now), Some(0));
        assert_eq!([notices.turn(1, now), notices.turn(1, now)], [None, None]);
        assert_eq!(notices.turn(2, now), Some(0), "another kind has its own turn");
        assert_eq!(notices.turn(1, now + EVERY), Some(2));
        assert_eq!(notices.turn(1, now + EVERY * 2), Some(0));
    }
}
