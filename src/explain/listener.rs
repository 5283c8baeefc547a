//! The listener for a URL according to the file, and the scheme that the gateway sees at this listener.

use super::question::PageUrl;
use crate::behavior::clients::Clients;
use crate::domain::{HostName, Scheme, split_port};
use crate::snapshot::{Listener, Snapshot};

/// The listener of a URL.
#[derive(Debug, Clone, Copy)]
pub(super) struct Reached<'s> {
    /// None if no listener matches the URL.
    listener: Option<&'s Listener>,
    /// True if an https URL reaches a listener without TLS. Another component then terminates TLS.
    pub(super) tls_in_front: bool,
}

impl<'s> Reached<'s> {
    /// Returns the listener with the URL's port. If there is none, returns the first listener that matches the scheme,
    /// because load balancers often map ports.
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
                // A listener that redirects to https expects plain requests, so it is the last choice.
                let listener = with_port()
                    .next()
                    .or_else(|| plain().find(|listener| listener.redirect.is_none()))
                    .or_else(|| plain().next());
                Reached { listener, tls_in_front: true }
            }
        }
    }

    /// Returns the scheme for the gateway's decision. If another component terminates TLS, the scheme is https only if
    /// this component is a trusted proxy, which sends it in `X-Forwarded-Proto`.
    pub(super) fn scheme(self, snapshot: &Snapshot, url: &PageUrl) -> Scheme {
        match self.tls_in_front && snapshot.trusted_proxies().is_empty() {
            true => Scheme::Http,
            false => url.scheme,
        }
    }

    /// Returns the clients that the listener accepts. None accepts every client.
    pub(super) fn clients(self) -> Option<&'s Clients> {
        self.listener?.clients.as_ref()
    }

    /// Returns the https port to which the listener redirects plain requests.
    pub(super) fn redirect(self) -> Option<u16> {
        self.listener?.redirect
    }
}

/// Returns the https port according to the file: the port to which the plain listener redirects, or 443 if a TLS
/// listener has it, or the port of the first TLS listener.
pub(super) fn https_port(snapshot: &Snapshot, url: &PageUrl) -> Option<u16> {
    let with_tls = snapshot.listeners().iter().filter(|listener| listener.tls.is_some());
    let mut ports = with_tls.filter_map(|listener| listener.address.port());
    (Reached::of(snapshot, url).redirect().filter(|_| url.scheme == Scheme::Http))
        .or_else(|| ports.clone().find(|port| *port == 443))
        .or_else(|| ports.next())
}

/// Returns true if this file probably serves the target of a redirect. The host must equal the host of the redirecting
/// URL, or a service must list it. The port must equal the port of the redirecting URL, the port of a listener, or the
/// default port of the scheme. A service without `hosts` is ignored, because it matches every host.
pub(super) fn serves(snapshot: &Snapshot, from: &PageUrl, to: &PageUrl) -> bool {
    let (host, port) = split_port(&to.authority);
    let listed = || HostName::parse(&to.authority).is_some_and(|host| snapshot.lists_host(host.as_str()));
    let has_listener = |port: u16| snapshot.listeners().iter().any(|listener| listener.address.port() == Some(port));
    let is_known_port = port.is_none() || to.port() == from.port() || has_listener(to.port());
    is_known_port && (split_port(&from.authority).0.eq_ignore_ascii_case(host) || listed())
}
