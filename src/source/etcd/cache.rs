//! The last accepted state in a file, for a start without etcd.
//!
//! The file is readable by its owner only, and is replaced atomically.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::keys::{LARGEST_VALUE, MOST_BYTES, Name, Raw, State};
use super::load::InUse;

/// The largest file that is read: all values, as JSON strings.
const LARGEST_FILE: u64 = 2 * MOST_BYTES as u64;

#[derive(Debug, Serialize, Deserialize)]
struct Contents {
    /// The prefix of the keys.
    prefix: String,
    /// When etcd was last read.
    saved_unix: u64,
    revision: i64,
    keys: BTreeMap<String, Entry>,
}

#[derive(Debug, Serialize, Deserialize)]
struct Entry {
    revision: i64,
    value: String,
}

/// A state from a file.
#[derive(Debug)]
pub(super) struct Cached {
    pub(super) saved: SystemTime,
    pub(super) state: State,
}

/// The file of a cluster and prefix. None: there is none.
pub(super) fn path(address: &Address) -> Option<PathBuf> {
    address.cache.clone().or_else(|| {
        let folder = std::env::var_os("STATE_DIRECTORY").filter(|folder| !folder.is_empty())?;
        let folder = folder.to_string_lossy().split(':').next().map(PathBuf::from)?;
        let hash = ring::digest::digest(&ring::digest::SHA256, address.name().as_bytes());
        let hash: String = hash.as_ref()[..6].iter().map(|byte| format!("{byte:02x}")).collect();
        Some(folder.join(format!("etcd-{hash}.json")))
    })
}

/// Reads the file. `None` if there is none.
pub(super) fn read(path: &Path, address: &Address) -> io::Result<Option<Cached>> {
    match std::fs::metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
        Ok(found) if !found.is_file() => return Err(io::Error::other("it is not a regular file")),
        Ok(found) if found.len() > LARGEST_FILE => return Err(io::Error::other("it is too large")),
        Ok(_) => {}
    }
    let contents: Contents = serde_json::from_slice(&std::fs::read(path)?).map_err(io::Error::other)?;
    if contents.prefix != address.prefix {
        return Err(io::Error::other(format!("it is of the prefix {}", contents.prefix)));
    }
    let mut state = State::empty(address.layout);
    state.revision = contents.revision;
    for (name, entry) in contents.keys {
        // Strangers are not written.
        if entry.value.len() <= LARGEST_VALUE
            && matches!(address.layout.read(name.as_bytes()), Name::Part(_) | Name::Object(_))
        {
            state.put(name.as_bytes(), entry.revision, entry.value.into_bytes());
        }
    }
    let saved = UNIX_EPOCH + Duration::from_secs(contents.saved_unix);
    Ok(Some(Cached { saved, state }))
}

/// Replaces the file.
pub(super) fn write(path: &Path, address: &Address, InUse { revision, values }: InUse) -> io::Result<()> {
    let entry = |(key, raw): (String, Arc<Raw>)| {
        let value = raw.bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned()).unwrap_or_default();
        (key, Entry { revision: raw.revision, value })
    };
    let contents = Contents {
        prefix: address.prefix.clone(),
        saved_unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
        revision,
        keys: values.into_iter().map(entry).collect(),
    };
    let bytes = serde_json::to_vec(&contents)?;
    let draft = path.with_extension(format!("{}.draft", std::process::id()));
    // A draft that a killed process left behind, or a link that somebody put there.
    let _ = std::fs::remove_file(&draft);
    let written = (|| {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&draft)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&draft, path)
    })();
    if written.is_err() {
        let _ = std::fs::remove_file(&draft);
    }
    written
}
