//! Reloads: SIGHUP, and changes of the configuration files.

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
use crate::source::watch::Watcher;

/// How often the files of the configuration are looked at: a change is in force in one to two of these.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// How often a configuration that was replaced is looked at, whether somebody still uses it.
const FREE_EVERY: Duration = Duration::from_secs(1);

/// Catches SIGHUP from the first moment on: until its handler is there the signal would kill the process.
#[derive(Debug, Clone)]
pub(crate) struct ReloadSignal(Arc<AtomicBool>);

/// What makes the process read its configuration again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ReloadOn {
    /// SIGHUP.
    Signal,
    /// SIGHUP, and a change of the configuration or of a file that it names.
    Change,
}

// === impl ReloadSignal ===

impl ReloadSignal {
    /// To be called as the first thing in `main`.
    pub(crate) fn catch() -> Result<Self, StartError> {
        let flag = Arc::new(AtomicBool::new(false));
        signal_hook::flag::register(signal_hook::consts::SIGHUP, flag.clone()).map_err(StartError::Signal)?;
        Ok(ReloadSignal(flag))
    }

    /// Whether the signal has come since this was last asked.
    fn take(&self) -> bool {
        self.0.swap(false, Ordering::Relaxed)
    }
}

// === impl ReloadService ===

/// Reads the configuration again, on SIGHUP or when its files have changed.
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
            Err(error) => return log::error!("SIGHUP will not reload: {error}"),
        };
        let mut watcher = Watcher::default();
        let (mut look, mut free) = (every(LOOK_EVERY), every(FREE_EVERY));
        let mut retired = false;
        loop {
            // Signals come together when they come fast. The file is read after the signal, so the last one counts.
            while self.reload_signal.take() {
                self.reload().await;
                retired = true;
            }
            tokio::select! {
                _ = shutdown.changed() => return,
                _ = hangups.recv() => {}
                _ = look.tick(), if self.on == ReloadOn::Change => retired |= self.look(&mut watcher).await,
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
            log::error!("the reload failed, the configuration in force stays: {panic}");
        }
    }

    /// Whether there is more to free later.
    async fn free_retired(&self) -> bool {
        let live = self.live.clone();
        let free = move || {
            lower_priority();
            live.free_retired()
        };
        tokio::task::spawn_blocking(free).await.unwrap_or(true)
    }

    /// True if it has reloaded. Whatever came of a reading, its files are compared with that reading: what was refused is
    /// not read again until it has changed, and what SIGHUP has read is no change.
    async fn look(&self, watcher: &mut Watcher) -> bool {
        let live = self.live.clone();
        // A `stat` is short, but not on a network mount whose server is away.
        let Ok(look) = tokio::task::spawn_blocking(move || live.look()).await else { return false };
        let Some(changed) = watcher.see(look, Instant::now()) else { return false };
        let paths: Vec<_> = changed.iter().map(|path| path.display().to_string()).collect();
        log::info!("reloading changed={}", paths.join(","));
        self.reload().await;
        true
    }
}

/// Ticks with that much time between them, the first one included.
fn every(period: Duration) -> Interval {
    let mut interval = interval_at(tokio::time::Instant::now() + period, period);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// The threads that block for this service are no others': requests come first from here on.
fn lower_priority() {
    // Elsewhere this would be about the whole process.
    #[cfg(target_os = "linux")]
    {
        /// As `nice` says it: a tenth of a core that requests need, all of one that they do not.
        const NICE: i32 = 10;
        // Who may not do even that reloads as fast as requests are served.
        let _ = rustix::process::setpriority_process(None, NICE);
    }
}

fn reload(live: &Live) {
    match live.reload() {
        Ok(reloaded) => {
            if !reloaded.remarks.is_empty() {
                log::warn!("the new configuration is in force, with remarks:\n{}", reloaded.remarks.trim_end());
            }
            for key in &reloaded.needs_restart {
                log::warn!(
                    "`{key}` has changed, which needs a restart; everything else of the new configuration is in force"
                );
            }
            log::info!("reloaded generation={}", reloaded.number);
        }
        Err(refused) => log::error!("reload refused, the configuration in force stays:\n{refused}"),
    }
}
