//! Readiness of the process, as `/readyz` reports it.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// Readiness flag, shared by all clones.
#[derive(Debug, Clone, Default)]
pub(crate) struct Readiness(Arc<AtomicBool>);

impl Readiness {
    /// True from the start until SIGTERM.
    pub(crate) fn is_ready(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// Sets the process not ready, for good.
    pub(crate) fn end(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
