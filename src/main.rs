//! The program `corsgate`. All its code is in the library.

use std::process::ExitCode;

/// Pingora allocates about 80 times for a proxied request, on several threads. mimalloc is faster at that than the system's
/// allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    corsgate::cli::main()
}
