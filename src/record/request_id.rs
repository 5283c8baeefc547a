//! `X-Request-Id`: one value by which a request is found in the logs of everything it passed.

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};

use http::{HeaderMap, HeaderName, HeaderValue};

/// The name of the field.
pub(crate) const NAME: HeaderName = HeaderName::from_static("x-request-id");

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Makes ids that are unique, also across restarts and replicas. They are no secrets.
#[derive(Debug)]
pub struct RequestIds {
    process: [u8; 16],
    next: AtomicU64,
}

/// The id of one request. Costs nothing until somebody wants to read it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RequestId {
    /// Ours: the process, in digits, then the number of the request.
    Own([u8; 16], u64),
    /// The client's, which is kept.
    Client(HeaderValue),
}

impl RequestIds {
    /// Begins a series of its own.
    pub fn new() -> Self {
        RequestIds { process: digits(RandomState::new().hash_one(std::process::id())), next: AtomicU64::new(0) }
    }

    /// The id of a request with these header fields: its own, if it has exactly one that is usable, else a new one.
    pub fn of(&self, headers: &HeaderMap) -> RequestId {
        let mut ids = headers.get_all(NAME).iter();
        match (ids.next(), ids.next()) {
            (Some(id), None) if is_usable(id) => RequestId::Client(id.clone()),
            _ => RequestId::Own(self.process, self.next.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

impl RequestId {
    /// The field's value.
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
    /// 32 hexadecimal digits, or what the client has sent.
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

/// Sixteen hexadecimal digits. Every forwarded request has them made, which formatting would take longer for.
fn digits(number: u64) -> [u8; 16] {
    let mut digits = [0; 16];
    for (pair, byte) in digits.chunks_exact_mut(2).zip(number.to_be_bytes()) {
        pair.copy_from_slice(&[HEX[usize::from(byte >> 4)], HEX[usize::from(byte & 15)]]);
    }
    digits
}

/// Whether a client's id is kept: short, and nothing that would have to be escaped in a log.
fn is_usable(value: &HeaderValue) -> bool {
    let plain = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b':');
    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(plain)
}

impl Default for RequestIds {
    fn default() -> Self {
        Self::new()
    }
}
