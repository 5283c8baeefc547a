//! Checks the chunked coding of a request body (RFC 9112 section 7.1) on the bytes of the connection.
//!
//! Pingora decodes the chunks, and accepts more than the grammar: an empty size ends the body, and a line feed alone is
//! part of an extension. A server in front of the gateway that ends the line there would see other requests than Pingora. This check
//! runs before Pingora's parser. It changes no byte, and it finds the end of the body.

/// The state of the check. It does not limit the size of the body: `limits.body` does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Chunks {
    state: State,
    /// Bytes of the current chunk that are still to come.
    left: u64,
}

/// The bytes do not follow the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct InvalidChunk;

/// Position of the next byte in the grammar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Before a size.
    Size,
    /// After this many digits of a size.
    Digits(u8),
    /// In spaces after a size.
    Space,
    /// In an extension.
    Extension,
    /// After the carriage return of a size line.
    SizeEnd,
    Data,
    /// After the data of a chunk.
    DataEnd,
    /// After the carriage return that follows the data.
    DataLf,
    /// At the beginning of a trailer field, or of the last line.
    Line,
    /// In the name of a trailer field.
    Name,
    /// In the value of a trailer field.
    Value,
    /// After the carriage return of a trailer field.
    ValueLf,
    /// After the carriage return of the last line.
    LastLf,
    Done,
}

/// Most digits of a size: 2^48 - 1 bytes.
const MAX_DIGITS: u8 = 12;

impl Chunks {
    /// At the beginning of a body.
    pub(super) const fn new() -> Self {
        Chunks { state: State::Size, left: 0 }
    }

    /// Whether the body is complete.
    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Checks the next bytes. Returns how many of them belong to the body: fewer than all if it ends in them.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<usize, InvalidChunk> {
        let mut at = 0;
        while let Some(byte) = bytes.get(at) {
            if self.state == State::Data {
                let left = bytes.len() - at;
                let data = usize::try_from(self.left).unwrap_or(left).min(left);
                self.left -= data as u64;
                at += data;
                if self.left == 0 {
                    self.state = State::DataEnd;
                }
                continue;
            }
            if self.is_done() {
                break;
            }
            self.state = self.next(*byte)?;
            at += 1;
        }
        Ok(at)
    }

    /// Returns the state after a byte outside of chunk data.
    fn next(&mut self, byte: u8) -> Result<State, InvalidChunk> {
        let next = match (self.state, byte) {
            (State::Size, b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') => {
                self.left = digit(byte);
                State::Digits(1)
            }
            (State::Digits(count), b'0'..=b'9' | b'a'..=b'f' | b'A'..=b'F') if count < MAX_DIGITS => {
                self.left = self.left * 16 + digit(byte);
                State::Digits(count + 1)
            }
            (State::Digits(_) | State::Space | State::Extension, b'\r') => State::SizeEnd,
            (State::Digits(_) | State::Space, b';') => State::Extension,
            (State::Digits(_) | State::Space, b' ' | b'\t') => State::Space,
            (State::Extension, byte) if is_text(byte) => State::Extension,
            (State::SizeEnd, b'\n') if self.left == 0 => State::Line,
            (State::SizeEnd, b'\n') => State::Data,
            (State::DataEnd, b'\r') => State::DataLf,
            (State::DataLf, b'\n') => State::Size,
            (State::Line, b'\r') => State::LastLf,
            (State::Line | State::Name, byte) if is_name(byte) => State::Name,
            (State::Name, b':') => State::Value,
            (State::Value, b'\r') => State::ValueLf,
            (State::Value, byte) if is_text(byte) => State::Value,
            (State::ValueLf, b'\n') => State::Line,
            (State::LastLf, b'\n') => State::Done,
            _ => return Err(InvalidChunk),
        };
        Ok(next)
    }
}

fn digit(byte: u8) -> u64 {
    u64::from(char::from(byte).to_digit(16).unwrap_or_default())
}

/// Bytes of a field value (RFC 9110 section 5.5).
fn is_text(byte: u8) -> bool {
    byte == b'\t' || (byte >= b' ' && byte != 0x7f)
}

/// Bytes of a field name (RFC 9110 section 5.1).
fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Checks a body in pieces. Returns its length, or None if it is not complete.
    fn check(body: &[u8], piece: usize) -> Result<Option<usize>, InvalidChunk> {
        let (mut chunks, mut length) = (Chunks::new(), 0);
        for bytes in body.chunks(piece) {
            length += chunks.check(bytes)?;
        }
        Ok(chunks.is_done().then_some(length))
    }

    #[test]
    fn a_body_ends_behind_its_last_line_however_it_is_cut() {
        for (body, rest) in [
            ("0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", ""),
            ("5\r\nhello\r\n0\r\n\r\n", "GET / HTTP/1.1\r\n\r\n"),
            ("0a\r\n0123456789\r\n00\r\n\r\n", "x"),
            ("2;name=\"a b\";x\r\n\r\n\r\n0;y\r\n\r\n", ""),
            ("2 ; x\r\nab\r\n0\r\n\r\n", ""),
            ("2 \t\r\nab\r\n0\r\n\r\n", ""),
            ("1\r\n\n\r\n0\r\nX-T: 1\r\nY:\r\n\r\n", "x"),
        ] {
            let bytes = format!("{body}{rest}");
            for piece in 1..=bytes.len() {
                assert_eq!(check(bytes.as_bytes(), piece), Ok(Some(body.len())), "{bytes:?} by {piece}");
            }
        }
    }

    #[test]
    fn an_incomplete_body_is_not_done() {
        let body = b"2;x\r\nab\r\n0\r\nX: y\r\n\r\n";
        for length in 0..body.len() {
            assert_eq!(check(&body[..length], 3), Ok(None), "{length}");
        }
    }

    #[test]
    fn anything_else_is_refused_however_it_is_cut() {
        for body in [
            // No size.
            "5\r\nhello\r\n\r\nmore\r\n\r\n",
            "\r\n",
            ";x\r\n",
            " 2\r\nab\r\n",
            // A line feed without carriage return, or the other way round.
            "2\nab\r\n",
            "2;\nxx\r\n4c\r\n0\r\n\r\n",
            "2;x\ry\r\nab\r\n",
            "2\r\nab\n",
            "2\r\nab\r0\r\n",
            "0\r\n\n",
            "0\n\r\n",
            "0\r\nX: y\n\r\n",
            "0\r\nX: y\rZ: 1\r\n\r\n",
            "0\r\n\rX",
            // Another byte than a line feed behind a carriage return, in a body that is valid besides.
            "2\ryab\r\n0\r\n\r\n",
            "2;x\ryab\r\n0\r\n\r\n",
            "2\r\nab\ry0\r\n\r\n",
            "0\r\nX: y\ryZ: 1\r\n\r\n",
            "0\r\n\ry",
            // A size that is no short hexadecimal number.
            "zz\r\n",
            "-2\r\nab\r\n",
            "+2\r\nab\r\n",
            "0x2\r\nab\r\n",
            "2 2\r\n",
            "1000000000000\r\n",
            "0000000000000\r\n",
            // Data of another length.
            "2\r\nabc\r\n",
            "2\r\na\r\n0\r\n\r\n",
            // Control characters, and trailers that are no fields.
            "2;\0\r\nab\r\n",
            "0\r\nX\r\n\r\n",
            "0\r\n: y\r\n\r\n",
            "0\r\n X: y\r\n\r\n",
            "0\r\nX : y\r\n\r\n",
            "0\r\nX: y\r\n z\r\n\r\n",
            "0\r\nX: \0\r\n\r\n",
        ] {
            for piece in 1..=body.len() {
                assert_eq!(check(body.as_bytes(), piece), Err(InvalidChunk), "{body:?} by {piece}");
            }
        }
    }
}
