"""Writes the results into the pages: docs/performance.md, between its marks, and docs/performance/measurements.md.

    python3 compare/report.py            writes them from docs/performance/results
    python3 compare/report.py --check    ends with 1 if a page does not match the results

A ratio is the figure of corsgate divided by that of the peer. For CPU time, instructions and memory, less is better.
For requests per second, more is better.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterable, Sequence

import machines
import scenarios
from machines import OURS, PAGES, PLAIN, median

PAGE, DETAILS = PAGES / "performance.md", PAGES / "performance" / "measurements.md"
TITLES = {scenario.name: scenario.title for scenario in scenarios.SCENARIOS}
NAMES = {"haproxy": "HAProxy", "envoy": "Envoy", "caddy": "Caddy", "traefik": "Traefik"}
GATEWAYS, OTHERS = ("nginx", "haproxy", "envoy"), ("caddy", "traefik", "nginx + Lua", "bare")
WATCHED = ("with metrics", "with metrics and log")
LEVEL = 1.05  # up to this ratio, corsgate and a peer count as level
SEEN = 0.02  # system calls per request; lower numbers come from timers
BLOCK = re.compile(r"(<!-- generated: ([a-z-]+) -->\n).*?(<!-- end -->)", re.S)

Result = dict  # the results of one machine, in the form of machines.py
Results = dict[str, Result]  # results by the name of their file


def main() -> int:
    if sys.argv[1:] not in ([], ["--check"]):
        print("report.py [--check]", file=sys.stderr)
        return 2
    if not sys.argv[1:]:
        write()
        return 0
    wrong = [str(path) for path, text in pages().items() if not path.exists() or path.read_text() != text]
    if wrong:
        print(f"different from docs/performance/results: {', '.join(wrong)}; run `make performance-page`")
    return 1 if wrong else 0


def write() -> None:
    for path, text in pages().items():
        path.write_text(text)


def pages() -> dict:
    results = machines.read_all()
    unused = set(BLOCKS)

    def block(found: re.Match) -> str:
        unused.discard(found[2])
        return f"{found[1]}\n{BLOCKS[found[2]](results)}\n\n{found[3]}"

    page = BLOCK.sub(block, PAGE.read_text())
    if unused:
        sys.exit(f"{PAGE} has no mark for {', '.join(sorted(unused))}")
    return {PAGE: page, DETAILS: details(list(results.values()))}


# === text ===


def table(columns: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Returns a table, without empty rows and columns."""
    rows = [row for row in rows if any(row[1:])]
    if not rows:
        return ""
    filled = [0, *(number for number in range(1, len(columns)) if any(row[number] for row in rows))]
    lines = ([row[number] for number in filled] for row in (columns, ["---"] * len(columns), *rows))
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def by_machine(make: Callable[[Result], str]) -> Callable[[Results], str]:
    """Returns a block with the text of `make` for each machine with results for it."""

    def block(results: Results) -> str:
        found = [(result, text) for result in results.values() if (text := make(result))]
        parts = [text if len(results) == 1 else f"{result['machine']['cpu']}:\n\n{text}" for result, text in found]
        return "\n\n".join(parts) or "Not measured yet."

    return block


def shown(value: float, name: str) -> str:
    return f"{value:,.1f}" if name == "cpu_us" and value < 1000 else f"{value:,.0f}"


def milliseconds(value: float) -> str:
    return f"{value / 1000:.2f}"


def name_of(peer: str) -> str:
    return NAMES.get(peer, peer)


def short(results: Results) -> dict[str, str]:
    """Returns the shortest names of the machines that differ."""
    cpus = [result["machine"]["cpu"] for result in results.values()]
    for length in range(1, 12):
        words = [" ".join(cpu.split()[:length]) for cpu in cpus]
        if len(set(words)) == len(words):
            break
    return dict(zip(results, words, strict=True))


def peers_of(measured: Iterable[dict]) -> list[str]:
    return list(dict.fromkeys(peer for each in measured for peer in each if peer not in WATCHED))


# === summary ===


def ratio(measured: dict, peer: str, name: str = "cpu_us") -> list[float] | None:
    """Returns the ratio of the rounds. If there is none, returns the ratio of the medians."""
    of, ours = measured.get(peer, {}), measured.get(machines.best(measured), {})
    if taken := of.get("ratio", {}).get(name):
        return taken
    return [ours[name] / of[name]] if peer not in (OURS, PLAIN) and name in of and name in ours else None


def ratios(results: Results, peer: str) -> dict[str, dict[str, float]]:
    """Returns the ratios to a peer, by scenario and machine."""
    found: dict[str, dict[str, float]] = {}
    for scenario in TITLES:
        for machine, result in results.items():
            if of := ratio(result.get("scenarios", {}).get(scenario, {}), peer):
                found.setdefault(scenario, {})[machine] = of[0]
    return found


def worse(peers: Sequence[str]) -> Callable[[Results], str]:
    """Returns a block with the worst ratio of all machines, and the ratio of each machine."""

    def block(results: Results) -> str:
        words = short(results)
        found = {peer: ratios(results, peer) for peer in peers}

        def cell(of: dict[str, float]) -> str:
            if len(of) == 1:
                [(machine, value)] = of.items()
                return f"**{value:.2f}** ({words[machine]})"
            each = ", ".join(f"{words[machine]} {value:.2f}" for machine, value in of.items())
            return f"**{max(of.values()):.2f}** ({each})" if of else ""

        return table(
            ["CPU time, corsgate / peer", *map(name_of, peers)],
            ([TITLES[scenario], *(cell(found[peer].get(scenario, {})) for peer in peers)] for scenario in TITLES),
        )

    return block


def not_ahead(results: Results) -> str:
    """Lists for each scenario and machine the gateways that need less CPU time than corsgate, or as much."""
    words = short(results)
    found = {peer: ratios(results, peer) for peer in (*GATEWAYS, *OTHERS) if peer != "bare"}

    def cell(scenario: str, machine: str) -> str:
        of = {peer: found[peer].get(scenario, {}).get(machine, 0) for peer in found}
        behind = (f"{name_of(peer)} **{value:.2f}**" for peer, value in of.items() if value > LEVEL)
        level = (f"{name_of(peer)} {value:.2f} (level)" for peer, value in of.items() if 1 / LEVEL <= value <= LEVEL)
        return ", ".join((*behind, *level))

    return table(
        ["corsgate / peer", *words.values()],
        ([TITLES[scenario], *(cell(scenario, machine) for machine in results)] for scenario in TITLES),
    )


def list_of_machines(results: Results) -> str:
    words = short(results)
    return "\n".join(
        f"- **{words[machine]}**: {result['machine']['cpu']}. {about(result)}" for machine, result in results.items()
    )


def about(result: Result) -> str:
    """Describes the machine and the measurement."""
    sentences = []
    if result.get("date"):
        settings, version = result["settings"], result["versions"].get(OURS, "no corsgate")
        if result.get("commit"):
            version += f", commit {result['commit']}"
        sentences = [
            f"{result['machine']['cores']} cores, Linux {result['machine']['kernel']}",
            f"Measured on {result['date']}, {version}",
            f"{settings['rounds']} rounds of {settings['seconds']:g} s for each figure",
        ]
    return " ".join(f"{sentence}." for sentence in (*sentences, *result.get("notes", ())))


# === user and kernel, system calls ===


def user_and_kernel(results: Results) -> str:
    words = short(results)
    columns, cells = [], []
    for machine, result in results.items():
        for scenario in ("get", "preflight"):
            measured = result.get("scenarios", {}).get(scenario, {})
            split = {peer: of for peer, of in measured.items() if "user_us" in of}
            if split:
                columns.append(f"{scenario.replace('get', 'GET')}, {words[machine]}")
                cells.append({peer: f"{of['user_us']:.1f} + {kernel(of):.1f}" for peer, of in split.items()})
    return (
        table(
            ["user + kernel, µs per request", *columns],
            ([name_of(peer), *(column.get(peer, "") for column in cells)] for peer in peers_of(cells)),
        )
        or "Not measured yet."
    )


def kernel(of: dict) -> float:
    """Returns the kernel time of the file. If it has none, returns the CPU time without the user time."""
    return of.get("kernel_us", of["cpu_us"] - of["user_us"])


def system_calls(result: Result) -> str:
    counts = result.get("system_calls", {})
    peers = [peer for peer in peers_of(counts.values()) if "failed" not in counts["get"].get(peer, {})]

    def cell(peer: str, name: str | None) -> str:
        each = []
        for scenario in ("get", "preflight"):
            of = counts.get(scenario, {}).get(peer, {})
            each.append(sum(of.values()) if name is None else of.get(name, 0))
        return " / ".join(f"{value:.2f}" if value >= SEEN else "0" for value in each) if max(each) >= SEEN else ""

    most = {}
    for of in counts.values():
        for peer in peers:
            for name, count in of.get(peer, {}).items():
                most[name] = max(most.get(name, 0), count)
    names = sorted((name for name, count in most.items() if count >= SEEN), key=lambda name: -most[name])
    return table(
        ["GET / preflight", *map(name_of, peers)],
        ([name or "**all**", *(cell(peer, name) for peer in peers)] for name in (None, *names)),
    )


# === latency below full load, balance ===


def tail(result: Result) -> str:
    tables = []
    for rate, title in (("own", "70 % of its own capacity"), ("common", "the same rate for all")):
        rows = []
        for peer, of in result.get("tail", {}).get(rate, {}).items():
            if "failed" in of:
                rows.append([name_of(peer), of["failed"], "", "", ""])
                continue
            latencies = (milliseconds(of[name]) for name in ("p50_us", "p99_us", "p999_us"))
            rows.append([name_of(peer), f"{of['per_second']:,.0f}", *latencies])
        tables.append(table([title, "requests per second", "p50, ms", "p99, ms", "p99.9, ms"], rows))
    return "\n\n".join(filter(None, tables))


def balance(result: Result) -> str:
    found = result.get("balance", {})

    def cell(of: list[float] | None) -> str:
        return f"{of[0]:.2f} ({of[1]:.2f} to {of[2]:.2f})" if of else ""

    return table(
        ["busiest worker / mean of both", "64 kept connections", "a connection for each request"],
        (
            [name_of(peer), *(cell(found.get(load, {}).get(peer)) for load in ("kept", "short"))]
            for peer in peers_of(found.values())
        ),
    )


# === the details of one machine ===

Cell = Callable[[dict, str], str]


def by_scenario(result: Result, cell: Cell) -> str:
    measured = result.get("scenarios", {})
    peers = peers_of(measured.values())
    rows = ([TITLES[name], *(cell(measured[name], peer) for peer in peers)] for name in TITLES if name in measured)
    return table(["", *map(name_of, peers)], rows)


def with_ratio(name: str) -> Cell:
    def cell(measured: dict, peer: str) -> str:
        of = measured.get(peer, {})
        if name not in of:
            return "failed" if "failed" in of else ""
        taken = ratio(measured, peer, name) if peer != machines.best(measured) else None
        match taken:
            case None:
                return shown(of[name], name)
            case [middle]:
                return f"{shown(of[name], name)} ({middle:.2f})"
            case [middle, lowest, highest]:
                return f"{shown(of[name], name)} ({middle:.2f}, {lowest:.2f} to {highest:.2f})"

    return cell


def latency(measured: dict, peer: str) -> str:
    of = measured.get(peer, {})
    return f"{milliseconds(of['p50_us'])} / {milliseconds(of['p99_us'])}" if "p50_us" in of else ""


def hardware(measured: dict, peer: str) -> str:
    of = measured.get(peer, {})
    return f"{of['instructions']:,.0f} / {of['cycles']:,.0f}" if "instructions" in of else ""


def instructions(result: Result) -> str:
    found = result.get("instructions", {})
    peers = peers_of(found.values())

    def cell(counts: dict, peer: str) -> str:
        match counts.get(peer), counts.get(machines.best(counts)):
            case (int(count), int(ours)) if peer != machines.best(counts):
                return f"{count:,} ({ours / count:.2f})"
            case (int(count), _):
                return f"{count:,}"
            case (None, _):
                return ""
            case _:
                return "failed"

    rows = ([TITLES[name], *(cell(counts, peer) for peer in peers)] for name, counts in found.items())
    return table(["", *map(name_of, peers)], rows)


def memory(result: Result) -> str:
    rows = []
    for peer, sizes in result.get("memory", {}).items():
        rows.append([name_of(peer), *(f"{sizes[when]:.0f}" if when in sizes else "" for when in ("idle", "after"))])
    return table(["", "idle", "after all scenarios"], rows)


def watched(result: Result) -> str:
    """Compares metrics and an access log with the same build without them."""
    base, rows = result.get("watched_build", OURS), []
    for name, counts in result.get("instructions", {}).items():
        if all(isinstance(counts.get(peer), int) for peer in (base, *WATCHED)):
            more = (f"{counts[peer]:,} ({counts[peer] / counts[base] - 1:+.1%})" for peer in WATCHED)
            rows.append([f"{TITLES[name]}, user instructions", f"{counts[base]:,}", *more])
    for name, measured in result.get("scenarios", {}).items():
        if base == OURS and all("cpu_us" in measured.get(peer, {}) for peer in (base, *WATCHED)):
            more = (
                f"{measured[peer]['cpu_us']:,.1f} ({1 / ratio(measured, peer)[0] - 1:+.1%})"
                if ratio(measured, peer)
                else f"{measured[peer]['cpu_us']:,.1f}"
                for peer in WATCHED
            )
            rows.append([f"{TITLES[name]}, CPU microseconds", f"{measured[base]['cpu_us']:,.1f}", *more])
    return table(["", "without", *WATCHED], rows)


def growth(result: Result) -> str:
    rows = []
    for kind, peers in result.get("growth", {}).items():
        for peer, sizes in peers.items():
            for size, of in sizes.items():
                row = [f"{int(size):,} {kind}", name_of(peer)]
                if "failed" in of:
                    rows.append([*row, of["failed"], "", "", ""])
                    continue
                row += [f"{of['start_seconds']:.2f}", f"{of['memory']:,.0f}"]
                for way in ("fixed", "spread"):
                    cell = f"{of[way]['cpu_us']:,.1f}" if way in of else "failed"
                    if to_first := of.get(way, {}).get("to_first"):
                        cell += f" ({to_first:.2f})"
                    row.append(cell)
                rows.append(row)
    return table(
        ["", "peer", "start, s", "MiB", "one: CPU µs (to the first size)", "spread: CPU µs (to the first size)"], rows
    )


def reloads(result: Result) -> str:
    rows = []
    for peer, measured in result.get("reloads", {}).items():
        if "failed" in measured:
            rows.append([name_of(peer), machines.one_line(measured["failed"]), "", "", ""])
            continue
        saturated, paced = measured["saturated"], measured["paced"]
        rows.append(
            [
                name_of(peer),
                f"{saturated['with']['reloads']}",
                f"{saturated['with']['errors']:,} of {saturated['with']['requests']:,}",
                *(
                    f"{milliseconds(each['without']['p99_us'])} / {milliseconds(each['with']['p99_us'])}"
                    for each in (saturated, paced)
                ),
            ]
        )
    return table(
        [
            "",
            "reloads",
            "lost requests at full load",
            "p99 at full load, ms: without / with reloads",
            "p99 at about 2,000 per second",
        ],
        rows,
    )


def many_routes(result: Result) -> str:
    rows = []
    for form, measured in result.get("many_routes", {}).items():
        if "failed" in measured:
            rows.append([form, machines.one_line(measured["failed"]), "", ""])
            continue
        times, before, during = measured["reload_seconds"], measured["before"]["p99_us"], measured["during"]["p99_us"]
        rows.append(
            [
                form,
                f"{median(times):.3f} s ({times[0]:.3f} to {times[-1]:.3f})",
                f"{milliseconds(before)} / {milliseconds(during)} ({during / before:.1f})",
                f"{measured['memory']:,.0f}",
            ]
        )
    return table(["from", "signal to new configuration", "p99, ms: before / during", "MiB afterwards"], rows)


def picture(name: str) -> Callable[[Results], str]:
    def block(results: Results) -> str:
        found = (
            f"![{result['machine']['cpu']}](performance/{machine}-{name}.svg)"
            for machine, result in results.items()
            if (machines.PICTURES / f"{machine}-{name}.svg").exists()
        )
        return "\n\n".join(found) or "Not measured yet."

    return block


def known(_: Results) -> str:
    """Lists the differences between the peers that scenarios.py accepts."""
    rows: dict[tuple[str, str], list[str]] = {}
    for each in scenarios.KNOWN:
        names = rows.setdefault((each.peer, each.why), [])
        names.extend(name for name in each.scenarios if name not in names)
    for peer, (_, why) in scenarios.KNOWN_FORWARDED.items():
        rows[peer, why] = ["all"]
    return table(
        ["peer", "where", "what"], ([name_of(peer), ", ".join(names), why] for (peer, why), names in rows.items())
    )


SECTIONS: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("CPU time per request, microseconds", lambda result: by_scenario(result, with_ratio("cpu_us"))),
    ("Requests per second", lambda result: by_scenario(result, with_ratio("per_second"))),
    ("User instructions per request, under callgrind", instructions),
    ("Hardware counters, per request: instructions / cycles", lambda result: by_scenario(result, hardware)),
    ("Latency at full load, milliseconds: p50 / p99", lambda result: by_scenario(result, latency)),
    ("Latency at 70 % load", tail),
    ("System calls per request", system_calls),
    ("Balance of two workers", balance),
    ("Memory, MiB resident", memory),
    ("With metrics and access log", watched),
    ("Growth", growth),
    ("Reloads", reloads),
    ("Reload of 100,000 routes", many_routes),
)


DETAILS_START = """\
# Measurements

All figures of each machine. This page is generated: `make performance-page` writes it from the files in
[results](results). [Performance](../performance.md) explains the figures and the measurement.

In parentheses: corsgate's figure divided by the peer's, taken in each round: median, lowest to highest. `corsgate` is
the binary of `make release`, `corsgate plain` that of `cargo build --release`. `bare` and `bare plain` are built in the
same two ways. Where the load generator is the bottleneck, as for handshakes, compare CPU time instead of requests per
second."""


def details(results: Sequence[Result]) -> str:
    parts = [DETAILS_START]
    for result in results:
        parts.append(f"## {result['machine']['cpu']}")
        parts.append(about(result))
        versions = ([name_of(peer), version] for peer, version in result["versions"].items() if peer not in WATCHED)
        parts.append(table(["peer", "version"], versions))
        parts += [f"### {title}\n\n{text}" for title, make in SECTIONS if (text := make(result))]
    return "\n\n".join(filter(None, parts)) + "\n"


BLOCKS: dict[str, Callable[[Results], str]] = {
    "machines": list_of_machines,
    "ratios": worse(GATEWAYS),
    "ratios-others": worse(OTHERS),
    "not-ahead": not_ahead,
    "user-kernel": user_and_kernel,
    "system-calls": by_machine(system_calls),
    "tail": by_machine(tail),
    "balance": by_machine(balance),
    "instructions": by_machine(instructions),
    "cpu-picture": picture("cpu"),
    "growth-picture": picture("growth"),
    "reloads": by_machine(reloads),
    "many-routes": by_machine(many_routes),
    "memory": by_machine(memory),
    "watched": by_machine(watched),
    "known": known,
}


if __name__ == "__main__":
    sys.exit(main())
