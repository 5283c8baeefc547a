//! Compiles the settings of the process: listeners, limits, the admin listener and the access log.

use std::net::SocketAddr;
use std::sync::Arc;

use super::Compiler;
use super::upstreams::socket_path;
use crate::behavior::clients::Clients;
use crate::config::{self, ADMIN_ADDRESS, ClientCertificate};
use crate::domain::Networks;
use crate::notation::{self, Toggle};
use crate::problem::{At, ProblemKind, RemovedBecause};
use crate::snapshot::{
    AccessLog, Address, AdminWrite, ClientCertificates, Limits, Listener, ListenerTls, LogTarget, StartupListener,
    StartupSettings, TlsVersion, UnderscoresInHeaders,
};
use crate::tls::{Authorities, Certificate, Certificates, Pem};
use crate::tokens::{TokenFault, Tokens};
use crate::trusted_proxies::{self, FieldKind, Peer, TrustedProxies};

const ADDRESS: &str = "127.0.0.1:9080";

/// Longest path of a Unix-domain socket: the kernel allows 108 bytes, with a terminating zero.
const SOCKET_PATH: u64 = 107;

/// Default of `mode`: the owner and the group of the socket may connect.
const SOCKET_MODE: u32 = 0o660;

/// A certificate that expires in fewer days than this gets a warning.
const EXPIRES_SOON_DAYS: i64 = 14;

impl Compiler<'_> {
    pub(super) fn startup(&mut self, listeners: &[Arc<Listener>]) -> Option<StartupSettings> {
        let root = At::root();
        let config::Server { threads, grace_period, drain_delay, upgrade_socket } = &self.document.server;
        let at = root.key("server");
        self.in_range(*threads as u64, 0..=1024, "`0` for one thread per core", &at.key("threads"));
        if let Some(socket) = upgrade_socket {
            let at = at.key("upgrade_socket");
            match socket.is_empty() {
                true => self.problems.add(&at, ProblemKind::EmptyPath { most: 107 }),
                false => self.in_range(socket.len() as u64, 1..=SOCKET_PATH, "a path of 1 to 107 bytes", &at),
            }
        }
        let listeners: Vec<_> = listeners
            .iter()
            .map(|listener| StartupListener {
                address: listener.address.clone(),
                mode: listener.mode,
                tls: listener.tls.is_some(),
            })
            .collect();
        let overlapping = |address: &Address| {
            let found = listeners.iter().find(|listener| listener.address.overlaps(address))?;
            Some(ProblemKind::AddressTwice { address: address.to_string(), other: found.address.to_string() })
        };
        if let Some(kind) = upgrade_socket.as_deref().and_then(|path| overlapping(&Address::Unix(path.into()))) {
            self.problems.add(&at.key("upgrade_socket"), kind);
        }
        let at = root.key("admin");
        let admin = match &self.document.admin {
            None => None,
            Some(admin) => {
                let at = at.key("address");
                let address = admin.address.as_deref().unwrap_or(ADMIN_ADDRESS);
                let address = self.address(address, ADMIN_ADDRESS, &at)?;
                if !address.ip().is_loopback() {
                    self.problems.add(&at, ProblemKind::AdminExposed { address: address.to_string() });
                }
                if let Some(kind) = overlapping(&Address::Ip(address)) {
                    self.problems.add(&at, kind);
                }
                Some(address)
            }
        };
        Some(StartupSettings {
            listeners,
            admin,
            threads: *threads,
            grace_period: grace_period.get(),
            drain_delay: drain_delay.get(),
            upgrade_socket: upgrade_socket.as_deref().map(Box::from),
        })
    }

    pub(super) fn admin_write(&mut self, at: &At<'_>) -> Option<AdminWrite> {
        let admin = self.document.admin.as_ref()?;
        let allows_remote = admin.dangerously_allow_remote_write == Some(true);
        let Some(path) = &admin.write else {
            if allows_remote {
                let (key, other) = ("dangerously_allow_remote_write", "write");
                self.problems.add(&at.key(key), ProblemKind::NeedsAnother { key, other });
            }
            return None;
        };
        let address = admin.address.as_deref().unwrap_or(ADMIN_ADDRESS).parse::<SocketAddr>();
        if let Some(address) = address.ok().filter(|address| !address.ip().is_loopback() && !allows_remote) {
            self.problems.add(&at.key("address"), ProblemKind::RemoteWrite { address: address.to_string() });
        }
        let at = at.key("write");
        let text = self.file(path, &at)?;
        let tokens = Tokens::parse(&String::from_utf8_lossy(&text));
        let tokens =
            tokens.map_err(|TokenFault { line, why }| ProblemKind::BadTokenFile { path: path.to_owned(), line, why });
        Some(AdminWrite { tokens: self.usable(tokens, &at)?, allows_remote })
    }

    pub(super) fn trusted_proxies(&mut self, at: &At<'_>) -> TrustedProxies {
        // `Ok(None)` stands for `unix`.
        let parse = |text: &str| match Networks::parse_entry(text) {
            None if text == trusted_proxies::UNIX => Ok(None),
            None => Err(ProblemKind::BadAddress {
                text: text.to_owned(),
                what: "an IP address, a network or `unix`",
                example: "10.0.0.0/8",
            }),
            network => Ok(network),
        };
        let entries = self.parsed(self.document.trusted_proxies.as_ref(), false, at, parse);
        for (i, network) in &entries {
            if let Some(network) = network.filter(|network| network.prefix_len() == 0) {
                self.problems.add(&at.index(*i), ProblemKind::TrustsEveryone { text: network.to_string() });
            }
        }
        let unix = entries.iter().any(|(_, network)| network.is_none());
        TrustedProxies::new(entries.into_iter().filter_map(|(_, network)| network).collect(), unix)
    }

    /// Warns about the name of a request header field that the gateway removes, so that neither it nor the upstream can
    /// use the field.
    pub(super) fn warn_if_removed(&mut self, name: &str, at: &At<'_>) {
        let drops = self.document.underscores_in_headers == UnderscoresInHeaders::Drop;
        let by = match FieldKind::of(&name.to_ascii_lowercase()) {
            FieldKind::Underscore if drops => RemovedBecause::Underscore,
            FieldKind::ForwardingLookalike => RemovedBecause::Lookalike,
            FieldKind::Forwarding if self.document.trusted_proxies.is_none() => RemovedBecause::NoTrustedProxy,
            FieldKind::Underscore | FieldKind::Forwarding | FieldKind::Ordinary => return,
        };
        self.problems.add(at, ProblemKind::HeaderRemoved { name: name.to_owned(), by });
    }

    pub(super) fn listeners(&mut self, trusted: &TrustedProxies, at: &At<'_>) -> Vec<Arc<Listener>> {
        let listeners = match &self.document.listeners {
            Some(listeners) => listeners.as_slice(),
            None => {
                self.problems.add(at, ProblemKind::Missing { example: "listeners: [{ address: 127.0.0.1:9080 }]" });
                return Vec::new();
            }
        };
        if listeners.is_empty() {
            self.problems.add(at, ProblemKind::EmptyList { required: true });
        }
        let mut compiled: Vec<Arc<Listener>> = Vec::with_capacity(listeners.len());
        for (i, listener) in listeners.iter().enumerate() {
            let at = at.index(i);
            let tls = listener.tls.as_ref().map(|tls| self.listener_tls(tls, &at.key("tls")));
            let redirect = match listener.redirect_to_https {
                None | Some(Toggle::Off) => None,
                Some(Toggle::On) => Some(443),
                Some(Toggle::With(port)) => Some(port),
            };
            if listener.http2.is_some() && tls.is_some() {
                self.problems.add(&at.key("http2"), ProblemKind::Http2BesideTls);
            }
            let at_redirect = at.key("redirect_to_https");
            if let Some(port) = redirect {
                self.in_range(u64::from(port), 1..=65535, "`true` for port 443, or a port number", &at_redirect);
                if tls.is_some() {
                    self.problems.add(&at_redirect, ProblemKind::RedirectOverTls);
                }
            }
            if listener.proxy_protocol && trusted.is_empty() {
                let kind = ProblemKind::NeedsAnother { key: "proxy_protocol", other: "trusted_proxies" };
                self.problems.add(&at.key("proxy_protocol"), kind);
            }
            let clients = listener.clients.as_ref();
            let clients = clients.map(|clients| Clients::compile(clients, &at.key("clients"), self.problems));
            let at_address = at.key("address");
            let address = match listener.address.as_deref() {
                None => {
                    self.problems.add(&at_address, ProblemKind::Missing { example: "address: 127.0.0.1:9080" });
                    None
                }
                Some(address) => self.listen_address(address, &at_address),
            };
            let mode = self.socket_mode(listener.mode.as_deref(), address.as_ref(), &at.key("mode"));
            let Some(address) = address else { continue };
            if let Some(other) = compiled.iter().find(|other| other.address.overlaps(&address)) {
                let (address, other) = (address.to_string(), other.address.to_string());
                self.problems.add(&at_address, ProblemKind::AddressTwice { address, other });
            }
            let is_unix = matches!(address, Address::Unix(_));
            if is_unix && listener.proxy_protocol && !trusted.is_empty() && !trusted.trusts(Peer::Unix) {
                self.problems.add(&at.key("proxy_protocol"), ProblemKind::UnixNotTrusted);
            }
            compiled.push(Arc::new(Listener {
                address,
                mode,
                tls: tls.flatten(),
                http2: listener.http2 == Some(true),
                redirect,
                proxy_protocol: listener.proxy_protocol,
                clients,
            }));
        }
        compiled
    }

    /// Compiles TLS with clients. None if no certificate is usable. Then the problems have the reason.
    fn listener_tls(&mut self, tls: &config::ListenerTls, at: &At<'_>) -> Option<ListenerTls> {
        let config::ListenerTls { certificates, min_version, http2, client_ca, client_certificate } = tls;
        let min_version = match min_version.as_deref() {
            None | Some("1.2") => TlsVersion::Tls12,
            Some("1.3") => TlsVersion::Tls13,
            Some(word) => {
                let (value, range) = (format!("TLS {word}"), "\"1.2\" or \"1.3\"".to_owned());
                let write = "`min_version: \"1.2\"`".to_owned();
                self.problems.add(&at.key("min_version"), ProblemKind::OutOfRange { value, range, write });
                TlsVersion::Tls13
            }
        };
        let clients = match (client_ca, client_certificate) {
            (Some(ca), required) => {
                let required = !matches!(required, Some(ClientCertificate::Optional));
                Some(
                    self.authorities(ca, &at.key("client_ca"))
                        .map(|authorities| ClientCertificates { authorities, required }),
                )
            }
            (None, Some(_)) => {
                let kind = ProblemKind::NeedsAnother { key: "client_certificate", other: "client_ca" };
                self.problems.add(&at.key("client_certificate"), kind);
                None
            }
            (None, None) => None,
        };
        let at = at.key("certificates");
        let example = "certificates: [{ cert: tls/api.crt, key: tls/api.key }]";
        let all = match certificates.as_deref() {
            None => {
                self.problems.add(&at, ProblemKind::Missing { example });
                return None;
            }
            Some([]) => {
                self.problems.add(&at, ProblemKind::EmptyList { required: true });
                return None;
            }
            Some(all) => all,
        };
        let all: Option<Vec<_>> = all
            .iter()
            .enumerate()
            .map(|(i, pair)| self.certificate(pair, &at.index(i)))
            .collect::<Vec<_>>()
            .into_iter()
            .collect();
        let clients = match clients {
            None => None,
            Some(clients) => Some(clients?),
        };
        Some(ListenerTls { certificates: Arc::new(Certificates::new(all?)?), min_version, http2: *http2, clients })
    }

    fn certificate(&mut self, pair: &config::Certificate, at: &At<'_>) -> Option<Arc<Certificate>> {
        let (cert, key) = match (&pair.cert, &pair.key) {
            (Some(cert), Some(key)) => (cert, key),
            (cert, key) => {
                let kind = match (cert, key) {
                    (Some(_), _) => ProblemKind::NeedsAnother { key: "cert", other: "key" },
                    (None, Some(_)) => ProblemKind::NeedsAnother { key: "key", other: "cert" },
                    (None, None) => ProblemKind::Missing { example: "{ cert: tls/api.crt, key: tls/api.key }" },
                };
                self.problems.add(at, kind);
                return None;
            }
        };
        let (chain, private) = (self.file(cert, &at.key("cert")), self.file(key, &at.key("key")));
        let (chain, private) = (chain?, private?);
        let now = self.env.now;
        let certificate = Certificate::parse(Pem { path: cert, text: &chain }, Pem { path: key, text: &private }, now);
        let certificate = self.usable_pair(certificate, at)?;
        let days = certificate.days_left(now);
        if days < EXPIRES_SOON_DAYS {
            self.problems.add(&at.key("cert"), ProblemKind::CertificateEndsSoon { path: cert.clone(), days });
        }
        Some(Arc::new(certificate))
    }

    pub(super) fn authorities(&mut self, path: &str, at: &At<'_>) -> Option<Authorities> {
        let text = self.file(path, at)?;
        self.usable(Authorities::parse(Pem { path, text: &text }), at)
    }

    /// Returns the contents of a file that the configuration names. None if it cannot be read.
    pub(super) fn file(&mut self, path: &str, at: &At<'_>) -> Option<Vec<u8>> {
        let read = (self.env.file)(path);
        self.usable(read.map_err(|why| ProblemKind::FileUnreadable { path: path.to_owned(), why }), at)
    }

    /// Reports a problem as [`Self::usable`] does, for a mapping with `cert` and `key`. The problem is reported at the
    /// wrong key.
    pub(super) fn usable_pair<T>(&mut self, result: Result<T, ProblemKind>, at: &At<'_>) -> Option<T> {
        let of_key = |kind: &ProblemKind| match kind {
            ProblemKind::BadKey { .. } | ProblemKind::KeyMismatch { .. } => true,
            ProblemKind::NoPem { what, .. } => *what != "certificate",
            _ => false,
        };
        let key = if result.as_ref().is_err_and(of_key) { "key" } else { "cert" };
        self.usable(result, &at.key(key))
    }

    pub(super) fn usable<T>(&mut self, result: Result<T, ProblemKind>, at: &At<'_>) -> Option<T> {
        result.map_err(|kind| self.problems.add(at, kind)).ok()
    }

    fn listen_address(&mut self, text: &str, at: &At<'_>) -> Option<Address> {
        let found = match socket_path(text) {
            Some(Ok(path)) => self.socket(path).and_then(|address| match &address {
                // The white space may come from the directory of the configuration.
                Address::Unix(path) if path.contains(char::is_whitespace) => {
                    let why = format!("an upgrade cannot hand over `{path}`, which has a space").into();
                    Err(ProblemKind::BadSocketPath { text: text.into(), why, write: None })
                }
                _ => Ok(address),
            }),
            Some(Err((why, write))) => Err(ProblemKind::BadSocketPath { text: text.into(), why: why.into(), write }),
            None => match text.parse::<SocketAddr>() {
                Ok(address) if address.port() != 0 => Ok(Address::Ip(address)),
                _ => {
                    let what = "an IP address with a port, or `unix:` with a path";
                    Err(ProblemKind::BadAddress { text: text.into(), what, example: ADDRESS })
                }
            },
        };
        self.usable(found, at)
    }

    fn socket_mode(&mut self, text: Option<&str>, address: Option<&Address>, at: &At<'_>) -> u32 {
        let Some(text) = text else { return SOCKET_MODE };
        if let Some(Address::Ip(_)) = address {
            self.problems.add(at, ProblemKind::ModeWithoutUnix);
        }
        // The leading zero is required, so that a decimal number of YAML is no mode.
        let mode = Some(text).filter(|text| text.len() == 4 && text.starts_with('0'));
        match mode.and_then(|text| u32::from_str_radix(text, 8).ok()) {
            Some(mode) => mode,
            None => {
                let (range, write) = ("0000 to 0777, in octal".to_owned(), "`mode: \"0660\"`".to_owned());
                self.problems.add(at, ProblemKind::OutOfRange { value: format!("`{text}`"), range, write });
                SOCKET_MODE
            }
        }
    }

    fn address(&mut self, text: &str, example: &'static str, at: &At<'_>) -> Option<SocketAddr> {
        match text.parse::<SocketAddr>() {
            Ok(address) if address.port() != 0 => Some(address),
            _ => {
                self.problems
                    .add(at, ProblemKind::BadAddress { text: text.into(), what: "an IP address with a port", example });
                None
            }
        }
    }

    pub(super) fn access_log(&mut self, at: &At<'_>) -> Option<AccessLog> {
        let config::AccessLog { to, format, sample, refusals_only } = self.document.access_log.as_ref()?;
        let to = match to.as_str() {
            // `/dev/stdout` is the form of other servers. It is not opened as a file, because stdout may be a socket.
            "stdout" | "/dev/stdout" => LogTarget::Stdout,
            "" => {
                self.problems.add(&at.key("to"), ProblemKind::EmptyEntry);
                LogTarget::Stdout
            }
            path => {
                // This is only a warning, because the directory may exist when the process starts.
                if !(self.env.has_folder)(path) {
                    self.problems.add(&at.key("to"), ProblemKind::FolderMissing { path: path.to_owned() });
                }
                LogTarget::File(path.into())
            }
        };
        if !(0.0..=1.0).contains(sample) {
            let (value, range) = (sample.to_string(), "0 to 1".to_owned());
            self.problems.add(
                &at.key("sample"),
                ProblemKind::OutOfRange { value, range, write: "`0.1` for 10 % of the requests".into() },
            );
        }
        Some(AccessLog { to, format: *format, sample: *sample, refusals_only: *refusals_only })
    }

    pub(super) fn limits(&mut self, at: &At<'_>) -> Option<Limits> {
        let config::Limits {
            uri,
            headers,
            header_count,
            body,
            keepalive,
            header_timeout,
            body_timeout,
            send_timeout,
            connections,
            connections_per_client,
            requests_per_connection,
            connection_age,
            streams,
            stream_idle,
        } = &self.document.limits;
        let mut size = |key, size: &notation::Size, good: std::ops::RangeInclusive<u64>, range: &str, write: &str| {
            if !good.contains(&size.bytes()) {
                let (value, range) = (format!("{} bytes", size.bytes()), range.into());
                self.problems.add(&at.key(key), ProblemKind::OutOfRange { value, range, write: write.into() });
            }
        };
        // `http::Uri` holds at most 65,534 bytes.
        size("uri", uri, 1..=63 << 10, "1B to 63KiB", "`8KiB`");
        size("headers", headers, 1..=1 << 20, "1B to 1MiB", "`64KiB`");
        // Pingora's parser has 256 slots.
        self.in_range(*header_count as u64, 1..=256, "`100`", &at.key("header_count"));
        let most = |limit: &Option<usize>| limit.map_or(1, |limit| limit as u64);
        self.in_range(most(connections), 1..=10_000_000, "`10000`", &at.key("connections"));
        self.in_range(most(connections_per_client), 1..=10_000_000, "`100`", &at.key("connections_per_client"));
        let requests = requests_per_connection.map_or(1, u64::from);
        self.in_range(requests, 1..=u64::from(u32::MAX), "`1000`", &at.key("requests_per_connection"));
        self.in_range(u64::from(*streams), 1..=10_000, "`100`", &at.key("streams"));
        Some(Limits {
            uri: usize::try_from(uri.bytes()).ok()?,
            headers: usize::try_from(headers.bytes()).ok()?,
            header_count: *header_count,
            body: body.map(notation::Size::bytes),
            keepalive: self.positive(*keepalive, "`60s`", &at.key("keepalive")),
            header_timeout: self.positive(*header_timeout, "`10s`", &at.key("header_timeout")),
            body_timeout: self.positive(*body_timeout, "`30s`", &at.key("body_timeout")),
            send_timeout: self.positive(*send_timeout, "`60s`", &at.key("send_timeout")),
            connections: *connections,
            connections_per_client: *connections_per_client,
            requests_per_connection: *requests_per_connection,
            connection_age: connection_age.map(|age| self.positive(age, "`1h`", &at.key("connection_age"))),
            streams: *streams,
            stream_idle: self.positive(*stream_idle, "`5m`", &at.key("stream_idle")),
        })
    }

    /// Reports a duration of 0.
    pub(super) fn positive(&mut self, time: notation::Duration, write: &str, at: &At<'_>) -> std::time::Duration {
        if time.get().is_zero() {
            let kind = ProblemKind::OutOfRange { value: "0".into(), range: "1ms to 24h".into(), write: write.into() };
            self.problems.add(at, kind);
        }
        time.get()
    }

    pub(super) fn in_range(&mut self, value: u64, good: std::ops::RangeInclusive<u64>, write: &str, at: &At<'_>) {
        if !good.contains(&value) {
            let range = format!("{} to {}", good.start(), good.end());
            self.problems.add(at, ProblemKind::OutOfRange { value: value.to_string(), range, write: write.into() });
        }
    }
}
