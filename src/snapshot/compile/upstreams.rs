//! Compiles upstreams.

use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::os::unix;
use std::sync::Arc;
use std::time::Duration;

use super::Compiler;
use crate::config::{self, HEALTHY_STATUS, RETRIES};
use crate::domain::{HostName, check_name, split_port};
use crate::notation::{self, Toggle, Use};
use crate::problem::{At, ProblemKind};
use crate::snapshot::{
    Address, Balance, Ejection, HashOn, HealthCheck, HttpCheck, Node, NodeAddress, NodeLimit, Timeouts, Upstream,
    UpstreamId, UpstreamTls,
};
use crate::tls::{Identity, Pem};

impl<'d> Compiler<'d> {
    pub(super) fn use_upstream(
        &mut self,
        upstream: &'d Use<config::Upstream>,
        owner: &str,
        at: &At<'_>,
    ) -> Option<UpstreamId> {
        match upstream {
            Use::Inline(upstream) => self.upstream(owner, upstream, at),
            Use::Named(name) => match self.upstream_ids.get(name.as_str()) {
                Some(id) => *id,
                None => {
                    self.unknown("upstream", name, &self.document.upstreams, at);
                    None
                }
            },
        }
    }

    pub(super) fn upstream(&mut self, name: &str, upstream: &config::Upstream, at: &At<'_>) -> Option<UpstreamId> {
        let config::Upstream {
            nodes,
            balance,
            hash_on,
            timeouts,
            retries,
            http2,
            tls,
            health_check,
            ejection,
            slow_start,
            proxy_protocol,
            max_connections,
            queue,
        } = upstream;
        let balance = self.balance(*balance, hash_on.as_deref(), at);
        let timeouts = self.timeouts(timeouts, &at.key("timeouts"));
        let retries = retries.unwrap_or(RETRIES);
        self.in_range(retries as u64, 0..=10, "`1` for one retry", &at.key("retries"));
        let named = tls.as_ref().is_some_and(|tls| tls.sni.is_some());
        let tls = tls.as_ref().map(|tls| self.upstream_tls(tls, &at.key("tls")));
        let health_check = health_check.as_ref().map(|check| self.health_check(check, &at.key("health_check")));
        let ejection = self.ejection(ejection.as_ref(), &at.key("ejection"));
        let slow_start = slow_start.map(|time| self.positive(time, "`30s`", &at.key("slow_start")));
        let limit = self.node_limit(*max_connections, queue.as_ref(), at);
        let at_nodes = at.key("nodes");
        let nodes = match nodes.as_deref() {
            None => {
                let example = "nodes: [{ address: 127.0.0.1:8000 }]";
                self.problems.add(&at_nodes, ProblemKind::Missing { example });
                return None;
            }
            Some([]) => {
                self.problems.add(&at_nodes, ProblemKind::EmptyList { required: true });
                return None;
            }
            Some(nodes) => nodes,
        };
        let mut compiled = Vec::with_capacity(nodes.len());
        for (i, node) in nodes.iter().enumerate() {
            if let Some(node) = self.node(node, tls.is_some(), &at_nodes.index(i)) {
                compiled.push(node);
            }
        }
        if nodes.iter().all(|node| node.weight == 0) {
            self.problems.add(&at_nodes, ProblemKind::AllWeightsZero { what: "node" });
        }
        if tls.is_some() && !named {
            let nameless = compiled.iter().find_map(|node| match &node.address {
                NodeAddress::Fixed(Address::Ip(address)) => Some((address.ip().to_string(), "an IP address")),
                NodeAddress::Fixed(unix @ Address::Unix(_)) => Some((unix.to_string(), "a Unix-domain socket")),
                NodeAddress::Name { .. } => None,
            });
            if let Some((node, what)) = nameless {
                self.problems.add(&at.key("tls").key("sni"), ProblemKind::SniMissing { node, what });
            }
        }
        if tls.is_none()
            && let Some(i) = nodes.iter().position(|node| node.address.as_deref().is_some_and(is_https_address))
        {
            let address = nodes[i].address.clone().unwrap_or_default();
            self.problems.add(&at_nodes.index(i).key("address"), ProblemKind::NodeWithoutTls { address });
        }
        self.upstreams.push(Upstream {
            name: name.into(),
            nodes: compiled,
            balance: balance.unwrap_or(Balance::RoundRobin),
            timeouts,
            retries,
            http2: *http2,
            tls: tls.flatten(),
            health_check,
            ejection,
            slow_start,
            proxy_protocol: *proxy_protocol,
            limit,
        });
        Some(UpstreamId(self.upstreams.len() - 1))
    }

    fn balance(&mut self, balance: config::Balance, hash_on: Option<&str>, at: &At<'_>) -> Option<Balance> {
        let at_hash = at.key("hash_on");
        let balance = match (balance, hash_on) {
            (config::Balance::Hash, Some(text)) => return self.hash_on("hash_on", text, &at_hash).map(Balance::Hash),
            (config::Balance::Hash, None) => {
                self.problems.add(&at_hash, ProblemKind::Missing { example: "hash_on: client_address" });
                return None;
            }
            (config::Balance::RoundRobin, _) => Balance::RoundRobin,
            (config::Balance::Random, _) => Balance::Random,
            (config::Balance::LeastConnections, _) => Balance::LeastConnections,
        };
        if hash_on.is_some() {
            self.problems.add(&at_hash, ProblemKind::NeedsAnother { key: "hash_on", other: "balance: hash" });
        }
        Some(balance)
    }

    /// Returns the property of requests that the value of `key` names.
    pub(super) fn hash_on(&mut self, key: &'static str, text: &str, at: &At<'_>) -> Option<HashOn> {
        let hash_on = parse_hash_on(text);
        match text.strip_prefix("header:") {
            _ if hash_on.is_none() => self.problems.add(at, ProblemKind::HashOnUnknown { key, text: text.to_owned() }),
            Some(name) => self.warn_if_removed(name, at),
            None => {}
        }
        hash_on
    }

    fn timeouts(&mut self, timeouts: &config::Timeouts, at: &At<'_>) -> Timeouts {
        let config::Timeouts { connect, read, write, idle, total, websocket } = timeouts;
        let mut positive =
            |key: &str, time: &notation::Duration| self.positive(*time, "a duration such as `60s`", &at.key(key));
        Timeouts {
            connect: positive("connect", connect),
            read: positive("read", read),
            write: positive("write", write),
            idle: positive("idle", idle),
            total: total.as_ref().map(|total| positive("total", total)),
            websocket: positive("websocket", websocket),
        }
    }

    /// Compiles TLS to the nodes. None if a file is not usable. Then the problems have the reason.
    fn upstream_tls(&mut self, tls: &config::UpstreamTls, at: &At<'_>) -> Option<UpstreamTls> {
        let config::UpstreamTls { sni, verify, ca, cert, key } = tls;
        if !verify {
            self.problems.add(&at.key("verify"), ProblemKind::VerifyOff);
        }
        let sni = match sni.as_deref() {
            Some(name) => match check_name(name) {
                Ok(()) if !name.is_empty() => Some(Box::from(name)),
                _ => {
                    let kind = ProblemKind::BadAddress {
                        text: name.into(),
                        what: "a host name in lower case",
                        example: "api.internal",
                    };
                    self.problems.add(&at.key("sni"), kind);
                    None
                }
            },
            None => None,
        };
        let authorities = match ca {
            Some(ca) => Some(self.authorities(ca, &at.key("ca"))?),
            None => {
                let roots = if *verify { (self.env.roots)() } else { Ok(1) };
                match roots {
                    Ok(0) => self.problems.add(at, ProblemKind::NoRoots { why: None }),
                    Ok(_) => {}
                    Err(why) => self.problems.add(at, ProblemKind::NoRoots { why: Some(why) }),
                }
                None
            }
        };
        let identity = match (cert, key) {
            (None, None) => None,
            (Some(cert), Some(key)) => {
                let (chain, private) = (self.file(cert, &at.key("cert"))?, self.file(key, &at.key("key"))?);
                let pem = |path, text| Pem { path, text };
                let identity = Identity::parse(pem(cert, &chain), pem(key, &private), self.env.now);
                Some(self.usable_pair(identity, at)?)
            }
            (Some(_), None) => {
                self.problems.add(&at.key("key"), ProblemKind::NeedsAnother { key: "cert", other: "key" });
                None
            }
            (None, Some(_)) => {
                self.problems.add(&at.key("cert"), ProblemKind::NeedsAnother { key: "key", other: "cert" });
                None
            }
        };
        Some(UpstreamTls { sni, verify: *verify, authorities, identity })
    }

    fn health_check(&mut self, check: &config::HealthCheck, at: &At<'_>) -> HealthCheck {
        let config::HealthCheck { path, host, interval, timeout, status, healthy_after, unhealthy_after } = check;
        for (key, alone) in [("host", host.is_some()), ("status", status.is_some())] {
            if alone && path.is_none() {
                let kind =
                    ProblemKind::NeedsAnother { key: if key == "host" { "host" } else { "status" }, other: "path" };
                self.problems.add(&at.key(key), kind);
            }
        }
        let http = path.as_deref().map(|path| {
            let is_target = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic() && b != b'#');
            if !is_target {
                let why = "it must begin with a slash and have only visible ASCII characters, without `#`";
                let kind = ProblemKind::BadPath { text: path.into(), why, write: Some("/health".to_owned()) };
                self.problems.add(&at.key("path"), kind);
            }
            let host = host.as_deref().and_then(|host| {
                let usable = HostName::parse(host).is_some();
                if !usable {
                    let kind = ProblemKind::BadHost {
                        text: host.into(),
                        why: "it cannot be the value of a Host header",
                        write: Some("api.internal".to_owned()),
                    };
                    self.problems.add(&at.key("host"), kind);
                }
                usable.then(|| host.into())
            });
            let status = parse_statuses(status.as_deref().unwrap_or(HEALTHY_STATUS));
            if status.is_none() {
                let text = check.status.clone().unwrap_or_default();
                self.problems.add(&at.key("status"), ProblemKind::BadStatusRange { text });
            }
            HttpCheck { path: path.into(), host, status: status.unwrap_or((200, 399)) }
        });
        self.in_range(u64::from(*healthy_after), 1..=100, "`2`", &at.key("healthy_after"));
        self.in_range(u64::from(*unhealthy_after), 1..=100, "`3`", &at.key("unhealthy_after"));
        HealthCheck {
            http,
            interval: self.positive(*interval, "`5s`", &at.key("interval")),
            timeout: self.positive(*timeout, "`2s`", &at.key("timeout")),
            healthy_after: *healthy_after,
            unhealthy_after: *unhealthy_after,
        }
    }

    fn node_limit(
        &mut self,
        max_connections: Option<usize>,
        queue: Option<&config::Queue>,
        at: &At<'_>,
    ) -> Option<NodeLimit> {
        let at_queue = at.key("queue");
        let (length, timeout) = match queue {
            None => (0, Duration::ZERO),
            Some(config::Queue { length, timeout }) => {
                self.in_range(*length as u64, 1..=100_000, "`100`", &at_queue.key("length"));
                (*length, self.positive(*timeout, "`1s`", &at_queue.key("timeout")))
            }
        };
        let Some(max_connections) = max_connections else {
            if queue.is_some() {
                self.problems.add(&at_queue, ProblemKind::NeedsAnother { key: "queue", other: "max_connections" });
            }
            return None;
        };
        self.in_range(max_connections as u64, 1..=1_000_000, "`100`", &at.key("max_connections"));
        Some(NodeLimit { max_connections, queue: length, timeout })
    }

    fn ejection(&mut self, ejection: Option<&Toggle<config::Ejection>>, at: &At<'_>) -> Option<Ejection> {
        let default = config::Ejection::default();
        let config::Ejection { after, time } = match ejection {
            None | Some(Toggle::On) => &default,
            Some(Toggle::Off) => return None,
            Some(Toggle::With(ejection)) => ejection,
        };
        self.in_range(u64::from(*after), 1..=1000, "`5`", &at.key("after"));
        Some(Ejection { after: *after, time: self.positive(*time, "`10s`", &at.key("for")) })
    }

    fn node(&mut self, node: &config::Node, with_tls: bool, at: &At<'_>) -> Option<Node> {
        self.in_range(u64::from(node.weight), 0..=1000, "a weight such as `10`", &at.key("weight"));
        let at = at.key("address");
        let Some(address) = node.address.as_deref() else {
            self.problems.add(&at, ProblemKind::Missing { example: "address: 127.0.0.1:8000" });
            return None;
        };
        let found = match socket_path(address) {
            Some(Ok(path)) => self.socket(path).map(NodeAddress::Fixed),
            Some(Err((why, write))) => Err(ProblemKind::BadSocketPath { text: address.into(), why: why.into(), write }),
            None => host_and_port(address).ok_or_else(|| match address_of_url(address) {
                Some((write, tls)) => ProblemKind::NodeUrl { text: address.into(), write, needs_tls: tls && !with_tls },
                None => ProblemKind::BadAddress {
                    text: address.into(),
                    what: "a host with a port",
                    example: "api.internal:8000",
                },
            }),
        };
        match found {
            Ok(address) => Some(Node { address, weight: node.weight }),
            Err(kind) => {
                self.problems.add(&at, kind);
                None
            }
        }
    }

    /// Returns the address of a Unix-domain socket. `path` has the spelling of the configuration.
    pub(super) fn socket(&self, path: &str) -> Result<Address, ProblemKind> {
        let whole = (self.env.socket)(path);
        let shown = whole.display();
        let why = match whole.to_str() {
            Some(whole) if unix::net::SocketAddr::from_pathname(whole).is_ok() => {
                return Ok(Address::Unix(Arc::from(whole)));
            }
            Some(whole) => format!("`{shown}` has {} bytes, and the system allows 107", whole.len()),
            None => format!("`{shown}` is not UTF-8"),
        };
        Err(ProblemKind::BadSocketPath { text: format!("unix:{path}"), why: why.into(), write: None })
    }
}

/// Parses an IP address or a name, with a port.
fn host_and_port(address: &str) -> Option<NodeAddress> {
    let (host, port) = split_port(address);
    let port: u16 = port?.parse().ok().filter(|port| *port != 0)?;
    let host = host.to_ascii_lowercase();
    let ip = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => Some(IpAddr::V6(v6.parse::<Ipv6Addr>().ok()?)),
        None => host.parse().ok(),
    };
    if let Some(ip) = ip {
        return Some(NodeAddress::Fixed(Address::Ip(SocketAddr::new(ip, port))));
    }
    check_name(host.strip_suffix('.').unwrap_or(&host)).ok()?;
    Some(NodeAddress::Name { host: host.into(), port })
}

/// Returns the path in `unix:/run/app.sock`. Err: the reason, and the text to write instead. None if the text is no
/// address of a socket. A host can have the name `unix`, so `unix:8000` is no address of a socket.
pub(super) fn socket_path(text: &str) -> Option<Result<&str, (&'static str, Option<String>)>> {
    // The forms of nginx, HAProxy and Caddy.
    let foreign = || ["http://unix:", "unix@", "unix/"].iter().find_map(|prefix| text.strip_prefix(prefix));
    let (prefixed, path) = match text.strip_prefix("unix:") {
        Some(port) if port.parse::<u16>().is_ok() => return None,
        Some(path) => (true, path),
        None => (false, foreign().or_else(|| Some(text).filter(|text| text.starts_with(['/', '.'])))?),
    };
    let fault = |path: &str| match path {
        "" | "/" => Some("the path of a file is missing"),
        _ if path.starts_with('@') => Some("abstract names are not supported"),
        _ if path.starts_with("//") => Some("its path begins with two slashes"),
        _ if path.contains(':') => Some("a colon cannot be a part of the path"),
        _ if path.ends_with('/') => Some("it is the path of a directory"),
        _ if path.chars().any(|c| c.is_whitespace() || c.is_control() || "\"\\${}".contains(c)) => {
            Some("spaces, control characters, quotes, backslashes, `$` and braces cannot be a part of the path")
        }
        _ => None,
    };
    let why = match fault(path) {
        Some(why) => why,
        None if prefixed => return Some(Ok(path)),
        None => "a path is written behind `unix:`",
    };
    // In nginx, a colon and the path of the request can follow.
    let meant = path.split(':').next().unwrap_or_default();
    let meant = match meant.strip_prefix("//") {
        Some(rest) => format!("/{}", rest.trim_start_matches('/')),
        None => meant.to_owned(),
    };
    Some(Err((why, fault(&meant).is_none().then(|| format!("unix:{meant}")))))
}

/// Whether an address has the port of https.
fn is_https_address(address: &str) -> bool {
    split_port(address).1 == Some("443")
}

/// Returns the address in a URL, and whether it needs TLS. None if the text is no URL.
fn address_of_url(text: &str) -> Option<(String, bool)> {
    let (scheme, rest) = text.split_once("://")?;
    let (port, tls) = match &*scheme.to_ascii_lowercase() {
        "http" | "h2c" | "ws" | "grpc" => (80, false),
        "https" | "wss" | "grpcs" => (443, true),
        _ => return None,
    };
    let authority = rest.split(['/', '?', '#']).next().filter(|authority| !authority.is_empty())?;
    let write = match split_port(authority).1 {
        Some(_) => authority.to_owned(),
        None => format!("{authority}:{port}"),
    };
    Some((write, tls))
}

/// Parses `header:NAME`, `cookie:NAME`, `path` or `client_address`.
fn parse_hash_on(text: &str) -> Option<HashOn> {
    match text.split_once(':') {
        None if text == "path" => Some(HashOn::Path),
        None if text == "client_address" => Some(HashOn::ClientAddress),
        Some(("header", name)) => http::HeaderName::from_bytes(name.as_bytes()).ok().map(HashOn::Header),
        // A cookie name is a token like a header name (RFC 6265 section 4.1.1), but it is case-sensitive.
        Some(("cookie", name)) => {
            http::HeaderName::from_bytes(name.as_bytes()).ok().map(|_| HashOn::Cookie(name.into()))
        }
        _ => None,
    }
}

/// Parses `200` or `200-399`.
fn parse_statuses(text: &str) -> Option<(u16, u16)> {
    let status = |text: &str| text.parse().ok().filter(|status| (100..=599).contains(status));
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let (first, last) = (status(first)?, status(last)?);
    (first <= last).then_some((first, last))
}
