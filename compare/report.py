"""Turns results.json into Markdown: a row for each scenario, a column for each peer.

    python3 compare/report.py target/compare/results.json

Ratios are corsgate's figure divided by the peer's, taken in each round; what is shown is their median, lowest and
highest. With profile-guided builds (make release) corsgate's figure is that of its own. Of CPU time, instructions
and memory less is better, of requests per second more.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

OURS, PGO = "corsgate", "corsgate-pgo"
WATCHED = ("with metrics", "with metrics and log")
MIB = 1 << 20
median = statistics.median


def main() -> None:
    print(write(Path(sys.argv[1])))


def write(path: Path) -> str:
    text = markdown(json.loads(path.read_text()))
    path.with_name("report.md").write_text(text)
    return text


def markdown(found: dict) -> str:
    peers = [peer for peer in found["versions"] if peer not in WATCHED]
    parts = [
        header(found),
        section(
            "CPU time per request, microseconds (corsgate / peer, lowest to highest of the rounds)",
            by_scenario(found, peers, cpu),
        ),
        section(
            "Requests per second (corsgate / peer, lowest to highest of the rounds)",
            by_scenario(found, peers, throughput),
        ),
        section("User instructions per request under callgrind (corsgate / peer)", instructions(found, peers)),
        section("Hardware counters, per request: instructions / cycles", by_scenario(found, peers, hardware)),
        section(
            "Latency at full load, milliseconds: half of the requests / 99 of 100", by_scenario(found, peers, latency)
        ),
        section(
            "Latency at some 2,000 requests per second, milliseconds: half of the requests / 99 of 100",
            table(
                ["", *peers],
                [["GET, allowed origin", *(latency(found["paced"].get("get", {}), peer) for peer in peers)]],
            )
            if found["paced"]
            else "",
        ),
        section("Memory, MiB", memory(found)),
        section("What it costs to watch", watched(found)),
        section("Growth: preflights for one of so many, and spread over all of them", growth(found)),
        section(f"A reload twice a second, {2 * found['settings']['seconds']:.0f} s each", reloads(found)),
        section("Reload of corsgate with 100,000 routes, under load, on one core", many_routes(found)),
        section("Known differences", known(found)),
    ]
    return "\n\n".join(filter(None, parts)) + "\n"


def section(title: str, body: str) -> str:
    return f"## {title}\n\n{body}" if body else ""


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    return "\n".join("| " + " | ".join(row) + " |" for row in (columns, ["---"] * len(columns), *rows))


def header(found: dict) -> str:
    machine, settings = found["machine"], found["settings"]
    return "\n".join(
        [
            f"Measured on {found['date']}: {machine['cpu']}, {machine['cores']} cores, Linux {machine['kernel']}; "
            f"{settings['rounds']} rounds of {settings['seconds']:g} s for each figure.",
            "",
            table(
                ["peer", "version"],
                ([peer, version] for peer, version in found["versions"].items() if peer not in WATCHED),
            ),
        ]
    )


# === the scenarios ===

Cell = Callable[[dict, str], str]


def by_scenario(found: dict, peers: Sequence[str], cell: Cell) -> str:
    return table(
        ["", *peers],
        (
            [found["titles"][name], *(cell(measured, peer) for peer in peers)]
            for name, measured in found["scenarios"].items()
        ),
    )


def cpu(measured: dict, peer: str) -> str:
    return with_ratio(measured, peer, "cpu_us", lambda value: f"{value:,.1f}" if value < 1000 else f"{value:,.0f}")


def throughput(measured: dict, peer: str) -> str:
    return with_ratio(measured, peer, "per_second", lambda value: f"{value:,.0f}")


def with_ratio(measured: dict, peer: str, name: str, shown: Callable[[float], str]) -> str:
    rounds = rounds_of(measured, peer)
    if rounds is None:
        return said(measured, peer)
    text = shown(median(each[name] for each in rounds))
    ours = rounds_of(measured, best(measured))
    if ours is None or peer == best(measured):
        return text
    ratios = ratios_of(ours, rounds, name)
    return f"{text} ({median(ratios):.2f}, {ratios[0]:.2f} to {ratios[-1]:.2f})"


def best(measured: dict) -> str:
    """The build of ours that others are compared with."""
    return PGO if PGO in measured else OURS


def ratios_of(one: Sequence[dict], other: Sequence[dict], name: str) -> list[float]:
    return sorted(a[name] / b[name] for a, b in zip(one, other, strict=True))


def latency(measured: dict, peer: str) -> str:
    rounds = rounds_of(measured, peer)
    if rounds is None or "p50_us" not in rounds[0]:
        return "" if rounds else said(measured, peer)
    return " / ".join(f"{median(each[name] for each in rounds) / 1000:.2f}" for name in ("p50_us", "p99_us"))


def hardware(measured: dict, peer: str) -> str:
    rounds = rounds_of(measured, peer)
    if rounds is None or "instructions" not in rounds[0]:
        return ""
    return " / ".join(f"{median(each[name] for each in rounds):,.0f}" for name in ("instructions", "cycles"))


def rounds_of(measured: dict, peer: str) -> list[dict] | None:
    return measured.get(peer, {}).get("rounds")


def said(measured: dict, peer: str) -> str:
    return "failed" if "failed" in measured.get(peer, {}) else ""


def instructions(found: dict, peers: Sequence[str]) -> str:
    rows = []
    for name, counts in found["instructions"].items():
        row = [found["titles"][name]]
        for peer in peers:
            match counts.get(peer):
                case float(count) if peer == best(counts) or best(counts) not in counts:
                    row.append(f"{count:,.0f}")
                case float(count):
                    row.append(f"{count:,.0f} ({counts[best(counts)] / count:.2f})")
                case _:
                    row.append("n/a")
        rows.append(row)
    return table(["", *peers], rows)


def memory(found: dict) -> str:
    return table(
        ["", "idle", "after all scenarios"],
        (
            [peer, *(f"{sizes[when] / MIB:.0f}" if when in sizes else "" for when in ("idle", "after"))]
            for peer, sizes in found["memory"].items()
        ),
    )


def watched(found: dict) -> str:
    rows = []
    for name, counts in found["instructions"].items():
        if all(isinstance(counts.get(peer), float) for peer in (OURS, *WATCHED)):
            rows.append(
                [
                    f"{found['titles'][name]}, user instructions",
                    f"{counts[OURS]:,.0f}",
                    *(f"{counts[peer]:,.0f} ({counts[peer] / counts[OURS] - 1:+.1%})" for peer in WATCHED),
                ]
            )
    for name, measured in found["scenarios"].items():
        if all(rounds_of(measured, peer) for peer in (OURS, *WATCHED)):
            ours = measured[OURS]["rounds"]
            row = [f"{found['titles'][name]}, CPU microseconds", cpu(measured, OURS)]
            for peer in WATCHED:
                ratios = ratios_of(measured[peer]["rounds"], ours, "cpu_us")
                row.append(
                    f"{median(each['cpu_us'] for each in measured[peer]['rounds']):,.1f} ({median(ratios) - 1:+.1%})"
                )
            rows.append(row)
    return table(["", "without", *WATCHED], rows)


# === growth and reloads ===


def growth(found: dict) -> str:
    rows = []
    for kind, peers in found["growth"].items():
        for peer, measured in peers.items():
            sizes = [size for size in measured if size.isdecimal()]
            for size in sizes:
                row = [f"{int(size):,} {kind}", peer]
                if "failed" in measured[size]:
                    rows.append([*row, measured[size]["failed"], "", "", ""])
                    continue
                row += [f"{measured[size]['start_seconds']:.2f}", f"{measured[size]['memory'] / MIB:,.0f}"]
                for way in ("fixed", "spread"):
                    rounds, least = rounds_of(measured, f"{size} {way}"), rounds_of(measured, f"{sizes[0]} {way}")
                    if rounds is None:
                        row.append(said(measured, f"{size} {way}"))
                        continue
                    row.append(f"{median(each['cpu_us'] for each in rounds):,.1f}")
                    if least and size != sizes[0]:
                        row[-1] += f" ({median(ratios_of(rounds, least, 'cpu_us')):.2f})"
                rows.append(row)
    return table(
        ["", "peer", "start, s", "MiB", "one: CPU µs (to the first size)", "spread: CPU µs (to the first size)"], rows
    )


def reloads(found: dict) -> str:
    rows = []
    for peer, measured in found["reloads"].items():
        if "failed" in measured:
            rows.append([peer, measured["failed"], "", "", ""])
            continue
        saturated, paced = measured["saturated"], measured["paced"]
        rows.append(
            [
                peer,
                f"{saturated['with']['reloads']}",
                f"{saturated['with']['errors']:,.0f} of {saturated['with']['requests']:,.0f}",
                *(
                    f"{each['without']['p99_us'] / 1000:.2f} / {each['with']['p99_us'] / 1000:.2f}"
                    for each in (saturated, paced)
                ),
            ]
        )
    return table(
        [
            "",
            "reloads",
            "lost requests at full load",
            "99 of 100 at full load, ms: without / with reloads",
            "at some 2,000 per second",
        ],
        rows,
    )


def many_routes(found: dict) -> str:
    rows = []
    for form, measured in found["many_routes"].items():
        if "failed" in measured:
            rows.append([form, measured["failed"]])
            continue
        times, before, during = measured["reload_seconds"], measured["before"]["p99_us"], measured["during"]["p99_us"]
        rows.append(
            [
                form,
                f"{median(times):.3f} s ({times[0]:.3f} to {times[-1]:.3f})",
                f"{before / 1000:.2f} / {during / 1000:.2f} ({during / before:.1f})",
                f"{measured['memory'] / MIB:,.0f}",
            ]
        )
    return table(["from", "signal to new configuration", "99 of 100, ms: before / meanwhile", "MiB afterwards"], rows)


def known(found: dict) -> str:
    rows = ((each["peer"], ", ".join(each["scenarios"]), each["why"]) for each in found["known"])
    return table(["peer", "where", "what"], [row for row in dict.fromkeys(rows) if row[0] in found["versions"]])


if __name__ == "__main__":
    main()
