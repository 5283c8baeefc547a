//! Files of the command line: those that `import` and `learn` read, the imported file, and the file of tokens.

use std::io::{self, Read, Write};
use std::path::{Path, PathBuf};

use super::{Reading, Unreadable, not_utf_8};

/// Reads the text of a file. `-` means stdin.
pub(crate) fn read_text(path: &Path) -> Result<String, Unreadable> {
    let bytes = match path == Path::new("-") {
        true => {
            let mut bytes = Vec::new();
            io::stdin().lock().read_to_end(&mut bytes).map(|_| bytes)
        }
        false => Reading::default().read(path),
    };
    bytes
        .and_then(|bytes| String::from_utf8(bytes).map_err(|error| not_utf_8(&error)))
        .map_err(|error| Unreadable { path: path.to_owned(), error })
}

/// The files with configurations in a directory, in the order of their names. A file is returned as it is.
pub(crate) fn yaml_files(path: &Path) -> io::Result<Vec<PathBuf>> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let is_yaml = |file: &PathBuf| {
        let extension = file.extension().and_then(|extension| extension.to_str());
        extension.is_some_and(|extension| ["yaml", "yml", "json"].contains(&extension)) && file.is_file()
    };
    let mut files: Vec<PathBuf> = std::fs::read_dir(path)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
    files.retain(is_yaml);
    files.sort();
    match files.is_empty() {
        true => Err(io::Error::new(io::ErrorKind::NotFound, "no *.yaml, *.yml or *.json in this directory")),
        false => Ok(files),
    }
}

/// Opens a file that may be too large for the memory. `-` means stdin.
pub(crate) fn open_log(path: &Path) -> Result<Box<dyn Read>, Unreadable> {
    match path == Path::new("-") {
        true => Ok(Box::new(io::stdin())),
        false => match std::fs::File::open(path) {
            Ok(file) => Ok(Box::new(file)),
            Err(error) => Err(Unreadable { path: path.to_owned(), error }),
        },
    }
}

/// Adds a line to a file, which is created if it does not exist.
pub(crate) fn append_line(path: &Path, line: &str) -> io::Result<()> {
    let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path)?;
    writeln!(file, "{line}")
}

/// Writes a new file. Fails if the file exists, because it may be somebody's work.
pub(crate) fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = std::fs::File::create_new(path)?;
    file.write_all(text.as_bytes())
}
