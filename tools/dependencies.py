"""Writes docs/dependencies.md: the direct dependencies, with their maintainers and the dates of their versions.

The data is from `cargo metadata` and from the local copy of the index of crates.io.
"""

import json
import os
import re
import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
HEAD = """# Dependencies

Each direct dependency has its reason beside its name in [`Cargo.toml`](../Cargo.toml). `deny.toml` has the rules for all
dependencies: allowed licences, no known vulnerability, no version twice without a reason.

- `make audit` checks the rules. On a machine without network: `make audit ADVISORY_DB=DIR`, with a clone of RustSec's
  advisory database.
- `make sbom` writes `target/corsgate.cdx.json`, a CycloneDX list of all crates in the binary.
- A binary of `make release` has the list of its crates (cargo-auditable). `cargo audit bin target/release/corsgate` and other
  scanners compare it with the advisories.

`python3 tools/dependencies.py` writes this page from the index of crates.io. "Newest" is the newest version on the day
on which the page was written.

| crate | in use | released | newest | released | licence | repository |
|---|---|---|---|---|---|---|
"""


def index_entries(name: str) -> list[dict]:
    """All versions of a crate in the local copy of the index."""
    home = Path(os.environ.get("CARGO_HOME", Path.home() / ".cargo"))
    prefix = {1: "1", 2: "2", 3: f"3/{name[:1]}"}.get(len(name), f"{name[:2]}/{name[2:4]}")
    entries = []
    for file in home.glob(f"registry/index/*/.cache/{prefix}/{name}"):
        for part in file.read_bytes().split(b"\0"):
            if part.startswith(b"{"):
                entries.append(json.loads(part))
    return entries


def order(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.match(r"(\d+)\.(\d+)\.(\d+)", version).groups())


def main() -> None:
    metadata = json.loads(
        subprocess.run(
            ["cargo", "metadata", "--format-version", "1", "--locked"], cwd=ROOT, check=True, capture_output=True
        ).stdout
    )
    packages = {package["id"]: package for package in metadata["packages"]}
    root = metadata["resolve"]["root"]
    node = next(node for node in metadata["resolve"]["nodes"] if node["id"] == root)
    in_use = {packages[dependency]["name"]: packages[dependency] for dependency in node["dependencies"]}
    manifest = tomllib.loads((ROOT / "Cargo.toml").read_text())
    text = HEAD
    for table in ("dependencies", "dev-dependencies"):
        for name in sorted(manifest[table]):
            if table == "dev-dependencies" and name in manifest["dependencies"]:
                continue
            package = in_use[name]
            entries = index_entries(name)
            dates = {entry["vers"]: entry.get("pubtime", "")[:10] for entry in entries}
            stable = [entry["vers"] for entry in entries if "-" not in entry["vers"] and not entry.get("yanked")]
            newest = max(stable, key=order)
            repository = (package["repository"] or "").removesuffix(".git").rstrip("/")
            short = re.sub(r"^https://github\.com/([^/]+/[^/]+).*", r"\1", repository)
            only = " (tests)" if table == "dev-dependencies" else ""
            text += (
                f"| {name}{only} | {package['version']} | {dates.get(package['version'], '')} | {newest} |"
                f" {dates.get(newest, '')} | {package['license'].replace('/', ' OR ')} | [{short}]({repository}) |\n"
            )
    (ROOT / "docs/dependencies.md").write_text(text)


main()
