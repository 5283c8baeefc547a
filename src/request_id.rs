//! `X-Request-Id`: one value by which a request is found in the logs of everything it passed.

use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderValue;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes ids that are unique, also across restarts and replicas. They are no secrets.
#[derive(Debug)]
pub struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    /// Begins a series of its own.
    pub fn new() -> Self {
        RequestIds { process: RandomState::new().hash_one(std::process::id()), next: AtomicU64::new(0) }
    }

    /// 32 hexadecimal digits: the process, then the number of the request.
    pub fn next(&self) -> HeaderValue {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let mut id = [0; 32];
        for (pair, byte) in
            id.chunks_exact_mut(2).zip(self.process.to_be_bytes().into_iter().chain(number.to_be_bytes()))
        {
            pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
        }
        HeaderValue::from_bytes(&id).unwrap_or(HeaderValue::from_static("-"))
    }

    /// Whether a client's id is kept: short, and nothing that would have to be escaped in a log.
    pub fn is_usable(value: &HeaderValue) -> bool {
        let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
        (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
    }
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}
