//! Certificates made for one test: an authority, what it signs, and each way in which a pair can be bad.
//!
//! A [`Certificate`] goes into the directory of a gateway as two files ([`Certificate::files`]), and into a server of
//! the tests as a rustls configuration ([`Certificate::server`]). What is shown on the wire is compared as DER.

use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, ExtendedKeyUsagePurpose, IsCa, KeyPair, SerialNumber,
};
use rustls::crypto::{CryptoProvider, ring};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig};

/// The files that stand beside a configuration: path from its directory, and contents.
pub type Files = Vec<(String, String)>;

/// Who signs certificates, and whom clients trust.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate with the key that belongs to it, or does not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate, in PEM.
    pub cert: String,
    /// The private key, in PEM.
    pub key: String,
    /// The certificate as it is shown on the wire.
    pub der: Vec<u8>,
    names: Vec<String>,
}

/// When a certificate can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Valid {
    /// Now, and for years.
    Now,
    /// No more.
    Past,
    /// Not yet.
    Future,
}

impl Authority {
    /// One that nobody knows but who is told.
    pub fn new(name: &str) -> Self {
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(Self::params(name), key).expect("sign an authority"))
    }

    /// One that this one vouches for.
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

    /// Its own certificate, in PEM.
    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// Those who trust this authority and no other.
    pub fn roots(&self) -> RootCertStore {
        let mut roots = RootCertStore::empty();
        roots.add(self.0.der().clone()).expect("a usable authority");
        roots
    }

    /// A certificate for these names and addresses, valid now, for servers and clients.
    pub fn issue(&self, names: &[&str]) -> Certificate {
        self.issue_valid(names, Valid::Now)
    }

    /// The same, valid when it is said.
    pub fn issue_valid(&self, names: &[&str], valid: Valid) -> Certificate {
        self.sign(names, valid, &KeyPair::generate().expect("a key"))
    }

    /// Another certificate for the same names and the same key, as a renewal that leaves the key file alone.
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
        // Two for the same names and key differ all the same.
        params.serial_number = Some(SerialNumber::from_slice(&unique().to_be_bytes()));
        let signed = params.signed_by(key, &self.0).expect("sign a certificate");
        Certificate { cert: signed.pem(), key: key.serialize_pem(), der: signed.der().to_vec(), names }
    }
}

/// A number that no other certificate of this process has.
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

    /// The certificate as rustls takes it.
    pub fn chain(&self) -> Vec<CertificateDer<'static>> {
        vec![CertificateDer::from(self.der.clone())]
    }

    /// The key as rustls takes it.
    pub fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::try_from(KeyPair::from_pem(&self.key).expect("a key of ours").serialize_der()).expect("a key")
    }

    /// A server that shows this certificate, demands one of `clients` when that is given, and knows these protocols.
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

/// The cryptography of everything in the tests.
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
