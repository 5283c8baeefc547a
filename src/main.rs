//! The program. Everything it can do is in the library.

use std::process::ExitCode;

/// Pingora allocates some 80 times for a proxied request, on several threads: mimalloc's home ground.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    corsgate::cli::main()
}
