"""Writes a crate that has only the pure rooms of corsgate, with their unit tests and the oracles.

    pure_core.py FOLDER

It compiles in seconds, because it does not need Pingora, and because all tests are in one crate with the rooms. `make
mutants` tests it once for each mutant.
"""

import re
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
ROOMS = (
    "route decide cors behavior config snapshot explain expect diff report problem codes notation domain"
    " trusted_proxies tls tokens per_thread counter hash terminal logging"
).split()
# Integration tests of these rooms. Those that start corsgate fail here.
TESTS = (
    "browser cases codes config_mutations corpus diff explain header_names oracles origin_expressions schema"
    " shared_cache support/certificates support/fields"
).split()
NO_PROCESS = """
use std::path::Path;
pub struct Gateway;
impl Gateway {
    pub fn start(_: &str) -> Self { panic!("no process") }
    pub fn config_path(&self) -> &Path { panic!("no process") }
    pub fn admin(&self) -> String { panic!("no process") }
}
#[derive(Debug)]
pub struct Output { pub code: i32, pub stdout: String, pub stderr: String }
pub fn shell_words(_: &str) -> Vec<String> { panic!("no process") }
pub fn run(_: &[&str]) -> Output { panic!("no process") }
pub fn run_in(_: &Path, _: &[&str]) -> Output { panic!("no process") }
"""
# Dependencies of other rooms only.
UNUSED = (
    "pingora pingora-core pingora-proxy httparse async-trait tokio tonic tonic-prost prost tokio-stream ppp"
    " flate2 brotli zstd env_logger signal-hook clap ureq hyper hyper-util http-body-util tokio-rustls"
    " mimalloc maud h2 allocation-counter criterion promql-parser roas socket2"
).split()
# Of each property test. A mutant that needs more is rare, and there are more than a thousand mutants.
CASES = 300
PROFILE = """
[profile.test]
debug = false

[profile.test.package."*"]
opt-level = 2
"""


def main(folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    for room in ROOMS:
        for source in (ROOT / "src" / f"{room}.rs", ROOT / "src" / room):
            target = folder / "src" / source.name
            if source.is_dir():
                shutil.copytree(source, target)
            elif source.exists():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
    modules = [
        line
        for line in (ROOT / "src/lib.rs").read_text().splitlines()
        if not (module := re.match(r"pub mod (\w+);", line)) or module[1] in ROOMS
    ]
    (folder / "src/lib.rs").write_text("\n".join([*modules, "#[cfg(test)]", "mod it;"]) + "\n")
    tests = folder / "src/it"
    (tests / "support").mkdir(parents=True)
    for name in TESTS:
        text = (ROOT / f"tests/it/{name}.rs").read_text().replace("mod proxy;\n", "")
        text = text.replace('env!("CARGO_BIN_EXE_corsgate")', '"no process"').replace("docs::", "support::gateway::")
        text = re.sub(r"\bcrate::", "crate::it::", text)
        text = re.sub(r"\bcorsgate::", "crate::", text)
        text = re.sub(r"\bwith_cases\([0-9_]+\)", f"with_cases({CASES})", text)
        (tests / f"{name}.rs").write_text(text)
    (tests / "support/gateway.rs").write_text(NO_PROCESS)
    (tests / "support.rs").write_text("pub mod certificates;\npub mod fields;\npub mod gateway;\n")
    (folder / "src/it.rs").write_text("".join(f"mod {name};\n" for name in (*(n for n in TESTS if "/" not in n), "support")))
    for data in ("conf", "docs"):
        shutil.copytree(ROOT / data, folder / data)
    shutil.copytree(ROOT / "tests", folder / "tests", ignore=shutil.ignore_patterns("it", "*.rs"))
    manifest = (ROOT / "Cargo.toml").read_text()
    for name in UNUSED:
        manifest = re.sub(rf"^{re.escape(name)} = .*\n", "", manifest, flags=re.M)
    manifest = re.sub(r"^\[\[(bench|bin)\]\]\n(.+\n)+", "", manifest, flags=re.M)
    manifest = re.sub(r"^\[package.metadata.deb\]\n(.|\n)*?(?=^\[dependencies\])", "", manifest, flags=re.M)
    manifest = re.sub(r'^\[\[test\]\]\n(.+\n)+', "", manifest, flags=re.M)
    (folder / "Cargo.toml").write_text(manifest.replace('readme = "README.md"\n', "") + PROFILE)
    shutil.copy(ROOT / "Cargo.lock", folder / "Cargo.lock")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
