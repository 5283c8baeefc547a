//! Any values in etcd, and any changes of them. The checks are those of `source::fuzzing`.

#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| corsgate::source::fuzzing::etcd(bytes));
