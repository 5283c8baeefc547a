#!/usr/bin/env python3
"""The training load for profile-guided optimisation (release-pgo.sh).

    train.py CORSGATE            a corsgate that is built to record its profile
    train.py --bare BARE         the same for the bare proxy of examples/bare.rs

The load is a mix of requests that browsers send through an edge proxy: mostly GETs and POSTs of pages, some preflights,
few refusals and errors. It uses kept connections, with and without TLS, with HTTP/1.1 and HTTP/2. There are also some
reloads of a large configuration. The comparison in compare/ measures with other requests.

Only the shares of the code paths are important, not the number of requests.
"""

import os
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import threading
import time

REQUESTS = int(os.environ.get("REQUESTS", "20000"))
CONNECTIONS = 24

CONFIG = """
listeners:
  - address: 127.0.0.1:{plain}
  - address: 127.0.0.1:{tls}
    tls: {{ certificates: [{{ cert: cert.pem, key: key.pem }}] }}
admin: {{ address: 127.0.0.1:{admin} }}
server: {{ threads: 1, grace_period: 1s }}
upstreams: {{ shop: {{ nodes: [{{ address: 127.0.0.1:{backend} }}] }} }}
cors_policies: {{ public: {{ allow_origins: "*", allow_methods: [GET], max_age: 7200 }} }}
services:
  - name: shop
    hosts: [shop.example, "*.shop.example"]
    upstream: shop
    cors:
      allow_origins: [https://www.shop.example, "https://*.partner.example", https://admin.shop.example]
      allow_methods: [GET, POST, PUT, DELETE]
      allow_headers: [Content-Type, Authorization, X-Requested-With]
      expose_headers: [X-Total]
      allow_credentials: true
      max_age: 7200
    routes:
      - {{ name: orders, paths: ["/orders/{{id}}", /orders] }}
      - {{ name: static, paths: [/static/*], cors: public }}
      - {{ name: internal, paths: [/internal/*], cors: false }}
      - {{ name: rest, paths: [/*] }}
"""

# More services, which make the configuration large.
TENANT = """
  - name: tenant-{number}
    hosts: [tenant-{number}.example, "*.tenant-{number}.example"]
    upstream: shop
    cors:
      allow_origins: [https://www.tenant-{number}.example, "https://*.tenant-{number}.example"]
      allow_methods: [GET, POST]
      allow_headers: [Content-Type]
      max_age: 600
    routes:
      - name: items
        paths: ["/items/{id}", /items]
      - name: rest
        paths: [/*]
        cors: public
"""
TENANTS, RELOADS = 500, 10

BROWSER = (
    "User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/130.0.0.0 Safari/537.36\r\n"
    "Accept: */*\r\nAccept-Language: en-US,en;q=0.9\r\nAccept-Encoding: gzip, deflate, br\r\n"
    "Sec-Fetch-Mode: cors\r\nSec-Fetch-Site: same-site\r\nSec-Fetch-Dest: empty\r\n"
)
PAGE, PARTNER, STRANGER = "https://www.shop.example", "https://eu.partner.example", "https://evil.test"


def request(line, *fields, host="shop.example", body=b""):
    length = [f"Content-Length: {len(body)}"] if body else []
    return f"{line} HTTP/1.1\r\nHost: {host}\r\n{BROWSER}".encode() + "\r\n".join([*fields, *length, "", ""]).encode() + body


def preflight(path, origin, method, *names):
    fields = [f"Origin: {origin}", f"Access-Control-Request-Method: {method}"]
    if names:
        fields.append(f"Access-Control-Request-Headers: {','.join(names)}")
    return request(f"OPTIONS {path}", *fields)


# All requests are equally frequent. A frequent kind has several entries.
WORK = [
    request("GET /orders/4711", f"Origin: {PAGE}", "Cookie: session=0123456789abcdef; theme=dark"),
    request("GET /orders?page=2", f"Origin: {PAGE}", "Authorization: Bearer 0123456789abcdef0123456789abcdef"),
    request("GET /items?q=shoes", f"Origin: {PARTNER}"),
    request("GET /items/17", f"Origin: {PAGE}", host="eu.shop.example"),
    request("GET /static/app.js", f"Origin: {PAGE}"),
    request("GET /static/large.js"),
    request("GET /"),
    request("GET /internal/health"),
    request("HEAD /items", f"Origin: {PAGE}"),
    request("GET /items", f"Origin: {STRANGER}"),
    request("POST /orders", f"Origin: {PAGE}", "Content-Type: application/json", body=b'{"items":[1,2,3]}' * 20),
    request("PUT /orders/4711", f"Origin: {PAGE}", "Content-Type: application/json", body=b"x" * 40_000),
    preflight("/orders", PAGE, "POST", "content-type"),
    preflight("/orders/4711", PAGE, "PUT", "authorization", "content-type"),
    preflight("/items", PARTNER, "DELETE", "x-requested-with"),
    preflight("/static/app.js", STRANGER, "GET", "x-any"),
    preflight("/orders", PAGE, "PATCH", "content-type"),
    preflight("/orders", STRANGER, "POST", "content-type"),
]
# Requests over HTTP/2. The bare proxy can serve them too: it has no hosts and no paths.
HTTP2_WORK = [("GET", "/orders/4711", PAGE), ("GET", "/items", STRANGER), ("OPTIONS", "/orders", PAGE)]


def free_port():
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return s.getsockname()[1]


def connect(port):
    """Connects as soon as the port has a listener."""
    for _ in range(200):
        try:
            return socket.create_connection(("127.0.0.1", port), 10)
        except OSError:
            time.sleep(0.05)
    sys.exit(f"nothing listens on port {port}")


class Reader:
    """Reads HTTP/1.1 messages from a connection."""

    def __init__(self, sock):
        self.sock, self.data = sock, b""

    def more(self):
        part = self.sock.recv(262144)
        self.data += part
        return bool(part)

    def message(self, bodyless=False):
        """Reads a message. Returns its first line, or None at the end of the connection."""
        while b"\r\n\r\n" not in self.data:
            if not self.more():
                return None
        head, self.data = self.data.split(b"\r\n\r\n", 1)
        length = 0
        for line in head.lower().split(b"\r\n"):
            if line.startswith(b"content-length:") and not bodyless:
                length = int(line.split(b":")[1])
        while len(self.data) < length and self.more():
            pass
        self.data = self.data[length:]
        return head.split(b"\r\n", 1)[0]


def answer(path):
    body = b"x" * (200_000 if b"large" in path else 900)
    status = b"404 Not Found" if path.endswith(b"17") else b"200 OK"
    return (
        b"HTTP/1.1 " + status + b"\r\nServer: shop\r\nDate: Thu, 01 Jan 2026 00:00:00 GMT\r\n"
        b"Content-Type: application/json\r\nCache-Control: private\r\nX-Total: 42\r\nVary: Accept-Encoding\r\n"
        b"Access-Control-Allow-Origin: *\r\nContent-Length: " + str(len(body)).encode() + b"\r\n\r\n", body)


def serve(listener):
    """The upstream, with one thread per connection."""
    def talk(sock):
        reader = Reader(sock)
        while line := reader.message():
            method, path, _ = line.split(b" ", 2)
            head, body = answer(path)
            sock.sendall(head if method == b"HEAD" else head + body)

    while True:
        try:
            sock, _ = listener.accept()
        except OSError:
            return
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=talk, args=(sock,), daemon=True).start()


def send(port, times, tls=None):
    """Sends about `times` requests in all over kept connections."""
    socks = [connect(port) for _ in range(CONNECTIONS)]
    if tls:
        socks = [tls.wrap_socket(sock, server_hostname="shop.example") for sock in socks]
    readers = [Reader(sock) for sock in socks]
    for i in range(times // CONNECTIONS):
        # Each connection is at another position of the list, so that different kinds of requests run at the same time.
        asked = [WORK[(i + 7 * k) % len(WORK)] for k in range(CONNECTIONS)]
        for sock, text in zip(socks, asked):
            sock.sendall(text)
        for reader, text in zip(readers, asked):
            if reader.message(bodyless=text.startswith(b"HEAD")) is None:
                sys.exit(f"no answer to {text[:200]!r}")
    for sock in socks:
        sock.close()


def send_http2(port, times):
    for method, path, origin in HTTP2_WORK:
        command = ["h2load", "-n", str(times), "-c", "4", "-m", "8", "-H", f":method: {method}", "-H", f"origin: {origin}",
                   "-H", "access-control-request-method: POST", f"https://shop.example:{port}{path}",
                   f"--connect-to=127.0.0.1:{port}"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=120)


def main():
    bare = sys.argv[1] == "--bare"
    program = os.path.abspath(sys.argv[-1])
    plain, tls, admin = free_port(), free_port(), free_port()
    listener = socket.create_server(("127.0.0.1", 0), backlog=256)
    backend = listener.getsockname()[1]
    threading.Thread(target=serve, args=(listener,), daemon=True).start()
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90",
             "-subj", "/CN=shop.example", "-addext", "subjectAltName=DNS:shop.example,DNS:*.shop.example",
             "-keyout", "key.pem", "-out", "cert.pem"],
            check=True, cwd=folder, stderr=subprocess.DEVNULL)
        with open(os.path.join(folder, "corsgate.yaml"), "w") as file:
            file.write(CONFIG.format(plain=plain, tls=tls, admin=admin, backend=backend))
            for number in range(TENANTS):
                file.write(TENANT.replace("{number}", str(number)))
        to = f"127.0.0.1:{backend}"
        command = [program, "run", "--config", "corsgate.yaml"]
        if bare:
            command = [program, f"127.0.0.1:{plain}", to, "1", f"127.0.0.1:{tls}", "cert.pem", "key.pem"]
        process = subprocess.Popen(command, cwd=folder)
        try:
            context = ssl.create_default_context(cafile=os.path.join(folder, "cert.pem"))
            send(plain, REQUESTS)
            send(tls, REQUESTS // 4, context)
            for _ in range(20):  # handshakes
                send(tls, CONNECTIONS, context)
            send_http2(tls, REQUESTS // 8)
            for _ in range(0 if bare else RELOADS):
                process.send_signal(signal.SIGHUP)
                time.sleep(0.5)
                send(plain, CONNECTIONS)
            # The process writes its profile at a regular exit, which SIGTERM causes.
            process.terminate()
            if process.wait(timeout=30) != 0:
                sys.exit(f"{program} ended with {process.returncode}")
        finally:
            process.kill()
            listener.close()


main()
