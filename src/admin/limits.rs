//! What a connection to the admin listener may take. The listener has no limits to configure, and must take nothing away
//! from the gateway beside it: a file descriptor that somebody holds here is one that no client has.

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

/// More people and programs do not look at one gateway.
const MOST_CONNECTIONS: usize = 64;
/// For the first header of a connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
/// For a connection with all its requests, from then on. Whoever comes regularly connects anew.
const CONNECTION_TIMEOUT: Duration = Duration::from_secs(120);

tokio::task_local! {
    /// Whether the connection that is being served has sent a header.
    static ASKED: Arc<AtomicBool>;
}

/// The admin listener, as its connections reach it.
pub(crate) struct Bounded {
    admin: Arc<AdminServer>,
    room: Arc<Semaphore>,
}

/// To be called when a header has come.
pub(super) fn asked() {
    // Without a connection, as in a test, there is nothing to note.
    let _ = ASKED.try_with(|asked| asked.store(true, Ordering::Relaxed));
}

impl Bounded {
    /// Within these bounds.
    pub(crate) fn new(admin: AdminServer) -> Self {
        Bounded { admin: Arc::new(admin), room: Arc::new(Semaphore::new(MOST_CONNECTIONS)) }
    }
}

#[async_trait]
impl ServerApp for Bounded {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        let _place = self.room.clone().try_acquire_owned().ok()?;
        let asked = Arc::new(AtomicBool::new(false));
        let mut serving = Box::pin(ASKED.scope(asked.clone(), self.admin.process_new(stream, shutdown)));
        tokio::select! {
            stream = &mut serving => return stream,
            () = sleep(HEADER_TIMEOUT) => {}
        }
        if !asked.load(Ordering::Relaxed) {
            return None;
        }
        timeout(CONNECTION_TIMEOUT, serving).await.ok().flatten()
    }
}
