//! Whether the process is ready for requests.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the process still wants to be sent requests: what `/readyz` says.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// From the start on until the process is told to end.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// From here on it is not ready.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
