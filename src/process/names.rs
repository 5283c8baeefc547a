//! Looks up the DNS names of upstreams at a fixed interval.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;

use crate::live::Live;

/// Interval of DNS lookups.
const DNS_INTERVAL: Duration = Duration::from_secs(5);

/// Looks up the names of all upstreams every [`DNS_INTERVAL`].
pub(super) struct NamesService {
    pub(super) live: Arc<Live>,
}

#[async_trait]
impl BackgroundService for NamesService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        loop {
            tokio::select! {
                _ = shutdown.changed() => return,
                () = tokio::time::sleep(DNS_INTERVAL) => {}
            }
            let generation = self.live.current();
            if generation.has_names() {
                // The resolver blocks. `refresh_names` logs its errors.
                let _ = tokio::task::spawn_blocking(move || generation.refresh_names()).await;
            }
        }
    }
}
