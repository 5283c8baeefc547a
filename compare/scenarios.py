"""The requests to every peer, the right answers, and the accepted differences of some peers.

Each peer must answer a request correctly before it is measured. An answer that differs in status, body, `Vary` or any
`Access-Control-*` field ends the run, unless KNOWN has the difference: a table must not compare different work without
a note.

The policy is the same for all peers: one service on one host, all paths below /v1/, two kinds of origins, two methods,
one header. The backend sends `Access-Control-Allow-Origin: *` and its own `Vary`, which the peers must replace or
extend.
"""

from __future__ import annotations

import dataclasses
import http.client
import ssl

HOST = "api.example"
ORIGIN = "https://app.example"
PARTNERS = r"^https://([a-z0-9-]+\.)+partner\.example$"  # `https://*.partner.example`, for peers with expressions only
METHODS = "GET, PUT"
HEADERS = "Content-Type"
MAX_AGE = 7200

BODY = b'{"items":[{"id":1,"name":"a sixty byte body, more or less"}]}'
LARGE = b"x" * (1 << 20)
UPLOAD = 64 << 10


@dataclasses.dataclass(frozen=True)
class Request:
    method: str = "GET"
    path: str = "/v1/items"
    host: str = HOST
    headers: tuple[tuple[str, str], ...] = ()
    body: int = 0  # number of bytes

    def bytes(self) -> bytes:
        """Returns the request in HTTP/1.1 syntax."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: {self.host}", "User-Agent: measure", "Accept: */*"]
        lines += [f"{name}: {value}" for name, value in self.headers]
        if self.body:
            lines.append(f"Content-Length: {self.body}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + b"x" * self.body


@dataclasses.dataclass(frozen=True)
class Scenario:
    name: str
    title: str
    request: Request
    answer: dict[str, object]
    load: str = "wrk"  # "wrk", "handshakes" or "http2"
    bare: bool = True  # whether the bare proxy takes part; it has no CORS policy
    main: bool = False  # whether to also measure the plain builds, and the cost of metrics and an access log

    @property
    def tls(self) -> bool:
        return self.load != "wrk" or self.name == "tls"


def preflight(origin: str = ORIGIN, host: str = HOST, path: str = "/v1/items", names: str = "content-type") -> Request:
    return Request(
        "OPTIONS",
        path,
        host,
        (("Origin", origin), ("Access-Control-Request-Method", "PUT"), ("Access-Control-Request-Headers", names)),
    )


def get(origin: str | None = ORIGIN, path: str = "/v1/items") -> Request:
    return Request(path=path, headers=(("Origin", origin),) if origin else ())


def forwarded(origin: str | None, body: bytes = BODY) -> dict[str, object]:
    answer: dict[str, object] = {"status": 200, "body": body, "vary": "accept-encoding, origin"}
    return answer | ({"access-control-allow-origin": origin} if origin else {})


def allowed(origin: str = ORIGIN, max_age: int = MAX_AGE) -> dict[str, object]:
    return {
        "status": 200,
        "body": b"",
        "vary": "origin",
        "access-control-allow-origin": origin,
        "access-control-allow-methods": METHODS,
        "access-control-allow-headers": HEADERS,
        "access-control-max-age": str(max_age),
    }


GET = get()
PREFLIGHT = preflight()
# The most names that corsgate reads: 128 long names. Other gateways send their list, and the browser compares it.
HOSTILE = preflight(names=",".join(f"x-{'a' * 50}-{i:03}" for i in range(128)))

SCENARIOS = (
    Scenario("get", "GET, allowed origin", GET, forwarded(ORIGIN), main=True),
    Scenario("get-no-origin", "GET without Origin", get(None), forwarded(None), bare=False),
    Scenario("get-refused", "GET, refused origin", get("https://evil.test"), forwarded(None), bare=False),
    Scenario("preflight", "preflight", PREFLIGHT, allowed(), main=True),
    Scenario(
        "preflight-refused",
        "preflight, refused origin",
        preflight("https://evil.test"),
        {"status": 200, "body": b"", "vary": "origin"},
        bare=False,
    ),
    Scenario("preflight-hostile", "hostile preflight (128 names, 7 KiB)", HOSTILE, allowed(), bare=False),
    Scenario("large-body", "GET of 1 MiB", get(path="/v1/large"), forwarded(ORIGIN, LARGE)),
    Scenario(
        "upload",
        "POST of 64 KiB",
        Request("POST", "/v1/upload", headers=(("Origin", ORIGIN),), body=UPLOAD),
        forwarded(ORIGIN),
    ),
    Scenario("tls", "GET over TLS, kept connections", GET, forwarded(ORIGIN)),
    Scenario("handshakes", "GET over TLS, a full handshake for each", GET, forwarded(ORIGIN), load="handshakes"),
    Scenario("http2", "GET over HTTP/2 and TLS", GET, forwarded(ORIGIN), load="http2"),
)


@dataclasses.dataclass(frozen=True)
class Known:
    """A different answer of a peer that is accepted, and the reason."""

    peer: str
    scenarios: tuple[str, ...]
    field: str
    instead: object
    why: str


PROXIED = ("get", "large-body", "upload", "tls", "handshakes", "http2")
PREFLIGHTS = ("preflight", "preflight-hostile")
KNOWN = (
    Known("bare", PROXIED, "access-control-allow-origin", "*", "forwards the upstream's CORS headers unchanged"),
    Known("bare", PROXIED, "vary", "accept-encoding", "adds nothing to Vary"),
    Known(
        "envoy",
        ("preflight", "preflight-hostile"),
        "vary",
        None,
        "has no Vary on the preflights that it answers; response_headers_to_add applies only to forwarded requests",
    ),
    Known("envoy", ("preflight-refused",), "body", BODY, "forwards refused preflights to the upstream"),
    Known(
        "envoy",
        ("preflight-refused",),
        "vary",
        "accept-encoding, origin",
        "forwards refused preflights to the upstream",
    ),
)
KNOWN += tuple(
    Known("nginx + Lua", PROXIED, field, value, "sends all CORS headers on every response to an allowed origin")
    for field, value in (
        ("access-control-allow-methods", METHODS),
        ("access-control-allow-headers", HEADERS),
        ("access-control-max-age", str(MAX_AGE)),
    )
)
KNOWN += (
    Known(
        "nginx + Lua",
        ("get-no-origin", "get-refused"),
        "access-control-allow-origin",
        "*",
        "keeps the upstream's CORS headers unless the origin is allowed",
    ),
    Known("traefik", (*PREFLIGHTS, "preflight-refused"), "vary", None, "has no Vary on the preflights that it answers"),
)
KNOWN += tuple(
    Known("traefik", ("preflight-refused",), field, value, "refuses by leaving out Access-Control-Allow-Origin only")
    for field, value in (
        ("access-control-allow-methods", METHODS),
        ("access-control-allow-headers", HEADERS),
        ("access-control-max-age", str(MAX_AGE)),
    )
)
# Fields for the upstream. KNOWN_FORWARDED has the peers that do not send all of them.
FORWARDED = ("X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "X-Request-Id")
KNOWN_FORWARDED = {
    "bare": (FORWARDED, "sends the upstream no information about the client"),
    "traefik": (("X-Request-Id",), "sends no request id"),
}


class WrongAnswer(Exception):
    pass


def check(peer: str, scenario: Scenario, port: int) -> None:
    """Sends a request once, and compares the answer."""
    name = peer.removesuffix(" plain")
    found = ask(port, scenario.request, scenario.tls)
    expected = scenario.answer | ({"tls": "TLSv1.3"} if scenario.tls else {})
    for known in KNOWN:
        if known.peer == name and scenario.name in known.scenarios:
            expected[known.field] = known.instead
    for field in sorted(found.keys() | expected.keys()):
        if found.get(field) != expected.get(field):
            raise WrongAnswer(
                f"{peer} answers {scenario.name!r} with {field} {shortened(found.get(field))}, "
                f"expected {shortened(expected.get(field))}; what is meant to differ belongs into KNOWN of scenarios.py"
            )


def check_forwarded(peer: str, port: int) -> None:
    """Checks the fields that the upstream has received."""
    absent = KNOWN_FORWARDED.get(peer.removesuffix(" plain"), ((), ""))[0]
    got = ask(port, Request(path="/v1/forwarded"), False)["body"].decode().split("|")
    for field, value in zip(FORWARDED, got, strict=True):
        if (value == "") != (field in absent):
            raise WrongAnswer(f"{peer} sends {field}: {value!r} to the upstream; see KNOWN_FORWARDED of scenarios.py")


def ask(port: int, request: Request, tls: bool = False, timeout: float = 10) -> dict[str, object]:
    """Returns the status, the body and the CORS fields of the answer. A duplicate field has both values."""
    if tls:
        connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=timeout, context=trusting())
    else:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=timeout)
    try:
        connection.connect()
        found: dict[str, object] = {"tls": connection.sock.version()} if tls else {}
        headers = {"Host": request.host, "Accept": "*/*"} | dict(request.headers)
        connection.request(request.method, request.path, b"x" * request.body or None, headers)
        response = connection.getresponse()
        found |= {"status": response.status, "body": response.read()}
        for name in {name.lower() for name, _ in response.getheaders()}:
            if name.startswith("access-control-"):
                found[name] = " AND ".join(response.headers.get_all(name))
        names = ",".join(response.headers.get_all("vary", [])).lower().split(",")
        if vary := ", ".join(sorted(name.strip() for name in names if name.strip())):
            found["vary"] = vary
        return found
    finally:
        connection.close()


def trusting() -> ssl.SSLContext:
    """Returns a TLS context without verification, because the certificate was made for this run."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def shortened(value: object) -> str:
    text = "absent" if value is None else repr(value)
    return text if len(text) < 100 else f"{text[:97]}..."
