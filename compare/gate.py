"""The gate: compares the instructions of corsgate per request with those of a bare Pingora proxy, and those with etcd as
the source of the configuration with those with a file.

    python3 compare/gate.py target/release/corsgate target/release/examples/bare

Instruction counts do not depend on other load on the machine. load.py describes the method. The gate needs valgrind,
and no other gateway. The exit code is 1 if corsgate is above a bound. The backend is a thread of this program, because
under callgrind every proxy is slower than it.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import load
import scenarios

# Highest accepted ratios to the bare proxy. Lower them when the code needs fewer instructions.
BOUNDS = {
    "preflight": (scenarios.PREFLIGHT, 1.18),
    "GET, allowed origin": (scenarios.GET, 1.21),
}
# The same for etcd instead of a file. The connection to etcd has some work of its own, which is not per request.
ETCD_BOUND = 1.03
REQUESTS = 1600  # with this number, two runs differ by less than 1 %

Command = Callable[[int], list[str]]  # the command line for a port

ANSWER = (
    b"HTTP/1.1 200 OK\r\nServer: backend\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\nConnection: keep-alive\r\nAccess-Control-Allow-Origin: *\r\nVary: Accept-Encoding\r\n\r\n%s"
    % (len(scenarios.BODY), scenarios.BODY)
)

CORSGATE = """
listeners: [{{ address: 127.0.0.1:{port} }}]
server: {{ threads: 1, grace_period: 1s }}
upstreams: {{ api: {{ nodes: [{{ address: 127.0.0.1:{backend} }}] }} }}
services:
  - name: api
    hosts: [{host}]
    upstream: api
    cors:
      allow_origins: [{origin}, "https://*.partner.example"]
      allow_methods: [{methods}]
      allow_headers: [{headers}]
      max_age: {max_age}
    routes: [{{ name: v1, paths: [/v1/*] }}]
"""


def main() -> int:
    if len(sys.argv) != 3:
        print("gate.py CORSGATE BARE", file=sys.stderr)
        return 2
    corsgate, bare = (os.path.abspath(path) for path in sys.argv[1:])
    with tempfile.TemporaryDirectory(prefix="gate-") as name, backend() as upstream:
        folder = Path(name)
        print(
            f"{'user instructions per request':32} {'corsgate':>10} {'bare':>10} {'more':>10} {'ratio':>7} {'bound':>7}"
        )
        above = []
        for title, (request, bound) in BOUNDS.items():
            ours = instructions(lambda port: corsgate_command(corsgate, port, upstream, folder), request, folder)
            least = instructions(
                lambda port: [bare, f"127.0.0.1:{port}", f"127.0.0.1:{upstream}", "1"], request, folder
            )
            ratio = ours / least
            print(
                f"{title:32} {ours:>10,.0f} {least:>10,.0f} {ours - least:>10,.0f} {ratio:>7.3f} {bound:>7.2f}",
                flush=True,
            )
            if ratio > bound:
                above.append(title)
        title, request = "GET, etcd / file", scenarios.GET
        with etcd(folder) as endpoint:
            ours = instructions(lambda port: etcd_command(corsgate, port, upstream, endpoint), request, folder)
        least = instructions(lambda port: corsgate_command(corsgate, port, upstream, folder), request, folder)
        print(f"{title:32} {ours:>10,.0f} {least:>10,.0f} {ours - least:>10,.0f} {ours / least:>7.3f} {ETCD_BOUND:>7.2f}")
        if ours / least > ETCD_BOUND:
            above.append(title)
    if above:
        print(
            f"\n{' and '.join(above)}: the ratio to a bare Pingora proxy is above the bound.\n"
            "Check the changes of the hooks in src/forward.rs, and of the functions that they call. Build with\n"
            "`--profile profiling`, run both under `valgrind --tool=callgrind`, and compare with callgrind_annotate.\n"
            "If the cost is intended, raise the bound in compare/gate.py, and give the reason in the commit."
        )
    return 1 if above else 0


def configuration(port: int, upstream: int) -> str:
    return CORSGATE.format(
        port=port,
        backend=upstream,
        host=scenarios.HOST,
        origin=scenarios.ORIGIN,
        methods=scenarios.METHODS,
        headers=scenarios.HEADERS,
        max_age=scenarios.MAX_AGE,
    )


def corsgate_command(binary: str, port: int, upstream: int, folder: Path) -> list[str]:
    config = folder / "corsgate.yaml"
    config.write_text(configuration(port, upstream))
    return [binary, "run", "--config", str(config)]


def etcd_command(binary: str, port: int, upstream: int, endpoint: str) -> list[str]:
    """The same configuration, written to etcd. Without a file, corsgate listens when it has read its keys."""
    settings, services = configuration(port, upstream).split("services:\n  - name: api\n")
    settings, upstreams = settings.split("upstreams: ")
    keys = {
        "settings": settings,
        "upstreams/api": upstreams.strip().removeprefix("{ api: ").removesuffix(" }"),
        "services/api": textwrap.dedent(services),
    }
    for key, value in keys.items():
        subprocess.run(["etcdctl", f"--endpoints={endpoint}", "put", f"/corsgate/{key}", value], check=True, stdout=subprocess.DEVNULL)
    return [binary, "run", "--config", f"etcd://{endpoint}/corsgate"]


@contextlib.contextmanager
def etcd(folder: Path) -> Iterator[str]:
    """A member of etcd."""
    ports = [load.free_port(), load.free_port()]
    client, peer = (f"http://127.0.0.1:{port}" for port in ports)
    arguments = ["--data-dir", str(folder / "etcd"), "--listen-client-urls", client, "--advertise-client-urls", client]
    arguments += ["--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer, "--initial-cluster", f"default={peer}"]
    member = subprocess.Popen(["etcd", *arguments], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        endpoint = f"127.0.0.1:{ports[0]}"
        healthy = ["etcdctl", f"--endpoints={endpoint}", "endpoint", "health"]
        for _ in range(100):
            if subprocess.run(healthy, capture_output=True, check=False).returncode == 0:
                break
            time.sleep(0.1)
        yield endpoint
    finally:
        member.kill()
        member.wait()


def instructions(command: Command, request: scenarios.Request, folder: Path) -> float:
    server = Server(command, folder / "log")
    return load.callgrind(server.start, server.stop, server.log.read_text, request.bytes(), REQUESTS, folder / "out")


class Server:
    """A server process. Each count starts a new one, on its own port."""

    def __init__(self, command: Command, log: Path) -> None:
        self.command, self.log = command, log
        self.process: subprocess.Popen | None = None

    def start(self, wrapper: Sequence[str]) -> int:
        port = load.free_port()
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [*wrapper, *self.command(port)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        for _ in range(600):
            with contextlib.suppress(OSError):
                socket.create_connection(("127.0.0.1", port), 1).close()
                return port
            if self.process.poll() is not None:
                break
            time.sleep(0.1)
        self.stop()
        raise load.LoadFailed(f"the server did not start: {self.log.read_text()[-500:]}")

    def stop(self) -> None:
        self.process.terminate()
        try:
            self.process.wait(60)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)


@contextlib.contextmanager
def backend() -> Iterator[int]:
    """A backend that sends the same response to every request. Its threads end with the program."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)

    def accept() -> None:
        with contextlib.suppress(OSError):  # the listener was closed
            while True:
                threading.Thread(target=answer, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]


def answer(connection: socket.socket) -> None:
    """Answers the requests of a connection. They have no body, so each request ends with its header."""
    with connection, contextlib.suppress(OSError):
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        data = b""
        while received := connection.recv(1 << 16):
            data += received
            complete = data.count(b"\r\n\r\n")
            if complete:
                data = data.rpartition(b"\r\n\r\n")[2]
                connection.sendall(ANSWER * complete)


if __name__ == "__main__":
    sys.exit(main())
