#!/usr/bin/env python3
"""corsgate beside a bare Pingora proxy, in one run: instructions and throughput per request; and what it costs to watch
it, with metrics, and with metrics and an access log in JSON.

    make bench-compare        (needs valgrind, nginx and wrk; builds the release binaries)

Instructions: each server runs under callgrind with one thread, and gets N and then 2N requests on 16 kept connections;
the difference of the two totals, divided by N, is what a request costs without start and stop. User instructions only,
the kernel's are not counted; the same binary and requests give the same figure on a busy machine.

Throughput: wrk with 64 connections against one server at a time, server on the first core, backend and wrk on the
second, the servers taking turns in short rounds; the figure is the median of the ratios taken round by round, because
machines drift and two runs are never alike.
"""

import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import time

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
RELEASE = os.path.join(ROOT, "target", "release")
ROUNDS = int(os.environ.get("ROUNDS", "9"))
SECONDS = int(os.environ.get("SECONDS_PER_ROUND", "3"))
CONNECTIONS = 16
REQUESTS = 3200

GET = "GET /v1/items HTTP/1.1\r\nHost: api.example\r\nUser-Agent: measure\r\nAccept: */*\r\nOrigin: https://app.example\r\n\r\n"
PREFLIGHT = (
    "OPTIONS /v1/items HTTP/1.1\r\nHost: api.example\r\nUser-Agent: measure\r\nAccept: */*\r\n"
    "Origin: https://app.example\r\nAccess-Control-Request-Method: PUT\r\n"
    "Access-Control-Request-Headers: content-type\r\n\r\n"
)

CORSGATE = """
listeners: [{{ address: 127.0.0.1:{port} }}]
{watched}
server: {{ threads: 1, grace_period: 1s }}
upstreams: {{ api: {{ nodes: [{{ address: 127.0.0.1:{backend} }}] }} }}
services:
  - name: api
    hosts: [api.example]
    upstream: api
    cors:
      allow_origins: [https://app.example, "https://*.partner.example"]
      allow_methods: [GET, PUT]
      allow_headers: [Content-Type]
      max_age: 7200
    routes: [{{ name: v1, paths: [/v1/*] }}]
"""

# Without an admin listener and an access log nobody could see what requests leave behind, and nothing is counted.
WATCHED = {
    "corsgate": "",
    "with metrics": "admin: {{ address: 127.0.0.1:{admin} }}",
    "with metrics and log": "admin: {{ address: 127.0.0.1:{admin} }}\naccess_log: {{ to: access.log }}",
}
SERVERS = ("bare", *WATCHED)

# As much as is looked at: 128 names, none of them short.
HOSTILE = PREFLIGHT.replace("content-type", ",".join(f"x-{'a' * 50}-{i:03}" for i in range(128)))

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log {folder}/error.log;
events {{ worker_connections 1024; }}
http {{
  access_log off; client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f;
  uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; keepalive_requests 100000000;
  server {{ listen 127.0.0.1:{port} backlog=4096; default_type application/json;
            location / {{ return 200 '{{"items":[{{"id":1,"name":"a sixty byte body, more or less"}}]}}'; }} }}
}}
"""


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def wait_for(port):
    for _ in range(600):
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


def exchange(sock, request):
    """One request, one response with a Content-Length."""
    sock.sendall(request)
    data = b""
    while b"\r\n\r\n" not in data:
        data += sock.recv(65536)
    head, _, body = data.partition(b"\r\n\r\n")
    length = int(re.search(rb"content-length: *(\d+)", head, re.I).group(1))
    while len(body) < length:
        body += sock.recv(65536)
    return head.decode()


def load(port, request, times):
    """`times` requests, CONNECTIONS of them under way at once."""
    socks = [socket.create_connection(("127.0.0.1", port), 30) for _ in range(CONNECTIONS)]
    for _ in range(times // CONNECTIONS):
        for sock in socks:
            sock.sendall(request.encode())
        for sock in socks:
            exchange_read(sock)
    for sock in socks:
        sock.close()


def exchange_read(sock):
    exchange(sock, b"")


def command(server, port, backend, folder):
    if server == "bare":
        return [os.path.join(RELEASE, "examples", "bare"), f"127.0.0.1:{port}", f"127.0.0.1:{backend}", "1"]
    path = os.path.join(folder, f"{server.replace(' ', '-')}-{port}.yaml")
    with open(path, "w") as file:
        file.write(CORSGATE.format(port=port, backend=backend, watched=WATCHED[server].format(admin=free_port())))
    return [os.path.join(RELEASE, "corsgate"), "run", "--config", path]


def instructions(server, request, backend, folder):
    totals = []
    for times in (REQUESTS, 2 * REQUESTS):
        port = free_port()
        out = os.path.join(folder, "callgrind.out")
        process = subprocess.Popen(
            ["valgrind", "--tool=callgrind", f"--callgrind-out-file={out}", *command(server, port, backend, folder)],
            stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        wait_for(port)
        load(port, request, times)
        process.terminate()
        text = process.communicate(timeout=60)[1]
        totals.append(int(re.search(r"Collected : (\d+)", text).group(1)))
    return (totals[1] - totals[0]) / REQUESTS


def wrk(port, request, folder):
    lines = request.strip().split("\r\n")
    method, path, _ = lines[0].split(" ")
    script = os.path.join(folder, "request.lua")
    with open(script, "w") as file:
        file.write(f'wrk.method = "{method}"\n')
        for line in lines[1:]:
            name, value = line.split(": ", 1)
            file.write(f'wrk.headers["{name}"] = "{value}"\n')
    text = subprocess.run(
        ["taskset", "-c", "1", "wrk", "-t1", "-c64", f"-d{SECONDS}s", "-s", script, f"http://127.0.0.1:{port}{path}"],
        check=True, capture_output=True, text=True).stdout
    if "Non-2xx" in text or "Socket errors" in text:
        sys.exit(text)
    return float(re.search(r"Requests/sec: +([\d.]+)", text).group(1))


def main():
    with tempfile.TemporaryDirectory() as folder:
        backend = free_port()
        conf = os.path.join(folder, "nginx.conf")
        with open(conf, "w") as file:
            file.write(NGINX.format(folder=folder, port=backend))
        nginx = subprocess.Popen(["taskset", "-c", "1", "nginx", "-c", conf, "-p", folder])
        servers = []
        try:
            wait_for(backend)
            ports = {}
            for server in SERVERS:
                ports[server] = free_port()
                servers.append(subprocess.Popen(
                    ["taskset", "-c", "0", *command(server, ports[server], backend, folder)], stderr=subprocess.DEVNULL))
                wait_for(ports[server])
            for name, request in (("preflight", PREFLIGHT), ("proxied GET", GET)):
                # The same work, or the comparison means nothing.
                for server, port in ports.items():
                    with socket.create_connection(("127.0.0.1", port)) as sock:
                        head = exchange(sock, request.encode())
                    assert head.startswith("HTTP/1.1 200"), head
                    assert name == "proxied GET" or "Access-Control-Allow-Methods: GET, PUT" in head, (server, head)
                counts = {server: instructions(server, request, backend, folder) for server in ports}
                for server in WATCHED:
                    print(f"{name}: instructions per request: {server} {counts[server]:,.0f}, "
                          f"bare {counts['bare']:,.0f}, ratio {counts[server] / counts['bare']:.3f}", flush=True)
                if name == "preflight":
                    hostile = instructions("corsgate", HOSTILE, backend, folder)
                    print(f"hostile preflight: instructions per request: corsgate {hostile:,.0f}, "
                          f"{hostile / counts['corsgate']:.2f} of a usual one", flush=True)
                rates = []
                for _ in range(ROUNDS):
                    rates.append({server: wrk(port, request, folder) for server, port in ports.items()})
                    # It grows by some hundred MiB in a minute.
                    os.truncate(os.path.join(folder, "access.log"), 0)
                for server, beside in (("corsgate", "bare"), ("with metrics", "corsgate"),
                                       ("with metrics and log", "corsgate")):
                    ratios = sorted(rate[server] / rate[beside] for rate in rates)
                    medians = [statistics.median(rate[server] for rate in rates) for server in (server, beside)]
                    print(f"{name}: requests per second: {server} {medians[0]:,.0f}, {beside} {medians[1]:,.0f}, "
                          f"ratio {statistics.median(ratios):.3f} ({ratios[0]:.3f} to {ratios[-1]:.3f}, {ROUNDS} rounds)",
                          flush=True)
        finally:
            for process in [*servers, nginx]:
                process.terminate()
                process.wait()


main()
