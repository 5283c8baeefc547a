"""Compares corsgate with nginx, HAProxy, Envoy, Caddy, Traefik and a bare Pingora proxy: the same work, in one run.

    make bench-compare                                 everything, in about an hour
    make bench-compare ONLY=preflight,get              only the parts whose names begin with these words
    make bench-compare PEERS=corsgate,nginx ROUNDS=1   only these peers
    make bench-compare ONLY=tail KEEP=1                a part, which replaces this part of the machine's results

The names of the parts are those of the scenarios, and instructions, system-calls, tail, balance, hosts, origins,
routes, reloads and many-routes.

The peer has the first core, with one worker; the backend and the load generator have the second. Peers take turns in
short rounds, because the speed of a machine changes and two runs differ. A ratio is computed in each round, and the
median of the rounds is used. Results are written to target/compare after every measurement. A run of everything also
writes the results of this machine and its plots to docs/performance, and the pages that show them.
"""

from __future__ import annotations

import concurrent.futures
import contextlib
import dataclasses
import datetime
import functools
import hashlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import load
import machines
import plots
import report
import scenarios
from peers import (
    BUILDS,
    OTHER_CORE,
    PEERS,
    TARGET,
    WATCHED,
    Backend,
    Bare,
    Caddy,
    Corsgate,
    CorsgateDefaults,
    CorsgateJson,
    Envoy,
    Failed,
    Haproxy,
    Nginx,
    NginxLua,
    Peer,
    Traefik,
    Work,
    make_certificate,
)

ROUNDS = int(os.environ.get("ROUNDS", "5"))
SECONDS = float(os.environ.get("SECONDS_PER_ROUND", "2"))
ONLY = tuple(filter(None, os.environ.get("ONLY", "").split(",")))
ONLY_PEERS = tuple(filter(None, os.environ.get("PEERS", "").split(",")))
KEEP = os.environ.get("KEEP", "") not in ("", "0")

OUT = TARGET / "compare"
WARM_UP = 1.0
CALLGRIND_REQUESTS = 3200
COUNTED = {"get": scenarios.GET, "preflight": scenarios.PREFLIGHT, "preflight-hostile": scenarios.HOSTILE}

TRACED: tuple[type[Peer], ...] = (Corsgate, Bare, Nginx, Haproxy, Envoy)
TRACED_REQUESTS = 1600

# Latency below full load. The capacity of a peer is its rate with wrk. The common rate is the same for all peers.
TIMED: tuple[type[Peer], ...] = (Corsgate, Nginx, Haproxy, Envoy)
COMMON: tuple[type[Peer], ...] = (Corsgate, Nginx, Haproxy)
LOADED = 0.7

# The rate is far below full load. At full load, the share of a worker would depend on the core that it shares with the
# load generator.
BALANCED: tuple[type[Peer], ...] = (Corsgate, Nginx, Haproxy)
WORKERS, BALANCED_RATE = 2, 4000

GROWING: tuple[type[Peer], ...] = (Corsgate, Nginx, Haproxy, Envoy)
SIZES = {"hosts": (10, 10_000, 1_000_000), "origins": (10, 1_000, 100_000), "routes": (10, 1_000, 100_000)}
SAMPLES = 1000  # number of requests, spread over a whole set
START_LIMIT, MEMORY_LIMIT = 180.0, 12 << 30

RELOADING: tuple[type[Peer], ...] = (Corsgate, Nginx, Haproxy, Envoy, Caddy)
RELOAD_EVERY, RELOAD_SECONDS = 0.5, 2 * SECONDS
PACED_RATE = 2000  # every peer reaches this rate easily
MANY_ROUTES, MANY_SECONDS = 100_000, 5


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that `finally` runs, and no process is left
    os.sched_setaffinity(0, {int(OTHER_CORE)})
    chosen = [peer for peer in PEERS if not ONLY_PEERS or peer.name in ONLY_PEERS]
    present = [peer for peer in chosen if peer.binary()]
    results = Results(present)
    with tempfile.TemporaryDirectory(prefix="compare-") as name, contextlib.ExitStack() as stack:
        folder = Path(name)
        backend = Backend(folder, Work(0, *make_certificate(folder)))
        backend.start()
        stack.callback(backend.stop)
        work = dataclasses.replace(backend.work, backend=backend.port)
        try:
            run_scenarios(present, work, folder, results)
            if wanted("instructions"):
                count_instructions(present, work, folder, results)
            if wanted("system-calls"):
                count_system_calls([peer for peer in TRACED if peer in present], work, folder, results)
            if wanted("tail"):
                tail_latency([peer for peer in TIMED if peer in present], work, folder, results)
            if wanted("balance"):
                balance([peer for peer in BALANCED if peer in present], work, folder, results)
            for kind, sizes in SIZES.items():
                if wanted(kind):
                    grow(kind, sizes, [peer for peer in GROWING if peer in present], work, folder, results)
            if wanted("reloads"):
                reload_often([peer for peer in RELOADING if peer in present], work, folder, results)
            if wanted("many-routes") and Corsgate in present:
                for kind in (CorsgateDefaults, CorsgateJson):
                    reload_many_routes(kind, work, folder, results)
        except scenarios.WrongAnswer as wrong:
            sys.exit(f"stopped: {wrong}")
    everything = not ONLY and not ONLY_PEERS
    result = machines.trimmed(results.found)
    print("\n" + report.details([result]))
    if everything or KEEP:
        path = machines.keep(result, whole=everything)
        plots.write(path.stem)
        report.write()
        print(f"written: {path} and the pages that show it")


def wanted(name: str) -> bool:
    return not ONLY or name.startswith(ONLY)


class Results:
    """The results so far. They are written to disk after each change."""

    def __init__(self, present: Sequence[type[Peer]]) -> None:
        OUT.mkdir(parents=True, exist_ok=True)
        self.path = OUT / "results.json"
        self.found: dict = {
            "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
            "machine": machines.this_machine() | {"hardware_counters": load.has_hardware_counters()},
            "commit": machines.commit(),
            "build": built(present),
            "settings": {"rounds": ROUNDS, "seconds": SECONDS, "requests_under_callgrind": CALLGRIND_REQUESTS},
            "versions": {peer.name: peer.version() for peer in present},
            "scenarios": {},
            "memory": {},
            "instructions": {},
            "system_calls": {},
            "tail": {},
            "balance": {},
            "growth": {},
            "reloads": {},
            "many_routes": {},
        }

    def put(self, value: object, *keys: str) -> None:
        within = self.found
        for key in keys[:-1]:
            within = within.setdefault(key, {})
        within[keys[-1]] = value
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps(self.found, indent=1))
        new.rename(self.path)
        print_line(keys, value)


def built(present: Sequence[type[Peer]]) -> dict[str, str]:
    """The hashes of our binaries."""
    ours = [peer for peer in present if issubclass(peer, (Corsgate, Bare)) and peer not in WATCHED]
    return {peer.name: hashlib.sha256(Path(peer.binary()).read_bytes()).hexdigest()[:16] for peer in ours}


def print_line(keys: Sequence[str], value: object) -> None:
    match value:
        case {"failed": why}:
            text = str(why)
        case {"rounds": [first, *_] as rounds}:
            names = [name for name in first if all(name in each for each in rounds)]
            text = figures({name: machines.median(each[name] for each in rounds) for name in names})
        case dict():
            text = figures(value)
        case float() | int():
            text = f"{value:,.2f}" if isinstance(value, float) else f"{value:,}"
        case _:
            text = str(value)
    print(f"{keys[0]:12} {keys[1]:18} {' '.join(keys[2:]):28} {text}", flush=True)


def figures(measures: load.Measures) -> str:
    return "  ".join(f"{name} {measures[name]:>10,.1f}" for name in measures if name != "requests")


# === the scenarios ===


def run_scenarios(present: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    chosen = [scenario for scenario in scenarios.SCENARIOS if wanted(scenario.name)]
    if not chosen:
        return
    with contextlib.ExitStack() as stack:
        running: list[Peer] = []
        for kind in present:
            peer = kind(folder, work)
            try:
                peer.start()
            except Failed as failed:
                results.put({"failed": str(failed)}, "memory", kind.name)
                continue
            stack.callback(peer.stop)
            scenarios.check_forwarded(peer.name, peer.port)
            running.append(peer)
            results.put(load.memory(peer.process.pid), "memory", peer.name, "idle")
        for scenario in chosen:
            loads = {}
            for peer in running:
                if not takes_part(peer, scenario):
                    continue
                try:
                    scenarios.check(peer.name, scenario, peer.tls_port if scenario.tls else peer.port)
                    loads[peer.name] = (peer, functools.partial(load_of, scenario, peer, folder))
                except (OSError, http.client.HTTPException) as failure:
                    results.put({"failed": f"{failure} {peer.last_words()}"}, "scenarios", scenario.name, peer.name)
            in_turns(loads, results, "scenarios", scenario.name)
        for peer in running:
            results.put(load.memory(peer.process.pid), "memory", peer.name, "after")


def takes_part(peer: Peer, scenario: scenarios.Scenario) -> bool:
    return (scenario.bare or not isinstance(peer, Bare)) and (
        scenario.main or not isinstance(peer, (*BUILDS, *WATCHED))
    )


def load_of(scenario: scenarios.Scenario, peer: Peer, folder: Path, seconds: float) -> load.Measures:
    match scenario.load:
        case "handshakes":
            return load.handshakes(peer.tls_port, scenario.request, seconds, folder)
        case "http2":
            return load.http2(peer.tls_port, scenario.request, seconds, folder)
        case _:
            port = peer.tls_port if scenario.tls else peer.port
            return load.wrk(port, [scenario.request], seconds, folder, tls=scenario.tls)


def in_turns(
    loads: dict[str, tuple[Peer, Callable[..., load.Measures]]],
    results: Results,
    *keys: str,
    turn: Callable[[int, Callable[[], load.Measures]], load.Measures] = load.turn,
) -> None:
    """Runs rounds with one turn for each peer. A peer that fails is left out of the later turns."""
    failures: dict[str, str] = {}
    rounds: dict[str, list[load.Measures]] = {name: [] for name in loads}
    names = list(loads)
    for number in range(-1, ROUNDS):
        # The order changes, so that no peer always has the first turn.
        first = number % len(names) if names else 0
        for name in names[first:] + names[:first]:
            peer, make = loads[name]
            if name in failures:
                continue
            try:
                if number < 0:
                    make(seconds=WARM_UP)
                    continue
                measures = turn(peer.process.pid, functools.partial(make, seconds=SECONDS))
                if measures["errors"]:
                    raise load.LoadFailed(f"{measures['errors']:.0f} errors")
                rounds[name].append(measures)
            except (load.LoadFailed, subprocess.SubprocessError, OSError) as failure:
                failures[name] = f"{failure} {peer.last_words()}".strip()
    for name in names:
        results.put({"failed": failures[name]} if name in failures else {"rounds": rounds[name]}, *keys, name)


# === instructions ===


def count_instructions(present: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    for name, request in COUNTED.items():
        for kind in present:
            if kind in (Caddy, Traefik, NginxLua) or (
                name == "preflight-hostile" and issubclass(kind, (Bare, *WATCHED))
            ):
                continue  # valgrind does not run programs in Go, and runs LuaJIT only with its interpreter
            peer = kind(folder, work)

            def start(wrapper: Sequence[str], peer: Peer = peer) -> int:
                peer.start(wrapper, seconds=120)
                return peer.port

            try:
                count = load.callgrind(
                    start,
                    functools.partial(peer.stop, patience=60),
                    (peer.folder / "log").read_text,
                    request.bytes(),
                    CALLGRIND_REQUESTS,
                    peer.folder / "out",
                )
                results.put(count, "instructions", name, kind.name)
            except (Failed, load.LoadFailed, OSError) as failure:
                results.put({"failed": str(failure)}, "instructions", name, kind.name)


# === system calls ===


def count_system_calls(traced: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    for kind in traced:
        peer = kind(folder, work)
        try:
            peer.start()
            for name in ("get", "preflight"):
                counts = load.system_calls(
                    peer.process.pid, peer.port, COUNTED[name].bytes(), TRACED_REQUESTS, peer.folder / "strace"
                )
                results.put(counts, "system_calls", name, kind.name)
        except (Failed, load.LoadFailed, OSError, subprocess.SubprocessError) as failure:
            results.put({"failed": str(failure)}, "system_calls", "get", kind.name)
        finally:
            peer.stop()


# === latency below full load ===


def tail_latency(timed: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    with contextlib.ExitStack() as stack:
        capacity: dict[str, float] = {}
        running = []
        for kind in timed:
            peer = kind(folder, work)
            peer.start()
            stack.callback(peer.stop)
            running.append(peer)
        for _ in range(3):
            for peer in running:
                reached = load.wrk(peer.port, [scenarios.GET], 1, folder)["per_second"]
                capacity[peer.name] = max(reached, capacity.get(peer.name, 0))
        common = min((capacity[kind.name] for kind in COMMON if kind in timed), default=0)
        at_own, at_common = {}, {}
        for peer in running:
            paced = functools.partial(load.paced, peer.port, scenarios.GET, folder=folder)
            at_own[peer.name] = (peer, functools.partial(paced, rate=LOADED * capacity[peer.name]))
            if isinstance(peer, COMMON):
                at_common[peer.name] = (peer, functools.partial(paced, rate=LOADED * common))
        in_turns(at_own, results, "tail", "own", turn=without_cpu)
        if common:
            # Measures the part of the backend and the load generator, which share a core.
            alone = functools.partial(load.paced, work.backend, scenarios.GET, folder=folder)
            at_common["no proxy"] = (running[0], functools.partial(alone, rate=LOADED * common))
            in_turns(at_common, results, "tail", "common", turn=without_cpu)


def without_cpu(_: int, make: Callable[[], load.Measures]) -> load.Measures:
    return make()


# === the balance of workers ===


def balance(balanced: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    closing = dataclasses.replace(scenarios.GET, headers=(*scenarios.GET.headers, ("Connection", "close")))
    with contextlib.ExitStack() as stack:
        kept, short = {}, {}
        for kind in balanced:
            peer = kind(folder, work, WORKERS)
            peer.start()
            stack.callback(peer.stop)
            paced = functools.partial(load.paced, peer.port, rate=BALANCED_RATE, folder=folder)
            kept[peer.name] = (peer, functools.partial(paced, request=scenarios.GET))
            short[peer.name] = (peer, functools.partial(paced, request=closing))
        in_turns(kept, results, "balance", "kept", turn=shares)
        in_turns(short, results, "balance", "short", turn=shares)


def shares(pid: int, make: Callable[[], load.Measures]) -> load.Measures:
    return load.shares(pid, WORKERS, make)


# === growth ===


def grow(
    kind: str, sizes: Sequence[int], growing: Sequence[type[Peer]], work: Work, folder: Path, results: Results
) -> None:
    """Measures preflights, which each gateway answers itself. The sizes of one peer take turns."""
    for peer_kind in growing:
        with contextlib.ExitStack() as stack:
            loads: dict[str, tuple[Peer, Callable[..., load.Measures]]] = {}
            for size in sizes:
                grown, requests = grown_work(kind, size, work)
                peer = peer_kind(folder, grown)
                keys = ("growth", kind, peer.name, str(size))
                try:
                    took = peer.start(seconds=START_LIMIT, most_memory=MEMORY_LIMIT, request=requests[0])
                except Failed as failed:
                    results.put({"failed": str(failed)}, *keys)
                    continue
                stack.callback(peer.stop)
                results.put(took, *keys, "start_seconds")
                results.put(load.memory(peer.process.pid), *keys, "memory")
                for request in requests[:: SAMPLES // 10]:
                    check_grown(peer, request)
                middle = [requests[len(requests) // 2]]
                loads[f"{size} fixed"] = (peer, functools.partial(load.wrk, peer.port, middle, folder=folder))
                loads[f"{size} spread"] = (peer, functools.partial(load.wrk, peer.port, requests, folder=folder))
            in_turns(loads, results, "growth", kind, peer_kind.name)


def grown_work(kind: str, size: int, work: Work) -> tuple[Work, list[scenarios.Request]]:
    """Returns the configuration, and preflights that are spread over all of it."""
    some = range(0, size, max(1, size // SAMPLES))
    match kind:
        case "hosts":
            hosts = [f"h{number}.customers.example" for number in range(size)]
            return dataclasses.replace(work, hosts=hosts), [scenarios.preflight(host=hosts[number]) for number in some]
        case "origins":
            origins = [f"https://o{number}.customers.example" for number in range(size)]
            return dataclasses.replace(work, origins=origins), [scenarios.preflight(origins[number]) for number in some]
        case _:
            prefixes = [f"/v1/r{number}/" for number in range(size)]
            requests = [scenarios.preflight(path=f"{prefixes[number]}items") for number in some]
            return dataclasses.replace(work, prefixes=prefixes), requests


def check_grown(peer: Peer, request: scenarios.Request) -> None:
    scenario = dataclasses.replace(
        next(each for each in scenarios.SCENARIOS if each.name == "preflight"),
        request=request,
        answer=scenarios.allowed(dict(request.headers)["Origin"]),
    )
    scenarios.check(peer.name, scenario, peer.port)


# === reloads ===


def reload_often(reloading: Sequence[type[Peer]], work: Work, folder: Path, results: Results) -> None:
    """Reloads a changed configuration twice a second. At full load, each closed connection loses a request."""
    for kind in reloading:
        peer = kind(folder, work)
        try:
            peer.start()
            for name, make in (
                ("saturated", functools.partial(load.wrk, peer.port, [scenarios.GET])),
                ("paced", functools.partial(load.paced, peer.port, scenarios.GET, PACED_RATE)),
            ):
                make(seconds=WARM_UP, folder=folder)
                results.put(make(seconds=RELOAD_SECONDS, folder=folder), "reloads", peer.name, name, "without")
                with reloading_every(RELOAD_EVERY, peer) as reloads:
                    measures = make(seconds=RELOAD_SECONDS, folder=folder)
                results.put(measures | {"reloads": reloads[0]}, "reloads", peer.name, name, "with")
                wait_until_in_force(peer)
        except (Failed, load.LoadFailed, subprocess.SubprocessError, OSError) as failure:
            results.put({"failed": str(failure)}, "reloads", peer.name)
        finally:
            peer.stop()


@contextlib.contextmanager
def reloading_every(pause: float, peer: Peer) -> Iterator[list[int]]:
    """Yields a list with the number of reloads."""
    over, count = threading.Event(), [0]

    def reload() -> None:
        while not over.wait(pause):
            count[0] += 1
            reload_changed(peer)

    with concurrent.futures.ThreadPoolExecutor(1) as executor:
        reloads = executor.submit(reload)
        try:
            yield count
        finally:
            over.set()
        reloads.result()


def reload_changed(peer: Peer) -> float:
    """Reloads a changed configuration. Returns the time of the signal."""
    peer.work = dataclasses.replace(peer.work, max_age=peer.work.max_age + 1)
    peer.configure()
    told = time.monotonic()
    peer.reload()
    return told


def wait_until_in_force(peer: Peer, seconds: float = 20) -> None:
    """Waits until the last configuration is in force. Otherwise the peer has not reloaded."""
    until = time.monotonic() + seconds
    while scenarios.ask(peer.port, scenarios.PREFLIGHT).get("access-control-max-age") != str(peer.work.max_age):
        if time.monotonic() > until:
            raise Failed(f"{peer.name} has not put the last configuration in force")
        time.sleep(0.05)


def reload_many_routes(kind: type[Corsgate], work: Work, folder: Path, results: Results) -> None:
    """Reloads 100,000 routes under load, on one core. The files are written before, because writing takes CPU time."""
    grown, requests = grown_work("routes", MANY_ROUTES, work)
    peer = kind(folder, grown)
    keys = ("many_routes", peer.name)
    try:
        peer.start(seconds=START_LIMIT, request=requests[0])
        changed = [changed_configuration(peer, number) for number in range(2)]
        asked = dataclasses.replace(requests[0], method="GET")
        make = functools.partial(load.paced, peer.port, asked, PACED_RATE, folder=folder)
        make(seconds=WARM_UP)
        results.put(make(seconds=MANY_SECONDS), *keys, "before")
        with concurrent.futures.ThreadPoolExecutor(1) as executor:
            measures, reloads = executor.submit(make, seconds=MANY_SECONDS), []
            while not measures.done():
                reloads.append(timed_reload(peer, changed[len(reloads) % 2]))
            results.put(measures.result(), *keys, "during")
        results.put(sorted(reloads), *keys, "reload_seconds")
        results.put(load.memory(peer.process.pid), *keys, "memory")
    except (Failed, load.LoadFailed, OSError) as failure:
        results.put({"failed": str(failure)}, *keys)
    finally:
        peer.stop()


def changed_configuration(peer: Corsgate, number: int) -> Path:
    """Writes a changed configuration, and returns its path. The file in force stays."""
    peer.work = dataclasses.replace(peer.work, max_age=peer.work.max_age + 1)
    peer.configure()
    return (peer.folder / peer.file).rename(peer.folder / f"changed-{number}")


def timed_reload(peer: Corsgate, changed: Path, seconds: float = 60) -> float:
    """Returns the time from the signal to the line in the log."""
    (peer.folder / "next").hardlink_to(changed)
    (peer.folder / "next").rename(peer.folder / peer.file)
    log = peer.folder / "log"
    written = log.stat().st_size
    told = time.monotonic()
    peer.reload()
    while "reloaded generation=" not in log.read_text()[written:]:
        if time.monotonic() - told > seconds:
            raise Failed(f"no reload within {seconds:.0f} s: {peer.last_words()}")
        time.sleep(0.005)
    return time.monotonic() - told


if __name__ == "__main__":
    main()
