//! Header values that a policy has finished when it was compiled.

use std::ops::Deref;

use http::HeaderValue;

use crate::per_thread::PerThread;

/// A finished value. A clone of a `HeaderValue` counts references, so each thread has a copy of its own.
#[derive(Debug)]
pub(crate) struct FinishedValue(PerThread<HeaderValue>);

impl FinishedValue {
    pub(super) fn new(value: HeaderValue) -> Self {
        FinishedValue(PerThread::new(value))
    }

    /// The value for the response to one request.
    pub(super) fn for_response(&self) -> HeaderValue {
        // The bytes are those of a value, so they are valid.
        self.0.get(|_| HeaderValue::from_bytes(self.as_bytes()).unwrap_or_else(|_| (**self).clone())).clone()
    }
}

impl Deref for FinishedValue {
    type Target = HeaderValue;

    fn deref(&self) -> &HeaderValue {
        self.0.shared()
    }
}
