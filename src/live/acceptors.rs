//! TLS of listeners: the settings for rustls.

use std::fmt;
use std::sync::Arc;

use rustls::client::VerifierBuilderError;
use rustls::crypto::ring;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{ServerConfig, version};

use crate::snapshot::{Address, Listener, ListenerTls, TlsVersion};
use crate::tls::Certificates;

/// rustls configurations of all TLS listeners of a generation.
#[derive(Debug, Default)]
pub(crate) struct Acceptors(Vec<Acceptor>);

#[derive(Debug, Clone)]
struct Acceptor {
    address: Address,
    /// The settings from which `config` was made.
    tls: ListenerTls,
    config: Arc<ServerConfig>,
}

/// The error of a listener whose TLS settings cannot be used.
#[derive(Debug)]
pub enum AcceptorError {
    /// An error of rustls.
    Tls(rustls::Error),
    /// An error in the certificate authorities for client certificates.
    Authorities(VerifierBuilderError),
}

impl Acceptors {
    /// Creates the configurations of `listeners`. A listener with unchanged settings keeps its ticket key, so clients
    /// can resume sessions. A changed listener gets a new key. Otherwise a client could resume a session with a
    /// certificate that only the old settings accept.
    pub(crate) fn new(listeners: &[Arc<Listener>], old: Option<&Acceptors>) -> Result<Self, AcceptorError> {
        let old = old.map_or(&[][..], |old| &old.0);
        let with_tls = listeners.iter().filter_map(|listener| Some((&listener.address, listener.tls.as_ref()?)));
        let acceptor = |(address, tls): (&Address, &ListenerTls)| {
            let same = old.iter().find(|old| old.address == *address && old.tls == *tls);
            let config = same.map_or_else(|| server_config(tls), |same| Ok(same.config.clone()))?;
            Ok(Acceptor { address: address.clone(), tls: tls.clone(), config })
        };
        with_tls.map(acceptor).collect::<Result<_, _>>().map(Acceptors)
    }

    /// Returns the configuration of a listener.
    pub(crate) fn of(&self, listener: &Address) -> Option<&Arc<ServerConfig>> {
        self.0.iter().find(|acceptor| acceptor.address == *listener).map(|acceptor| &acceptor.config)
    }
}

fn server_config(tls: &ListenerTls) -> Result<Arc<ServerConfig>, AcceptorError> {
    let provider = Arc::new(ring::default_provider());
    let versions = match tls.min_version {
        TlsVersion::Tls12 => &[&version::TLS12, &version::TLS13][..],
        TlsVersion::Tls13 => &[&version::TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider.clone()).with_protocol_versions(versions)?;
    let builder = match &tls.clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let roots = clients.authorities.roots().clone();
            let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
            let verifier = if clients.required { verifier } else { verifier.allow_unauthenticated() };
            builder.with_client_cert_verifier(verifier.build()?)
        }
    };
    let mut config = builder.with_cert_resolver(Arc::new(ByName(tls.certificates.clone())));
    config.alpn_protocols = match tls.http2 {
        true => vec![b"h2".to_vec(), b"http/1.1".to_vec()],
        false => vec![b"http/1.1".to_vec()],
    };
    // Session tickets need no memory on the server, and work on all threads.
    config.ticketer = ring::Ticketer::new()?;
    Ok(Arc::new(config))
}

/// Chooses the certificate by the server name (SNI). rustls converts the name to lower case.
#[derive(Debug)]
struct ByName(Arc<Certificates>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.find(hello.server_name()).key().clone())
    }
}

impl From<rustls::Error> for AcceptorError {
    fn from(error: rustls::Error) -> Self {
        AcceptorError::Tls(error)
    }
}

impl From<VerifierBuilderError> for AcceptorError {
    fn from(error: VerifierBuilderError) -> Self {
        AcceptorError::Authorities(error)
    }
}

impl fmt::Display for AcceptorError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            AcceptorError::Tls(error) => write!(f, "TLS: {error}"),
            AcceptorError::Authorities(error) => write!(f, "client_ca: {error}"),
        }
    }
}

impl std::error::Error for AcceptorError {}
