//! Any bytes as the header of an HTTP/1 request. The checks are those of `read::fuzzing`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| corsgate::read::fuzzing::header(bytes));
