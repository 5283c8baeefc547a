//! TLS of the client: the trusted certificates, and the handshake.

use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::probe::{Trouble, TroubleKind};
use crate::source::system_root_store;

/// The certificates that a client trusts.
#[derive(Debug)]
pub(crate) enum Trust {
    /// The root certificates of this machine.
    System,
    /// Only certificates that these CAs have issued.
    Ca(RootCertStore),
    /// Every certificate. Anybody on the network can then impersonate the server.
    Anything,
}

/// The reason why a CA file cannot be used.
#[derive(Debug)]
pub(crate) struct InvalidCa(String);

impl Trust {
    /// Trusts only the CA certificates in a PEM text.
    pub(crate) fn ca(pem: &[u8]) -> Result<Self, InvalidCa> {
        let mut roots = RootCertStore::empty();
        for certificate in CertificateDer::pem_slice_iter(pem) {
            let certificate = certificate.map_err(|error| InvalidCa(error.to_string()))?;
            roots.add(certificate).map_err(|error| InvalidCa(error.to_string()))?;
        }
        match roots.is_empty() {
            true => Err(InvalidCa("it has no certificate; it must be a PEM file".to_owned())),
            false => Ok(Trust::Ca(roots)),
        }
    }
}

/// Returns the TLS settings of the client. ALPN offers HTTP/2 and HTTP/1.1.
pub(super) fn config(trust: Trust) -> Result<Arc<ClientConfig>, String> {
    let provider = Arc::new(ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match trust {
        // Without root certificates, a request over https fails with a reason, and a request over http still works.
        Trust::System => builder.with_root_certificates(system_root_store().unwrap_or_else(|_| RootCertStore::empty())),
        Trust::Ca(roots) => builder.with_root_certificates(roots),
        Trust::Anything => builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAnything(provider))),
    };
    let mut config = builder.with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok(Arc::new(config))
}

/// Performs the TLS handshake. Returns the encrypted stream, and true if the server selected HTTP/2.
pub(super) async fn handshake(
    config: &Arc<ClientConfig>,
    host: &str,
    stream: TcpStream,
) -> Result<(TlsStream<TcpStream>, bool), Trouble> {
    let failed = |text: String| Trouble { kind: TroubleKind::Tls, text };
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    let name = ServerName::try_from(bare.to_owned())
        .map_err(|_| failed(format!("{host} cannot be the name of a certificate; use a DNS name or an IP address")))?;
    let stream = TlsConnector::from(config.clone()).connect(name, stream).await.map_err(|error| {
        let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
        let hint = inner.and_then(hint).map(|hint| format!("; {hint}")).unwrap_or_default();
        failed(format!("the TLS handshake failed: {error}{hint}"))
    })?;
    let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    Ok((stream, is_http2))
}

fn hint(error: &Error) -> Option<&'static str> {
    Some(match error {
        Error::InvalidMessage(_) => "the port may serve plain HTTP: try `http://`",
        Error::InvalidCertificate(CertificateError::UnknownIssuer) => {
            "the certificate is from a private CA, or an intermediate certificate is missing; `--ca FILE` trusts a CA"
        }
        Error::InvalidCertificate(
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
        ) => "the certificate is for other names",
        Error::InvalidCertificate(CertificateError::Expired | CertificateError::ExpiredContext { .. }) => {
            "renew the certificate"
        }
        _ => return None,
    })
}

/// A verifier that accepts every certificate.
#[derive(Debug)]
struct AcceptAnything(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAnything {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

impl std::fmt::Display for InvalidCa {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}
