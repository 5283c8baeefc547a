//! Header names and values that are finished when a configuration is compiled.

use std::ops::Deref;

use http::{HeaderName, HeaderValue};

use super::PerThread;

/// A finished value. A clone of a `HeaderValue` counts references, so each thread has a copy of its own.
#[derive(Debug)]
pub(crate) struct FinishedValue(PerThread<HeaderValue>);

impl FinishedValue {
    pub(crate) fn new(value: HeaderValue) -> Self {
        FinishedValue(PerThread::new(value))
    }

    /// The value for the header of one request or response.
    pub(crate) fn for_message(&self) -> HeaderValue {
        // The bytes are those of a value, so they are valid.
        self.0.get(|_| HeaderValue::from_bytes(self.as_bytes()).unwrap_or_else(|_| (**self).clone())).clone()
    }
}

impl PartialEq for FinishedValue {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Deref for FinishedValue {
    type Target = HeaderValue;

    fn deref(&self) -> &HeaderValue {
        self.0.shared()
    }
}

/// A finished name. A clone of a name that the `http` crate does not know counts references, too.
#[derive(Debug)]
pub(crate) struct FinishedName(PerThread<HeaderName>);

impl FinishedName {
    pub(crate) fn new(name: HeaderName) -> Self {
        FinishedName(PerThread::new(name))
    }

    /// The name for the header of one request or response.
    pub(crate) fn for_message(&self) -> HeaderName {
        let copy = |_| HeaderName::from_bytes(self.as_str().as_bytes()).unwrap_or_else(|_| (**self).clone());
        self.0.get(copy).clone()
    }
}

impl PartialEq for FinishedName {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Deref for FinishedName {
    type Target = HeaderName;

    fn deref(&self) -> &HeaderName {
        self.0.shared()
    }
}
