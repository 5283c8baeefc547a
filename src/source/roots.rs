//! Root certificates of this machine.

use std::sync::LazyLock;

use pingora_core::tls::{RootCertStore, load_platform_certs_incl_env_into_store};

/// Returns the number of root certificates of this machine, or the reason why they cannot be loaded.
///
/// The function uses Pingora's loader, so connections to upstreams trust the same certificates. The certificates are
/// loaded once in a process, because Pingora also loads them only at the start.
pub(crate) fn system_roots() -> Result<usize, String> {
    static ROOTS: LazyLock<Result<usize, String>> = LazyLock::new(|| system_root_store().map(|roots| roots.len()));
    ROOTS.clone()
}

/// Loads the root certificates of this machine. Returns the reason if this fails.
pub(crate) fn system_root_store() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    match load_platform_certs_incl_env_into_store(&mut roots) {
        Ok(()) => Ok(roots),
        Err(error) => Err(error.cause.as_ref().map_or_else(|| error.to_string(), ToString::to_string)),
    }
}
