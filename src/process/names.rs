//! Looks up the DNS names of upstreams again and again.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use crate::live::Live;

/// How often names are looked up again.
const LOOK_UP_EVERY: Duration = Duration::from_secs(5);

/// Looks the names of upstreams up, again and again.
pub(super) struct NamesService {
    pub(super) live: Arc<Live>,
}

#[async_trait]
impl BackgroundService for NamesService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(LOOK_UP_EVERY) => {}
            }
            let generation = self.live.current();
            if generation.has_names() {
                // The resolver blocks, and its failure is in the log already.
                let _ = tokio::task::spawn_blocking(move || generation.refresh_names()).await;
            }
        }
    }
}
