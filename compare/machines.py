"""The results of each kind of machine: one file in docs/performance/results, with the figures that the pages show.

A run of everything replaces the file of its machine. The file has the medians of the rounds, and the ratios of corsgate
to each peer. A ratio is computed in each round: [median, lowest, highest]. A file may have fewer figures than a run
gives.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGES = ROOT / "docs"
PICTURES = PAGES / "performance"
RESULTS = PICTURES / "results"

OURS, PLAIN = "corsgate", "corsgate plain"
MEASURED = (
    "scenarios",
    "instructions",
    "system_calls",
    "tail",
    "balance",
    "memory",
    "growth",
    "reloads",
    "many_routes",
)
RATIOS = ("cpu_us", "per_second")
MIB = 1 << 20

# Kinds of processors that have the same model name: (vendor, family, model).
KINDS = {("GenuineIntel", 6, 143): "Intel Xeon (Sapphire Rapids)"}

median = statistics.median


# === the machine ===


def this_machine() -> dict:
    return {
        "cpu": cpu(Path("/proc/cpuinfo").read_text()),
        "cores": os.cpu_count(),
        "kernel": platform.release().split("-")[0],
        "ticks": tick_rate(),
    }


def cpu(cpuinfo: str) -> str:
    """Returns the kind of the processor: its name, family, model and stepping, because names are ambiguous."""
    found = dict(re.findall(r"^(.+?)\s*: (.*)$", cpuinfo.split("\n\n")[0], re.M))
    if "cpu family" not in found:
        return found.get("model name", platform.machine())
    kind = KINDS.get((found["vendor_id"], int(found["cpu family"]), int(found["model"])))
    name = re.sub(r"\(R\)|\(TM\)|CPU|Processor|@.*", "", found["model name"])
    numbers = f"family {found['cpu family']}, model {found['model']}, stepping {found['stepping']}"
    return kind or f"{' '.join(name.split())} ({numbers})"


def slug(cpu: str) -> str:
    """Returns the name of the results file of a processor."""
    words = re.findall(r"[a-z0-9]+", cpu.lower())
    return "-".join(word for word in words if word not in ("family", "model", "stepping"))


def tick_rate() -> int | None:
    """Returns the timer ticks per second, with which the kernel samples user and kernel time."""
    config = "zcat /proc/config.gz || cat /boot/config-$(uname -r)"
    done = subprocess.run(["sh", "-c", config], capture_output=True, text=True)
    found = re.search(r"^CONFIG_HZ=(\d+)", done.stdout, re.M)
    return int(found[1]) if found else None


def commit() -> str:
    done = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=ROOT, capture_output=True, text=True)
    return done.stdout.strip() or "unknown"


# === the results of a run ===


def trimmed(found: dict) -> dict:
    kept = {name: found[name] for name in ("machine", "date", "commit", "build", "settings", "versions")}
    kept["scenarios"] = {name: beside(measured) for name, measured in found["scenarios"].items()}
    kept["tail"] = {rate: medians(measured) for rate, measured in found["tail"].items()}
    kept["balance"] = {
        load: {
            peer: [sensible(value) for value in spread(each["most"] for each in of["rounds"])]
            for peer, of in measured.items()
            if "rounds" in of
        }
        for load, measured in found["balance"].items()
    }
    kept["memory"] = {
        peer: {when: round(size / MIB, 1) for when, size in sizes.items() if when != "failed"}
        for peer, sizes in found["memory"].items()
    }
    kept["growth"] = {
        kind: {peer: grown(measured) for peer, measured in peers.items()} for kind, peers in found["growth"].items()
    }
    kept["many_routes"] = {
        form: measured if "failed" in measured else reloaded(measured)
        for form, measured in found["many_routes"].items()
    }
    for name in ("instructions", "system_calls", "reloads"):
        kept[name] = found[name]
    return rounded({name: value for name, value in kept.items() if value != {}})


def medians(measured: dict) -> dict:
    """Returns the medians of each peer."""
    kept = {}
    for peer, of in measured.items():
        if rounds := of.get("rounds"):
            names = [name for name in rounds[0] if name not in ("requests", "errors")]
            kept[peer] = {
                name: median(each[name] for each in rounds) for name in names if all(name in each for each in rounds)
            }
        else:
            kept[peer] = {"failed": one_line(of.get("failed", "no round"))}
    return kept


def beside(measured: dict) -> dict:
    """Returns the medians of each peer, and the ratios of corsgate to it."""
    kept, ours = medians(measured), measured.get(best(measured), {}).get("rounds")
    for peer, of in measured.items():
        if ours and of.get("rounds") and peer != best(measured):
            pairs = list(zip(ours, of["rounds"], strict=True))
            kept[peer]["ratio"] = {name: spread(one[name] / other[name] for one, other in pairs) for name in RATIOS}
    return kept


def grown(measured: dict) -> dict:
    """Returns the figures of one peer for each size, with their ratios to the first size."""
    kept: dict = {}
    sizes = [size for size in measured if size.isdecimal()]
    for size in sizes:
        if "failed" in measured[size]:
            kept[size] = {"failed": one_line(measured[size]["failed"])}
            continue
        kept[size] = {"start_seconds": measured[size]["start_seconds"], "memory": measured[size]["memory"] / MIB}
        for way in ("fixed", "spread"):
            rounds = measured.get(f"{size} {way}", {}).get("rounds")
            least = measured.get(f"{sizes[0]} {way}", {}).get("rounds")
            if rounds:
                kept[size][way] = {"cpu_us": median(each["cpu_us"] for each in rounds)}
            if rounds and least and size != sizes[0]:
                ratios = [a["cpu_us"] / b["cpu_us"] for a, b in zip(rounds, least, strict=True)]
                kept[size][way]["to_first"] = median(ratios)
    return kept


def reloaded(measured: dict) -> dict:
    times = measured["reload_seconds"]
    return measured | {
        "reload_seconds": [min(times), median(times), max(times)],
        "memory": round(measured["memory"] / MIB),
    }


def best(measured: dict) -> str:
    """Returns the build of corsgate with which the peers are compared."""
    return OURS if OURS in measured else PLAIN


def spread(values: Sequence[float]) -> list[float]:
    ordered = sorted(values)
    return [median(ordered), ordered[0], ordered[-1]]


def rounded(value: object) -> object:
    match value:
        case dict():
            return {key: rounded(each) for key, each in value.items()}
        case list() | tuple():
            return [rounded(each) for each in value]
        case float():
            return sensible(value)
        case _:
            return value


def sensible(value: float) -> float:
    """Rounds to four significant digits, or to a whole number from 1000 on."""
    return round(value) if abs(value) >= 1000 else float(f"{value:.4g}")


def one_line(text: str) -> str:
    return " ".join(text.split())[:120]


# === the files ===


def read_all() -> dict[str, dict]:
    """Returns all results by the name of the file: the newest first, those without a date last."""
    found = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    return dict(sorted(found.items(), key=lambda entry: entry[1].get("date") or "", reverse=True))


def keep(result: dict, whole: bool) -> Path:
    """Replaces the file of this machine, or the part of it that was measured again with the same binaries."""
    path = RESULTS / f"{slug(result['machine']['cpu'])}.json"
    if not whole:
        result = joined(json.loads(path.read_text()) if path.exists() else None, result)
    RESULTS.mkdir(parents=True, exist_ok=True)
    path.write_text(text(result) + "\n")
    return path


def joined(old: dict | None, new: dict) -> dict:
    if old is None:
        sys.exit("KEEP=1 replaces a part of the results of this machine, and there are none: run everything first")
    if old.get("build", {}) | new["build"] != old.get("build"):
        sys.exit("KEEP=1 replaces a part of the results, but they are of other binaries: run everything again")
    for section in MEASURED:
        for name, measured in new.get(section, {}).items():
            old.setdefault(section, {}).setdefault(name, {}).update(measured)
    return old


def text(value: object, margin: str = "") -> str:
    """Writes JSON with one line for each innermost value, so that diffs are readable."""
    line = json.dumps(value, ensure_ascii=False)
    if not isinstance(value, dict) or len(margin) + len(line) <= 180:
        return line
    rows = (f"{margin} {json.dumps(key)}: {text(each, margin + ' ')}" for key, each in value.items())
    return "{\n" + ",\n".join(rows) + f"\n{margin}}}"
