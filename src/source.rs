//! Source of a configuration: a file, an etcd cluster, or a text built into the program.

mod etcd;
mod exchange;
mod file;
/// Checks for fuzz targets. Built with `--cfg fuzzing` only.
#[cfg(fuzzing)]
pub mod fuzzing {
    /// Changes of values in etcd.
    pub fn etcd(data: &[u8]) {
        super::etcd::fuzzing::changes(data);
    }
}
mod roots;
mod store;
pub(crate) mod watch;

use std::borrow::Cow;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

pub(crate) use self::etcd::{Etcd, EtcdCheck, EtcdStatus, Fleet, Kept, KeyRefusal, Member, Transaction};
pub(crate) use self::exchange::{append_line, open_log, read_text, write_new, yaml_files};
pub(crate) use self::file::Files;
pub(crate) use self::file::Reading;
pub(crate) use self::roots::{system_root_store, system_roots};
pub(crate) use self::store::{Store, StoreError, replace_file};

use crate::config::Document;
use crate::expect::{self, Suite};
use crate::problem::Problems;
use crate::snapshot::{CompileEnv, Loaded, load_with_document};

/// Source of a configuration.
#[derive(Debug, Clone)]
pub enum ConfigSource {
    /// A file. Paths in it are relative to its folder.
    File(PathBuf),
    /// A text built into the program, for `demo`. It cannot name files.
    BuiltIn(String),
    /// An etcd cluster.
    Etcd(Etcd),
}

/// The text of a configuration.
#[derive(Debug)]
pub(crate) struct SourceText {
    /// Path of the file as given on the command line.
    pub(crate) name: String,
    /// The text as it was read.
    pub(crate) text: String,
    /// SHA-256 of the text in hexadecimal digits, as `sha256sum` prints it.
    pub(crate) hash: String,
    /// When it was read.
    pub(crate) read: SystemTime,
}

/// A configuration with its expectations, which are not checked yet.
#[derive(Debug)]
pub(crate) struct TestSource<'t> {
    pub(crate) loaded: Loaded,
    pub(crate) document: Option<Document>,
    pub(crate) suite: Suite<'t>,
    /// Problems of the expectations.
    pub(crate) problems: Problems,
}

/// The configuration file cannot be read, or is not UTF-8.
#[derive(Debug)]
pub struct Unreadable {
    /// Path of the file.
    pub(crate) path: PathBuf,
    /// Error of the operating system.
    pub(crate) error: io::Error,
}

// === impl ConfigSource ===

impl ConfigSource {
    /// Path of the configuration file; None for a built-in configuration.
    pub(crate) fn path(&self) -> Option<&Path> {
        match self {
            ConfigSource::File(path) => Some(path),
            ConfigSource::Etcd(etcd) => etcd.bootstrap(),
            ConfigSource::BuiltIn(_) => None,
        }
    }

    /// Reads the text, loads it, and checks its expectations.
    pub(crate) fn open(&self) -> Result<(SourceText, Loaded), Unreadable> {
        self.read_and_load(&Reading::default())
    }

    /// Reads the text.
    pub(crate) fn open_text(&self) -> Result<SourceText, Unreadable> {
        self.read(&Reading::default())
    }

    /// The source that a file is, or that it names.
    pub(crate) fn of_file(path: PathBuf) -> Self {
        let text = Reading::default().read(&path).ok().and_then(|bytes| String::from_utf8(bytes).ok());
        match text.filter(|text| text.contains("source")).and_then(|text| Etcd::of_file(&path, &text)) {
            Some(etcd) => ConfigSource::Etcd(etcd),
            None => ConfigSource::File(path),
        }
    }

    /// The cluster, if it is one.
    pub(crate) fn etcd(&self) -> Option<&Etcd> {
        match self {
            ConfigSource::Etcd(etcd) => Some(etcd),
            ConfigSource::File(_) | ConfigSource::BuiltIn(_) => None,
        }
    }

    /// The snapshot that was loaded last is in use.
    pub(crate) fn published(&self) {
        if let ConfigSource::Etcd(etcd) = self {
            etcd.published();
        }
    }

    /// Reads the text and loads it. Does not check its expectations. Also returns its document.
    pub(crate) fn open_with_document(&self) -> Result<(SourceText, Loaded, Option<Document>), Unreadable> {
        let text = self.open_text()?;
        let (loaded, document) = self.with_env(&Reading::default(), |env| load_with_document(&text.text, env));
        Ok((text, loaded, document))
    }

    /// Loads another text as if it were the text of this source. Reads the files that the text names. Does not check its
    /// expectations.
    pub(crate) fn load(&self, text: &str) -> Loaded {
        self.with_env(&Reading::default(), |env| crate::snapshot::load(text, env))
    }

    /// As [`ConfigSource::load`], and checks its expectations.
    pub(crate) fn load_checked(&self, text: &str) -> Loaded {
        self.with_env(&Reading::default(), |env| expect::load_attempt(&self.name(), text, env))
    }

    /// As [`ConfigSource::load_checked`]; `reading` remembers the files that were read.
    pub(crate) fn load_candidate(&self, reading: &Reading, text: &str) -> Loaded {
        self.with_env(reading, |env| expect::load(&self.name(), text, env))
    }

    /// Loads a text, and reads its expectations.
    pub(crate) fn load_suite<'t>(&self, text: &'t SourceText) -> TestSource<'t> {
        self.with_env(&Reading::default(), |env| {
            let (loaded, document) = load_with_document(&text.text, env);
            let empty = Document::default();
            let (suite, problems) = Suite::of(&text.name, &text.text, document.as_ref().unwrap_or(&empty), env);
            TestSource { loaded, document, suite, problems }
        })
    }

    /// As [`ConfigSource::open`]; `reading` remembers the files that were read.
    pub(crate) fn read_and_load(&self, reading: &Reading) -> Result<(SourceText, Loaded), Unreadable> {
        if let ConfigSource::Etcd(etcd) = self {
            return Ok(etcd.load(reading));
        }
        let text = self.read(reading)?;
        let loaded = self.with_env(reading, |env| expect::load(&text.name, &text.text, env));
        Ok((text, loaded))
    }

    /// The folder to which paths in the configuration are relative.
    pub(crate) fn folder(&self) -> &Path {
        self.path().and_then(Path::parent).unwrap_or(Path::new(""))
    }

    /// Whether the configuration may name this file. Err: why not.
    pub(crate) fn may_name(&self, name: &str) -> Result<(), String> {
        match self {
            ConfigSource::Etcd(etcd) => etcd.may_name(name),
            ConfigSource::File(_) | ConfigSource::BuiltIn(_) => Ok(()),
        }
    }

    fn read(&self, reading: &Reading) -> Result<SourceText, Unreadable> {
        let read = SystemTime::now();
        let text = match self {
            ConfigSource::Etcd(etcd) => {
                // What the keys make, as one text.
                let (text, Loaded { snapshot, problems }) = etcd.load(reading);
                let why = || problems.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n");
                return match snapshot {
                    Some(_) => Ok(text),
                    None => Err(Unreadable { path: text.name.into(), error: io::Error::other(why()) }),
                };
            }
            ConfigSource::BuiltIn(text) => text.clone(),
            ConfigSource::File(path) => (reading.read(path))
                .and_then(|bytes| String::from_utf8(bytes).map_err(|error| not_utf_8(&error)))
                .map_err(|error| Unreadable { path: path.clone(), error })?,
        };
        Ok(SourceText::new(self.name().into_owned(), text, read))
    }

    fn name(&self) -> Cow<'_, str> {
        match self {
            ConfigSource::BuiltIn(_) => "built-in configuration".into(),
            ConfigSource::File(path) => path.to_string_lossy(),
            ConfigSource::Etcd(etcd) => etcd.name().into(),
        }
    }

    /// Calls `load` with the files and the time of this machine.
    fn with_env<T>(&self, reading: &Reading, load: impl FnOnce(CompileEnv<'_>) -> T) -> T {
        if let ConfigSource::BuiltIn(_) = self {
            return load(CompileEnv::NONE);
        }
        let folder = self.folder();
        let file = |name: &str| {
            self.may_name(name)?;
            reading.read(&folder.join(name)).map_err(|error| error.to_string())
        };
        let has_folder =
            |name: &str| folder.join(name).parent().is_some_and(|folder| folder == Path::new("") || folder.is_dir());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        // Absolute, because the process that takes over a socket may run in another directory.
        let socket = |name: &str| std::path::absolute(folder.join(name)).unwrap_or_else(|_| folder.join(name));
        let of_process = |name: &str| std::env::var(name).ok();
        let of_etcd = |_: &str| None;
        let variable: &dyn Fn(&str) -> Option<String> = match self {
            ConfigSource::Etcd(_) => &of_etcd,
            ConfigSource::File(_) | ConfigSource::BuiltIn(_) => &of_process,
        };
        load(CompileEnv { file: &file, has_folder: &has_folder, socket: &socket, variable, roots: &system_roots, now })
    }
}

impl SourceText {
    pub(crate) fn new(name: String, text: String, read: SystemTime) -> Self {
        let hash = hash_of(&text);
        SourceText { name, text, hash, read }
    }
}

/// SHA-256 of a text in hexadecimal digits.
pub(crate) fn hash_of(text: &str) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, text.as_bytes());
    hash.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Names the first byte that is not UTF-8, with its line and its column in bytes.
fn not_utf_8(error: &std::string::FromUtf8Error) -> io::Error {
    let (bytes, at) = (error.as_bytes(), error.utf8_error().valid_up_to());
    let line_start = bytes[..at].iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
    let line = bytes[..at].split(|byte| *byte == b'\n').count();
    let (column, byte) = (at - line_start + 1, bytes[at]);
    io::Error::new(
        io::ErrorKind::InvalidData,
        format!("it is not UTF-8 text: line {line} has the byte 0x{byte:02x} in column {column}"),
    )
}

impl Unreadable {
    /// What to do about it.
    pub(crate) fn remedy(&self) -> &'static str {
        match self.error.kind() {
            io::ErrorKind::InvalidData => "save the file as UTF-8",
            _ => "write the path of a readable file, `--config FILE`",
        }
    }
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot read {}: {}", self.path.display(), self.error)?;
        match self.error.kind() {
            io::ErrorKind::InvalidData => write!(f, "; {}", self.remedy()),
            _ => Ok(()),
        }
    }
}

impl std::error::Error for Unreadable {}
