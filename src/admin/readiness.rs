//! Readiness of the process, for `/readyz`.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The readiness flag. All clones share it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// Returns true from the start of the process until SIGTERM.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// Marks the process as not ready. It never becomes ready again.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
