//! The TLS settings of a client: SNI, trusted CA, and client certificate.
//!
//! One [`TlsClient`] caches sessions, as a browser does; a new one has none.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{
    ClientConfig, ClientConnection, DigitallySignedStruct, Error, RootCertStore, SignatureScheme, StreamOwned,
    SupportedProtocolVersion,
};

use crate::support::certificates::{Authority, Certificate, provider};
use crate::support::client::{Connection, fetch_tls};
use crate::support::upstream::{Reply, Upstream};

/// Timeout of one socket operation.
const TIMEOUT: Duration = Duration::from_secs(10);

/// A blocking TLS connection.
pub type TlsStream = StreamOwned<ClientConnection, TcpStream>;

/// The settings of a TLS client.
#[derive(Clone)]
pub struct TlsClient {
    roots: Arc<RootCertStore>,
    /// The SNI. None sends none; an IP address is never sent.
    name: Option<ServerName<'static>>,
    /// The name that the certificate must have.
    certified: ServerName<'static>,
    certificate: Option<Certificate>,
    versions: Vec<&'static SupportedProtocolVersion>,
    protocols: Vec<Vec<u8>>,
    config: OnceLock<Arc<ClientConfig>>,
}

impl TlsClient {
    /// A client with the SNI `name` that trusts `authority` only, and has defaults otherwise.
    pub fn new(authority: &Authority, name: &str) -> Self {
        let name = server_name(name);
        Self {
            roots: authority.roots().into(),
            name: Some(name.clone()),
            certified: name,
            certificate: None,
            versions: vec![&rustls::version::TLS12, &rustls::version::TLS13],
            protocols: Vec::new(),
            config: OnceLock::new(),
        }
    }

    /// Accepts a certificate for this name, independent of the SNI.
    pub fn certified_for(self, name: &str) -> Self {
        Self { certified: server_name(name), ..self.fresh() }
    }

    /// Sends no SNI.
    pub fn without_sni(self) -> Self {
        Self { name: None, ..self.fresh() }
    }

    /// Sends this client certificate if the server requests one.
    pub fn certificate(self, certificate: &Certificate) -> Self {
        Self { certificate: Some(certificate.clone()), ..self.fresh() }
    }

    /// Uses this version of TLS only.
    pub fn version(self, version: &'static SupportedProtocolVersion) -> Self {
        Self { versions: vec![version], ..self.fresh() }
    }

    /// Offers these ALPN protocols.
    pub fn protocols(self, names: &[&str]) -> Self {
        Self { protocols: names.iter().map(|name| name.as_bytes().to_vec()).collect(), ..self.fresh() }
    }

    /// The same settings without cached sessions.
    fn fresh(self) -> Self {
        Self { config: OnceLock::new(), ..self }
    }

    /// Connects with a TLS handshake. With TLS 1.3 the server may still refuse the client certificate afterwards.
    pub fn connect(&self, addr: SocketAddr) -> io::Result<TlsStream> {
        let mut socket = TcpStream::connect_timeout(&addr, TIMEOUT)?;
        socket.set_nodelay(true)?;
        socket.set_read_timeout(Some(TIMEOUT))?;
        socket.set_write_timeout(Some(TIMEOUT))?;
        let mut tls = ClientConnection::new(self.config(), self.name()).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            tls.complete_io(&mut socket)?;
        }
        Ok(StreamOwned::new(tls, socket))
    }

    /// The requested name.
    pub fn name(&self) -> ServerName<'static> {
        self.name.clone().unwrap_or_else(|| self.certified.clone())
    }

    /// The settings in the type of rustls.
    pub fn config(&self) -> Arc<ClientConfig> {
        let build = || {
            let verifier = WebPkiServerVerifier::builder_with_provider(self.roots.clone(), provider());
            let verifier = verifier.build().expect("an authority");
            let builder = ClientConfig::builder_with_provider(provider());
            let builder = builder.with_protocol_versions(&self.versions).expect("versions of ring");
            let verifier = Arc::new(CertifiedFor { name: self.certified.clone(), verifier });
            let builder = builder.dangerous().with_custom_certificate_verifier(verifier);
            let mut config = match &self.certificate {
                Some(own) => builder.with_client_auth_cert(own.chain(), own.private_key()).expect("a matching pair"),
                None => builder.with_no_client_auth(),
            };
            config.alpn_protocols.clone_from(&self.protocols);
            config.enable_sni = self.name.is_some();
            Arc::new(config)
        };
        self.config.get_or_init(build).clone()
    }
}

fn server_name(name: &str) -> ServerName<'static> {
    ServerName::try_from(name.to_owned()).expect("a DNS name or an IP address")
}

/// Verifies as usual, but for a name that may differ from the SNI.
#[derive(Debug)]
struct CertifiedFor {
    name: ServerName<'static>,
    verifier: Arc<WebPkiServerVerifier>,
}

impl ServerCertVerifier for CertifiedFor {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _asked_for: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.verifier.verify_server_cert(end_entity, intermediates, &self.name, ocsp_response, now)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls12_signature(message, cert, dss)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.verifier.verify_tls13_signature(message, cert, dss)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.verifier.supported_verify_schemes()
    }
}

const HOST: (&str, &str) = ("Host", "upstream.test");

#[test]
fn both_sides_see_the_certificate_of_the_peer() {
    let authority = Authority::new("authority");
    let (server, own) = (authority.issue(&["upstream.test"]), authority.issue(&["client.test"]));
    let upstream = Upstream::start_tls(server.server(Some(&authority), &["http/1.1"]), |_| Reply::new(200));
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let tls = TlsClient::new(&authority, "upstream.test").certificate(&own).version(version);
        let tls = tls.protocols(&["h2", "http/1.1"]);
        let mut connection = Connection::open_tls(upstream.address(), &tls).unwrap();
        assert_eq!((connection.server_certificate(), connection.protocol()), (&server.der[..], Some("http/1.1")));
        assert_eq!(connection.request("GET", "/", &[HOST], b"").unwrap().status, 200);
    }
    let received = upstream.received().pop().unwrap();
    assert_eq!(received.sni.as_deref(), Some("upstream.test"));
    assert_eq!(received.client_certificate, Some(own.der));
}

#[test]
fn a_server_is_refused_for_its_name_and_for_its_ca() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let server = authority.issue(&["upstream.test"]).server(None, &[]);
    let upstream = Upstream::start_tls(server, |request| Reply::new(200).body(format!("{:?}", request.sni)));
    let address = upstream.address();
    let named = TlsClient::new(&authority, "other.test");
    assert!(named.connect(address).is_err());
    assert!(TlsClient::new(&stranger, "upstream.test").connect(address).is_err());
    let excused = named.certified_for("upstream.test");
    assert_eq!(fetch_tls(address, &excused, "GET", "/", &[HOST]).text(), "Some(\"other.test\")");
    assert_eq!(fetch_tls(address, &excused.without_sni(), "GET", "/", &[HOST]).text(), "None");
    upstream.wait_for_failed_handshakes(2);
}

#[test]
fn a_server_with_a_client_ca_refuses_other_clients() {
    let (authority, stranger) = (Authority::new("authority"), Authority::new("stranger"));
    let server = authority.issue(&["upstream.test"]).server(Some(&authority), &[]);
    let upstream = Upstream::start_tls(server, |_| Reply::new(200));
    for own in [None, Some(stranger.issue(&["client.test"]))] {
        let tls = TlsClient::new(&authority, "upstream.test");
        let tls = own.map_or_else(|| tls.clone(), |own| tls.clone().certificate(&own));
        let response = Connection::open_tls(upstream.address(), &tls)
            .and_then(|mut connection| connection.request("GET", "/", &[HOST], b""));
        assert!(response.is_err());
    }
}
