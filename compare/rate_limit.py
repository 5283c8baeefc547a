"""Compares rate limits of corsgate and `limit_req` of nginx, under an attack with a million keys, in one run.

    make bench-rate-limit                       with the binary of `make release`
    BINARY=target/debug/corsgate SECONDS=10 python3 -B compare/rate_limit.py

Both limit by a header, with a rate of 1 per minute and a burst of 10 requests. Both answer themselves, so that as many
requests as possible reach the limit. The zone of nginx has space for a million keys; corsgate has no size to set. wrk
sends requests as fast as possible, each with the next of a million keys. At the same time, 100 heavy keys send a
request per second, and 100 good keys send a request every ten seconds, which their burst allows for more than a minute.
The expected number of allowed heavy requests is computed with an exact bucket from the times of the requests. Prints a
table:

- offered and allowed requests of the heavy keys, and the difference from the expected number;
- requests of the good keys, and the number of refused ones;
- memory before and after the attack;
- CPU time per request, with and without a limit.
"""

from __future__ import annotations

import http.client
import math
import os
import re
import sys
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import load
import machines
import report
import scenarios
from peers import OTHER_CORE, Corsgate, Nginx, Peer, Work, make_certificate

SECONDS = float(os.environ.get("SECONDS", "60"))
HOSTILE = int(os.environ.get("KEYS", "1000000"))
BINARY = os.environ.get("BINARY")

PER_MINUTE, BURST = 1, 10
HEAVY = GOOD = 100
HEAVY_EVERY, GOOD_EVERY = 1.0, 10.0
WITHOUT_LIMIT = 10.0  # seconds
MIB = 1 << 20


class LimitedCorsgate(Corsgate):
    name = "corsgate"
    limit = f'rate_limit: {{ rate: {PER_MINUTE}/m, burst: {BURST}, key: "header:X-Key" }}'

    @classmethod
    def binary(cls) -> str | None:
        return str(Path(BINARY).resolve()) if BINARY else super().binary()

    def configure(self) -> None:
        self.replace(
            self.file,
            f"""
listeners: [{{ address: 127.0.0.1:{self.port} }}]
{self.server.format(workers=self.workers)}
services:
  - name: api
    respond: {{ status: 200, body: ok }}
    {self.limit}
""",
        )


class UnlimitedCorsgate(LimitedCorsgate):
    limit = ""


class LimitReq(Nginx):
    name = "nginx"
    # nginx counts the burst without the first request.
    limit = f"limit_req zone=keys burst={BURST - 1} nodelay;"

    def configure(self) -> None:
        # `return` would answer before the limit applies. With a key of this length, a state takes 128 bytes.
        self.replace(
            "nginx.conf",
            f"""
daemon off; user root; worker_processes {self.workers}; worker_rlimit_nofile 65536;
pid {self.folder}/pid; error_log {self.folder}/error.log crit;
events {{ worker_connections 16384; }}
http {{
  access_log off; keepalive_requests 1000000000;
  client_body_temp_path {self.folder}/b; proxy_temp_path {self.folder}/p; fastcgi_temp_path {self.folder}/f;
  uwsgi_temp_path {self.folder}/u; scgi_temp_path {self.folder}/s;
  limit_req_zone $http_x_key zone=keys:{128 * 1_050_000 // MIB}m rate={PER_MINUTE}r/m;
  limit_req_status 429;
  server {{
    listen 127.0.0.1:{self.port} default_server backlog=4096;
    location / {{ {self.limit} empty_gif; }}
  }}
}}
""",
        )


class NoLimitReq(LimitReq):
    limit = ""


class Bucket:
    """An exact bucket for one key. It uses the times at which the requests were answered."""

    def __init__(self) -> None:
        self.left, self.last = float(BURST), None

    def take(self, now: float) -> bool:
        if self.last is not None:
            self.left = min(BURST, self.left + (now - self.last) * PER_MINUTE / 60)
        self.last = now
        if self.left < 1:
            return False
        self.left -= 1
        return True


class Keys(threading.Thread):
    """Sends the requests of the heavy and the good keys at their times, on one kept connection."""

    def __init__(self, port: int, seconds: float) -> None:
        super().__init__(daemon=True)
        self.port, self.seconds = port, seconds
        self.offered = {"heavy": 0, "good": 0}
        self.allowed = {"heavy": 0, "good": 0}
        self.right = 0
        self.failed: Exception | None = None

    def run(self) -> None:
        try:
            self.send()
        except Exception as error:  # the main thread reports it
            self.failed = error

    def send(self) -> None:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=30)
        buckets = [Bucket() for _ in range(HEAVY)]
        begin = time.monotonic()
        due = sorted(
            (every * (turn + key / count), kind, key)
            for kind, count, every in (("heavy", HEAVY, HEAVY_EVERY), ("good", GOOD, GOOD_EVERY))
            for turn in range(math.ceil(self.seconds / every))
            for key in range(count)
        )
        due = [(at, kind, key) for at, kind, key in due if at < self.seconds]
        for at, kind, key in due:
            time.sleep(max(0.0, begin + at - time.monotonic()))
            connection.request("GET", "/", headers={"Host": scenarios.HOST, "X-Key": f"{kind}-{key:05}"})
            response = connection.getresponse()
            response.read()
            if response.status not in (200, 429):
                raise scenarios.WrongAnswer(f"{kind}: {response.status}")
            self.offered[kind] += 1
            self.allowed[kind] += response.status == 200
            if kind == "heavy":
                self.right += buckets[key].take(time.monotonic())


def attack(port: int, seconds: float, folder: Path) -> load.Measures:
    """Sends requests with wrk as fast as possible, each with the next of a million keys."""
    script = folder / "keys.lua"
    script.write_text(
        f"""
local key = 0
function request()
  key = (key + 1) % {HOSTILE}
  return string.format("GET / HTTP/1.1\\r\\nHost: {scenarios.HOST}\\r\\nX-Key: h-%08d\\r\\n\\r\\n", key)
end
"""
    )
    command = ["wrk", "-t1", f"-c{load.CONNECTIONS}", f"-d{round(seconds)}s", "--timeout", "10s", "-s", str(script)]
    text = load.run([*command, f"http://127.0.0.1:{port}/"], seconds)
    refused = re.search(r"Non-2xx or 3xx responses: (\d+)", text)
    return {
        "requests": int(re.search(r"(\d+) requests in", text)[1]),
        "refused": int(refused[1]) if refused else 0,
    }


def cpu_without_limit(kind: type[Peer], work: Work, folder: Path) -> float:
    peer = kind(folder, work)
    peer.start()
    try:
        return load.turn(peer.process.pid, lambda: attack(peer.port, WITHOUT_LIMIT, folder))["cpu_us"]
    finally:
        peer.stop()


def measure(kind: type[Peer], work: Work, folder: Path) -> dict[str, float]:
    peer = kind(folder, work)
    peer.start()
    try:
        pid = peer.process.pid
        before = load.memory(pid)
        keys = Keys(peer.port, SECONDS)
        keys.start()
        hostile = load.turn(pid, lambda: attack(peer.port, SECONDS, folder))
        after = load.memory(pid)
        keys.join(60)
        if keys.failed or keys.is_alive():
            raise load.LoadFailed(f"{peer.name}: {keys.failed or 'the keys did not end'}")
        # The CPU time includes the requests of the heavy and good keys. The number of wrk does not.
        sent = hostile["requests"] + sum(keys.offered.values())
        return {
            "hostile": hostile["requests"],
            "hostile_allowed": hostile["requests"] - hostile["refused"],
            "heavy": keys.offered["heavy"],
            "allowed": keys.allowed["heavy"],
            "right": keys.right,
            "good": keys.offered["good"],
            "good_refused": keys.offered["good"] - keys.allowed["good"],
            "before": before / MIB,
            "after": after / MIB,
            "cpu_us": hostile["cpu_us"] * hostile["requests"] / sent,
        }
    finally:
        peer.stop()


def row(name: str, of: dict[str, float], without: float) -> Sequence[str]:
    wrong = (of["allowed"] / of["right"] - 1) * 100
    return [
        name,
        f"{of['hostile']:,.0f}, {of['hostile_allowed']:,.0f} allowed",
        f"{of['heavy']:,.0f}, {of['allowed']:,.0f} allowed, right {of['right']:,.0f} ({wrong:+.2f} %)",
        f"{of['good']:,.0f}, {of['good_refused']:,.0f} refused",
        f"{of['before']:.1f} to {of['after']:.1f} MiB",
        f"{of['cpu_us']:.1f} us, {without:.1f} us without",
    ]


def main() -> None:
    os.sched_setaffinity(0, {int(OTHER_CORE)})
    columns = ["", "hostile requests", "heavy keys", "good keys", "memory", "CPU time per request"]
    found: list[Sequence[str]] = []
    with tempfile.TemporaryDirectory(prefix="rate-limit-") as name:
        folder = Path(name)
        work = Work(0, *make_certificate(folder))
        for kind, unlimited in ((LimitedCorsgate, UnlimitedCorsgate), (LimitReq, NoLimitReq)):
            if kind.binary() is None:
                sys.exit(f"{kind.name} is missing: see `make bench-compare`")
            found.append(row(kind.name, measure(kind, work, folder), cpu_without_limit(unlimited, work, folder)))
            print("  ".join(found[-1]), flush=True)
    machine = machines.this_machine()
    print(f"\n{machine['cpu']}, {HOSTILE:,} keys, {SECONDS:.0f} s each\n")
    print(report.table(columns, found))


if __name__ == "__main__":
    main()
