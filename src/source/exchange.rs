//! Files of the command line: those that `import` and `learn` read, the imported file, and the file of tokens.

use std::io::{self, Read, Write};
use std::path::Path;

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
