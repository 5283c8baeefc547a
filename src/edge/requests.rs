//! The requests of one connection: how Pingora is to read them, and who watches over them.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use pingora::apps::{HttpServerApp, HttpServerOptions, ReusedHttpStream, ServerApp};
use pingora::protocols::Stream;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{H2Options, default_h2_options};
use pingora::server::ShutdownWatch;
use pingora_proxy::HttpProxy;
use tokio::sync::watch;
use tokio::time::sleep;

use super::guard::{self, Guard};
use super::{Client, HEADER_MARGIN};
use crate::proxy::Gateway;
use crate::snapshot::{Crowd, Limits};

/// What all bodies of an HTTP/2 connection may have under way to us. A stream has 64 KiB of it, so that one whose
/// upstream takes nothing does not hold up the others.
const H2_CONNECTION_WINDOW: u32 = 256 * 1024;
/// What we keep of a response that an HTTP/2 client has promised to take, and does not take.
const H2_SEND_BUFFER: usize = 64 * 1024;
/// How often a client of HTTP/2 may break the protocol of its streams.
const H2_STREAM_ERRORS: usize = 128;
/// How long a client of HTTP/2 has to close a connection that was ended, once all its streams are done with.
const H2_FAREWELL: Duration = Duration::from_secs(5);

/// A connection from which requests can be read.
pub(super) struct Requests {
    app: Arc<App>,
    stream: Stream,
    http2: bool,
}

/// The connection, as Pingora asks about it.
struct App {
    proxy: Arc<HttpProxy<Gateway>>,
    client: Arc<Client>,
    http1: HttpServerOptions,
    http2: H2Options,
    stream_idle: Duration,
    /// After which no more HTTP/2 streams are wanted.
    last_stream: Option<u32>,
    streams: AtomicU32,
    active: AtomicUsize,
    /// Ends the connection once its streams are done with (HTTP/2).
    close: watch::Sender<bool>,
}

impl Requests {
    pub fn new(
        proxy: Arc<HttpProxy<Gateway>>,
        stream: Stream,
        client: Arc<Client>,
        http2: bool,
        limits: &Limits,
    ) -> Self {
        let requests = match client.crowd {
            Crowd::Room => limits.requests_per_connection,
            Crowd::Full | Crowd::ClientFull => Some(1),
        };
        let mut options = HttpServerOptions::default();
        // Pingora counts how often a connection is used again.
        options.keepalive_request_limit = requests.map(|requests| requests.saturating_sub(1));
        options.h2_idle_timeout = Some(limits.keepalive);
        let app = App {
            proxy,
            client,
            http1: options,
            http2: http2_options(limits),
            stream_idle: limits.stream_idle,
            last_stream: requests,
            streams: AtomicU32::new(0),
            active: AtomicUsize::new(0),
            close: watch::Sender::new(false),
        };
        Requests { app: Arc::new(app), stream, http2 }
    }

    /// Serves all of them.
    pub async fn serve(self, shutdown: &ShutdownWatch) {
        let Requests { app, stream, http2 } = self;
        if !http2 {
            let client = app.client.clone();
            let ask = |overdue| {
                client.progress.end(overdue);
                true
            };
            Guard::new(app.process_new(stream, shutdown), None, ask).await;
            return;
        }
        let (closing, mut shutdown) = (app.close.subscribe(), shutdown.clone());
        let stopping = async {
            // A sender that is gone says nothing any more.
            if shutdown.wait_for(|stopping| *stopping).await.is_ok() {
                app.close.send_replace(true);
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            _ = app.process_new(stream, &closing) => {}
            () = stopping => {}
            () = app.farewell() => {}
        }
    }
}

impl App {
    /// Ready when the connection was to end, and only the client does not end it.
    async fn farewell(&self) {
        const STEPS: u32 = 5;
        let mut quiet = 0;
        // The sender is right here.
        let _ = self.close.subscribe().wait_for(|closing| *closing).await;
        while quiet < STEPS {
            sleep(H2_FAREWELL / STEPS).await;
            quiet = if self.active.load(Ordering::Relaxed) == 0 { quiet + 1 } else { 0 };
        }
    }
}

/// Written out, for the macro of this trait would put each request of HTTP/1 into a box more.
impl HttpServerApp for App {
    fn process_new_http<'a, 'b, 'c>(
        self: &'a Arc<Self>,
        session: ServerSession,
        shutdown: &'b ShutdownWatch,
    ) -> Pin<Box<dyn Future<Output = Option<ReusedHttpStream>> + Send + 'c>>
    where
        'a: 'c,
        'b: 'c,
        Self: 'c,
    {
        if !session.is_http2() {
            self.client.progress.request_ends();
            guard::clear();
            return self.proxy.process_new_http(session, shutdown);
        }
        self.client.progress.request_begins();
        let number = self.streams.fetch_add(1, Ordering::Relaxed).saturating_add(1);
        if self.last_stream.is_some_and(|last| number >= last) {
            self.close.send_replace(true);
        }
        let active = Active::new(self.clone());
        let request = self.proxy.process_new_http(session, shutdown);
        // There is no asking: a stream that is dropped is reset, which says enough.
        let request = Guard::new(request, Some(self.stream_idle), |_| false);
        Box::pin(async move {
            let _active = active;
            request.await.flatten()
        })
    }

    fn h2_options(&self) -> Option<H2Options> {
        Some(self.http2.clone())
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.http1)
    }
}

/// A stream that is being served.
struct Active(Arc<App>);

impl Active {
    fn new(app: Arc<App>) -> Self {
        app.active.fetch_add(1, Ordering::Relaxed);
        Active(app)
    }
}

impl Drop for Active {
    fn drop(&mut self) {
        self.0.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn http2_options(limits: &Limits) -> H2Options {
    let header_list = limits.uri.saturating_add(limits.headers).saturating_add(HEADER_MARGIN);
    let mut options = default_h2_options();
    options
        .max_header_list_size(u32::try_from(header_list).unwrap_or(u32::MAX))
        .max_concurrent_streams(limits.streams)
        .initial_connection_window_size(H2_CONNECTION_WINDOW)
        .max_send_buffer_size(H2_SEND_BUFFER)
        .max_local_error_reset_streams(Some(H2_STREAM_ERRORS));
    options
}
