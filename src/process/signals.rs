//! Signals that end the process: SIGTERM, SIGINT and SIGQUIT.

use std::path::PathBuf;
use std::time::Duration;

use async_trait::async_trait;
use pingora::server::{ShutdownSignal, ShutdownSignalWatch};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::handover::is_waiting_at;
use super::socket_files::SocketFiles;
use crate::admin::Readiness;
use crate::logging::quoted;

/// Handles SIGTERM (drain), SIGINT (exit at once) and SIGQUIT (upgrade).
pub(super) struct Signals {
    pub(super) readiness: Readiness,
    /// Time for which new connections are accepted after `/readyz` has failed.
    pub(super) drain_delay: Duration,
    /// Path of the upgrade socket. Err: the reason why there is no socket.
    pub(super) upgrade: Result<PathBuf, String>,
    /// Socket files that are removed before the process ends, unless another process takes over the sockets.
    pub(super) socket_files: SocketFiles,
}

#[async_trait]
impl ShutdownSignalWatch for Signals {
    async fn recv(&self) -> ShutdownSignal {
        let open =
            |kind| signal(kind).inspect_err(|error| log::error!("signal handler failed error={}", quoted(error)));
        let (Ok(mut terminate), Ok(mut interrupt), Ok(mut quit)) =
            (open(SignalKind::terminate()), open(SignalKind::interrupt()), open(SignalKind::quit()))
        else {
            // Without handlers, only SIGKILL could end this process, so the start fails.
            std::process::exit(1);
        };
        loop {
            tokio::select! {
                _ = terminate.recv() => {
                    let signal = self.terminate(&mut terminate, &mut interrupt).await;
                    self.socket_files.remove();
                    return signal;
                }
                _ = interrupt.recv() => {
                    self.socket_files.remove();
                    return ShutdownSignal::FastShutdown;
                }
                _ = quit.recv() => {
                    // `/readyz` stays ready, because the new process answers at the same address.
                    if self.can_hand_over() {
                        return ShutdownSignal::GracefulUpgrade;
                    }
                }
            }
        }
    }
}

impl Signals {
    /// Makes `/readyz` fail, and continues to serve for `drain_delay`, so that load balancers notice it.
    async fn terminate(&self, terminate: &mut Signal, interrupt: &mut Signal) -> ShutdownSignal {
        self.readiness.end();
        if self.drain_delay.is_zero() {
            return ShutdownSignal::GracefulTerminate;
        }
        log::info!("draining, /readyz fails drain_delay={:?}", self.drain_delay);
        tokio::select! {
            () = tokio::time::sleep(self.drain_delay) => ShutdownSignal::GracefulTerminate,
            _ = terminate.recv() => ShutdownSignal::GracefulTerminate,
            _ = interrupt.recv() => ShutdownSignal::FastShutdown,
        }
    }

    /// Returns true if a new process waits for the sockets. Otherwise SIGQUIT would end the service without a
    /// successor.
    fn can_hand_over(&self) -> bool {
        let waiting = self.upgrade.clone().and_then(|socket| {
            let waiting = is_waiting_at(&socket).map_err(|error| error.to_string())?;
            Ok((waiting, socket))
        });
        match waiting {
            Ok((true, socket)) => {
                log::info!("handing over listening sockets socket={}", quoted(socket.display()));
                true
            }
            Ok((false, socket)) => {
                log::error!(
                    "SIGQUIT ignored, no process is waiting: start `corsgate run --upgrade` with the same configuration file first socket={}",
                    quoted(socket.display())
                );
                false
            }
            Err(error) => {
                log::error!("SIGQUIT ignored, upgrade is not possible error={}", quoted(error));
                false
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without this check, Pingora would shut down although no sockets were handed over.
    #[test]
    fn sigquit_is_ignored_if_an_upgrade_is_not_possible() {
        let signals = Signals {
            readiness: Readiness::default(),
            drain_delay: Duration::ZERO,
            upgrade: Err("the directory is not private".to_owned()),
            socket_files: SocketFiles::of(&[]),
        };
        assert!(!signals.can_hand_over());
    }
}
