//! Certificates for one test: a CA, the certificates that it signs, and every kind of unusable pair.
//!
//! A [`Certificate`] is two files in the directory of a gateway ([`Certificate::files`]), or the rustls configuration
//! of a test server ([`Certificate::server`]). Certificates on the wire are compared as DER.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SerialNumber,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// Files in the directory of a configuration: relative path and contents.
pub type Files = Vec<(String, String)>;

/// A CA, which signs certificates and which clients trust.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with its key, or with a wrong key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub cert: String,
    /// The private key, in PEM.
    pub key: String,
    /// The certificate on the wire, as DER.
    pub der: Vec<u8>,
    names: Vec<String>,
}

/// The validity of a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// Valid now, and for years.
    Now,
    /// Expired.
    Past,
    /// Not yet valid.
    Future,
}

impl Authority {
    /// A root CA, which only clients that are configured with it trust.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(Self::params(name), key).expect("sign an authority"))
    }

    /// An intermediate CA, signed by this one.
    pub fn intermediate(&self, name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::signed_by(Self::params(name), key, &self.0).expect("sign an authority"))
    }

    fn params(name: &str) -> CertificateParams {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(rcgen::DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params
    }

    /// The certificate of the CA, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// The certificate of the CA itself, for a server that wrongly uses it.
    pub fn own(&self) -> Certificate {
        let der = self.0.der().to_vec();
        Certificate { cert: self.pem(), key: self.0.key().serialize_pem(), der, names: Vec::new() }
    }

    /// A root store with this CA only.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a usable authority");
        roots
    }

    /// A certificate for these names and addresses, valid now, for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Certificate {
        self.issue_valid(names, Valid::Now)
    }

    /// The same with another validity.
    pub fn issue_valid(&self, names: &[&str], valid: Valid) -> Certificate {
        self.sign(names, valid, &KeyPair::generate().expect("a key"))
    }

    /// Another certificate for the same names and the same key, as a renewal that keeps the key file.
    pub fn renew(&self, certificate: &Certificate) -> Certificate {
        let names: Vec<_> = certificate.names.iter().map(String::as_str).collect();
        self.sign(&names, Valid::Now, &KeyPair::from_pem(&certificate.key).expect("a key of ours"))
    }

    fn sign(&self, names: &[&str], valid: Valid, key: &KeyPair) -> Certificate {
        let names: Vec<String> = names.iter().map(|&name| name.into()).collect();
        let mut params = CertificateParams::new(names.clone()).expect("names and addresses");
        let (from, until) = match valid {
            Valid::Now => (2024, 2124),
            Valid::Past => (2023, 2024),
            Valid::Future => (2123, 2124),
        };
        params.not_before = rcgen::date_time_ymd(from, 1, 1);
        params.not_after = rcgen::date_time_ymd(until, 1, 1);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        // Certificates for the same names and key differ by their serial number.
        params.serial_number = Some(SerialNumber::from_slice(&unique().to_be_bytes()));
        let signed = params.signed_by(key, &self.0).expect("sign a certificate");
        Certificate { cert: signed.pem(), key: key.serialize_pem(), der: signed.der().to_vec(), names }
    }
}

/// A serial number that is unique in this process.
fn unique() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static LAST: AtomicU64 = AtomicU64::new(0);
    LAST.fetch_add(1, Ordering::Relaxed) + 1
}

impl Certificate {
    /// As the files `NAME.crt` and `NAME.key`.
    pub fn files(&self, name: &str) -> Files {
        vec![(format!("{name}.crt"), self.cert.clone()), (format!("{name}.key"), self.key.clone())]
    }

    /// The certificate in the type of rustls.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.der.clone())]
    }

    /// The key in the type of rustls.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(KeyPair::from_pem(&self.key).expect("a key of ours").serialize_der()).expect("a key")
    }

    /// A server with this certificate and these ALPN protocols, which requires a client certificate of `clients` if
    /// given.
    pub fn server(&self, clients: Option<&Authority>, protocols: &[&str]) -> Arc<ServerConfig> {
        let builder = ServerConfig::builder_with_provider(provider());
        let builder = builder.with_safe_default_protocol_versions().expect("the versions of ring");
        let builder = match clients {
            Some(authority) => {
                let verifier = WebPkiClientVerifier::builder_with_provider(authority.roots().into(), provider());
                builder.with_client_cert_verifier(verifier.build().expect("an authority of clients"))
            }
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(self.chain(), self.private_key()).expect("a matching pair");
        config.alpn_protocols = protocols.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// The crypto provider of all tests.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

#[test]
fn a_renewed_certificate_has_the_same_key() {
    let authority = Authority::new("authority");
    let first = authority.issue(&["api.test", "127.0.0.1"]);
    let second = authority.renew(&first);
    assert_eq!((&first.key, &first.names), (&second.key, &second.names));
    assert_ne!((&first.cert, &first.der), (&second.cert, &second.der));
}
