//! Any bytes as a PROXY header. The checks are those of `accept::fuzzing`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| corsgate::accept::fuzzing::proxy_header(bytes));
