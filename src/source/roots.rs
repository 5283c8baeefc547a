//! Root certificates of this machine.

use std::sync::LazyLock;

use pingora_core::tls::{RootCertStore, load_platform_certs_incl_env_into_store};

/// Number of root certificates of this machine, or why they cannot be loaded.
///
/// Uses the function with which Pingora loads them, so the result is what connections to upstreams get. They are loaded
/// once in a process, because Pingora too loads them at the start only.
pub(crate) fn system_roots() -> Result<usize, String> {
    static ROOTS: LazyLock<Result<usize, String>> = LazyLock::new(|| system_root_store().map(|roots| roots.len()));
    ROOTS.clone()
}

/// The root certificates of this machine.
pub(crate) fn system_root_store() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match load_platform_certs_incl_env_into_store(&mut roots) {
        Ok(()) => Ok(roots),
        Err(error) => Err(error.cause.as_ref().map_or_else(|| error.to_string(), ToString::to_string)),
    }
}
