//! SIGTERM: ends the process as soon as no request is under way.

use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};

use super::exit;
use crate::accept::IDLE_CLOSE_DELAY;
use crate::accept::admission::Admission;
use crate::record::Recorder;

/// How often a process that is to end looks whether it can.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// SIGTERM: Pingora closes the listeners and then sleeps; this ends the process as soon as nothing is under way.
pub(super) struct DrainService {
    pub(super) recorder: Arc<Recorder>,
    pub(super) connections: Arc<Admission>,
    /// Whoever still runs then is cut off.
    pub(super) grace_period: Duration,
}

#[async_trait]
impl BackgroundService for DrainService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if shutdown.changed().await.is_err() {
            return;
        }
        // Pingora reads signals once. While it sleeps, a second one must still be able to say "now".
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        log::info!("stopping requests={}", self.recorder.running.count());
        let begin = Instant::now();
        let (idle, end) = (begin + IDLE_CLOSE_DELAY, begin + self.grace_period);
        loop {
            tokio::select! {
                _ = interrupt.recv() => break log::warn!("stopped at once requests={}", self.recorder.running.count()),
                _ = terminate.recv() => {}
                () = tokio::time::sleep(DRAIN_POLL) => {}
            }
            // A connection without a request may have one on its way; for how long that is waited for says the edge.
            if self.recorder.running.count() == 0
                && (self.connections.open() == 0 || Instant::now() > idle + DRAIN_POLL * 10)
            {
                break log::info!("stopped");
            }
            if Instant::now() >= end {
                break log::warn!("stopped after server.grace_period requests={}", self.recorder.running.count());
            }
        }
        exit(&self.recorder.access_log)
    }
}
