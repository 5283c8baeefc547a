//! The listener that a URL reaches, as far as the file tells, and the scheme that the gateway sees there.

use super::question::PageUrl;
use crate::behavior::clients::Clients;
use crate::domain::{HostName, Scheme, split_port};
use crate::snapshot::{Listener, Snapshot};

/// The listener of a URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached<'s> {
    /// None if no listener fits.
    listener: Option<&'s Listener>,
    /// An https URL reaches a listener without TLS: another component decrypts the connection.
    pub(super) tls_in_front: bool,
}

impl<'s> Reached<'s> {
    /// The listener with the URL's port. If no listener has the port, the first listener that fits the scheme, because
    /// load balancers often map ports.
    pub(super) fn of(snapshot: &'s Snapshot, url: &PageUrl) -> Self {
        let all = || snapshot.listeners().iter().map(|listener| &**listener);
        let with_port = || all().filter(|listener| listener.address.port() == Some(url.port()));
        let plain = || all().filter(|listener| listener.tls.is_none());
        match url.scheme {
            Scheme::Http => {
                let listener = with_port().find(|listener| listener.tls.is_none()).or_else(|| plain().next());
                Reached { listener, tls_in_front: false }
            }
            Scheme::Https => {
                let is_tls = |listener: &&Listener| listener.tls.is_some();
                if with_port().next().is_none() || with_port().any(|listener| is_tls(&listener)) {
                    let listener = with_port().find(is_tls).or_else(|| all().find(is_tls));
                    if listener.is_some() {
                        return Reached { listener, tls_in_front: false };
                    }
                }
                // A listener that redirects to https is meant for plain requests.
                let listener = with_port()
                    .next()
                    .or_else(|| plain().find(|listener| listener.redirect.is_none()))
                    .or_else(|| plain().next());
                Reached { listener, tls_in_front: true }
            }
        }
    }

    /// The scheme with which the gateway decides. Behind TLS of another component it is https only if that component
    /// is a trusted proxy, which then says so in `X-Forwarded-Proto`.
    pub(super) fn scheme(self, snapshot: &Snapshot, url: &PageUrl) -> Scheme {
        match self.tls_in_front && snapshot.trusted_proxies().is_empty() {
            true => Scheme::Http,
            false => url.scheme,
        }
    }

    /// The clients that the listener accepts. None: every client.
    pub(super) fn clients(self) -> Option<&'s Clients> {
        self.listener?.clients.as_ref()
    }

    /// The https port to which the listener redirects plain requests.
    pub(super) fn redirect(self) -> Option<u16> {
        self.listener?.redirect
    }
}

/// The https port according to the file: the port to which the plain listener redirects, 443 if a TLS listener has it,
/// or the port of the first TLS listener.
pub(super) fn https_port(snapshot: &Snapshot, url: &PageUrl) -> Option<u16> {
    let with_tls = snapshot.listeners().iter().filter(|listener| listener.tls.is_some());
    let mut ports = with_tls.filter_map(|listener| listener.address.port());
    (Reached::of(snapshot, url).redirect().filter(|_| url.scheme == Scheme::Http))
        .or_else(|| ports.clone().find(|port| *port == 443))
        .or_else(|| ports.next())
}

/// Whether the URL of a redirect is probably served by this file: its host is that of the redirecting URL or in the
/// `hosts` of a service, and its port is that of the redirecting URL, a listener's, or the default of its scheme. A
/// service without hosts serves any host that reaches it, so it says nothing about another host.
pub(super) fn serves(snapshot: &Snapshot, from: &PageUrl, to: &PageUrl) -> bool {
    let (host, port) = split_port(&to.authority);
    let listed = || HostName::parse(&to.authority).is_some_and(|host| snapshot.lists_host(host.as_str()));
    let has_listener = |port: u16| snapshot.listeners().iter().any(|listener| listener.address.port() == Some(port));
    let is_known_port = port.is_none() || to.port() == from.port() || has_listener(to.port());
    is_known_port && (split_port(&from.authority).0.eq_ignore_ascii_case(host) || listed())
}
