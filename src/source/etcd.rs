//! etcd as the source of a configuration.
//!
//! A thread follows the keys ([`follow`]). When they have changed, the process reloads: [`Etcd::load`] accepts the state
//! ([`accept`]), with the last good version of each key that has an error. What was published is written to a cache file
//! and to the record of this instance.

mod accept;
mod address;
mod apisix;
mod cache;
mod client;
mod fleet;
mod follow;
#[cfg(any(test, fuzzing))]
pub(super) mod fuzzing;
mod instance;
mod keys;
mod load;
mod plan;
mod refusal;
mod seen;
mod status;
mod value;
mod wire;
mod write;

use std::collections::HashSet;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use tokio::sync::Notify;

use self::address::Address;
use self::client::Client;
pub(crate) use self::fleet::{Fleet, Member};
use self::keys::State;
pub(crate) use self::load::EtcdCheck;
use self::load::VersionsInUse;
pub(crate) use self::refusal::{Kept, KeyRefusal};
use self::seen::Seen;
pub(crate) use self::status::{Applied, EtcdStatus};
pub(crate) use self::write::Transaction;
use super::Reading;
use crate::config::{Document, RemoteSource, Source, environment};
use crate::logging::quoted;
use crate::problem::{At, Problems};
use crate::report;
use crate::terminal::Paint;

/// How long a start waits for etcd before it uses the cache.
const START_TIMEOUT: Duration = Duration::from_secs(5);

/// An etcd cluster and the values read from it. Clones share them.
#[derive(Clone)]
pub struct Etcd(Arc<Shared>);

struct Shared {
    address: Address,
    /// The file with `source`. None if the configuration was named by a URL.
    bootstrap: Option<PathBuf>,
    /// Whether the keys are followed. Otherwise they are read once for each load.
    follows: AtomicBool,
    seen: Mutex<Seen>,
    /// Signals changes of `seen` to the start, which waits on a thread.
    seen_changed: Condvar,
    /// Signals changes of `seen` to the service that reloads.
    changed: Notify,
    /// [`Seen::number`] at the last load.
    loaded: AtomicU64,
    versions: Mutex<VersionsInUse>,
    status: Mutex<EtcdStatus>,
    /// Texts of the file with `source`. It can name every file.
    base_texts: Mutex<HashSet<String>>,
    record_changed: Notify,
    cache_due: Notify,
}

/// The value of `--config` is not a valid etcd URL.
#[derive(Debug)]
pub(crate) struct BadAddress {
    pub(crate) name: String,
    pub(crate) why: String,
}

// === impl Etcd ===

impl Etcd {
    /// The source that a value of `--config` names. None if it is no URL of etcd.
    pub(crate) fn of_url(url: &str) -> Option<Result<Self, BadAddress>> {
        let address = Address::is_url(url).then(|| Address::of_url(url))?;
        // Without a password and without the query, because it may have anything.
        let (scheme, rest) = url.split('?').next().unwrap_or(url).split_once("://")?;
        let name = format!("{scheme}://{}", rest.rsplit('@').next().unwrap_or(rest));
        Some(address.map(|address| Etcd::new(address, None)).map_err(|why| BadAddress { name, why }))
    }

    /// The source that a file names with `source`. None if it names none. If the key has an error,
    /// [`Etcd::file_problems`] reports it.
    pub(crate) fn of_file(path: &Path, text: &str) -> Option<Self> {
        let mut problems = Problems::default();
        let variable = |name: &str| std::env::var(name).ok();
        let filled = environment::fill(text, &variable, &mut problems);
        let document = Document::parse(filled.as_ref().map_or(text, |filled| &filled.text), &mut problems)?;
        let RemoteSource { etcd: settings } = document.source?;
        let settings = settings.unwrap_or_default();
        let folder = path.parent().unwrap_or(Path::new(""));
        let mut problems = Problems::default();
        let address = Address::of(&settings, folder, &At::root(), &mut problems);
        Some(Etcd::new(address.unwrap_or_else(Address::unknown), Some(path.to_owned())))
    }

    fn new(address: Address, bootstrap: Option<PathBuf>) -> Self {
        Etcd(Arc::new(Shared {
            address,
            bootstrap,
            follows: AtomicBool::new(false),
            seen: Mutex::default(),
            seen_changed: Condvar::new(),
            changed: Notify::new(),
            loaded: AtomicU64::new(0),
            versions: Mutex::default(),
            status: Mutex::new(EtcdStatus {
                started: Some(SystemTime::now()),
                id: instance::id(),
                ..EtcdStatus::default()
            }),
            base_texts: Mutex::default(),
            record_changed: Notify::new(),
            cache_due: Notify::new(),
        }))
    }

    /// Errors of the file with `source`, as `check` prints them. None if it has none.
    pub(crate) fn file_problems(&self) -> Option<String> {
        let refused = self.base(&Reading::default(), &State::default()).err()?;
        let (text, loaded) = *refused;
        Some(report::text(&loaded.problems, &Source::new(&text.name, &text.text), Paint::Plain))
    }

    /// Where the keys are.
    pub(crate) fn name(&self) -> String {
        self.0.address.name()
    }

    /// The file with `source`. None if the configuration was named by a URL.
    pub(super) fn bootstrap(&self) -> Option<&Path> {
        self.0.bootstrap.as_deref()
    }

    /// The state of the source, for operators.
    pub(crate) fn status(&self) -> EtcdStatus {
        lock(&self.0.status).clone()
    }

    /// Begins to follow the keys, and waits for the first state: from etcd, or else from the cache. Without both, and
    /// without a file of the process, it waits until etcd can be reached.
    pub(crate) fn follow(&self) -> std::io::Result<()> {
        let shared = &self.0;
        shared.follows.store(true, Ordering::Relaxed);
        let cached = shared.read_cache();
        follow::run(shared)?;
        if self.wait_for_change(0, START_TIMEOUT) > 0 {
            return Ok(());
        }
        let why = lock(&shared.status).error.clone().unwrap_or_else(|| "no answer".into());
        if let Some(cached) = cached {
            let age = cached.saved.elapsed().unwrap_or_default().as_secs();
            log::warn!(
                "etcd cannot be reached, using the cache revision={} age={age}s error={}",
                cached.state.revision,
                quoted(&why)
            );
            shared.use_cache(cached);
            return Ok(());
        }
        log::warn!("etcd cannot be reached and there is no cache, waiting, not ready error={}", quoted(&why));
        if self.bootstrap().is_some() {
            return Ok(());
        }
        while self.wait_for_change(0, Duration::from_secs(60)) == 0 {}
        Ok(())
    }

    /// Waits until there were more changes than `number`, on this thread. Returns their number.
    pub(crate) fn wait_for_change(&self, number: u64, most: Duration) -> u64 {
        let until = Instant::now() + most;
        let mut seen = lock(&self.0.seen);
        while seen.number <= number {
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                break;
            }
            seen = self.0.seen_changed.wait_timeout(seen, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        seen.number
    }

    /// Number of changes so far.
    pub(crate) fn changes(&self) -> u64 {
        lock(&self.0.seen).number
    }

    /// Waits for a change that was not loaded yet.
    pub(crate) async fn changed(&self) {
        while self.changes() <= self.0.loaded.load(Ordering::Relaxed) {
            self.0.changed.notified().await;
        }
    }

    /// Reads all keys now, for a command.
    fn read_state(&self) -> Result<Arc<State>, String> {
        self.read_once()?;
        Ok(lock(&self.0.seen).state.clone().unwrap_or_default())
    }

    /// Reads all keys, unless they are followed.
    fn read_once(&self) -> Result<(), String> {
        if self.0.follows.load(Ordering::Relaxed) {
            return Ok(());
        }
        let state = self.ask(&async |client, prefix| client.read_all(prefix).await)?;
        self.0.replace(state);
        Ok(())
    }

    /// Asks the members one after the other, until one answers.
    fn ask<T>(&self, question: &impl AsyncFn(&Client, &[u8]) -> Result<T, client::ClientError>) -> Result<T, String> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| error.to_string())?;
        let address = &self.0.address;
        let prefix = format!("{}/", address.prefix).into_bytes();
        runtime.block_on(async {
            let mut last = String::new();
            for endpoint in &address.endpoints {
                let answer = match Client::connect(address, endpoint).await {
                    Ok(client) => question(&client, &prefix).await,
                    Err(error) => Err(error),
                };
                match answer {
                    Ok(answer) => return Ok(answer),
                    Err(error) => last = error.to_string(),
                }
            }
            Err(last)
        })
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl fmt::Debug for Etcd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Etcd").field(&self.name()).finish()
    }
}
