//! Fixed limits of the admin listener. Its connections and the gateway share file descriptors, so the number and the
//! duration of connections must have a bound.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};

use super::AdminServer;

/// Maximum number of open connections. Further connections are closed.
const MAX_CONNECTIONS: usize = 64;
/// Maximum time for the first request header of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Maximum time for all requests of a connection, after [`HEADER_TIMEOUT`]. Monitoring then opens a new connection. A
/// request with its own limit may take longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

tokio::task_local! {
    static CONNECTION: Arc<ConnectionState>;
}

/// State of a connection that its requests change.
#[derive(Default)]
struct ConnectionState {
    header_received: AtomicBool,
    /// True during a request that has its own limit.
    is_long: AtomicBool,
}

/// A guard that prevents [`CONNECTION_TIMEOUT`] from ending the current connection.
pub(super) struct LongRequest(Option<Arc<ConnectionState>>);

/// [`AdminServer`] with the limits of this file.
pub(crate) struct LimitedAdmin {
    admin: Arc<AdminServer>,
    slots: Arc<Semaphore>,
}

/// Records that the current connection has sent a request header.
pub(super) fn header_received() {
    // This fails without a connection, as in a test.
    let _ = CONNECTION.try_with(|connection| connection.header_received.store(true, Ordering::Relaxed));
}

/// Records that the current request has its own limit, until the guard is dropped.
pub(super) fn long_request() -> LongRequest {
    let connection = CONNECTION.try_with(Arc::clone).ok();
    connection.iter().for_each(|connection| connection.is_long.store(true, Ordering::Relaxed));
    LongRequest(connection)
}

impl Drop for LongRequest {
    fn drop(&mut self) {
        self.0.iter().for_each(|connection| connection.is_long.store(false, Ordering::Relaxed));
    }
}

impl LimitedAdmin {
    pub(crate) fn new(admin: AdminServer) -> Self {
        LimitedAdmin { admin: Arc::new(admin), slots: Arc::new(Semaphore::new(MAX_CONNECTIONS)) }
    }
}

#[async_trait]
impl ServerApp for LimitedAdmin {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _slot = self.slots.clone().try_acquire_owned().ok()?;
        let connection = Arc::<ConnectionState>::default();
        let mut serving = Box::pin(CONNECTION.scope(connection.clone(), self.admin.process_new(stream, shutdown)));
        tokio::select! {
            stream = &mut serving => return stream,
            () = sleep(HEADER_TIMEOUT) => {}
        }
        if !connection.header_received.load(Ordering::Relaxed) {
            return None;
        }
        loop {
            match timeout(CONNECTION_TIMEOUT, &mut serving).await {
                Ok(stream) => return stream,
                Err(_) if connection.is_long.load(Ordering::Relaxed) => {}
                Err(_) => return None,
            }
        }
    }
}
