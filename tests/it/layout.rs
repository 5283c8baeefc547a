//! The layout of the source: the rooms (modules at the top of `src/`, with their folders), and the imports between
//! them.
//!
//! The tests read the source without its unit tests, which may import any room.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Each room with the rooms that it may import. A room imports only rooms above it in this table, so there is no circle.
const ROOMS: [(&str, &[&str]); 42] = [
    // Basics: need no other room.
    ("domain", &[]),
    ("trusted_proxies", &["domain"]),
    ("problem", &[]),
    ("codes", &[]),
    ("per_thread", &[]),
    ("counter", &["per_thread"]),
    ("hash", &[]),
    ("logging", &[]),
    ("terminal", &[]),
    ("notation", &["terminal"]),
    ("tls", &["domain", "problem"]),
    ("tokens", &[]),
    // Policies and routes.
    ("cors", &["codes", "domain", "notation", "per_thread", "problem"]),
    ("route", &["domain", "problem"]),
    ("behavior", &["domain", "hash", "notation", "per_thread", "problem", "route"]),
    // Configuration: text -> Document -> Snapshot.
    ("config", &["behavior", "cors", "notation", "problem"]),
    ("report", &["config", "problem", "terminal"]),
    (
        "snapshot",
        &["behavior", "config", "cors", "domain", "trusted_proxies", "notation", "problem", "route", "tls", "tokens"],
    ),
    // From a request to its decision.
    ("decide", &["behavior", "codes", "cors", "domain", "route", "snapshot", "tls"]),
    (
        "explain",
        &[
            "behavior", "codes", "config", "cors", "decide", "domain", "notation", "problem", "report", "route",
            "snapshot", "terminal",
        ],
    ),
    ("expect", &["config", "explain", "notation", "problem", "report", "snapshot", "terminal"]),
    ("import", &["config", "cors", "decide", "domain", "notation", "problem", "route", "snapshot", "terminal"]),
    ("source", &["config", "expect", "import", "logging", "notation", "problem", "report", "snapshot", "terminal"]),
    ("diff", &["behavior", "cors", "decide", "domain", "explain", "route", "snapshot", "terminal"]),
    ("objects", &["config", "diff", "problem", "report", "snapshot"]),
    ("learn", &["config", "cors", "domain", "notation", "problem", "snapshot", "terminal"]),
    ("probe", &["domain", "explain", "terminal"]),
    ("client", &["domain", "explain", "probe", "source"]),
    // The running state of a configuration.
    (
        "record",
        &["codes", "cors", "counter", "decide", "domain", "learn", "logging", "per_thread", "snapshot", "terminal"],
    ),
    ("limiter", &["behavior", "domain"]),
    ("upstream", &["counter", "hash", "per_thread", "snapshot", "tls"]),
    (
        "live",
        &[
            "behavior",
            "config",
            "limiter",
            "logging",
            "per_thread",
            "problem",
            "record",
            "report",
            "snapshot",
            "source",
            "terminal",
            "tls",
            "upstream",
        ],
    ),
    // The request path, on the wire.
    ("read", &["behavior", "decide", "record", "snapshot", "tls", "trusted_proxies"]),
    ("accept", &["decide", "domain", "live", "logging", "per_thread", "read", "record", "snapshot", "trusted_proxies"]),
    (
        "forward",
        &[
            "behavior",
            "cors",
            "decide",
            "domain",
            "trusted_proxies",
            "live",
            "logging",
            "per_thread",
            "read",
            "record",
            "snapshot",
            "upstream",
        ],
    ),
    ("health", &["live", "logging", "snapshot", "upstream"]),
    // Operation and command line.
    (
        "admin",
        &[
            "accept", "codes", "config", "cors", "counter", "decide", "domain", "explain", "import", "learn",
            "limiter", "live", "logging", "notation", "objects", "problem", "record", "route", "snapshot", "source",
            "terminal", "tokens",
        ],
    ),
    ("process", &["accept", "admin", "forward", "health", "live", "logging", "record", "snapshot", "source"]),
    ("demo", &["live", "process", "source"]),
    (
        "cli",
        &[
            "admin", "client", "config", "demo", "diff", "expect", "explain", "import", "learn", "live", "notation",
            "probe", "problem", "process", "report", "snapshot", "source", "terminal", "tokens",
        ],
    ),
    ("main", &[]),
    ("lib", &[]),
];

/// Rooms and files without I/O, clock and environment, and without Pingora and tokio.
const PURE: [&str; 24] = [
    "behavior",
    "config",
    "cors",
    "decide",
    "diff",
    "domain",
    "expect",
    "explain",
    "hash",
    "import",
    "learn",
    "trusted_proxies",
    "notation",
    "objects",
    "probe",
    "problem",
    "record/access_log/line",
    "record/request_id",
    "record/route_metrics",
    "report",
    "route",
    "snapshot",
    "tls",
    "tokens",
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
fn rooms_import_only_the_rooms_in_their_row() {
    let allowed: BTreeMap<&str, BTreeSet<&str>> =
        ROOMS.iter().map(|(room, imports)| (*room, imports.iter().copied().collect())).collect();
    let mut used: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut faults = Vec::new();
    for file in sources() {
        let room = room(&file);
        let Some(allowed) = allowed.get(room.as_str()) else {
            faults.push(format!("{}: the room `{room}` is not in the table", file.display()));
            continue;
        };
        for import in imports(&code(&file)) {
            if import != room && !allowed.contains(import.as_str()) {
                faults.push(format!("{}: `{room}` must not import `{import}`", file.display()));
            }
            used.entry(room.clone()).or_default().insert(import);
        }
    }
    for (room, imports) in &allowed {
        let used = used.get(*room).cloned().unwrap_or_default();
        let unused = imports.iter().filter(|import| !used.contains(**import));
        faults.extend(unused.map(|import| format!("the table lets `{room}` import `{import}`, which it does not")));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn the_table_has_no_circle() {
    let position = |room: &str| ROOMS.iter().position(|(known, _)| *known == room);
    for (index, (room, imports)) in ROOMS.iter().enumerate() {
        for import in *imports {
            let above = position(import).is_some_and(|at| at < index);
            assert!(above, "`{room}` imports `{import}`, which does not stand above it in the table");
        }
    }
}

/// The forms in which code can name a room.
#[test]
fn the_reader_finds_every_form_of_import() {
    let code = "use crate::live::Live;\nuse crate::{record, upstream::{Pool, key}};\nlet x = crate::admin::time(now);";
    let found: Vec<String> = imports(code).into_iter().collect();
    assert_eq!(found, ["admin", "live", "record", "upstream"]);
    let tests = "use crate::live::Live;\n#[cfg(test)]\nmod table;\n#[cfg(test)]\nmod tests {\n    use crate::admin;\n    fn f() { {} }\n}\nuse crate::record;\n";
    let found: Vec<String> = imports(&without_tests(tests)).into_iter().collect();
    assert_eq!(found, ["live", "record"]);
}

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
fn only_rooms_on_the_wire_name_pingora() {
    let adapters = ["accept", "admin", "demo", "forward", "health", "process", "read", "upstream"];
    // The error of a failed handshake is Pingora's.
    for file in sources().iter().filter(|file| !adapters.iter().any(|adapter| is_of(file, adapter))) {
        let code = code(file);
        for name in ["pingora::", "pingora_core::{", "pingora_proxy::"] {
            assert!(!code.contains(name), "{} names {name}", file.display());
        }
    }
}

#[test]
fn only_sources_read_files() {
    // Socket files, the file of the access log and the system's memory are not configuration.
    let others = ["source", "process/handover", "process/memory", "process/socket_files", "record/access_log/target"];
    for file in sources().iter().filter(|file| !others.iter().any(|other| is_of(file, other))) {
        assert!(!code(file).contains("std::fs"), "{} reads files", file.display());
    }
}

/// serde_yaml is archived, so only one file depends on it and on the text of its messages.
#[test]
fn one_file_names_serde_yaml() {
    for file in sources().iter().filter(|file| !is_of(file, "config/yaml")) {
        assert!(!code(file).contains("serde_yaml"), "{} names serde_yaml", file.display());
    }
}

/// Only the edits write CORS headers.
#[test]
fn only_the_edits_write_cors_headers() {
    // These make requests and responses of a simulated browser or server.
    let simulations = ["explain", "import/witness", "learn", "probe"];
    for file in sources().iter().filter(|file| !is_of(file, "cors") && !simulations.iter().any(|s| is_of(file, s))) {
        let line = code(file).lines().find(|line| writes_cors_header(line)).map(str::to_owned);
        assert_eq!(line, None, "{}", file.display());
    }
    for (line, writes) in [
        ("headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);", true),
        ("response.append_header(\"Access-Control-Max-Age\", 5)", true),
        ("headers.append(VARY, name)", true),
        ("headers.insert(header::ACCESS_CONTROL_REQUEST_METHOD, method);", false),
        ("headers.insert(header::ETAG, tag);", false),
        ("if headers.contains_key(header::VARY) {", false),
    ] {
        assert_eq!(writes_cors_header(line), writes, "{line}");
    }
}

/// Whether a line of code writes a header of the responses to pages.
fn writes_cors_header(line: &str) -> bool {
    let line = line.to_ascii_lowercase().replace('_', "-");
    let names = ["access-control-allow", "access-control-expose", "access-control-max", "timing-allow", "vary"];
    [".insert(", ".append(", "insert-header(", "append-header(", ".entry("].iter().any(|call| line.contains(call))
        && names.iter().any(|name| line.contains(name))
}

/// A section of the configuration file and its compiled form share a name: the type in `config` is the serde form.
const COMPILED_FORMS: [&str; 2] = ["snapshot", "tls"];

/// A search for a type must find one thing.
#[test]
fn a_type_name_belongs_to_one_room() {
    let mut rooms: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for file in sources() {
        for line in code(&file).lines() {
            let declared = ["pub ", "pub(crate) "].iter().find_map(|visible| line.strip_prefix(visible));
            let Some((kind, rest)) = declared.and_then(|declared| declared.split_once(' ')) else { continue };
            if ["struct", "enum", "trait", "type"].contains(&kind) {
                let name: String = rest.chars().take_while(|c| c.is_alphanumeric()).collect();
                rooms.entry(name).or_default().insert(room(&file));
            }
        }
    }
    assert!(rooms.len() > 100, "the types were not found");
    let is_serde_form = |rooms: &BTreeSet<String>| {
        rooms.len() == 2 && rooms.contains("config") && COMPILED_FORMS.iter().any(|room| rooms.contains(*room))
    };
    let several: Vec<_> = rooms.iter().filter(|(_, rooms)| rooms.len() > 1 && !is_serde_form(rooms)).collect();
    assert!(several.is_empty(), "types of one name in several rooms: {several:?}");
}

/// The rooms that a text names with `crate::`, alone or in braces.
fn imports(code: &str) -> BTreeSet<String> {
    let word = |text: &str| -> String { text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect() };
    let mut found = BTreeSet::new();
    for rest in code.split("crate::").skip(1) {
        let Some(group) = rest.strip_prefix('{') else {
            found.insert(word(rest));
            continue;
        };
        // The first word of each entry of the outer braces.
        let (mut depth, mut entry) = (0, String::new());
        for c in group.chars() {
            match c {
                '{' => depth += 1,
                '}' if depth == 0 => break,
                '}' => depth -= 1,
                ',' if depth == 0 => drop(found.insert(word(std::mem::take(&mut entry).trim()))),
                c if depth == 0 => entry.push(c),
                _ => {}
            }
        }
        found.insert(word(entry.trim()));
    }
    found.retain(|room| !room.is_empty());
    found
}

/// The code without comments and without unit tests.
pub(crate) fn code(file: &Path) -> String {
    if file.ends_with("tests.rs") {
        return String::new();
    }
    let text = without_tests(&fs::read_to_string(file).unwrap());
    let lines = text.lines().filter(|line| !line.trim_start().starts_with("//"));
    lines.collect::<Vec<_>>().join("\n")
}

/// Removes each module of unit tests: up to the semicolon, or up to the next line that closes a brace in the first column.
fn without_tests(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some((before, tests)) = rest.split_once("#[cfg(test)]\nmod ") {
        kept.push_str(before);
        let end = if tests.lines().next().is_some_and(|line| line.ends_with(';')) { ";\n" } else { "\n}\n" };
        rest = tests.split_once(end).map_or("", |(_, after)| after);
    }
    kept + rest
}

fn room(file: &Path) -> String {
    let inside = file.strip_prefix(src()).unwrap();
    let first = inside.components().next().unwrap().as_os_str().to_string_lossy().into_owned();
    first.trim_end_matches(".rs").to_owned()
}

/// `cors` is `cors.rs` and everything in `cors/`.
fn is_of(file: &Path, module: &str) -> bool {
    let inside = file.strip_prefix(src()).unwrap();
    inside.starts_with(module) || inside == Path::new(&format!("{module}.rs"))
}

fn sources() -> Vec<PathBuf> {
    let (mut folders, mut files) = (vec![src()], Vec::new());
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false if path.extension().is_some_and(|extension| extension == "rs") => files.push(path),
                false => {}
            }
        }
    }
    assert!(files.len() > 15, "the sources were not found");
    files
}

fn src() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}
