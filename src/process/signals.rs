//! The signals that end the process, and what comes before the end.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::handover::someone_waits_at;
use crate::admin::Readiness;

/// SIGTERM, SIGINT and SIGQUIT.
pub(super) struct Signals {
    pub(super) readiness: Readiness,
    /// How long to go on accepting after `/readyz` has turned red.
    pub(super) drain_delay: Duration,
    /// Where a new process may wait; Err: there can be none.
    pub(super) upgrade: Result<PathBuf, String>,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let open = |kind| signal(kind).inspect_err(|error| log::error!("cannot handle a signal: {error}"));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) =
            (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()))
        else {
            return std::future::pending().await;
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => return self.terminate(&mut terminate, &mut interrupt).await,
                _ = interrupt.recv() => return ShutdownSignal::FastShutdown,
                _ = quit.recv() => {
                    // Still ready: whoever asks may be asking the new process, which answers at the same address.
                    if self.can_hand_over() {
                        return ShutdownSignal::GracefulUpgrade;
                    }
                }
            }
        }
    }
}

impl Signals {
    /// Tells load balancers first, and goes on serving what they send until they have noticed.
    async fn terminate(&self, terminate: &mut Signal, interrupt: &mut Signal) -> ShutdownSignal {
        self.readiness.end();
        if self.drain_delay.is_zero() {
            return ShutdownSignal::GracefulTerminate;
        }
        log::info!("draining, not ready any more; listening for {:?} more", self.drain_delay);
        tokio::select! {
            () = tokio::time::sleep(self.drain_delay) => ShutdownSignal::GracefulTerminate,
            _ = terminate.recv() => ShutdownSignal::GracefulTerminate,
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
        }
    }

    /// Without somebody who takes the sockets, SIGQUIT would only end the service.
    fn can_hand_over(&self) -> bool {
        match &self.upgrade {
            Ok(socket) if someone_waits_at(socket) => {
                log::info!("handing the listening sockets over at {}", socket.display());
                true
            }
            Ok(socket) => {
                log::error!(
                    "SIGQUIT changes nothing: no process waits at {}; start one with `corsgate run --upgrade` and the same \
                     --config first",
                    socket.display()
                );
                false
            }
            Err(why) => {
                log::error!("SIGQUIT changes nothing, sockets cannot be handed over: {why}");
                false
            }
        }
    }
}
