//! Checks for fuzz targets, which see only public items. Built with `--cfg fuzzing` only.

use super::proxy_protocol::read;

/// Checks the result for any bytes as the start of a connection with a PROXY header.
///
/// # Panics
///
/// If the rest is not a part of the bytes, or if a header that arrives in two pieces gives another result.
pub fn proxy_header(bytes: &[u8]) {
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without I/O");
    let whole = runtime.block_on(read(&mut &*bytes)).ok();
    if let Some(header) = &whole {
        let rest = &header.rest;
        assert!(rest.is_empty() || bytes.windows(rest.len()).any(|part| part == rest));
    }
    let (first, second) = bytes.split_at(bytes.len() / 2);
    let mut pieces = tokio::io::AsyncReadExt::chain(first, second);
    let cut = runtime.block_on(read(&mut pieces)).ok();
    // The rest has only the bytes of the last read.
    let facts = |header: &super::proxy_protocol::ProxyHeader| (header.client, header.local);
    assert_eq!(whole.as_ref().map(facts), cut.as_ref().map(facts));
}
