//! Follows the keys of a cluster: reads all, then watches from the next revision on. Whatever ends a watch leads to a
//! new connection that reads all keys again, so no change is missed. From time to time all keys are read without a cause,
//! which proves it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval_at};

use super::client::{Client, ClientError};
use super::instance::{self, Written};
use super::{Shared, cache};
use crate::logging::quoted;

/// Time between two readings of all keys, less a random part of up to a tenth.
const FULL_READ: Duration = Duration::from_secs(300);
/// Pauses between two attempts to connect.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(3);
/// A connection that lasted for this time was good.
const GOOD: Duration = Duration::from_secs(10);
/// Time between two messages about the same error.
const REPEAT: Duration = Duration::from_secs(60);
/// Shortest time between two writings of the cache.
const CACHE_PAUSE: Duration = Duration::from_secs(1);

/// Follows the keys for the life of the process.
pub(super) fn run(shared: &Arc<Shared>) -> std::io::Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let shared = shared.clone();
    std::thread::Builder::new().name("etcd".into()).spawn(move || {
        runtime.block_on(async {
            tokio::join!(connections(&shared), caches(&shared));
        });
    })?;
    Ok(())
}

async fn connections(shared: &Arc<Shared>) {
    let endpoints = &shared.address.endpoints;
    // Not all processes use the first member.
    let mut next = fastrand::usize(..endpoints.len());
    let mut pause = FIRST_PAUSE;
    let record = Arc::default();
    let mut logged: Option<(String, Instant)> = None;
    loop {
        let started = Instant::now();
        let Err(error) = connection(shared, &endpoints[next % endpoints.len()], &record).await;
        next += 1;
        let text = error.to_string();
        shared.disconnected(&text);
        let is_known = logged.as_ref().is_some_and(|(known, at)| *known == text && at.elapsed() < REPEAT);
        if !is_known {
            log::warn!("etcd connection ended, connecting again error={}", quoted(&text));
            logged = Some((text, Instant::now()));
        }
        if started.elapsed() > GOOD || matches!(error, ClientError::Compacted { .. }) {
            pause = FIRST_PAUSE;
        }
        // Many processes must not come back at the same moment.
        tokio::time::sleep(pause.mul_f64(0.5 + fastrand::f64())).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Follows the keys through one member.
async fn connection(
    shared: &Arc<Shared>,
    endpoint: &str,
    record: &Arc<Mutex<Written>>,
) -> Result<std::convert::Infallible, ClientError> {
    let client = Client::connect(&shared.address, endpoint).await?;
    let prefix = format!("{}/", shared.address.prefix).into_bytes();
    let state = client.read_all(&prefix).await?;
    let mut watch = client.watch(&prefix, state.revision + 1).await?;
    shared.replace(state);
    shared.connected(client.endpoint());
    let mut tasks = JoinSet::new();
    if shared.address.layout.read_only().is_none() {
        tasks.spawn(instance::publish(client.clone(), shared.clone(), record.clone()));
    }
    let period = FULL_READ.mul_f64(1.0 - fastrand::f64() / 10.0);
    let mut full_reads = interval_at(tokio::time::Instant::now() + period, period);
    full_reads.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changes = watch.next() => {
                let (events, revision) = changes?;
                if !shared.apply(events, revision) {
                    // Values were left out while there were too many.
                    shared.replace(client.read_all(&prefix).await?);
                }
            }
            _ = full_reads.tick() => {
                let state = client.read_all(&prefix).await?;
                watch = client.watch(&prefix, state.revision + 1).await?;
                shared.replace(state);
                shared.cache_due.notify_one();
            }
        }
    }
}

/// Writes the cache when what runs has changed.
async fn caches(shared: &Arc<Shared>) {
    let Some(path) = cache::path(&shared.address) else { return };
    let path = Arc::new(path);
    loop {
        shared.cache_due.notified().await;
        let (shared, path) = (shared.clone(), path.clone());
        let write = move || {
            let Some(in_use) = shared.accepted() else { return };
            if let Err(error) = cache::write(&path, &shared.address, in_use) {
                log::warn!("cannot write the cache of etcd file={} error={}", quoted(path.display()), quoted(error));
            }
        };
        let _ = tokio::task::spawn_blocking(write).await;
        tokio::time::sleep(CACHE_PAUSE).await;
    }
}
