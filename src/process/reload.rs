//! Reload on SIGHUP, and on changes of the configuration files.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use pingora::server::ShutdownWatch;
use pingora::services::background::BackgroundService;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::{Interval, MissedTickBehavior, interval_at};

use super::StartError;
use crate::live::Live;
use crate::logging::quoted;
use crate::source::ConfigSource;
use crate::source::watch::Watcher;

/// Interval at which the configuration files are polled. A change is active after one to two intervals.
const POLL_INTERVAL: Duration = Duration::from_millis(500);
/// A burst of changes has ended when there was none for this time.
const BURST_PAUSE: Duration = Duration::from_millis(20);
/// Longest time for which a burst of changes is collected.
const LONGEST_BURST: Duration = Duration::from_millis(500);
/// Interval at which retired configurations are freed.
const FREE_INTERVAL: Duration = Duration::from_secs(1);

/// Catches SIGHUP from the start of `main`. Without a handler, the signal would kill the process.
#[derive(Debug, Clone)]
pub(crate) struct ReloadSignal(Arc<AtomicBool>);

/// Triggers of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOn {
    /// SIGHUP
    Signal,
    /// SIGHUP, and a change of the configuration file or of a file that it names.
    Change,
}

// === impl ReloadSignal ===

impl ReloadSignal {
    /// Call this first in `main`.
    pub(crate) fn catch() -> Result<Self, StartError> {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, flag.clone()).map_err(StartError::Signal)?;
        Ok(ReloadSignal(flag))
    }

    /// True if a signal has arrived since the last call.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

// === impl ReloadService ===

/// Reloads the configuration on SIGHUP or when its files have changed.
pub(super) struct ReloadService {
    pub(super) live: Arc<Live>,
    pub(super) reload_signal: ReloadSignal,
    pub(super) on: ReloadOn,
}

#[async_trait]
impl BackgroundService for ReloadService {
    async fn start(&self, mut shutdown: ShutdownWatch) {
        let mut hangups = match signal(SignalKind::hangup()) {
            Ok(hangups) => hangups,
            Err(error) => {
                // A gateway that silently cannot reload is worse than one that does not start.
                log::error!("SIGHUP handler failed, reload is not possible, exiting error={}", quoted(error));
                std::process::exit(1);
            }
        };
        let mut watcher = Watcher::default();
        let (mut poll, mut free) = (every(POLL_INTERVAL), every(FREE_INTERVAL));
        let mut retired = false;
        loop {
            // Several signals may become one reload. The file is read after the last signal, so no change is missed.
            while self.reload_signal.take() {
                if let Some(etcd) = self.live.source().etcd() {
                    etcd.try_again();
                }
                self.reload().await;
                retired = true;
            }
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = hangups.recv() => {}
                _ = poll.tick(), if self.on == ReloadOn::Change => retired |= self.poll(&mut watcher).await,
                () = changed(self.live.source()) => {
                    settle(self.live.source()).await;
                    self.reload().await;
                    retired = true;
                }
                _ = free.tick(), if retired => retired = self.free_retired().await,
            }
        }
    }
}

impl ReloadService {
    async fn reload(&self) {
        let live = self.live.clone();
        let reload = move || {
            lower_priority();
            reload(&live);
        };
        if let Err(panic) = tokio::task::spawn_blocking(reload).await {
            log::error!("reload failed, keeping the running configuration error={}", quoted(&panic));
            self.live.reload_panicked(panic.to_string());
        }
    }

    /// Returns true if some retired configurations are still used.
    async fn free_retired(&self) -> bool {
        let live = self.live.clone();
        let free = move || {
            lower_priority();
            live.free_retired()
        };
        tokio::task::spawn_blocking(free).await.unwrap_or(true)
    }

    /// Polls the files, and reloads if they have changed. Returns true if it has reloaded. The files are compared with
    /// the last reload, applied or refused. So a refused file is not read again until it changes, and a file that
    /// SIGHUP has read is not a change.
    async fn poll(&self, watcher: &mut Watcher) -> bool {
        let live = self.live.clone();
        // A `stat` blocks for long on a network mount whose server is down.
        let Ok(poll) = tokio::task::spawn_blocking(move || live.poll_files()).await else { return false };
        let Some(changed) = watcher.changed(poll, Instant::now()) else { return false };
        let paths: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
        log::info!("reloading changed={}", quoted(paths.join(",")));
        self.reload().await;
        true
    }
}

/// Waits for a change of a source that reports its changes. A file is polled instead.
async fn changed(source: &ConfigSource) {
    match source.etcd() {
        Some(etcd) => etcd.changed().await,
        None => std::future::pending().await,
    }
}

/// Waits for the end of a burst of changes, so that it becomes one configuration.
async fn settle(source: &ConfigSource) {
    let until = Instant::now() + LONGEST_BURST;
    let Some(etcd) = source.etcd() else { return };
    let mut seen = etcd.changes();
    while Instant::now() < until {
        tokio::time::sleep(BURST_PAUSE).await;
        let now = etcd.changes();
        if now == seen {
            return;
        }
        seen = now;
    }
}

/// Ticks with this time between them; the first tick comes after one period.
pub(super) fn every(period: Duration) -> Interval {
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// Lowers the priority of this thread, so that requests come first. The threads of this service run nothing else.
fn lower_priority() {
    // On other systems the call would affect the whole process.
    #[cfg(target_os = "linux")]
    {
        /// `nice` value: about a tenth of a busy core, or all of an idle core.
        const NICE: i32 = 10;
        // If this is not permitted, the reload runs at normal priority.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

fn reload(live: &Live) {
    match live.reload() {
        Ok(reloaded) => {
            if !reloaded.warnings.is_empty() {
                log::warn!("reloaded with warnings:\n{}", reloaded.warnings.trim_end());
            }
            for key in &reloaded.needs_restart {
                log::warn!("change needs a restart key={key}");
            }
            log::info!("reloaded generation={}", reloaded.number);
        }
        Err(refused) => log::error!("reload refused, keeping the running configuration:\n{refused}"),
    }
}
