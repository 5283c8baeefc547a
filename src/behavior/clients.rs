//! `clients`: accepts or refuses clients by their address.

use std::net::IpAddr;

use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::domain::Networks;
use crate::notation::{List, forms, given};
use crate::problem::{At, ProblemKind, Problems};

/// Accepts or refuses clients by their address. A client that is not accepted gets 403. The address is the one in the
/// access log: behind `trusted_proxies`, the address that the proxies report.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Clients", extend("minProperties" = 1))]
pub(crate) struct ClientSettings {
    /// IP addresses and networks that may send requests. Without this key, every client that `deny` does not list may
    /// send requests.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Networks")]
    pub(crate) allow: Option<List>,
    /// IP addresses and networks that may not send requests, even if `allow` lists them.
    #[serde(deserialize_with = "given")]
    #[schemars(with = "forms::Networks")]
    pub(crate) deny: Option<List>,
}

/// The clients that may send requests.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Clients {
    /// None: `allow` is not set, so every client that `deny` does not list is accepted.
    allow: Option<Networks>,
    deny: Networks,
}

/// The address of a client.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum ClientAddress {
    /// The address of the connection, or the one that a trusted proxy reports.
    Known(IpAddr),
    /// The address is not known: the client uses a Unix-domain socket, or its PROXY header has no address.
    Unknown,
    /// Any address that is accepted. An explanation uses this variant if the question names no client.
    #[default]
    Accepted,
}

impl Clients {
    pub(crate) fn compile(settings: &ClientSettings, at: &At<'_>, problems: &mut Problems) -> Self {
        let ClientSettings { allow, deny } = settings;
        if allow.is_none() && deny.is_none() {
            problems.add(at, ProblemKind::NoKeys { example: "allow: [10.0.0.0/8]" });
        }
        let allowed = allow.as_ref().map(|list| networks(list, &at.key("allow"), problems));
        let denied = deny.as_ref().map(|list| networks(list, &at.key("deny"), problems)).unwrap_or_default();
        for (i, network) in allowed.iter().flatten() {
            if let Some((_, by)) = denied.iter().find(|(_, denied)| denied.contains(network)) {
                let kind = ProblemKind::AllowedButDenied { network: network.to_string(), by: by.to_string() };
                problems.add(&at.key("allow").index(*i), kind);
            }
        }
        let set = |list: Vec<(usize, IpNet)>| list.into_iter().map(|(_, network)| network).collect();
        Clients { allow: allowed.map(set), deny: set(denied) }
    }

    /// Checks whether a client may send requests. A client whose address is not known is accepted only if `allow` is
    /// not set.
    pub(crate) fn accept(&self, client: ClientAddress) -> bool {
        match client {
            ClientAddress::Known(client) => {
                !self.deny.contains(client) && self.allow.as_ref().is_none_or(|allow| allow.contains(client))
            }
            ClientAddress::Unknown => self.allow.is_none(),
            ClientAddress::Accepted => true,
        }
    }
}

fn networks(list: &List, at: &At<'_>, problems: &mut Problems) -> Vec<(usize, IpNet)> {
    if list.entries().is_empty() {
        problems.add(at, ProblemKind::EmptyList { required: false });
    }
    let mut networks = Vec::with_capacity(list.entries().len());
    for (i, entry) in list.entries().iter().enumerate() {
        match Networks::parse_entry(entry) {
            Some(network) => networks.push((i, network)),
            None => problems.add(
                &at.index(i),
                ProblemKind::BadAddress {
                    text: entry.clone(),
                    what: "an IP address or a network",
                    example: "10.0.0.0/8",
                },
            ),
        }
    }
    networks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(allow: Option<&[&str]>, deny: Option<&[&str]>) -> (Clients, Problems) {
        let list = |entries: &[&str]| entries.iter().map(|entry| (*entry).to_owned()).collect();
        let settings = ClientSettings { allow: allow.map(list), deny: deny.map(list) };
        let mut problems = Problems::default();
        (Clients::compile(&settings, &At::root(), &mut problems), problems)
    }

    #[test]
    fn deny_wins_and_allow_limits_the_rest() {
        type Case = (Option<&'static [&'static str]>, Option<&'static [&'static str]>, &'static str, bool);
        #[rustfmt::skip]
        let cases: [Case; 12] = [
            (Some(&["10.0.0.0/8"]), None,                      "10.1.2.3",        true),
            (Some(&["10.0.0.0/8"]), None,                      "11.1.2.3",        false),
            (Some(&["10.0.0.0/8"]), None,                      "::ffff:10.1.2.3", true),
            (Some(&["10.0.0.0/8"]), None,                      "::1",             false),
            (Some(&["10.0.0.0/8"]), Some(&["10.1.0.0/16"]),    "10.1.2.3",        false),
            (Some(&["10.0.0.0/8"]), Some(&["10.1.0.0/16"]),    "10.2.2.3",        true),
            (None,                  Some(&["10.1.0.0/16"]),    "10.1.2.3",        false),
            (None,                  Some(&["10.1.0.0/16"]),    "192.0.2.1",       true),
            (Some(&["2001:db8::/32"]), None,                   "2001:db8::7",     true),
            (Some(&["2001:db8::/32"]), None,                   "2001:db9::7",     false),
            (Some(&["::ffff:10.0.0.0/104"]), None,             "10.1.2.3",        true),
            (Some(&["0.0.0.0/0"]),  None,                      "::1",             false),
        ];
        for (allow, deny, client, accepted) in cases {
            let (clients, problems) = clients(allow, deny);
            assert!(problems.is_empty(), "{problems}");
            let client = ClientAddress::Known(client.parse().unwrap());
            assert_eq!(clients.accept(client), accepted, "{allow:?} {deny:?} {client:?}");
        }
        assert!(!clients(Some(&["0.0.0.0/0", "::/0"]), None).0.accept(ClientAddress::Unknown));
        assert!(clients(None, Some(&["10.0.0.0/8"])).0.accept(ClientAddress::Unknown));
    }
}
