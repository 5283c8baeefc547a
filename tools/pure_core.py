"""Writes a crate that has only the pure rooms of corsgate, with their unit tests and the oracles.

    pure_core.py FOLDER

It compiles in seconds, because it does not need Pingora. `make mutants` tests it once for each mutant.
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
# The integration tests that need no process.
TESTS = "browser cases config_mutations header_names oracles origin_expressions shared_cache".split()
# Dependencies of other rooms only.
UNUSED = (
    "pingora pingora-core pingora-proxy httparse async-trait tokio tonic tonic-prost prost tokio-stream ppp"
    " flate2 brotli zstd env_logger tempfile signal-hook clap ureq hyper hyper-util http-body-util tokio-rustls"
    " mimalloc maud h2 allocation-counter criterion promql-parser roas socket2"
).split()


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
    for read in ("conf/reference.yaml", "docs/internet.md"):
        (folder / read).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / read, folder / read)
    (folder / "src/lib.rs").write_text("\n".join(modules) + "\n")
    tests = folder / "tests/it"
    (tests / "support").mkdir(parents=True)
    for name in (*TESTS, "support/fields"):
        text = (ROOT / f"tests/it/{name}.rs").read_text()
        (tests / f"{name}.rs").write_text(text.replace("mod proxy;\n", ""))
    (tests / "support.rs").write_text("pub mod fields;\n")
    (tests / "main.rs").write_text("".join(f"mod {name};\n" for name in (*TESTS, "support")))
    for data in ("tests/cases", "tests/config"):
        shutil.copytree(ROOT / data, folder / data)
    manifest = (ROOT / "Cargo.toml").read_text()
    for name in UNUSED:
        manifest = re.sub(rf"^{re.escape(name)} = .*\n", "", manifest, flags=re.M)
    manifest = re.sub(r"^\[\[(bench|bin)\]\]\n(.+\n)+", "", manifest, flags=re.M)
    manifest = re.sub(r"^\[package.metadata.deb\]\n(.|\n)*?(?=^\[dependencies\])", "", manifest, flags=re.M)
    (folder / "Cargo.toml").write_text(manifest.replace('readme = "README.md"\n', ""))
    shutil.copy(ROOT / "Cargo.lock", folder / "Cargo.lock")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
