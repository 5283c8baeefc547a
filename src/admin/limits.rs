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
/// Time for all requests of a connection, after [`HEADER_TIMEOUT`]. Monitoring then opens a new connection.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

tokio::task_local! {
    /// True if the current connection has sent a request header.
    static HEADER_RECEIVED: Arc<AtomicBool>;
}

/// [`AdminServer`] with the limits of this file.
pub(crate) struct LimitedAdmin {
    admin: Arc<AdminServer>,
    slots: Arc<Semaphore>,
}

/// Marks that the current connection has sent a request header.
pub(super) fn header_received() {
    // Fails outside of a connection, as in a test.
    let _ = HEADER_RECEIVED.try_with(|received| received.store(true, Ordering::Relaxed));
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
        let received = Arc::new(AtomicBool::new(false));
        let mut serving = Box::pin(HEADER_RECEIVED.scope(received.clone(), self.admin.process_new(stream, shutdown)));
        tokio::select! {
            stream = &mut serving => return stream,
            () = sleep(HEADER_TIMEOUT) => {}
        }
        if !received.load(Ordering::Relaxed) {
            return None;
        }
        timeout(CONNECTION_TIMEOUT, serving).await.ok().flatten()
    }
}
