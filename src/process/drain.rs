//! Graceful shutdown: ends the process as soon as no request is running.

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

/// Interval at which the shutdown checks for running requests.
const DRAIN_POLL: Duration = Duration::from_millis(10);

/// Ends the process after SIGTERM, as soon as no request is running. Pingora closes the listeners, and then sleeps for
/// the whole grace period.
pub(super) struct DrainService {
    pub(super) recorder: Arc<Recorder>,
    pub(super) connections: Arc<Admission>,
    /// Requests that still run after this time are cut off.
    pub(super) grace_period: Duration,
}

#[async_trait]
impl BackgroundService for DrainService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        if shutdown.changed().await.is_err() {
            return;
        }
        // Pingora handles only one signal. SIGINT during the shutdown must still end the process at once.
        let (Ok(mut interrupt), Ok(mut terminate)) = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()))
        else {
            return;
        };
        log::info!("shutdown started requests={}", self.recorder.running.count());
        let begin = Instant::now();
        let (idle, end) = (begin + IDLE_CLOSE_DELAY, begin + self.grace_period);
        loop {
            tokio::select! {
                _ = interrupt.recv() => break log::warn!("shutdown aborted by SIGINT requests={}", self.recorder.running.count()),
                _ = terminate.recv() => {}
                () = tokio::time::sleep(DRAIN_POLL) => {}
            }
            // A client may already have sent a request on an idle connection. The acceptor keeps idle connections open
            // for IDLE_CLOSE_DELAY.
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
