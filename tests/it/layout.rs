//! The promises in the crate's documentation about who may use what, kept by reading the source.

use std::fs;
use std::path::{Path, PathBuf};

/// Text that does no I/O, reads no clock and no environment, and knows nothing of Pingora and tokio.
const PURE: [&str; 15] = [
    "config",
    "cors",
    "decide",
    "domain.rs",
    "explain",
    "forwarded.rs",
    "notation",
    "problem.rs",
    "record/access_log/line.rs",
    "record/request_id.rs",
    "record/route_metrics.rs",
    "report.rs",
    "route",
    "snapshot",
    "tls.rs",
];

const IMPURE_WORDS: [&str; 12] = [
    "pingora::",
    "pingora_",
    "tokio",
    "std::fs",
    "std::env",
    "Instant",
    "SystemTime",
    "async fn",
    "std::io",
    "println!",
    "TcpStream",
    "std::thread",
];

#[test]
fn the_core_is_pure() {
    for file in sources().iter().filter(|file| PURE.iter().any(|pure| is_of(file, pure))) {
        let code = code(file);
        for word in IMPURE_WORDS {
            assert!(!code.contains(word), "{} mentions {word}", file.display());
        }
    }
}

#[test]
fn only_the_adapters_name_pingora() {
    let adapters = ["accept", "admin.rs", "demo.rs", "forward", "health.rs", "process", "read", "upstream"];
    for file in sources().iter().filter(|file| !adapters.iter().any(|adapter| is_of(file, adapter))) {
        let code = code(file);
        for crate_name in ["pingora::", "pingora_core::{", "pingora_proxy::"] {
            assert!(!code.contains(crate_name), "{} names {crate_name}", file.display());
        }
    }
}

#[test]
fn only_live_and_the_command_line_read_files() {
    for file in sources().iter().filter(|file| !is_of(file, "source") && !is_of(file, "cli.rs")) {
        // The place where sockets change hands is no configuration, nor is the file that the access log is written to.
        let allowed = ["process/handover.rs", "record/access_log/target.rs"].iter().any(|module| is_of(file, module));
        assert!(allowed || !code(file).contains("std::fs"), "{} reads files", file.display());
    }
}

/// One path for CORS headers: nobody but the edits writes them.
#[test]
fn only_the_edits_write_cors_headers() {
    for file in sources().iter().filter(|file| !is_of(file, "cors")) {
        let code = code(file);
        for line in code.lines().filter(|line| line.contains("insert_header(") || line.contains("append_header(")) {
            let line = line.to_ascii_lowercase();
            assert!(!line.contains("access-control-") && !line.contains("vary"), "{}: {line}", file.display());
        }
    }
}

/// Without comments and without unit tests, which may do what they like.
fn code(file: &Path) -> String {
    let text = fs::read_to_string(file).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// `cors` is `cors.rs` and everything in `cors/`.
fn is_of(file: &Path, module: &str) -> bool {
    let inside = file.strip_prefix(src()).unwrap();
    let name = module.trim_end_matches(".rs");
    inside.starts_with(name) || inside == Path::new(&format!("{name}.rs"))
}

fn sources() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![src()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => files.push(path),
            }
        }
    }
    assert!(files.len() > 15, "the sources were not found");
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
