//! The record of this process in etcd: what it runs. The record ends with its lease, soon after the process.

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::Mutex;
use tokio::time::{MissedTickBehavior, interval};

use super::Shared;
use super::client::{Client, ClientError};
use super::wire::LeaseGrantRequest;
use crate::logging::quoted;

/// Time after which the record of a process that has ended disappears, in seconds.
const LEASE_TTL: i64 = 10;
const KEEP_ALIVE: Duration = Duration::from_secs(3);
/// Pause after etcd has refused to write the record.
const REFUSED_PAUSE: Duration = Duration::from_secs(60);

/// What a process runs.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct InstanceRecord {
    /// Name of the machine and number of the process.
    pub(crate) id: String,
    /// Version of corsgate.
    pub(crate) version: String,
    /// When the process started, in seconds since 1970.
    pub(crate) started_unix: u64,
    /// Revision of etcd that it runs.
    pub(crate) revision: i64,
    /// SHA-256 of the keys with their revisions, refused ones included.
    pub(crate) state: String,
    /// SHA-256 of the configuration that it runs, as in `/config`.
    pub(crate) sha256: String,
    /// Whether the running configuration is from the cache file.
    pub(crate) from_cache: bool,
    /// Refused keys. At most 100.
    pub(crate) refused: Vec<RefusedKey>,
    pub(crate) refused_count: usize,
    /// Why the newest state is refused as a whole.
    pub(crate) error: Option<String>,
}

/// A key that a process refuses.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct RefusedKey {
    pub(crate) key: String,
    pub(crate) revision: i64,
    /// The first line of the errors.
    pub(crate) fault: String,
}

/// The record as it is in etcd.
#[derive(Default)]
pub(super) struct Written {
    lease: i64,
    /// Revision of the record; 0 if it is not there.
    revision: i64,
    record: Option<InstanceRecord>,
}

/// Writes the record whenever it changes, and keeps its lease. Ends when the member cannot be reached.
/// `written` outlives the connection, because the lease does.
pub(super) async fn publish(client: Client, shared: Arc<Shared>, written: Arc<Mutex<Written>>) {
    let mut written = written.lock().await;
    let mut ticks = interval(KEEP_ALIVE);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            _ = ticks.tick() => {
                if written.lease != 0 {
                    match client.keep_alive(written.lease).await {
                        Ok(true) => {}
                        Ok(false) => *written = Written::default(),
                        // The watch sees it too, and connects again.
                        Err(_) => return,
                    }
                }
            }
            () = shared.record_changed.notified() => {}
        }
        let record = shared.record();
        if record.sha256.is_empty() || written.record.as_ref() == Some(&record) {
            continue;
        }
        match written.write(&client, &shared, record).await {
            Ok(()) => {}
            Err(error) => {
                log::warn!("cannot write the record of this instance to etcd error={}", quoted(&error));
                if let ClientError::Refused { .. } = error {
                    // A user who may only read. The fleet does not show this process.
                    tokio::time::sleep(REFUSED_PAUSE).await;
                }
            }
        }
    }
}

impl Written {
    /// Writes a record. If another process has a record of this name, or the last process of this name has left one that
    /// has not ended yet, this one gets another name.
    async fn write(&mut self, client: &Client, shared: &Shared, record: InstanceRecord) -> Result<(), ClientError> {
        if self.lease == 0 {
            self.lease = client.call(LeaseGrantRequest { ttl: LEASE_TTL }).await?.id;
        }
        let key = format!("{}/instances/{}", shared.address.prefix, record.id).into_bytes();
        let value = serde_json::to_vec(&record).unwrap_or_default();
        match client.put_if(self.revision, key, value, self.lease).await? {
            Some(revision) => (self.revision, self.record) = (revision, Some(record)),
            None => {
                shared.rename();
                self.revision = 0;
                shared.record_changed.notify_one();
            }
        }
        Ok(())
    }
}

/// Name of the machine and number of the process.
pub(super) fn id() -> String {
    let name = rustix::system::uname();
    let usable = |c: char| if c.is_ascii_alphanumeric() || matches!(c, '-' | '.') { c } else { '-' };
    let name: String = name.nodename().to_string_lossy().chars().take(100).map(usable).collect();
    format!("{name}-{}", std::process::id())
}
