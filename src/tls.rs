//! Certificates and keys: from PEM files to the types of a TLS handshake.
//!
//! Every fault that can be known before a handshake is found here, when the configuration is loaded: a file that is not
//! PEM, a key of another certificate, an expired certificate. The caller passes the contents of the files and the time.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore};
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::domain::HostName;
use crate::problem::ProblemKind;

/// A certificate chain with its key, for a listener.
pub(crate) struct Certificate {
    key: Arc<CertifiedKey>,
    /// Names in lower case, IP addresses as in a `Host` header, IPv6 in brackets. Wildcards are stored without `*.`.
    exact: Vec<Box<str>>,
    wildcard: Vec<Box<str>>,
    /// Expiry in seconds since 1970.
    expires: i64,
}

/// The certificates of a listener, indexed by server name.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Certificates {
    all: Vec<Arc<Certificate>>,
    exact: HashMap<Box<str>, usize>,
    wildcard: HashMap<Box<str>, usize>,
}

/// Certificate authorities.
#[derive(Clone)]
pub(crate) struct Authorities {
    certificates: Arc<[CertificateDer<'static>]>,
    roots: Arc<RootCertStore>,
}

/// A client certificate with its key, for connections to an upstream.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The end-entity certificate first.
    pub(crate) chain: Vec<CertificateDer<'static>>,
    /// The private key of the first certificate.
    pub(crate) key: PrivateKeyDer<'static>,
}

/// A PEM file and its path, which error messages need.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Pem<'a> {
    /// The path in the spelling of the configuration.
    pub(crate) path: &'a str,
    /// The contents.
    pub(crate) text: &'a [u8],
}

// === impl Certificate, Certificates ===

impl Certificate {
    /// Parses a chain, end-entity certificate first, and its key. `now` is in seconds since 1970.
    pub(crate) fn parse(chain: Pem<'_>, key: Pem<'_>, now: i64) -> Result<Self, ProblemKind> {
        let (certificates, private) = (read_chain(chain)?, read_key(key)?);
        let fields = LeafFields::of(chain.path, &certificates[0], now)?;
        let key = pair(chain.path, key.path, certificates, &private)?;
        Ok(Certificate { key: Arc::new(key), exact: fields.exact, wildcard: fields.wildcard, expires: fields.expires })
    }

    pub(crate) fn key(&self) -> &Arc<CertifiedKey> {
        &self.key
    }

    /// Whether the certificate is valid for a host: a name, or an IP address as in a `Host` header (RFC 9525 section
    /// 6).
    pub(crate) fn covers(&self, host: &str) -> bool {
        let named = |names: &[Box<str>], name: &str| names.iter().any(|known| **known == *name);
        named(&self.exact, host) || parent_domain(host).is_some_and(|base| named(&self.wildcard, base))
    }

    /// The subject alternative names.
    pub(crate) fn names(&self) -> impl Iterator<Item = String> {
        let wildcards = self.wildcard.iter().map(|base| format!("*.{base}"));
        self.exact.iter().map(ToString::to_string).chain(wildcards)
    }

    /// Expiry in seconds since 1970.
    pub(crate) fn expires(&self) -> i64 {
        self.expires
    }

    /// Whole days from `now`, in seconds since 1970, to the expiry.
    pub(crate) fn days_left(&self, now: i64) -> i64 {
        (self.expires - now).div_euclid(86_400)
    }
}

impl Certificates {
    /// The first certificate is the default. None if there is none.
    pub(crate) fn new(all: Vec<Arc<Certificate>>) -> Option<Self> {
        all.first()?;
        let (mut exact, mut wildcard) = (HashMap::new(), HashMap::new());
        for (i, certificate) in all.iter().enumerate() {
            for name in &certificate.exact {
                exact.entry(name.clone()).or_insert(i);
            }
            for base in &certificate.wildcard {
                wildcard.entry(base.clone()).or_insert(i);
            }
        }
        Some(Certificates { all, exact, wildcard })
    }

    /// Selects a certificate for a server name in lower case: the first with this name, else the first with a matching
    /// wildcard, else the default.
    pub(crate) fn find(&self, name: Option<&str>) -> &Arc<Certificate> {
        let found = name.and_then(|name| {
            self.exact.get(name).or_else(|| parent_domain(name).and_then(|base| self.wildcard.get(base)))
        });
        &self.all[found.copied().unwrap_or(0)]
    }

    /// All certificates, the default first.
    pub(crate) fn all(&self) -> &[Arc<Certificate>] {
        &self.all
    }
}

/// Equal chains are equal certificates, because the key belongs to the chain.
impl PartialEq for Certificate {
    fn eq(&self, other: &Self) -> bool {
        self.key.cert == other.key.cert
    }
}

impl Eq for Certificate {}

impl fmt::Debug for Certificate {
    /// Never prints the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Certificate { exact, wildcard, expires, .. } = self;
        f.debug_struct("Certificate")
            .field("exact", exact)
            .field("wildcard", wildcard)
            .field("expires", expires)
            .finish_non_exhaustive()
    }
}

/// The name without its first label: a wildcard stands for exactly one label (RFC 9525 section 6.3).
fn parent_domain(name: &str) -> Option<&str> {
    let (label, base) = name.split_once('.')?;
    (!label.is_empty()).then_some(base)
}

// === impl Authorities, Identity ===

impl Authorities {
    /// Parses a file with one or more certificates.
    pub(crate) fn parse(pem: Pem<'_>) -> Result<Self, ProblemKind> {
        let certificates = read_chain(pem)?;
        let mut roots = RootCertStore::empty();
        for certificate in &certificates {
            roots.add(certificate.clone()).map_err(|error| ProblemKind::BadCertificate {
                path: pem.path.to_owned(),
                why: format!("it is not usable as a certificate authority: {error}"),
            })?;
        }
        Ok(Authorities { certificates: certificates.into(), roots: Arc::new(roots) })
    }

    /// The form that rustls needs.
    pub(crate) fn roots(&self) -> &Arc<RootCertStore> {
        &self.roots
    }

    /// The form that Pingora needs.
    pub(crate) fn certificates(&self) -> &[CertificateDer<'static>] {
        &self.certificates
    }
}

impl PartialEq for Authorities {
    fn eq(&self, other: &Self) -> bool {
        self.certificates == other.certificates
    }
}

impl Eq for Authorities {}

impl fmt::Debug for Authorities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Authorities({})", self.certificates.len())
    }
}

impl Identity {
    /// Parses a chain, end-entity certificate first, and its key. `now` is in seconds since 1970.
    pub(crate) fn parse(chain: Pem<'_>, key: Pem<'_>, now: i64) -> Result<Self, ProblemKind> {
        let (certificates, private) = (read_chain(chain)?, read_key(key)?);
        LeafFields::of(chain.path, &certificates[0], now)?;
        pair(chain.path, key.path, certificates.clone(), &private)?;
        Ok(Identity { chain: certificates, key: private })
    }
}

impl Clone for Identity {
    fn clone(&self) -> Self {
        Identity { chain: self.chain.clone(), key: self.key.clone_key() }
    }
}

// --- reading

/// The fields of an end-entity certificate that are used here.
struct LeafFields {
    exact: Vec<Box<str>>,
    wildcard: Vec<Box<str>>,
    expires: i64,
}

impl LeafFields {
    fn of(path: &str, leaf: &CertificateDer<'_>, now: i64) -> Result<Self, ProblemKind> {
        let bad = |why: String| ProblemKind::BadCertificate { path: path.to_owned(), why };
        let (_, leaf) = X509Certificate::from_der(leaf).map_err(|error| bad(error.to_string()))?;
        let (starts, expires) = (leaf.validity().not_before, leaf.validity().not_after);
        if expires.timestamp() < now {
            return Err(ProblemKind::CertificateExpired { path: path.to_owned(), when: expires.to_string() });
        }
        if starts.timestamp() > now {
            return Err(ProblemKind::CertificateNotYetValid { path: path.to_owned(), when: starts.to_string() });
        }
        let mut fields = LeafFields { exact: Vec::new(), wildcard: Vec::new(), expires: expires.timestamp() };
        let names = leaf.subject_alternative_name().map_err(|error| bad(error.to_string()))?;
        for name in names.iter().flat_map(|names| &names.value.general_names) {
            match name {
                GeneralName::DNSName(name) => {
                    let name = name.to_ascii_lowercase();
                    match name.strip_prefix("*.") {
                        Some(base) => fields.wildcard.push(base.into()),
                        None => fields.exact.push(name.into()),
                    }
                }
                GeneralName::IPAddress(bytes) => fields.exact.extend(address(bytes)),
                _ => {}
            }
        }
        Ok(fields)
    }
}

/// An IP address as in the authority of a request.
fn address(bytes: &[u8]) -> Option<Box<str>> {
    let ip = match bytes.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(bytes).ok()?).to_string(),
        16 => format!("[{}]", IpAddr::from(<[u8; 16]>::try_from(bytes).ok()?)),
        _ => return None,
    };
    HostName::parse(&ip).map(|host| host.as_str().into())
}

fn read_chain(pem: Pem<'_>) -> Result<Vec<CertificateDer<'static>>, ProblemKind> {
    let chain: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem.text).collect();
    match chain {
        Ok(chain) if chain.is_empty() => Err(ProblemKind::NoPem { path: pem.path.to_owned(), what: "certificate" }),
        Ok(chain) => Ok(chain),
        Err(error) => Err(ProblemKind::BadCertificate { path: pem.path.to_owned(), why: error.to_string() }),
    }
}

fn read_key(pem: Pem<'_>) -> Result<PrivateKeyDer<'static>, ProblemKind> {
    if pem.text.windows(9).any(|window| window == b"ENCRYPTED") {
        let why = "it is encrypted, and corsgate does not ask for passphrases".to_owned();
        return Err(ProblemKind::BadKey { path: pem.path.to_owned(), why });
    }
    PrivateKeyDer::from_pem_slice(pem.text).map_err(|error| match error {
        rustls::pki_types::pem::Error::NoItemsFound => {
            ProblemKind::NoPem { path: pem.path.to_owned(), what: "private key without a passphrase" }
        }
        error => ProblemKind::BadKey { path: pem.path.to_owned(), why: error.to_string() },
    })
}

fn pair(
    cert: &str,
    key: &str,
    chain: Vec<CertificateDer<'static>>,
    private: &PrivateKeyDer<'static>,
) -> Result<CertifiedKey, ProblemKind> {
    let signing = ring::sign::any_supported_type(private)
        .map_err(|_| ProblemKind::BadKey { path: key.to_owned(), why: "its type is not supported".to_owned() })?;
    let pair = CertifiedKey::new(chain, signing);
    match pair.keys_match() {
        Ok(()) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(InconsistentKeys::Unknown)) => Ok(pair),
        Err(rustls::Error::InconsistentKeys(_)) => {
            Err(ProblemKind::KeyMismatch { cert: cert.to_owned(), key: key.to_owned() })
        }
        Err(error) => Err(ProblemKind::BadCertificate { path: cert.to_owned(), why: error.to_string() }),
    }
}
