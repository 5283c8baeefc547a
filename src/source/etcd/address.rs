//! Where the cluster is, and how to log in: from a URL or from the key `source` of a file.

use std::path::{Path, PathBuf};

use super::keys::Layout;
use crate::config::{EtcdFormat, EtcdSettings};
use crate::notation::List;
use crate::problem::{At, ProblemKind, Problems};

/// A cluster, and the keys in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Address {
    /// `HOST:PORT` of each member.
    pub(super) endpoints: Vec<String>,
    /// Begins with a slash, and does not end with one.
    pub(super) prefix: String,
    pub(super) layout: Layout,
    /// None: plain connections.
    pub(super) tls: Option<TlsFiles>,
    pub(super) user: Option<(String, PathBuf)>,
    pub(super) cache: Option<PathBuf>,
}

/// Files for TLS to the cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct TlsFiles {
    pub(super) ca: Option<PathBuf>,
    /// Certificate and key.
    pub(super) client: Option<(PathBuf, PathBuf)>,
}

const DEFAULT_PREFIX: &str = "/corsgate";
const DEFAULT_PORT: u16 = 2379;

impl Address {
    /// True if a value of `--config` is a URL of etcd, right or wrong.
    pub(super) fn is_url(text: &str) -> bool {
        text.starts_with("etcd://") || text.starts_with("etcds://")
    }

    /// Reads `etcd://HOST:PORT,HOST:PORT/PREFIX?key=value`. Err: why it cannot be used.
    pub(super) fn of_url(url: &str) -> Result<Self, String> {
        let (scheme, rest) = url.split_once("://").ok_or("write etcd://HOST:PORT/PREFIX")?;
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let (hosts, prefix) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
        if hosts.contains('@') {
            return Err("a URL on the command line must have no password; write ?user=NAME&password_file=FILE".into());
        }
        let mut settings = EtcdSettings {
            endpoints: Some(hosts.split(',').map(str::to_owned).collect::<List>()),
            prefix: (!prefix.trim_matches('/').is_empty()).then(|| prefix.to_owned()),
            tls: (scheme == "etcds").then(Default::default),
            ..EtcdSettings::default()
        };
        for (key, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let value = Some(value.into_owned());
            match (&*key, &mut settings.tls) {
                ("ca", Some(tls)) => tls.ca = value,
                ("certificate", Some(tls)) => tls.certificate = value,
                ("key", Some(tls)) => tls.key = value,
                ("ca" | "certificate" | "key", None) => return Err(format!("`{key}` needs TLS; write etcds://")),
                ("user", _) => settings.user = value,
                ("password_file", _) => settings.password_file = value,
                ("cache", _) => settings.cache = value,
                ("format", _) => {
                    settings.format = match value.as_deref() {
                        Some("corsgate") => Some(EtcdFormat::Corsgate),
                        Some("apisix") => Some(EtcdFormat::Apisix),
                        other => {
                            let other = other.unwrap_or_default();
                            return Err(format!("unknown format `{other}`; write format=corsgate or format=apisix"));
                        }
                    };
                }
                _ => {
                    return Err(format!(
                        "there is no option `{key}`; write ca, certificate, key, user, password_file, cache or format"
                    ));
                }
            }
        }
        let mut problems = Problems::default();
        let address = Address::of(&settings, Path::new(""), &At::root(), &mut problems);
        match (address, problems.iter().next()) {
            (Some(address), None) => Ok(address),
            (_, Some(problem)) => Err(problem.to_string()),
            (None, None) => Err("it cannot be used".into()),
        }
    }

    /// Reads the key `source.etcd`. Paths are relative to `folder`.
    pub(super) fn of(settings: &EtcdSettings, folder: &Path, at: &At<'_>, problems: &mut Problems) -> Option<Self> {
        let mut endpoints = Vec::new();
        let entries = settings.endpoints.as_ref().map(List::entries).unwrap_or_default();
        if entries.is_empty() {
            problems.add(&at.key("endpoints"), ProblemKind::Missing { example: "endpoints: [127.0.0.1:2379]" });
        }
        for (i, entry) in entries.iter().enumerate() {
            match endpoint(entry) {
                Some(endpoint) => endpoints.push(endpoint),
                None => problems.add(
                    &at.key("endpoints").index(i),
                    ProblemKind::WrongValue {
                        found: format!("`{entry}`"),
                        expected: "a host and a port, such as `127.0.0.1:2379`".into(),
                    },
                ),
            }
        }
        let (layout, default_prefix) = match settings.format.unwrap_or_default() {
            EtcdFormat::Corsgate => (Layout::Parts, DEFAULT_PREFIX),
            EtcdFormat::Apisix => (Layout::Apisix, "/apisix"),
        };
        let prefix = settings.prefix.as_deref().unwrap_or(default_prefix);
        let prefix = format!("/{}", prefix.trim_matches('/'));
        if prefix == "/" || prefix.chars().any(char::is_control) || prefix.len() > 512 {
            problems.add(
                &at.key("prefix"),
                ProblemKind::WrongValue {
                    found: format!("`{prefix}`"),
                    expected: "a prefix such as `/corsgate`".into(),
                },
            );
        }
        let path = |name: &String| folder.join(name);
        let tls = settings.tls.as_ref().map(|tls| {
            let client = match (&tls.certificate, &tls.key) {
                (Some(certificate), Some(key)) => Some((path(certificate), path(key))),
                (None, None) => None,
                (Some(_), None) => {
                    let kind = ProblemKind::NeedsAnother { key: "certificate", other: "key" };
                    problems.add(&at.key("tls").key("certificate"), kind);
                    None
                }
                (None, Some(_)) => {
                    let kind = ProblemKind::NeedsAnother { key: "key", other: "certificate" };
                    problems.add(&at.key("tls").key("key"), kind);
                    None
                }
            };
            TlsFiles { ca: tls.ca.as_ref().map(path), client }
        });
        let user = match (&settings.user, &settings.password_file) {
            (Some(user), Some(file)) => Some((user.clone(), path(file))),
            (None, None) => None,
            (Some(_), None) => {
                problems.add(&at.key("user"), ProblemKind::NeedsAnother { key: "user", other: "password_file" });
                None
            }
            (None, Some(_)) => {
                let kind = ProblemKind::NeedsAnother { key: "password_file", other: "user" };
                problems.add(&at.key("password_file"), kind);
                None
            }
        };
        let cache = settings.cache.as_ref().map(path);
        (!problems.any_errors()).then_some(Address { endpoints, prefix, layout, tls, user, cache })
    }

    /// Of a file whose key `source` has an error.
    pub(super) fn unknown() -> Self {
        Address {
            endpoints: Vec::new(),
            prefix: DEFAULT_PREFIX.into(),
            layout: Layout::default(),
            tls: None,
            user: None,
            cache: None,
        }
    }

    /// For messages: without files and user.
    pub(super) fn name(&self) -> String {
        let scheme = if self.tls.is_some() { "etcds" } else { "etcd" };
        format!("{scheme}://{}{}", self.endpoints.join(","), self.prefix)
    }
}

/// Host and port, with the default port if there is none.
fn endpoint(text: &str) -> Option<String> {
    let with_port = match text.rsplit_once(':') {
        // The colons of an IPv6 address without a port are in brackets.
        Some((_, port)) if !port.ends_with(']') => text.to_owned(),
        _ => format!("{text}:{DEFAULT_PORT}"),
    };
    let authority: http::uri::Authority = with_port.parse().ok()?;
    let usable = authority.port_u16()? > 0 && !authority.host().is_empty() && !with_port.contains('@');
    usable.then_some(with_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_are_read_or_refused() {
        for (url, expected) in [
            ("etcd://127.0.0.1:2379/corsgate", "etcd://127.0.0.1:2379/corsgate"),
            ("etcd://a:1,b:2,c/edge/eu/", "etcd://a:1,b:2,c:2379/edge/eu"),
            ("etcd://[::1]", "etcd://[::1]:2379/corsgate"),
            ("etcds://a/x?ca=ca.pem&user=u&password_file=p", "etcds://a:2379/x"),
            ("etcd:///x", "endpoints[0]: found"),
            ("etcd://a:0/x", "endpoints[0]: found"),
            ("etcd://a:http/x", "endpoints[0]: found"),
            ("etcd://root:secret@a/x", "a URL on the command line must have no password"),
            ("etcd://a/x?ca=ca.pem", "`ca` needs TLS"),
            ("etcd://a/x?colour=red", "there is no option `colour`"),
            ("etcd://a?format=apisix", "etcd://a:2379/apisix"),
            ("etcd://a/x?format=corsgate", "etcd://a:2379/x"),
            ("etcd://a/x?format=kong", "unknown format `kong`; write format=corsgate"),
            ("etcd://a/x?user=u", "user: `user` requires `password_file`"),
            ("etcds://a/x?key=k", "tls.key: `key` requires `certificate`"),
        ] {
            let read = Address::of_url(url).map_or_else(|why| why, |address| address.name());
            assert!(read.starts_with(expected), "{url}: {read}");
        }
    }
}
