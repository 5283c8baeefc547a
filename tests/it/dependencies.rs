//! docs/dependencies.md lists the direct dependencies in their locked versions. `python3 tools/dependencies.py` writes it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

fn read(file: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).expect("a file of the repository")
}

/// Names of the direct dependencies in Cargo.toml, of the program and of its tests.
fn direct() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let tables = manifest.split("\n[").filter_map(|table| table.split_once("]\n"));
    let dependencies = tables.filter(|(name, _)| ["dependencies", "dev-dependencies"].contains(name));
    let lines = dependencies.flat_map(|(_, lines)| lines.lines());
    lines.filter_map(|line| Some(line.split_once(" = ")?.0.to_owned())).filter(|name| !name.starts_with('#')).collect()
}

/// Names and versions in Cargo.lock.
fn locked() -> BTreeSet<(String, String)> {
    let value = |line: &str, key: &str| Some(line.strip_prefix(key)?.trim_matches('"').to_owned());
    let lock = read("Cargo.lock");
    let packages = lock.split("[[package]]\n").skip(1).map(|package| {
        let mut lines = package.lines();
        let mut next = |key| lines.next().and_then(|line| value(line, key)).expect("a package");
        (next("name = "), next("version = "))
    });
    packages.collect()
}

#[test]
fn the_page_of_dependencies_has_each_direct_dependency_in_its_locked_version() {
    let page = read("docs/dependencies.md");
    let rows: BTreeSet<(String, String)> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| "))
        .map(|line| line.split(" | ").collect::<Vec<_>>())
        .filter(|cells| cells.len() > 5 && cells[0] != "crate")
        .map(|cells| (cells[0].trim_end_matches(" (tests)").to_owned(), cells[1].to_owned()))
        .collect();
    let names: BTreeSet<String> = rows.iter().map(|(name, _)| name.clone()).collect();
    assert_eq!(names, direct());
    let locked = locked();
    let other: Vec<_> = rows.iter().filter(|row| !locked.contains(row)).collect();
    assert!(other.is_empty(), "not in Cargo.lock: {other:?}; run `python3 tools/dependencies.py`");
}
