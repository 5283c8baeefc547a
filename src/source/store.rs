//! Writes a changed configuration to its source: a file, or etcd.

use std::fmt;
use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};

use super::{ConfigSource, Etcd, Reading};

/// Where a configuration is stored.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Store<'s> {
    /// A file, which is replaced as a whole.
    File(&'s Path),
    /// A cluster with one key for each part. Only changed keys are written.
    Etcd(&'s Etcd),
}

/// Why a configuration is not stored. The source is unchanged, except with `Unanswered`.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// The source differs from the active configuration.
    Changed,
    /// The source cannot be written.
    ReadOnly { place: String, why: String },
    /// The source cannot be read, or writing it failed.
    Failed { place: String, error: String },
    /// The source does not accept a value. For example, values in etcd cannot have variables.
    Refused { text: String },
    /// etcd cannot be reached.
    Away { why: String },
    /// etcd got the change and did not answer. It may have the change.
    Unanswered { why: String },
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StoreError::Changed => f.write_str(
                "the source has changed since it was read; reload a file that was edited (`kill -HUP`), and try again",
            ),
            StoreError::ReadOnly { place, why } => write!(f, "{place} cannot be written: {why}"),
            StoreError::Failed { place, error } => write!(f, "{place} was not written: {error}"),
            StoreError::Refused { text } => f.write_str(text.trim_end()),
            StoreError::Away { why } => write!(f, "etcd cannot be reached, nothing was written: {why}"),
            StoreError::Unanswered { why } => {
                write!(f, "etcd did not confirm the change; read the object to see whether it was written: {why}")
            }
        }
    }
}

impl ConfigSource {
    /// None if this process cannot write the source: it is built into the program.
    pub(crate) fn store(&self) -> Option<Store<'_>> {
        match self {
            ConfigSource::File(path) => Some(Store::File(path)),
            ConfigSource::Etcd(etcd) => Some(Store::Etcd(etcd)),
            ConfigSource::BuiltIn(_) => None,
        }
    }
}

impl Store<'_> {
    /// Checks that the source can be written, and if it is a file, that it has this text.
    pub(crate) fn check(&self, present: &str) -> Result<(), StoreError> {
        match self {
            Store::File(path) => Target::open(path, present).map(drop),
            Store::Etcd(etcd) => etcd.check_store(),
        }
    }
}

/// Replaces the text of a file, if it still has the text `present`. `reading` gets the metadata of the new file.
pub(crate) fn replace_file(path: &Path, present: &str, text: &str, reading: &Reading) -> Result<(), StoreError> {
    Target::open(path, present)?.replace(present, text, |metadata| reading.record(path, metadata))
}

/// A file that can be written, and that has the expected text.
struct Target {
    /// Without symbolic links: the link stays, the file is replaced.
    path: PathBuf,
    metadata: fs::Metadata,
}

impl Target {
    fn open(path: &Path, present: &str) -> Result<Self, StoreError> {
        let failed =
            |error: io::Error| StoreError::Failed { place: path.display().to_string(), error: error.to_string() };
        let path = fs::canonicalize(path).map_err(failed)?;
        let read_only = |why: String| StoreError::ReadOnly { place: path.display().to_string(), why };
        let metadata = fs::metadata(&path).map_err(failed)?;
        // Root could replace a file without write permission, which somebody has taken away on purpose.
        if metadata.permissions().readonly() {
            return Err(read_only("its permissions allow nobody to write it".to_owned()));
        }
        OpenOptions::new().write(true).open(&path).map_err(|error| read_only(error.to_string()))?;
        let target = Target { path: path.clone(), metadata };
        target.compare(present)?;
        Ok(target)
    }

    fn compare(&self, present: &str) -> Result<(), StoreError> {
        match fs::read(&self.path) {
            Ok(bytes) if bytes == present.as_bytes() => Ok(()),
            Ok(_) => Err(StoreError::Changed),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// Writes another file beside this one and renames it. So the file has the old or the new text at any time, also after
    /// a crash.
    fn replace(&self, present: &str, text: &str, written: impl FnOnce(&fs::Metadata)) -> Result<(), StoreError> {
        let folder = self.path.parent().unwrap_or(Path::new("/"));
        let name = self.path.file_name().unwrap_or_default().to_string_lossy();
        let mut draft = tempfile::Builder::new().prefix(&format!(".{name}.")).tempfile_in(folder).map_err(|error| {
            let place = self.path.display().to_string();
            StoreError::ReadOnly { place, why: format!("no file can be written beside it: {error}") }
        })?;
        let write = |draft: &mut File| {
            let own = draft.metadata()?;
            let (user, group) = (self.metadata.uid(), self.metadata.gid());
            if (own.uid(), own.gid()) != (user, group) {
                fchown(&*draft, Some(user), Some(group)).map_err(|error| {
                    io::Error::new(error.kind(), format!("cannot keep its owner {user}:{group}: {error}"))
                })?;
            }
            draft.set_permissions(Permissions::from_mode(self.metadata.mode() & 0o7777))?;
            draft.write_all(text.as_bytes())?;
            draft.sync_all()
        };
        write(draft.as_file_mut()).map_err(|error| self.failed(&error))?;
        // Again, because an editor may have written the file in the meantime.
        self.compare(present)?;
        let file = draft.persist(&self.path).map_err(|error| self.failed(&error.error))?;
        // The rename is visible already. If this fails, only a crash of the machine could revert it.
        let _ = File::open(folder).and_then(|folder| folder.sync_all());
        // Of this file, not of the path: somebody may have replaced it since.
        if let Ok(metadata) = file.metadata() {
            written(&metadata);
        }
        Ok(())
    }

    fn failed(&self, error: &io::Error) -> StoreError {
        StoreError::Failed { place: self.path.display().to_string(), error: error.to_string() }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn a_file_keeps_its_mode_and_its_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, link) = (folder.path().join("real.yaml"), folder.path().join("corsgate.yaml"));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o640)).unwrap();
        symlink("real.yaml", &link).unwrap();
        let reading = Reading::default();
        replace_file(&link, "old", "new", &reading).unwrap();
        assert_eq!(
            (fs::read_to_string(&path).unwrap().as_str(), fs::metadata(&path).unwrap().mode() & 0o7777),
            ("new", 0o640)
        );
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "no draft is left");
        let files = reading.files();
        assert_eq!(files.stat_again(), files, "the watcher knows the new file");
    }

    #[test]
    fn another_text_or_a_file_that_cannot_be_written_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("corsgate.yaml");
        let replace = || replace_file(&path, "old", "new", &Reading::default());
        assert!(matches!(replace(), Err(StoreError::Failed { .. })), "no file");
        fs::write(&path, "edited").unwrap();
        assert!(matches!(replace(), Err(StoreError::Changed)));
        assert!(matches!(Store::File(&path).check("old"), Err(StoreError::Changed)));
        fs::write(&path, "old").unwrap();
        fs::set_permissions(&path, Permissions::from_mode(0o444)).unwrap();
        assert!(matches!(replace(), Err(StoreError::ReadOnly { .. })));
        assert!(matches!(Store::File(&path).check("old"), Err(StoreError::ReadOnly { .. })));
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
    }
}
