"""Generates load, and measures its cost in a peer.

*CPU time* is the time of the scheduler for the threads of a peer during its turn, user and kernel, divided by the
number of requests. It does not depend on whether the peer or the load generator was the bottleneck. *User time* is the
part of the CPU time in user code. The kernel samples it by its timer tick, some hundred times per second. *Throughput*
and latency at full load come from wrk and h2load, and latency at a given rate comes from paced.c. *System calls* are
counted by strace, as the difference of N and 2N requests. *Instructions* are exact for a binary: under callgrind, a
peer gets N and then 2N requests. The difference of the totals, divided by N, excludes start and stop. The kernel is not
counted. If the machine has hardware counters, `perf stat` also counts instructions and cycles during the turns.
"""

from __future__ import annotations

import contextlib
import functools
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import IO, Protocol

TOOLS = Path(__file__).resolve().parents[1] / "target" / "compare"

CORE = "1"  # of the load generators
CONNECTIONS = 64
PACED_CONNECTIONS = 64
Measures = dict[str, float]

# Valgrind counts one instruction for each byte that `rep movsb` copies, but a processor needs fewer steps. By default,
# glibc uses `rep movsb` for large copies. With this setting it copies in steps of 32 bytes.
COPIES_IN_STEPS = ["env", "GLIBC_TUNABLES=glibc.cpu.x86_rep_movsb_threshold=1000000000"]


class Sendable(Protocol):
    """A request in the form of scenarios.py."""

    method: str
    path: str
    host: str
    headers: tuple[tuple[str, str], ...]
    body: int

    def bytes(self) -> bytes: ...


class LoadFailed(Exception):
    pass


# === cost ===


def family(pid: int) -> list[int]:
    """Returns the ids of a process and of all its descendants."""
    pids = [pid]
    for each in pids:
        for children in Path(f"/proc/{each}/task").glob("*/children"):
            with contextlib.suppress(OSError):
                pids += map(int, children.read_text().split())
    return pids


def ticks(pid: int) -> tuple[int, int]:
    """Returns user and kernel time of a family, in hundredths of a second."""
    user = kernel = 0
    for each in family(pid):
        with contextlib.suppress(OSError):
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
            user, kernel = user + int(fields[11]), kernel + int(fields[12])
    return user, kernel


def thread_seconds(pid: int) -> dict[int, float]:
    """Returns the CPU time of each thread of a family, in seconds."""
    seconds = {}
    for each in family(pid):
        for schedstat in Path(f"/proc/{each}/task").glob("*/schedstat"):
            with contextlib.suppress(OSError):
                seconds[int(schedstat.parent.name)] = int(schedstat.read_text().split()[0]) / 1e9
    return seconds


def memory(pid: int) -> int:
    """Returns the resident bytes of a process and its children. Shared memory is counted once. The binary is counted in
    full, because a proportional share would depend on the number of running peers with the same binary."""
    own, files = 0, [0]
    for each in family(pid):
        with contextlib.suppress(OSError):
            rollup = Path(f"/proc/{each}/smaps_rollup").read_text()
            own += sum(map(int, re.findall(r"^Pss_(?:Anon|Shmem): +(\d+)", rollup, re.M)))
            files += map(int, re.findall(r"^RssFile:\s+(\d+)", Path(f"/proc/{each}/status").read_text(), re.M))
    return (own + max(files)) << 10


def turn(pid: int, load: Callable[[], Measures]) -> Measures:
    """Runs `load`. Returns its measures, and the cost per request in the process."""
    with hardware_counters(pid) as counted:
        seconds_before, ticks_before = sum(thread_seconds(pid).values()), ticks(pid)
        measures = load()
        seconds = sum(thread_seconds(pid).values()) - seconds_before
        user, kernel = (after - before for after, before in zip(ticks(pid), ticks_before, strict=True))
    requests = measures["requests"]
    measures |= {"cpu_us": seconds / requests * 1e6} | {name: count / requests for name, count in counted.items()}
    if user + kernel:
        measures |= {"user_us": measures["cpu_us"] * user / (user + kernel)}
    return measures


def shares(pid: int, workers: int, load: Callable[[], Measures]) -> Measures:
    """Runs `load`. Adds the CPU time of the busiest worker, divided by the mean of all workers: 1 if all do the same
    work, 2 if one of two does all the work. Workers are the threads with the most CPU time."""
    before = thread_seconds(pid)
    measures = load()
    spent = sorted((seconds - before.get(thread, 0) for thread, seconds in thread_seconds(pid).items()), reverse=True)
    return measures | {"most": spent[0] * workers / sum(spent[:workers])}


@functools.cache
def has_hardware_counters() -> bool:
    if shutil.which("perf") is None:
        return False
    done = subprocess.run(["perf", "stat", "-x,", "-e", "instructions,cycles", "true"], capture_output=True, text=True)
    return done.returncode == 0 and "not supported" not in done.stderr and "not counted" not in done.stderr


@contextlib.contextmanager
def hardware_counters(pid: int) -> Iterator[dict[str, float]]:
    counted: dict[str, float] = {}
    if not has_hardware_counters():
        yield counted
        return
    pids = ",".join(map(str, family(pid)))
    perf = subprocess.Popen(
        ["perf", "stat", "-x,", "-e", "instructions,cycles", "-p", pids], stderr=subprocess.PIPE, text=True
    )
    time.sleep(0.1)  # time in which perf attaches
    try:
        yield counted
    finally:
        perf.send_signal(signal.SIGINT)
        for count, event in re.findall(r"^(\d+),[^,]*,(instructions|cycles)", perf.communicate(timeout=20)[1], re.M):
            counted[event] = float(count)


def system_calls(pid: int, port: int, request: bytes, requests: int, out: Path) -> dict[str, float]:
    """Returns the number of system calls per request, by name."""
    totals: list[dict[str, int]] = []
    for times in (requests, 2 * requests):
        pids = [option for each in family(pid) for option in ("-p", str(each))]
        strace = subprocess.Popen(
            ["strace", "-f", "-c", "-U", "calls,name", "-o", str(out), *pids], stderr=subprocess.PIPE, text=True
        )
        try:
            for line in strace.stderr:  # strace prints a line for each thread to which it attaches
                if "attached" in line:
                    break
            time.sleep(0.3)
            exchange(port, request, times)
        finally:
            strace.send_signal(signal.SIGINT)
            said = strace.communicate(timeout=20)[1]
        counts = re.findall(r"^ *(\d+) (\w+)$", out.read_text(), re.M)
        if not counts:
            raise LoadFailed(f"strace counted no system calls: {said[-300:]}")
        totals.append({name: int(count) for count, name in counts if name != "total"})
    less, more = totals
    return {name: (count - less.get(name, 0)) / requests for name, count in more.items()}


def callgrind(
    start: Callable[[Sequence[str]], int],
    stop: Callable[[], None],
    log: Callable[[], str],
    request: bytes,
    requests: int,
    out: Path,
) -> float:
    """Returns the user instructions per request. `start` runs a server under the given wrapper, and returns its port.
    After `stop`, `log` returns the output of the server to stderr."""
    totals = []
    for times in (requests, 2 * requests):
        port = start([*COPIES_IN_STEPS, "valgrind", "--tool=callgrind", f"--callgrind-out-file={out}"])
        try:
            exchange(port, request, times)
        finally:
            stop()
        collected = re.findall(r"Collected : (\d+)", log())
        if not collected:
            raise LoadFailed(f"callgrind has no total: {log()[-300:]}")
        totals.append(int(collected[-1]))
    return (totals[1] - totals[0]) / requests


def exchange(port: int, request: bytes, times: int, connections: int = 16) -> None:
    """Sends requests on kept connections, one at a time on each connection. It is slower than wrk, but repeatable."""
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 60)) for _ in range(connections)]
        for _ in range(times // connections):
            for each in sockets:
                each.sendall(request)
            for each in sockets:
                receive(each)


def receive(connection: socket.socket) -> None:
    """Receives one response, which must have a Content-Length and the status 200."""
    data = b""
    while b"\r\n\r\n" not in data:
        data += received(connection)
    head, _, body = data.partition(b"\r\n\r\n")
    length = re.search(rb"^content-length: *(\d+)", head, re.I | re.M)
    if not head.startswith(b"HTTP/1.1 200") or length is None:
        raise LoadFailed(f"unexpected answer: {head!r}")
    missing = int(length[1]) - len(body)
    while missing > 0:
        missing -= len(received(connection))


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def received(connection: socket.socket) -> bytes:
    data = connection.recv(1 << 16)
    if not data:
        raise LoadFailed("the server has closed a connection")
    return data


# === load generators ===


def wrk(
    port: int,
    requests: Sequence[Sendable],
    seconds: float,
    folder: Path,
    tls: bool = False,
) -> Measures:
    """Sends requests as fast as possible on 64 kept connections. Several requests are sent in turn."""
    script = folder / "requests.lua"
    script.write_text(
        "\n".join(
            [
                "local requests, next = {}, 0",
                "function init()",
                f"  local body = string.rep('x', {requests[0].body})",
                *(f"  requests[#requests + 1] = {wrk_format(request)}" for request in requests),
                "end",
                "function request()",
                "  next = next % #requests + 1",
                "  return requests[next]",
                "end",
            ]
        )
    )
    text = run(
        [
            "wrk",
            "-t1",
            f"-c{CONNECTIONS}",
            f"-d{max(1, round(seconds))}s",
            "--timeout",
            "10s",
            "--latency",
            "-s",
            str(script),
            f"{'https' if tls else 'http'}://127.0.0.1:{port}/",
        ],
        seconds,
    )
    done = int(re.search(r"(\d+) requests in", text)[1])
    if done == 0:
        raise LoadFailed(text)
    return {
        "requests": done,
        "per_second": float(re.search(r"Requests/sec: +([\d.]+)", text)[1]),
        "p50_us": microseconds(re.search(r"50% +(\S+)", text)[1]),
        "p99_us": microseconds(re.search(r"99% +(\S+)", text)[1]),
        "errors": sum(map(int, re.findall(r"(?:connect|read|write|timeout|responses:) (\d+)", text))),
    }


def wrk_format(request: Sendable) -> str:
    headers = {"Host": request.host, "Accept": "*/*"} | dict(request.headers)
    fields = ", ".join(f"[{lua(name)}] = {lua(value)}" for name, value in headers.items())
    return f"wrk.format({lua(request.method)}, {lua(request.path)}, {{{fields}}}, {'body' if request.body else 'nil'})"


def http2(port: int, request: Sendable, seconds: float, folder: Path) -> Measures:
    """Sends requests as fast as possible over TLS, on eight connections with sixteen streams."""
    return h2load(port, request, ["-c8", "-m16", "-D", str(max(1, round(seconds)))], seconds, folder, protocol="h2")


def handshakes(port: int, request: Sendable, seconds: float, folder: Path) -> Measures:
    """Opens a connection for each request. Unlike wrk, h2load resumes no TLS session: each handshake is a full one."""
    began, parts = time.monotonic(), []
    while time.monotonic() - began < seconds:
        parts.append(h2load(port, request, ["--h1", "-c128", "-n128"], 20, folder))
    requests = sum(part["requests"] for part in parts)
    return {
        "requests": requests,
        "per_second": requests / (time.monotonic() - began),
        "errors": sum(part["errors"] for part in parts),
    }


def paced(
    port: int, request: Sendable, rate: float, seconds: float, folder: Path, connections: int = PACED_CONNECTIONS
) -> Measures:
    """Sends `rate` requests per second, at random times. Latency counts from the time at which a request was due."""
    given = folder / "request"
    given.write_bytes(request.bytes())
    with open(given, "rb") as stdin:
        text = run([paced_program(), str(port), f"{rate:.0f}", f"{seconds}", str(connections)], seconds, stdin)
    found = {name: float(value) for name, value in re.findall(r"^(\w+) ([\d.]+)$", text, re.M)}
    return {
        "requests": found["requests"],
        "per_second": found["requests"] / found["seconds"],
        "p50_us": found["p50"],
        "p99_us": found["p99"],
        "p999_us": found["p999"],
        "errors": found["errors"],
    }


@functools.cache
def paced_program() -> str:
    program, source = TOOLS / "paced", Path(__file__).with_name("paced.c")
    TOOLS.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cc", "-O2", "-o", str(program), str(source), "-lm"], check=True)
    return str(program)


def h2load(
    port: int, request: Sendable, options: list[str], seconds: float, folder: Path, protocol: str = "http/1.1"
) -> Measures:
    """Runs h2load over TLS. The latencies come from its log, which has a line for each request."""
    log = folder / "h2load.log"
    log.unlink(missing_ok=True)
    headers = [f"-H{name}: {value}" for name, value in ((":authority", request.host), *request.headers)]
    text = run(
        ["h2load", "-t1", *options, *headers, f"--log-file={log}", f"https://127.0.0.1:{port}{request.path}"], seconds
    )
    if f"Application protocol: {protocol}\n" not in text or "TLS Protocol: TLSv1.3" not in text:
        raise LoadFailed(f"not {protocol} over TLS 1.3: {text}")
    rows = [line.split("\t") for line in log.read_text().splitlines()]
    times = sorted(int(row[2]) for row in rows if row[1] == "200")
    if not times:
        raise LoadFailed(text)
    return {
        "requests": len(times),
        "per_second": float(re.search(r"([\d.]+) req/s", text)[1]),
        "p50_us": quantile(times, 0.5),
        "p99_us": quantile(times, 0.99),
        "errors": int(re.search(r"(\d+) failed", text)[1]) + len(rows) - len(times),
    }


def run(command: list[str], seconds: float, stdin: IO[bytes] | None = None) -> str:
    done = subprocess.run(
        ["taskset", "-c", CORE, *command], stdin=stdin, capture_output=True, text=True, timeout=seconds + 60
    )
    if done.returncode != 0:
        raise LoadFailed(f"{command[0]}: {(done.stdout + done.stderr)[-500:]}")
    return done.stdout


def lua(text: str) -> str:
    return "'" + text.replace("\\", "\\\\").replace("'", "\\'") + "'"


def microseconds(text: str) -> float:
    number, unit = re.fullmatch(r"([\d.]+)(us|ms|s|m)", text).groups()
    return float(number) * {"us": 1, "ms": 1e3, "s": 1e6, "m": 6e7}[unit]


def quantile(ordered: Sequence[int], part: float) -> int:
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]
