//! Fixed limits of the admin listener. Its connections share file descriptors with the gateway, so their number and
//! duration must have a bound.

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

/// Maximum number of open connections. Further ones are closed.
const MAX_CONNECTIONS: usize = 64;
/// Time for the first request header of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// Time for all requests of a connection, after [`HEADER_TIMEOUT`]. Monitoring then opens a new connection. A long
/// request may take longer.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

tokio::task_local! {
    static CONNECTION: Arc<ConnectionState>;
}

/// Limits that the requests of a connection have set.
#[derive(Default)]
struct ConnectionState {
    header_received: AtomicBool,
    /// True while a request that sets its own limit is running.
    is_long: AtomicBool,
}

/// While it exists, [`CONNECTION_TIMEOUT`] does not end the current connection.
pub(super) struct LongRequest(Option<Arc<ConnectionState>>);

/// [`AdminServer`] with the limits of this file.
pub(crate) struct LimitedAdmin {
    admin: Arc<AdminServer>,
    slots: Arc<Semaphore>,
}

/// Marks that the current connection has sent a request header.
pub(super) fn header_received() {
    // Fails outside of a connection, as in a test.
    let _ = CONNECTION.try_with(|connection| connection.header_received.store(true, Ordering::Relaxed));
}

/// Marks that the current request sets its own limit.
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
