//! A minimal Pingora proxy to compare corsgate with. It forwards everything to one upstream, and answers every OPTIONS
//! with fixed CORS headers. It has no configuration, no routing and no decisions.
//!
//! ```text
//! bare LISTEN UPSTREAM THREADS [TLS_LISTEN CERT KEY]
//! bare 127.0.0.1:9081 127.0.0.1:8000 1
//! bare 127.0.0.1:9081 127.0.0.1:8000 1 127.0.0.1:9444 bare.crt bare.key
//! ```
//!
//! With the last three arguments it also listens for TLS with HTTP/2; both files are PEM.

use std::net::SocketAddr;
use std::time::Duration;

use async_trait::async_trait;
use http::HeaderValue;
use pingora::Result;
use pingora::http::ResponseHeader;
use pingora::listeners::tls::TlsSettings;
use pingora::modules::http::HttpModules;
use pingora::server::Server;
use pingora::server::configuration::{Opt, ServerConf};
use pingora::upstreams::peer::HttpPeer;
use pingora_proxy::{ProxyHttp, Session};

/// The allocator of corsgate.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

struct Bare {
    upstream: SocketAddr,
}

#[async_trait]
impl ProxyHttp for Bare {
    type CTX = ();

    fn new_ctx(&self) {}

    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(&self, session: &mut Session, _ctx: &mut ()) -> Result<bool> {
        session.as_downstream_mut().set_keepalive(Some(60));
        if session.req_header().method != http::Method::OPTIONS {
            return Ok(false);
        }
        let mut response = ResponseHeader::build(200, Some(12))?;
        for (name, value) in [
            ("Content-Length", "0"),
            ("Access-Control-Allow-Origin", "https://app.example"),
            ("Access-Control-Allow-Methods", "GET, PUT"),
            ("Access-Control-Allow-Headers", "Content-Type"),
            ("Access-Control-Max-Age", "7200"),
            ("Vary", "Origin"),
        ] {
            response.insert_header(name, HeaderValue::from_static(value))?;
        }
        session.write_response_header(Box::new(response), true).await?;
        Ok(true)
    }

    async fn upstream_peer(&self, _session: &mut Session, _ctx: &mut ()) -> Result<Box<HttpPeer>> {
        let mut peer = Box::new(HttpPeer::new(self.upstream, false, String::new()));
        peer.options.connection_timeout = Some(Duration::from_secs(2));
        peer.options.read_timeout = Some(Duration::from_secs(60));
        peer.options.write_timeout = Some(Duration::from_secs(60));
        peer.options.idle_timeout = Some(Duration::from_secs(50));
        Ok(peer)
    }
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([listen, upstream, threads, tls @ ..], true) = (arguments.as_slice(), matches!(arguments.len(), 3 | 6)) else {
        eprintln!("bare LISTEN UPSTREAM THREADS [TLS_LISTEN CERT KEY]");
        std::process::exit(2);
    };
    let conf =
        ServerConf { threads: threads.parse().expect("a number"), grace_period_seconds: Some(0), ..Default::default() };
    let mut server = Server::new_with_opt_and_conf(Opt::default(), conf);
    server.bootstrap();
    let bare = Bare { upstream: upstream.parse().expect("an address") };
    let mut proxy = pingora_proxy::http_proxy_service(&server.configuration, bare);
    proxy.add_tcp(listen);
    if let [listen, cert, key] = tls {
        let mut settings = TlsSettings::intermediate(cert, key).expect("a certificate and its key");
        settings.enable_h2();
        proxy.add_tls_with_settings(listen, None, settings);
    }
    server.add_service(proxy);
    server.run_forever();
}
