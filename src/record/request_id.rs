//! `X-Request-Id`: the id of a request in the logs of the gateway, of other proxies and of the upstream.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

use crate::per_thread::PerThread;

/// Name of the header field.
pub(crate) const NAME: HeaderName = HeaderName::from_static("x-request-id");

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Bits of a block of numbers. At a million requests per second, a block lasts for nine years.
const BLOCK_BITS: u32 = 48;

/// Creates request ids that are unique across restarts and replicas. They are not secret: a client can guess the next
/// id.
#[derive(Debug)]
pub struct RequestIds {
    process: [u8; 16],
    /// Next number of each thread. Each thread has a block of 2^[`BLOCK_BITS`] numbers.
    next: PerThread<AtomicU64>,
}

/// Id of one request. The text of the id is made only when it is needed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// Created by corsgate. It has 16 hexadecimal digits of the process and the number of the request.
    Own([u8; 16], u64),
    /// Sent by the client.
    Client(HeaderValue),
}

impl RequestIds {
    /// Creates the generator. It chooses random digits for the process.
    pub fn new() -> Self {
        RequestIds {
            process: digits(RandomState::new().hash_one(std::process::id())),
            next: PerThread::new(AtomicU64::new(0)),
        }
    }

    /// Returns the id of a request with these header fields. The client's id is used if there is exactly one and it is
    /// valid: 1 to 128 letters, digits, `-`, `_`, `.` or `:`. Otherwise a new id is created.
    pub fn of(&self, headers: &HeaderMap) -> RequestId {
        let mut ids = headers.get_all(NAME).iter();
        match (ids.next(), ids.next()) {
            (Some(id), None) if is_usable(id) => RequestId::Client(id.clone()),
            _ => RequestId::Own(self.process, self.number()),
        }
    }
}

impl RequestIds {
    /// Returns a number that no other call returns. Each thread counts in its own block; the first block is shared.
    fn number(&self) -> u64 {
        let block = |index: usize| AtomicU64::new((index as u64 + 1) << BLOCK_BITS);
        self.next.get(block).fetch_add(1, Ordering::Relaxed)
    }
}

impl RequestId {
    /// Returns the value of the header field.
    pub(crate) fn value(&self) -> HeaderValue {
        match self {
            RequestId::Client(value) => value.clone(),
            RequestId::Own(process, number) => {
                HeaderValue::from_bytes(&whole(process, *number)).unwrap_or(HeaderValue::from_static("-"))
            }
        }
    }
}

impl fmt::Display for RequestId {
    /// Writes 32 hexadecimal digits, or the client's id.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            RequestId::Own(process, number) => {
                f.write_str(std::str::from_utf8(&whole(process, *number)).unwrap_or("-"))
            }
            RequestId::Client(value) => f.write_str(value.to_str().unwrap_or("-")),
        }
    }
}

fn whole(process: &[u8; 16], number: u64) -> [u8; 32] {
    let mut id = [0; 32];
    id[..16].copy_from_slice(process);
    id[16..].copy_from_slice(&digits(number));
    id
}

/// Returns 16 hexadecimal digits. Every forwarded request needs them, and `format!` is slower.
fn digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    digits
}

/// Returns true if a client's id is valid. A valid id is short, and logs need not escape its characters.
fn is_usable(value: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn ids_are_unique_over_all_threads() {
        const EACH: usize = 2000;
        let ids = RequestIds::new();
        let threads = 2 * crate::per_thread::threads();
        let all: Vec<String> = std::thread::scope(|scope| {
            let ids = |_| scope.spawn(|| (0..EACH).map(|_| ids.of(&HeaderMap::new()).to_string()).collect::<Vec<_>>());
            let threads: Vec<_> = (0..threads).map(ids).collect();
            threads.into_iter().flat_map(|thread| thread.join().unwrap()).collect()
        });
        assert!(all.iter().all(|id| id.len() == 32 && id.starts_with(&all[0][..16])));
        assert_eq!(all.iter().collect::<HashSet<_>>().len(), EACH * threads);
        let blocks: HashSet<&str> = all.iter().map(|id| &id[16..20]).collect();
        assert!(blocks.len() > 2, "the threads have blocks of their own: {blocks:?}");
    }
}
